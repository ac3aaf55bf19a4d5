"""`zero`: the same architecture; each unit emits act(0) from then on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import CannotPruneError
from kprune.verbs.change import remove, zero
from tests.oracle.law import assert_equal, outputs, random_inputs, randomize
from tests.oracle.masked import MaskedOriginal

pytestmark = pytest.mark.oracle


def chain(shape, *middle, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *middle])


class Zeroed:
    """A model with units zeroed, and the same model as it was, both loaded from files."""

    def __init__(self, folder, model, units, **options):
        randomize(model)
        before, after = folder / "model.keras", folder / "zeroed.keras"
        model.save(before)
        self.report = zero(str(before), units, output=str(after), **options)
        self.original = keras.models.load_model(before, compile=False)
        self.model = keras.models.load_model(after, compile=False)
        self.inputs = random_inputs(self.original)
        assert self.report.input.parameters == self.report.output.parameters
        assert self.model.count_params() == self.report.output.parameters

    def weights(self, name):
        """The layer's weights before and after."""
        return [
            {
                weight.path.rpartition("/")[2]: np.asarray(keras.ops.convert_to_numpy(weight))
                for weight in layer.weights
            }
            for layer in (self.original.get_layer(name), self.model.get_layer(name))
        ]

    def inner(self, name):
        """What a layer gives in the zeroed model."""
        tap = keras.Model(self.model.inputs, self.model.get_layer(name).output)
        return outputs(tap, self.inputs)[0]


@pytest.mark.parametrize(
    ("activation", "emitted"),
    [("relu", 0.0), ("sigmoid", 0.5), ("softplus", np.log(2)), ("exponential", 1.0), ("tanh", 0.0)],
)
def test_a_zeroed_unit_emits_the_activation_of_0(tmp_path, activation, emitted):
    model = chain((5,), layers.Dense(6, activation, name="a"), layers.Dense(2, name="out"))
    found = Zeroed(tmp_path, model, {"a": [1, 4]})
    np.testing.assert_allclose(found.inner("a")[:, [1, 4]], emitted, atol=1e-6)
    before, after = found.weights("a")
    assert not after["kernel"][:, [1, 4]].any() and not after["bias"][[1, 4]].any()
    np.testing.assert_array_equal(
        before["kernel"][:, [0, 2, 3, 5]], after["kernel"][:, [0, 2, 3, 5]]
    )
    np.testing.assert_array_equal(*(weights["kernel"] for weights in found.weights("out")))
    said = [note for note in found.report.notes if note.kind == "emits"]
    assert bool(said) == (emitted != 0.0)
    if emitted:
        assert f"{emitted:.4g}"[:5] in said[0].text


KINDS = {
    "conv1": ((9, 3), lambda: layers.Conv1D(6, 3, name="a"), -1),
    "conv2": ((7, 7, 3), lambda: layers.Conv2D(6, 3, name="a"), -1),
    "conv2 first": (
        (3, 7, 24),
        lambda: layers.Conv2D(6, 3, data_format="channels_first", name="a"),
        1,
    ),
    "conv3": ((5, 5, 5, 2), lambda: layers.Conv3D(6, 3, name="a"), -1),
    "grouped": ((7, 7, 4), lambda: layers.Conv2D(6, 3, groups=2, name="a"), -1),
    "transposed": ((5, 5, 3), lambda: layers.Conv2DTranspose(6, 3, strides=2, name="a"), -1),
    "depthwise": ((7, 7, 6), lambda: layers.DepthwiseConv2D(3, name="a"), -1),
    "depthwise 2": ((7, 7, 3), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="a"), -1),
    "separable": ((7, 7, 3), lambda: layers.SeparableConv2D(6, 3, name="a"), -1),
    "time": ((3, 5), lambda: layers.TimeDistributed(layers.Dense(6), name="a"), -1),
    "simple rnn": ((4, 3), lambda: layers.SimpleRNN(6, return_sequences=True, name="a"), -1),
    "lstm": ((4, 3), lambda: layers.LSTM(6, return_sequences=True, name="a"), -1),
    "gru": ((4, 3), lambda: layers.GRU(6, return_sequences=True, name="a"), -1),
    "gru before": (
        (4, 3),
        lambda: layers.GRU(6, reset_after=False, return_sequences=True, name="a"),
        -1,
    ),
    "both": (
        (4, 3),
        lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="a"),
        -1,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_zeroed_units_of_every_kind_emit_0_and_the_others_what_they_did(tmp_path, kind):
    shape, layer, axis = KINDS[kind]
    model = chain(shape, layer(), layers.Flatten(), layers.Dense(2, name="out"))
    found = Zeroed(tmp_path, model, {"a": [0, 5]})
    given = np.moveaxis(found.inner("a"), axis, -1)
    assert given.shape[-1] == 6 and not given[..., [0, 5]].any()
    masked = MaskedOriginal(
        keras.Model(found.original.inputs, found.original.get_layer("a").output), {"a": [0, 5]}
    )
    (expected,) = masked(found.inputs)
    assert_equal(given[..., 1:5], np.moveaxis(expected.array, axis, -1)[..., 1:5])


