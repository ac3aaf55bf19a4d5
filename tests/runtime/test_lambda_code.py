"""Lambda layers: traced where the file is trusted, answered for by a rule, or holding what reaches them alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kprune.errors import CannotPruneError, FrozenUnitsError, UsageError
from kprune.rules import CUSTOM, builtin
from kprune.train.tune import tune
from kprune.verbs.change import compact, remove
from kprune.verbs.sensitivity import sensitivity
from kprune.verification.verify import verify
from kprune.views.inspect import inspect
from tests.custom_code.custom_layers import UNITS, check, refused, saved
from tests.oracle.law import assert_equal, outputs, random_inputs, randomize

pytestmark = pytest.mark.oracle
K: Any = None  # tf_keras.backend, by the name by which people import it


@pytest.fixture(autouse=True)
def _lambdas_may_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plain Keras is to load what kprune wrote; and what a test registers is gone after it."""
    builtin()
    monkeypatch.setattr(CUSTOM.rules, "registered", dict(CUSTOM.rules))
    keras.config.enable_unsafe_deserialization()
    yield
    _safe_again()


def _safe_again() -> None:
    from keras.src.backend.common import global_state

    global_state.set_global_attribute("safe_mode_saving", None)


def free(path: str, **options: Any) -> dict[str, int | None]:
    return {row.name: row.free for row in inspect(path, **options).layers if row.units}


# -- traced ---------------------------------------------------------------------------------------


def test_a_function_is_traced_and_the_shape_it_declares_follows(tmp_path: Path) -> None:
    check(saved(tmp_path, layers.Lambda(lambda x: x * 2.0, output_shape=(8,), name="own")), {})
    again = keras.models.load_model(tmp_path / "small.keras")
    assert again.get_layer("own")._output_shape == (5,)


def test_arguments_and_what_a_function_closes_over_are_in_the_file(tmp_path: Path) -> None:
    offset = 3.0
    own = layers.Lambda(lambda x, s: x * s + offset, arguments={"s": 0.5}, name="own")
    check(saved(tmp_path, own), {})


def test_functions_of_tensorflow_are_followed_through_tf_keras(tmp_path: Path) -> None:
    pytest.importorskip("tf_keras")
    path = saved(tmp_path, layers.Lambda(lambda x: tf.abs(x) - 1.0, name="own"))
    assert free(path, trust=True)["a"] == 8
    small = str(tmp_path / "small.keras")
    remove(path, {"a": UNITS}, output=small, trust=True)
    assert verify(path, small, trust=True).passed


def test_a_distance_of_two_towers_loses_units(tmp_path: Path) -> None:
    """By numpy: what the file's function computes from the weights that are left."""
    one, other = keras.Input((6,)), keras.Input((6,))
    tower = layers.Dense(8, name="a")
    far = layers.Lambda(lambda v: keras.ops.abs(v[0] - v[1]), name="far")(
        [tower(one), tower(other)]
    )
    path = str(tmp_path / "model.keras")
    model = randomize(keras.Model([one, other], layers.Dense(1, name="out")(far)), 5)
    model.save(path)
    small = str(tmp_path / "small.keras")
    remove(path, {"a": UNITS}, output=small, trust=True)
    report = verify(path, small, trust=True)
    assert report.passed
    assert any(note.kind == "trusted" for note in report.notes)
    x, y = np.random.default_rng(1).normal(size=(2, 4, 6)).astype("float32")
    left = np.setdiff1d(np.arange(8), UNITS)
    kernel, bias, last, end = (weight.numpy() for weight in model.weights)
    a, b = ((v @ kernel + bias)[:, left] for v in (x, y))
    expected = np.abs(a - b) @ last[left] + end
    (got,) = remove_and_run(model, [x, y])
    assert_equal(got, expected)


def remove_and_run(model: Any, inputs: Any) -> list[np.ndarray]:
    """In memory: the function still sees what it saw."""
    return outputs(remove(model, {"a": UNITS}, trust=True), inputs)


def test_a_function_that_fixes_the_width_holds_it(tmp_path: Path) -> None:
    path = saved(tmp_path, layers.Lambda(lambda x: ops.reshape(x, (-1, 8)), name="own"))
    refused(path, "computes with the number of units")
    with pytest.raises(FrozenUnitsError) as caught:
        remove(path, {"a": UNITS}, dry_run=True, trust=True)
    assert "--rules" not in caught.value.do  # Keras would run the same function


def test_a_shape_declared_by_a_function_that_fixes_it_holds_the_units(tmp_path: Path) -> None:
    own = layers.Lambda(lambda x: x * 2.0, output_shape=lambda s: (s[0], 8), name="own")
    assert free(saved(tmp_path, own), trust=True)["a"] == 0


