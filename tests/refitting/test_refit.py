"""What a refitted model computes, and which weights it has, against plain Keras and plain numpy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from kprune.refitting import refit
from kprune.refitting.streams import values
from tests.refitting.making import (
    Cut,
    cut,
    distance,
    least_squares,
    outputs,
    randomized,
    weights,
)
from tests.refitting.models import CASES, LOW, made, tokens

pytestmark = pytest.mark.oracle

RIDGE = 1e-2
BY_NIGHT = {
    "bfloat16", "causal", "cells", "depth_multiplier", "einsum_heads", "gru_without_bias",
    "grouped_head_dimensions", "lstm_backwards", "mixed_bfloat16", "nested_twice", "simple_rnn",
    "strides_and_dilation", "volumes",
}  # fmt: skip


def images(*shape: int, samples: int = 60) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(samples, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.nightly if name in BY_NIGHT else ()) for name in CASES],
)
def test_a_unit_that_does_what_another_does_is_not_missed(name: str) -> None:
    found, near = CASES[name](), LOW.get(name, 1e-3)
    wanted = outputs(found.model, found.inputs)
    cut_only = cut(found.model, found.units, found.inputs, run=False)
    assert distance(outputs(cut_only.pruned, found.inputs), wanted) > 5 * near
    cut_only.refit.run()
    assert distance(outputs(cut_only.pruned, found.inputs), wanted) < near
    assert cut_only.left == {}
    assert distance(cut_only.refit.after.outputs(), outputs(cut_only.pruned, found.inputs)) < near


# -- which weights --------------------------------------------------------------------------------


def patches(x: np.ndarray, size: int) -> np.ndarray:
    """What a convolution without padding sees: (places, size · size · channels)."""
    _, height, width, _ = x.shape
    return np.concatenate(
        [
            x[:, i : i + size, j : j + size].reshape(len(x), 1, -1)
            for i in range(height - size + 1)
            for j in range(width - size + 1)
        ],
        axis=1,
    ).reshape(len(x) * (height - size + 1) * (width - size + 1), -1)


def part(model: Any, name: str, x: np.ndarray) -> np.ndarray:
    """What a layer of a plain Keras model gives."""
    import keras

    return np.asarray(keras.Model(model.inputs, model.get_layer(name).output)(x))


def chain() -> Any:
    import keras
    from keras import layers

    x = keras.Input((7, 7, 2))
    y = layers.Conv2D(6, 3, use_bias=False, name="first")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(y))
    y = layers.Conv2D(5, 3, use_bias=False, name="second")(y)
    y = layers.ReLU(name="relu_2")(layers.BatchNormalization(name="bn_2")(y))
    y = layers.Dense(4, "tanh", name="hidden")(layers.Flatten(name="flat")(y))
    return randomized(keras.Model(x, layers.Dense(3, "softmax", name="out")(y)))


def test_each_kernel_is_the_least_squares_on_what_the_kernels_before_it_left() -> None:
    model, x = chain(), images(7, 7, 2)
    units = {"first": [1, 4], "second": [0], "hidden": [2]}
    stated = cut(model, units, [x], run=False).pruned
    done = cut(model, units, [x], ridge=RIDGE)
    kept = [1, 2, 3, 4]

    layer = stated.get_layer("second")
    target = part(model, "second", x)[..., kept].reshape(-1, 4)
    kernel = np.asarray(layer.kernel)
    matrix, shift = least_squares(
        patches(part(stated, "relu", x), 3), target, kernel.reshape(-1, 4), np.zeros(4), ridge=RIDGE
    )
    layer.kernel.assign(matrix.reshape(kernel.shape))
    # A constant, for which it has no bias, is what the normalization behind it no longer takes off.
    mean = stated.get_layer("bn_2").moving_mean
    mean.assign(np.asarray(mean) - shift)

    for name, given, columns in [("hidden", "flat", [0, 1, 3]), ("out", "hidden", [0, 1, 2])]:
        layer, old = stated.get_layer(name), model.get_layer(name)
        target = part(model, given, x) @ np.asarray(old.kernel) + np.asarray(old.bias)
        matrix, shift = least_squares(
            part(stated, given, x),
            target[:, columns],
            np.asarray(layer.kernel),
            np.asarray(layer.bias),
            ridge=RIDGE,
        )
        layer.kernel.assign(matrix)
        layer.bias.assign(shift)

    for name, wanted in weights(stated).items():
        np.testing.assert_allclose(weights(done.pruned)[name], wanted, rtol=1e-2, atol=2e-3)
    assert done.names == ["second", "hidden", "out"]


def test_the_errors_are_of_what_a_kernel_makes_before_and_after() -> None:
    model, x = chain(), images(7, 7, 2)
    done = cut(model, {"hidden": [2]}, [x], ridge=RIDGE)
    (found,) = done.refit.refitted
    old, cut_only = model.get_layer("out"), cut(model, {"hidden": [2]}, [x], run=False).pruned
    wanted = part(model, "hidden", x) @ np.asarray(old.kernel) + np.asarray(old.bias)
    for pruned, error in [(cut_only, found.before), (done.pruned, found.after)]:
        layer = pruned.get_layer("out")
        gives = part(pruned, "hidden", x) @ np.asarray(layer.kernel) + np.asarray(layer.bias)
        assert error == pytest.approx(
            ((gives - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum(), rel=1e-3
        )


def test_a_branch_is_fitted_to_what_the_other_one_lacks_as_well() -> None:
    import keras
    from keras import layers

    x = keras.Input((8,))
    stem = layers.Dense(6, "tanh", name="stem")(x)
    one = layers.Dropout(0.5)(layers.Dropout(0.5)(layers.Dense(5, name="one")(stem)))
    inner = layers.Dense(7, "tanh", name="inner")(x)
    other = layers.BatchNormalization(name="bn")(layers.Dense(5, name="other")(inner))
    model = randomized(keras.Model(x, layers.Add(name="sum")([one, other])))
    data = images(8)
    units = {"stem": [1, 2, 3], "inner": [0]}
    stated = cut(model, units, [data], run=False).pruned
    done = cut(model, units, [data], ridge=RIDGE)
    assert done.names == ["one", "other"]

    def fit(name: str, given: str, target: np.ndarray) -> None:
        layer = stated.get_layer(name)
        matrix, shift = least_squares(
            part(stated, given, data), target, np.asarray(layer.kernel), np.asarray(layer.bias),
            ridge=RIDGE,
        )  # fmt: skip
        layer.kernel.assign(matrix)
        layer.bias.assign(shift)

    fit("one", "stem", part(model, "one", data))
    lacking = part(model, "one", data) - part(stated, "one", data)
    bn = model.get_layer("bn")
    slope = np.asarray(bn.gamma) / np.sqrt(np.asarray(bn.moving_variance) + bn.epsilon)
    fit("other", "inner", part(model, "other", data) + lacking / slope)
    for name, wanted in weights(stated).items():
        np.testing.assert_allclose(weights(done.pruned)[name], wanted, rtol=1e-2, atol=2e-3)
    without = outputs(cut(model, units, [data], run=False).pruned, [data])
    wanted_sum = outputs(model, [data])
    assert distance(outputs(done.pruned, [data]), wanted_sum) < distance(without, wanted_sum)


def test_a_shared_kernel_is_fitted_once_on_all_its_calls() -> None:
    import keras
    from keras import layers

    one, other = keras.Input((6,)), keras.Input((6,))
    twice = layers.Dense(3, "tanh", name="twice")
    a, b = layers.Dense(7, "tanh", name="a")(one), layers.Dense(7, "tanh", name="b")(other)
    total = layers.Concatenate()([twice(a), twice(b)])
    model = randomized(keras.Model([one, other], total))
    data = [images(6), images(6) * 2 + 1]
    units = {"a": [1]}
    stated = cut(model, units, data, run=False).pruned
    done = cut(model, units, data, ridge=RIDGE)

    def given(of: Any) -> np.ndarray:
        parts = [keras.Model(of.inputs, of.get_layer(name).output)(data) for name in "ab"]
        return np.concatenate([np.asarray(array) for array in parts])

    layer, left = model.get_layer("twice"), stated.get_layer("twice")
    target = given(model) @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    matrix, shift = least_squares(
        given(stated), target, np.asarray(left.kernel), np.asarray(left.bias), ridge=RIDGE
    )
    found = done.pruned.get_layer("twice")
    np.testing.assert_allclose(np.asarray(found.kernel), matrix, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(np.asarray(found.bias), shift, rtol=1e-2, atol=1e-3)
    assert done.names == ["twice"]


def test_a_recurrent_kernel_is_fitted_with_the_states_of_the_round() -> None:
    """Round 1 with the original's states, round 2 with those that the layer then has; the better one counts."""
    import keras
    from keras import layers

    x = keras.Input((5, 4))
    y = layers.Dense(6, "tanh", name="a")(x)
    y = layers.SimpleRNN(5, return_sequences=True, name="rnn")(y)
    model, data = randomized(keras.Model(x, y)), images(5, 4)
    units = {"a": [1], "rnn": [3]}
    kept = [0, 1, 2, 4]
    done = cut(model, units, [data], ridge=RIDGE, allow_output_change=True)
    stated = cut(model, units, [data], run=False, allow_output_change=True).pruned

    def states(given: np.ndarray, kernel: Any, own: Any, bias: Any) -> np.ndarray:
        h = [np.zeros((len(given), len(own)))]
        for step in range(given.shape[1]):
            h.append(np.tanh(given[:, step] @ kernel + h[-1] @ own + bias))
        return np.stack(h, axis=1)

    def of(model: Any) -> list[np.ndarray]:
        return [np.asarray(weight, np.float64) for weight in model.get_layer("rnn").get_weights()]

    was = states(part(model, "a", data), *of(model))
    kernel, own, bias = of(model)
    gates = part(model, "a", data) @ kernel + was[:, :-1] @ own + bias
    given, cut_weights = part(stated, "a", data), of(stated)
    best = (np.inf, cut_weights)
    now = cut_weights
    for number in range(2):
        h = states(given, *now) if number else was[..., kept]
        rows = np.concatenate([given, h[:, :-1]], axis=2).reshape(-1, 9)
        matrix, shift = least_squares(
            rows, gates[..., kept].reshape(-1, 4), np.concatenate(now[:2]), now[2], ridge=RIDGE
        )
        now = [matrix[:5], matrix[5:], shift]
        error = float(((states(given, *now) - was[..., kept]) ** 2).sum())
        best = min(best, (error, now), key=lambda pair: pair[0])
    for found, wanted in zip(of(done.pruned), best[1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=2e-3)


# -- other ways ------------------------------------------------------------------------------------


def test_biases_alone_make_up_for_means() -> None:
    model, x = chain(), images(7, 7, 2)
    units = {"first": [1, 4], "hidden": [2]}
    before = cut(model, units, [x], run=False).pruned
    done = cut(model, units, [x], way="bias")
    for name in ("second", "hidden", "out"):
        old, new = before.get_layer(name), done.pruned.get_layer(name)
        assert np.array_equal(old.kernel, new.kernel)
    for name, given in [("bn_2", "second"), ("out", "out")]:
        axes = tuple(range(part(model, given, x).ndim - 1))
        old, new = (part(one, given, x) for one in (model, done.pruned))
        if name == "bn_2":
            moved = np.asarray(model.get_layer(name).moving_mean) - np.asarray(
                done.pruned.get_layer(name).moving_mean
            )
            np.testing.assert_allclose(new.mean(axes) + moved, old.mean(axes), atol=1e-4)
    hidden, layer = part(done.pruned, "hidden", x), done.pruned.get_layer("out")
    old_layer = model.get_layer("out")
    wanted = part(model, "hidden", x) @ np.asarray(old_layer.kernel) + np.asarray(old_layer.bias)
    gives = hidden @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    np.testing.assert_allclose(gives.mean(0), wanted.mean(0), atol=1e-4)


def test_statistics_are_measured_on_what_is_left() -> None:
    model, x = chain(), images(7, 7, 2)
    done = cut(model, {"first": [1, 4]}, [x], way="bn")
    for name, given in [("bn", "first"), ("bn_2", "second")]:
        layer, y = done.pruned.get_layer(name), part(done.pruned, given, x)
        np.testing.assert_allclose(layer.moving_mean, y.mean((0, 1, 2)), atol=1e-4)
        np.testing.assert_allclose(layer.moving_variance, y.var((0, 1, 2)), rtol=1e-3)
    assert done.names == [] and done.left == {}


def test_what_is_the_same_as_it_was_is_not_touched() -> None:
    model, x = chain(), images(7, 7, 2)
    done = cut(model, {}, [x])
    assert done.names == [] and done.left == {}
    for one, other in zip(weights(model).values(), weights(done.pruned).values(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_what_was_changed_otherwise_is_refitted_as_well() -> None:
    model, x = chain(), images(7, 7, 2, samples=200)
    done = cut(model, {}, [x], run=False)
    kernel = done.pruned.get_layer("second").kernel
    kernel.assign(np.asarray(kernel) * 0.5)
    done.refit.run()
    assert done.names[0] == "second"
    assert distance(outputs(done.pruned, [x]), outputs(model, [x])) < 1e-3


# -- what is left as it was cut -------------------------------------------------------------------


def test_an_adapted_layer_is_left() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,))
    y = layers.Dense(5, "tanh", name="adapted")(layers.Dense(8, "tanh", name="a")(x))
    model = randomized(keras.Model(x, layers.Dense(3, name="out")(y)))
    model.get_layer("adapted").enable_lora(2)
    done = cut(model, {"a": [1]}, [images(6)])
    assert done.left == {"adapted": "adapted"}
    assert done.names == ["out"]


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda layers: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], name="left"), "cell"),
        (lambda layers: layers.LSTM(4, stateful=True, name="left"), "stateful"),
    ],
)
def test_a_recurrent_layer_of_another_make_is_left(layer: Any, why: str) -> None:
    import keras
    from keras import layers

    x = keras.Input(batch_shape=(60, 5, 3))
    y = layer(layers)(layers.Dense(6, "tanh", name="a")(x))
    model = randomized(keras.Model(x, layers.Dense(2, name="out")(y)))
    done = cut(model, {"a": [1]}, [images(5, 3)])
    assert done.left == {"left": why}
    assert done.names == ["out"]


