"""Whole layers taken out: plain Keras computes what the same layers do when they are called without these."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.errors import CannotPruneError, FrozenUnitsError, UnknownLayerError, UsageError
from kprune.verification.without_layers import _summing
from tests.oracle.law import assert_equal, randomize

pytestmark = pytest.mark.oracle

Case = tuple[keras.Model, list[tuple[list[str], keras.Model]], list[list[str]]]
"""A model; names of layers that go and the model without them; names that are refused."""


def chained(x: Any, parts: list[Any]) -> Any:
    for part in parts:
        x = part(x)
    return x


def residual(size: int | None) -> Case:
    """A block whose Add takes the branch second, one whose Add takes it first, and a stem."""
    x = keras.Input((size, size, 3))
    one = [
        layers.Conv2D(6, 3, padding="same", name="b1_conv"),
        layers.BatchNormalization(name="b1_norm"),
        layers.ReLU(name="b1_relu"),
        layers.Conv2D(6, 3, padding="same", name="b1_last"),
    ]
    two = [layers.Conv2D(6, 1, name="b2_conv"), layers.BatchNormalization(name="b2_norm")]
    stem, act = layers.Conv2D(6, 3, padding="same", name="stem"), layers.ReLU(name="act")
    head = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(3, name="out")]

    def model(*, first: bool = True, second: bool = True, acts: bool = True) -> keras.Model:
        y = stem(x)
        y = layers.Add(name="b1_add")([y, chained(y, one)]) if first else y
        y = act(y) if acts else y
        y = layers.Add(name="b2_add")([chained(y, two), y]) if second else y
        return keras.Model(x, chained(y, head))

    branch = ["b1_conv", "b1_norm", "b1_relu", "b1_last"]
    taken = [
        (branch, model(first=False)),
        (["b1_*"], model(first=False)),
        (["b2_conv", "b2_norm"], model(second=False)),
        (["b?_*"], model(first=False, second=False)),
        (["act"], model(acts=False)),
    ]
    return model(), taken, [["stem"], ["out"], ["pool"], ["b1_add"], ["*"]]


def shortcut() -> Case:
    """A projection on one side of the sum, a stride on the other."""
    x = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    side = layers.Conv2D(6, 1, strides=2, name="side")(stem)
    one, two = (
        layers.Conv2D(6, 3, strides=2, padding="same", name="one"),
        layers.Conv2D(6, 1, name="two"),
    )
    last = layers.Conv2D(2, 1, name="last")
    model = keras.Model(x, last(layers.Add(name="sum")([side, two(one(stem))])))
    taken = [
        (["one", "two"], keras.Model(x, last(side))),
        (["side"], keras.Model(x, last(two(one(stem))))),
        (["two"], keras.Model(x, last(layers.Add()([side, one(stem)])))),
    ]
    return model, taken, [["one"], ["side", "one", "two"], ["stem"]]


def strided() -> Case:
    """Sizes that the model leaves open do not hide a stride."""
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(4, 3, padding="same", name="a")(x)
    y = layers.Conv2D(4, 3, padding="same", strides=2, name="b")(y)
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(2)(y)), [], [["b"]]


def three_addends() -> Case:
    x = keras.Input((7,))
    a = layers.Dense(5, name="a")(x)
    b, c, out = (
        layers.Dense(5, name="b")(a),
        layers.Dense(5, name="c")(a),
        layers.Dense(2, name="out"),
    )
    model = keras.Model(x, out(layers.Add(name="sum")([a, b, c])))
    without = keras.Model(x, out(layers.Add()([a, c])))
    return model, [(["b"], without), (["b", "c"], keras.Model(x, out(a)))], []


def operations() -> Case:
    """`x + y` and an activation as operations, a layer that is called twice."""
    x = keras.Input((4,))
    first, again, out = (layers.Dense(4, name=name) for name in ("first", "again", "out"))
    y = start = first(x)
    for _ in range(2):
        y = y + again(keras.ops.tanh(y))
    model = keras.Model(x, out(y))
    names = [op.name for op in model.operations if op.name.startswith("tanh")]
    return model, [(["again", *names], keras.Model(x, out(start)))], []


def gate() -> Case:
    x = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 3, name="stem")(x)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True, name="se_pool")(stem)
    scaled = layers.Multiply(name="se_scale")(
        [stem, layers.Conv2D(4, 1, activation="sigmoid", name="se_conv")(squeezed)]
    )
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = keras.Model(x, chained(scaled, head))
    refused = [["se_pool", "se_conv"], ["se_scale"], ["se_pool"]]
    return model, [(["se_*"], keras.Model(x, chained(stem, head)))], refused


def attention() -> Case:
    x = keras.Input((5, 8))
    y = layers.Dense(8, name="in")(x)
    norm, mha = (
        layers.LayerNormalization(name="t_norm"),
        layers.MultiHeadAttention(2, 4, name="t_mha"),
    )
    out = layers.Dense(2, name="out")
    z = norm(y)
    model = keras.Model(x, out(layers.Add(name="t_add")([y, mha(z, z)])))
    bare = keras.Model(x, out(y))
    unnormed = keras.Model(x, out(layers.Add()([y, mha(y, y)])))
    return model, [(["t_*"], bare), (["t_norm", "t_mha"], bare), (["t_norm"], unnormed)], []


def chain() -> Case:
    parts = [layers.Dense(6, activation="tanh", name=name) for name in "abc"] + [
        layers.Dense(2, name="d")
    ]
    model = keras.Sequential([keras.Input((6,)), *parts])

    def without(*names: str) -> keras.Model:
        x = keras.Input((6,))
        return keras.Model(x, chained(x, [part for part in parts if part.name not in names]))

    taken = [(list(names), without(*names)) for names in ("b", "bc", "a", "abc")]
    return model, taken, [["d"], ["a", "b", "c", "d"]]


def other_values() -> Case:
    """What gives floats of whole numbers, or whole numbers of floats, is no chain that can go."""
    pixels, x = keras.Input((4, 4, 3), dtype="uint8"), keras.Input((6,))
    scaled = layers.Rescaling(1 / 255, name="scale")(pixels)
    cast = keras.ops.cast(layers.ReLU(name="act")(x), "int32")
    binned = layers.Discretization([0.0, 1.0], name="bins")(x)
    tokens = layers.Embedding(9, 2, name="emb")
    given = [layers.Conv2D(2, 3, name="conv")(scaled), tokens(cast), tokens(binned)]
    return keras.Model([pixels, x], given), [], [["scale"], ["bins"], ["cast*"], ["act", "cast*"]]


def pixels() -> Case:
    """The same where the config tells no dtypes of tensors."""
    x = [keras.Input((6,), dtype="uint8"), layers.Rescaling(0.1, name="scale"), layers.Dense(2)]
    return keras.Sequential(x), [], [["scale"]]


def nested() -> Case:
    """Layers of a nested model, the model itself, and layers of a model in a TimeDistributed."""
    x, inner_x = keras.Input((3, 5)), keras.Input((5,))
    a, b, c, d = (layers.Dense(5, name=name) for name in "abcd")
    added = layers.Add(name="add")
    start = a(inner_x)
    step = keras.Model(inner_x, c(added([start, b(start)])), name="step")
    plain = keras.Sequential(
        [keras.Input((3, 5)), layers.Dense(5, name="p"), layers.Dense(5, name="q")], name="plain"
    )
    out = layers.Dense(2, name="out")
    model = keras.Model(x, out(plain(layers.TimeDistributed(step, name="td")(d(x)))))

    def rest(y: Any) -> keras.Model:
        return keras.Model(x, out(plain(y)))

    p, q = plain.layers
    whole = layers.TimeDistributed(step)
    taken = [
        (["td/step/b"], rest(c(a(d(x))))),
        (["td/c"], rest(added([a(d(x)), b(a(d(x)))]))),
        (["td"], rest(d(x))),
        (["plain"], keras.Model(x, out(whole(d(x))))),
        (["plain/q"], keras.Model(x, out(p(whole(d(x)))))),
        (["plain/p"], keras.Model(x, out(q(whole(d(x)))))),
    ]
    return model, taken, [["plain/p", "plain/q"], ["td/add"]]


CASES = {
    "residual": lambda: residual(8), "open": lambda: residual(None), "shortcut": shortcut,
    "strided": strided, "three": three_addends, "operations": operations, "gate": gate,
    "attention": attention, "chain": chain, "nested": nested, "other_values": other_values,
    "pixels": pixels,
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    model, taken, refused = CASES[request.param]()
    randomize(model)
    yield model, taken, refused


def given(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """What a model gives; to predict would compile each of the many models first."""
    return np.asarray(model(x, training=False))


def inputs(model: keras.Model) -> np.ndarray:
    shape = [size or 16 for size in model.inputs[0].shape[1:]]
    return np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


def test_what_is_left_computes_what_it_would_without_these_layers(
    case: Case, tmp_path: Path
) -> None:
    model, taken, _ = case
    x = inputs(model)
    for suffix in (".keras", ".h5"):
        path, small = tmp_path / f"model{suffix}", tmp_path / f"small{suffix}"
        model.save(path)
        for names, without in taken:
            report = kprune.remove(path, whole_layers=names, output=small, force=True)
            left = keras.models.load_model(small, compile=False)
            assert_equal(given(left, x), given(without, x))
            assert left.count_params() == without.count_params() == report.output.parameters
            assert report.notes[0].kind == "whole-layers"


def test_what_would_be_no_sound_graph_is_refused_and_nothing_is_written(
    case: Case, tmp_path: Path
) -> None:
    model, _, refused = case
    model.save(tmp_path / "model.keras")
    for names in refused:
        with pytest.raises(CannotPruneError) as caught:
            kprune.remove(tmp_path / "model.keras", whole_layers=names)
        assert caught.value.exit_code == 3 and caught.value.why and caught.value.do
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_the_optimizers_state_goes_on_with_the_variables_that_are_left(tmp_path: Path) -> None:
    model = residual(8)[0]
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x = inputs(model)
    model.fit(x, np.zeros((3, 3)), epochs=2, verbose=0)
    path, small = tmp_path / "model.keras", tmp_path / "small.keras"
    model.save(path)
    kprune.remove(path, whole_layers=["b1_*"], output=small)
    left = keras.models.load_model(small)

    def slots(of: keras.Model) -> dict[str, np.ndarray]:
        named = zip(
            of.trainable_variables, of.optimizer._momentums, of.optimizer._velocities, strict=True
        )
        return {variable.path: np.stack([m, v]) for variable, m, v in named}

    before, after = slots(model), slots(left)
    assert set(after) < set(before)
    for name, values in after.items():
        np.testing.assert_array_equal(values, before[name])
    assert int(left.optimizer.iterations.numpy()) == int(model.optimizer.iterations.numpy())


def test_verify_knows_layers_that_were_taken_out_before_and_after_units(tmp_path: Path) -> None:
    model = residual(8)[0]
    randomize(model)
    path = tmp_path / "model.keras"
    model.save(path)
    one, two, three = (tmp_path / f"{name}.keras" for name in ("one", "two", "three"))
    kprune.remove(path, {"b2_conv": [0], "b1_conv": [1]}, output=one)
    kprune.remove(one, whole_layers=["b1_*"], output=two)
    kprune.remove(two, {"stem": [0]}, output=three)
    for pruned in (two, three):
        found = kprune.verify(path, pruned, samples=4)
        assert found.passed and not found.notes


def test_verify_asks_plain_keras_what_the_rest_of_the_layers_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kprune.surgery import whole_layers
    from kprune.verification import without_layers

    def broken(analysis: Any, whole: Any) -> Any:
        edit = take_out(analysis, whole)
        for entry in edit.config["config"]["layers"]:
            if entry["config"]["name"] == "stem":
                entry["config"]["activation"] = "relu"
        return edit

    take_out = whole_layers.take_out
    model = residual(8)[0]
    randomize(model)
    path, small = tmp_path / "model.keras", tmp_path / "small.keras"
    model.save(path)
    for module in (whole_layers, without_layers):
        monkeypatch.setattr(module, "take_out", broken)
    kprune.remove(path, whole_layers=["act"], output=small)
    found = kprune.verify(path, small, samples=4)
    assert all(output.equal for output in found.outputs)  # what broke the one broke the other
    assert not found.passed
    assert "where these layers do nothing" in str(found.notes)


def test_a_sum_of_keras_2_is_given_its_own_name_among_its_addends() -> None:
    """As TFOpLambda calls it: a function's `name` is None, and no addend."""
    one, other = keras.ops.ones(3), keras.ops.zeros(3)
    assert _summing([1])(one, name=None, y=other).shape == (3,)
    assert (np.asarray(_summing([1])(one, name=None, y=other)) == 1).all()