def test_every_command_that_runs_a_model_takes_trust(tmp_path: Path) -> None:
    path = saved(tmp_path, layers.Lambda(lambda x: x / 2.0, name="own"))
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, x=rng.normal(size=(16, 5)).astype("f4"), y=rng.normal(size=(16, 2)).astype("f4"))
    small = str(tmp_path / "small.keras")
    remove(path, {"a": [2]}, output=small, trust=True)
    _safe_again()
    with pytest.raises(CannotPruneError) as caught:
        verify(path, small)
    assert "--trust" in caught.value.do
    tuned = tune(small, data=data, output=tmp_path / "t.keras", epochs=1, loss="mse", trust=True)
    assert any(note.kind == "trusted" for note in tuned.notes)
    compiled = keras.models.load_model(path, safe_mode=False)
    compiled.compile(loss="mse")
    compiled.save(path)
    assert sensitivity(path, data=data, ratios=[0.25], layers=["a"], trust=True).samples == 16
    whole = compact(path, output=tmp_path / "c.keras", trust=True)
    assert verify(path, whole.output.path, trust=True).passed


# -- rules ----------------------------------------------------------------------------------------


def test_the_advice_for_a_lambda_helps(tmp_path: Path) -> None:
    path = saved(tmp_path, layers.Lambda(lambda x: x * 2.0, output_shape=(8,), name="own"))
    with pytest.raises(FrozenUnitsError) as caught:
        remove(path, {"a": UNITS}, dry_run=True)
    assert "--trust" in caught.value.do and "'Lambda:own'" in caught.value.do
    CUSTOM.rule("Lambda:own", does="passes")(lambda call: call.x)
    small = str(tmp_path / "small.keras")
    remove(path, {"a": UNITS}, output=small)
    pruned, original = keras.models.load_model(small), keras.models.load_model(path)
    x = random_inputs(original)
    left = np.setdiff1d(np.arange(8), UNITS)
    a, out = original.get_layer("a"), original.get_layer("out")
    hidden = 2 * (x @ a.kernel.numpy() + a.bias.numpy())[:, left]
    (got,) = outputs(pruned, x)
    assert_equal(got, hidden @ out.kernel.numpy()[left] + out.bias.numpy())


def test_a_rule_answers_for_the_layer_it_names_and_for_no_other(tmp_path: Path) -> None:
    path = saved(tmp_path, layers.Lambda(lambda x: x * 2.0, name="own"))
    CUSTOM.rule("Lambda:other", does="passes")(lambda call: call.x)
    assert free(path)["a"] == 0
    CUSTOM.rule("Lambda", does="passes")(lambda call: call.x)
    assert free(path)["a"] == 8


def test_a_rule_that_fails_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, layers.Lambda(lambda x: x * 2.0, name="own"))

    @CUSTOM.rule("Lambda", does="passes")
    def broken(call: Any) -> Any:
        raise RuntimeError("my rule was called")

    with pytest.raises(UsageError, match="the rule for 'Lambda' fails") as caught:
        inspect(path)
    assert "my rule was called" in caught.value.why and __file__ in caught.value.do


# -- Keras 2 --------------------------------------------------------------------------------------


def random(model: Any) -> Any:
    """With random weights, which tf_keras does not name as Keras 3 does."""
    rng = np.random.default_rng(4)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 0.6, weight.shape))
    return model


def pilot(keras2: Any) -> Any:
    """PilotNet: a Lambda without a declared shape in front of everything."""
    part = keras2.layers
    return random(
        keras2.Sequential(
            [
                part.Lambda(lambda x: x / 127.5 - 1, input_shape=(20, 20, 3), name="norm"),
                part.Cropping2D(2),
                part.Conv2D(8, 5, 2, name="c1"),
                part.BatchNormalization(name="bn"),
                part.Conv2D(8, 3, name="c2"),
                part.MaxPooling2D(),
                part.Dropout(0.1),
                part.Flatten(),
                part.Dropout(0.5),
                part.Dense(10, name="d1"),
                part.Dense(1, name="steer"),
            ]
        )
    )


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_what_stands_behind_a_lambda_is_cut_without_trust(suffix: str, tmp_path: Path) -> None:
    keras2 = pytest.importorskip("tf_keras")
    model, units = pilot(keras2), {"c1": [1], "c2": [0, 5], "d1": [3]}
    path, small = str(tmp_path / f"m.{suffix}"), str(tmp_path / f"s.{suffix}")
    model.save(path)
    remove(path, units, output=small)
    pruned = keras2.models.load_model(small, compile=False, safe_mode=False)
    for name, gone in units.items():
        layer = model.get_layer(name)
        layer.kernel.assign(without(layer.kernel.numpy(), gone))
        layer.bias.assign(without(layer.bias.numpy(), gone))
    norm = model.get_layer("bn")
    norm.beta.assign(without(norm.beta.numpy(), units["c1"]))
    norm.moving_mean.assign(without(norm.moving_mean.numpy(), units["c1"]))
    x = np.random.default_rng(2).uniform(0, 255, (3, 20, 20, 3)).astype("float32")
    assert_equal(pruned(x).numpy(), model(x).numpy())
    assert pruned.count_params() < model.count_params()