def test_convolutions_with_a_state_are_left() -> None:
    import keras
    from keras import layers

    x = keras.Input((3, 6, 6, 2))
    y = layers.TimeDistributed(layers.Conv2D(4, 1, activation="relu"), name="a")(x)
    y = layers.ConvLSTM2D(3, 3, name="left")(y)
    model = randomized(keras.Model(x, layers.Conv2D(2, 2, name="out")(y)))
    done = cut(model, {"a": [1]}, [images(3, 6, 6, 2, samples=30)])
    assert done.left == {"left": "cell"}
    assert done.names == ["out"]


def test_a_layer_of_which_a_call_went_with_its_branch_is_left() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,))
    twice = layers.Dense(4, "tanh", name="twice")
    a, b = layers.Dense(3, "tanh", name="a")(x), layers.Dense(3, "tanh", name="b")(x)
    y = layers.Concatenate()([twice(a), layers.Dense(2, name="c")(twice(b))])
    model = randomized(keras.Model(x, layers.Dense(2, name="out")(y)))
    done = cut(model, {"twice": [1], "c": [0, 1]}, [images(6)])
    assert "twice" not in done.names
    assert done.left.get("twice") == "calls"
    assert "out" in done.names


def test_a_kernel_whose_sums_take_too_much_is_left() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,))
    y = layers.Dense(300, "tanh", name="wide")(layers.Dense(8, "tanh", name="a")(x))
    model = randomized(keras.Model(x, layers.Dense(2, name="out")(y)))
    done = cut(model, {"a": [1], "wide": [0]}, [images(6, samples=400)], limit=200_000)
    assert done.left == {"out": "memory"}
    assert done.names == ["wide"]