def test_the_last_layer_goes_only_where_the_output_may_change(tmp_path: Path) -> None:
    x = keras.Input((4,))
    y = layers.Dense(4, name="logits")(x)
    model = keras.Model(x, layers.Softmax(name="softmax")(y))
    path, small = tmp_path / "model.keras", tmp_path / "small.keras"
    model.save(path)
    with pytest.raises(FrozenUnitsError, match="is an output of the model"):
        kprune.remove(path, whole_layers=["softmax"])
    kprune.remove(path, whole_layers=["softmax"], allow_output_change=True, output=small)
    left = keras.models.load_model(small)
    assert_equal(given(left, inputs(model)), given(keras.Model(x, y), inputs(model)))
    assert kprune.verify(path, small, samples=4).passed


def test_a_live_model_loses_whole_layers() -> None:
    model, taken, _ = chain()
    randomize(model)
    names, without = taken[0]
    left = kprune.remove(model, whole_layers=names)
    assert_equal(given(left, inputs(model)), given(without, inputs(model)))


def test_a_plan_has_a_step_for_whole_layers(tmp_path: Path) -> None:
    model, taken, _ = residual(8)
    randomize(model)
    path, small, plan = (tmp_path / name for name in ("model.keras", "small.keras", "plan.yaml"))
    model.save(path)
    steps = [
        '{backend: remove, whole_layers: ["b1_*"]}',
        "{backend: remove, whole_layers: [b2_conv, b2_norm]}",
    ]
    plan.write_text("version: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps))
    kprune.apply(path, plan, output=small)
    left, without = keras.models.load_model(small), taken[3][1]
    assert_equal(given(left, inputs(model)), given(without, inputs(model)))
    assert kprune.verify(path, small, samples=4).passed


def test_whole_layers_and_units_are_two_removals(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    chain()[0].save(path)
    with pytest.raises(UsageError, match="in one step"):
        kprune.remove(path, {"a": [0]}, whole_layers=["b"])
    with pytest.raises(UnknownLayerError, match="did you mean"):
        kprune.remove(path, whole_layers=["bb"])