def test_zeroed_dimensions_of_an_embedding(tmp_path):
    model = chain(
        (4,),
        layers.Embedding(5, 6, name="a"),
        layers.Flatten(),
        layers.Dense(2, name="out"),
        dtype="int32",
    )
    found = Zeroed(tmp_path, model, {"a": [0, 5]})
    assert not found.inner("a")[..., [0, 5]].any() and found.inner("a")[..., 1:5].all()


def test_batch_normalization_makes_something_else_of_zeros(tmp_path):
    model = chain(
        (6, 6, 3),
        layers.Conv2D(6, 3, name="a"),
        layers.BatchNormalization(name="bn"),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    found = Zeroed(tmp_path, model, {"a": [2]})
    weights, _ = found.weights("bn")
    emitted = weights["beta"] - weights["gamma"] * weights["moving_mean"] / np.sqrt(
        weights["moving_variance"] + 1e-3
    )
    np.testing.assert_allclose(found.inner("bn")[..., 2], emitted[2], rtol=1e-5)
    (note,) = [note for note in found.report.notes if note.kind == "emits"]
    assert note.layer == "bn" and f"{emitted[2]:.4g}" in note.text


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "depthwise" not in kind])
def test_zeroed_outgoing_too_the_model_computes_what_remove_would(tmp_path, kind):
    shape, layer, _ = KINDS[kind]
    model = chain(
        shape,
        layer(),
        layers.Activation("sigmoid"),
        layers.Flatten(),
        layers.BatchNormalization(),
        layers.Dense(2, name="out"),
    )
    found = Zeroed(tmp_path, model, {"a": [0, 5]}, outgoing=True)
    small = tmp_path / "small.keras"
    remove(str(tmp_path / "model.keras"), {"a": [0, 5]}, output=str(small))
    pruned = keras.models.load_model(small, compile=False)
    assert_equal(outputs(found.model, found.inputs)[0], outputs(pruned, found.inputs)[0])


def test_coupled_units_are_zeroed_with_outgoing(tmp_path):
    x = keras.Input((5,))
    a, b = layers.Dense(6, name="a")(x), layers.Dense(6, name="b")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Add()([a, b])))
    found = Zeroed(tmp_path, model, {"a": [1]}, outgoing=True)
    assert found.report.changed == {"a": [1], "b": [1]}
    assert not found.weights("b")[1]["kernel"][:, 1].any()
    assert not found.weights("out")[1]["kernel"][1].any()


def test_a_zeroed_logit_still_gets_a_share_of_the_softmax(tmp_path):
    model = chain((5,), layers.Dense(4, "softmax", name="out"))
    found = Zeroed(tmp_path, model, {"out": [1]})
    logits = chain((5,), layers.Dense(4, name="out"))
    logits.set_weights(found.original.get_weights())
    values = np.exp(outputs(logits, found.inputs)[0])
    values[:, 1] = 1.0
    assert_equal(outputs(found.model, found.inputs)[0], values / values.sum(axis=1, keepdims=True))
    (note,) = [note for note in found.report.notes if note.kind == "emits"]
    assert "--silence" in note.text


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float16", "mixed_bfloat16"])
def test_a_silenced_class_gets_probability_0(tmp_path, policy):
    model = chain((5,), layers.Dense(4, "softmax", name="out", dtype=policy))
    found = Zeroed(tmp_path, model, {"out": [1]}, silence=True)
    (before,), (after,) = (outputs(one, found.inputs) for one in (found.original, found.model))
    before, after = before.astype("float64"), after.astype("float64")
    assert not after[:, 1].any()
    kept = before[:, [0, 2, 3]]
    assert_equal(
        after[:, [0, 2, 3]],
        kept / kept.sum(axis=1, keepdims=True),
        1e-4 if policy == "float32" else 5e-2,
    )


def test_a_silenced_class_of_a_sigmoid(tmp_path):
    model = chain((5,), layers.Dense(4, "sigmoid", name="out"))
    found = Zeroed(tmp_path, model, {"out": [1]}, silence=True)
    assert not outputs(found.model, found.inputs)[0][:, 1].any()


def test_a_softmax_layer_of_its_own_is_silenced_through_the_dense_before_it(tmp_path):
    model = chain((5,), layers.Dense(4, name="out"), layers.Softmax())
    found = Zeroed(tmp_path, model, {"out": [1]}, silence=True)
    assert not outputs(found.model, found.inputs)[0][:, 1].any()


def test_a_class_without_a_bias_cannot_be_silenced(tmp_path):
    model = chain((5,), layers.Dense(4, "softmax", use_bias=False, name="out"))
    with pytest.raises(CannotPruneError, match="no bias"):
        Zeroed(tmp_path, model, {"out": [1]}, silence=True)