def without(weight: np.ndarray, units: list[int]) -> np.ndarray:
    weight = weight.copy()
    weight[..., units] = 0
    return weight


def test_what_a_lambda_of_keras_2_does_is_traced(tmp_path: Path) -> None:
    keras2 = pytest.importorskip("tf_keras")
    globals()["K"] = keras2.backend
    one, other = keras2.Input((6,)), keras2.Input((6,))
    tower = keras2.layers.Dense(8, name="a")
    far = keras2.layers.Lambda(lambda v: K.abs(v[0] - v[1]))
    y = keras2.layers.Dense(1, name="out")(far([tower(one), tower(other)]))
    path, small = str(tmp_path / "m.h5"), str(tmp_path / "s.h5")
    model = random(keras2.Model([one, other], y))
    model.save(path)
    assert free(path) == {"a": 0, "out": 0}
    assert next(row for row in inspect(path).layers if row.name == "out").named_only == 1
    remove(path, {"a": UNITS}, output=small, trust=True)
    x, z = np.random.default_rng(1).normal(size=(2, 4, 6)).astype("float32")
    left = np.setdiff1d(np.arange(8), UNITS)
    kernel, bias, last, end = (weight.numpy() for weight in model.weights)
    a, b = ((v @ kernel + bias)[:, left] for v in (x, z))
    pruned = keras2.models.load_model(small, compile=False)
    assert_equal(pruned([x, z]).numpy(), np.abs(a - b) @ last[left] + end)


def sampled(given: Any) -> Any:
    mean, spread = given
    size = (K.shape(mean)[0], K.int_shape(mean)[1])
    return mean + K.exp(spread) * K.random_normal(shape=size)


def test_noise_in_a_lambda_of_keras_2_is_traced(tmp_path: Path) -> None:
    keras2 = pytest.importorskip("tf_keras")
    globals()["K"] = keras2.backend
    x = keras2.Input((6,))
    both = [keras2.layers.Dense(8, name="mean")(x), keras2.layers.Dense(8, name="spread")(x)]
    y = keras2.layers.Dense(1, name="out")(keras2.layers.Lambda(sampled)(both))
    path, small = str(tmp_path / "m.h5"), str(tmp_path / "s.h5")
    model = random(keras2.Model(x, y))
    spread = model.get_layer("spread")
    spread.set_weights([np.zeros((6, 8)), np.full(8, -100.0)])  # noise of no weight
    model.save(path)
    assert remove(path, {"mean": UNITS}, output=small, trust=True).changed["spread"] == UNITS
    left = np.setdiff1d(np.arange(8), UNITS)
    rows = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    mean, out = model.get_layer("mean"), model.get_layer("out")
    means = (rows @ mean.kernel.numpy() + mean.bias.numpy())[:, left]
    pruned = keras2.models.load_model(small, compile=False)
    assert_equal(pruned(rows).numpy(), means @ out.kernel.numpy()[left] + out.bias.numpy())


def test_dense_layers_behind_a_tensor_of_unknown_rank_lose_units(tmp_path: Path) -> None:
    """How many axes there are does not matter to layers that work along the last one."""
    keras2 = pytest.importorskip("tf_keras")
    part = keras2.layers
    x = keras2.Input((4, 6))
    y = part.Lambda(lambda v: v[:, 0], name="first")(x)
    y = part.Dropout(0.1)(part.Dense(5, activation="relu", name="mid")(y))
    path, small = str(tmp_path / "m.h5"), str(tmp_path / "s.h5")
    model = random(keras2.Model(x, part.Dense(2, name="out")(y)))
    model.save(path)
    remove(path, {"mid": [1]}, output=small)
    for weight in model.get_layer("mid").weights:
        weight.assign(without(weight.numpy(), [1]))
    given = np.random.default_rng(1).normal(size=(3, 4, 6)).astype("float32")
    pruned = keras2.models.load_model(small, compile=False)
    assert_equal(pruned(given).numpy(), model(given).numpy())