def test_a_kernel_that_meets_what_is_not_finite_is_left() -> None:
    import keras
    from keras import layers

    x, y = keras.Input((6,)), keras.Input((6,))
    one = layers.Dense(4, name="b")(layers.Dense(8, "tanh", name="a")(x))
    other = layers.Dense(4, name="d")(layers.Dense(8, "relu", name="c")(y))
    model = randomized(keras.Model([x, y], [one, other]))
    wrong = images(6)
    wrong[3] = np.inf
    done = cut(model, {"a": [1], "c": [1]}, [images(6), wrong])
    assert done.left == {"d": "numbers"}
    assert done.names == ["b"]
    assert all(np.isfinite(weight).all() for weight in weights(done.pruned).values())


def test_features_that_are_gone_are_made_up_for_by_the_others() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,), name="x")
    model = randomized(keras.Model(x, layers.Dense(3, name="out")(layers.Dense(5, name="a")(x))))
    data = images(6)
    data[:, 2] = data[:, 0] - 2 * data[:, 4]
    less = np.delete(data, 2, axis=1)
    done = cut(model, {"x": [2]}, [data], pruned_inputs=[less], allow_output_change=True)
    assert done.names[0] == "a"
    assert distance(outputs(done.pruned, [less]), outputs(model, [data])) < 1e-3


def test_a_branch_that_is_gone_leaves_the_others_to_be_refitted() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,))
    y = layers.Dense(8, "tanh", name="a")(x)
    branch = layers.Dense(4, "relu", name="c")(layers.Dense(3, "relu", name="b")(y))
    y = layers.Concatenate()([y, branch])
    model, data = randomized(keras.Model(x, layers.Dense(2, name="out")(y))), [images(6)]
    units = {"c": [0, 1, 2, 3], "a": [1]}
    done = cut(model, units, data, drop_branches=True, ridge=RIDGE)
    before = cut(model, units, data, drop_branches=True, run=False)
    wanted = outputs(model, data)
    assert done.names == ["out"]
    assert distance(outputs(done.pruned, data), wanted) < distance(
        outputs(before.pruned, data), wanted
    )


# -- memory, repetition ----------------------------------------------------------------------------


def same(one: Cut, other: Cut) -> bool:
    pairs = zip(weights(one.pruned).values(), weights(other.pruned).values(), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize(
    "name", ["normalized", "gru", pytest.param("masked_steps", marks=pytest.mark.nightly)]
)
def test_a_small_limit_gives_the_same_to_the_byte(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "CHUNK", 20_000)
    found = CASES[name]()
    wide = cut(found.model, found.units, found.inputs, ridge=RIDGE)
    assert wide.room.spilled == 0
    sums = 100_000  # what the largest kernel's take
    narrow = cut(found.model, found.units, found.inputs, ridge=RIDGE, limit=sums)
    assert narrow.room.spilled > 0 and narrow.left == {}
    assert narrow.room.most <= sums + values.CHUNK < wide.room.most
    assert same(wide, narrow)


def test_the_size_of_chunks_and_pieces_hardly_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CASES["normalized"]()
    whole = cut(found.model, found.units, found.inputs, ridge=RIDGE)
    monkeypatch.setattr(values, "CHUNK", 20_000)
    monkeypatch.setattr(refit, "ROWS", 10_000)
    pieces = cut(found.model, found.units, found.inputs, ridge=RIDGE)
    assert len(pieces.refit.after.chunks) >= 5
    for one, other in zip(
        weights(whole.pruned).values(), weights(pieces.pruned).values(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


SCRIPT = """
import sys, hashlib
from tests.refitting.making import cut, weights
from tests.refitting.models import CASES
for name in sys.argv[1:]:
    found = CASES[name]()
    done = cut(found.model, found.units, found.inputs)
    print(hashlib.sha256(b"".join(w.tobytes() for w in weights(done.pruned).values())).hexdigest())
"""


@pytest.mark.nightly
def test_another_process_writes_the_same_bytes() -> None:
    names = ["projection", "masked_steps", "transformer"]
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, *names],
            capture_output=True, text=True, check=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert len(runs[0].split()) == len(names)
    assert runs[0] == runs[1]


def test_another_run_writes_the_same_bytes() -> None:
    found = CASES["transformer"]()
    runs = [cut(found.model, found.units, found.inputs, ridge=RIDGE) for _ in range(2)]
    assert same(*runs)


def test_a_layer_that_draws_lots_gives_their_mean() -> None:
    import keras
    from keras import layers

    @keras.saving.register_keras_serializable("refitting")
    class Sampling(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x + keras.random.normal(keras.ops.shape(x))

    x = keras.Input((6,))
    y = layers.Dense(4, name="b")(layers.Dense(8, "tanh", name="a")(x))
    model = randomized(keras.Model(x, layers.Dense(3, name="out")(Sampling(name="lots")(y))))
    runs = [cut(model, {"a": [1]}, [images(6)], ridge=RIDGE) for _ in range(2)]
    assert same(*runs)
    assert runs[0].names == ["b", "out"]


def test_inputs_are_taken_in_the_types_and_with_the_axes_that_the_model_has() -> None:
    import keras
    from keras import layers

    x = keras.Input((6, 6, 1))
    y = layers.Conv2D(4, 3, activation="relu", name="a")(x)
    model = randomized(keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y))))
    pixels = np.random.default_rng(0).integers(0, 255, size=(40, 6, 6)).astype(np.uint8)
    done = cut(model, {"a": [1]}, [pixels], ridge=RIDGE)
    floats = cut(model, {"a": [1]}, [pixels[..., None].astype(np.float32)], ridge=RIDGE)
    assert same(done, floats)


def test_a_mask_that_attention_takes_off_is_there_for_every_look() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(11, 6, mask_zero=True, name="e")(x)
    given = layers.Dense(2, name="out")(layers.MultiHeadAttention(2, 3, name="m")(y, y))
    found = made(x, given, units={"e": [1]}, data=tokens(6, mask=True))
    done = cut(found.model, found.units, found.inputs)
    # Refitted to targets without masks, it would be another model than the one that is masked.
    assert distance(done.refit.before.outputs(), outputs(found.model, found.inputs)) < 1e-4
