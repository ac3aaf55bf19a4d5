"""What a mask multiplies in a graph, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

import kprune
from tests.saved_model import making, plain

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("below", [None, 0.5])
def test_what_a_layer_hands_back_to_itself_is_not_masked(tmp_path, below):
    """Behind a kernel that is multiplied by `tensordot` stands a Reshape, and then the bias."""
    import tensorflow as tf

    folder = making.two_signatures(tmp_path / "model")
    if below is None:
        kprune.mask(folder, {"first": [1, 5]}, output=tmp_path / "masked")
    else:
        kprune.mask(folder, layers=["first"], below=below, output=tmp_path / "masked")
    masked = tf.saved_model.load(str(tmp_path / "masked"))
    held = {name: v.numpy() for name, v in plain.variables(masked).items()}
    x = np.random.default_rng(2).normal(size=(3, 5, 8)).astype("float32")
    hidden = np.maximum(x @ held["first/kernel:0"] + held["first/bias:0"], 0)
    if below is None:
        hidden[..., [1, 5]] = 0
    else:
        hidden[np.abs(hidden) < below] = 0
    hidden = np.tanh(hidden @ held["second/kernel:0"] + held["second/bias:0"])
    expected = hidden @ held["third/kernel:0"] * 2
    got = masked.signatures["serving_default"](x=tf.constant(x))["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_reads_itself_is_masked_at_each_call(tmp_path):
    import keras
    import tensorflow as tf

    layer = keras.layers.Dense(6, activation="tanh", name="shared")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(layer(layer(inputs))))
    making.export(making.randomised(model), tmp_path / "model")
    kprune.mask(tmp_path / "model", {"shared": [0, 4]}, output=tmp_path / "masked")
    kernel, bias, last, offset = (weight.numpy() for weight in model.weights)
    on = np.array([0, 1, 1, 1, 0, 1], "float32")
    x = np.random.default_rng(2).normal(size=(3, 6)).astype("float32")
    hidden = on * np.tanh((on * np.tanh(x @ kernel + bias)) @ kernel + bias)
    masked = tf.saved_model.load(str(tmp_path / "masked")).signatures["serving_default"]
    (got,) = masked(tf.constant(x)).values()
    np.testing.assert_allclose(got, hidden @ last + offset, rtol=1e-4, atol=1e-5)


def test_units_that_a_reshape_ties_are_masked_one_by_one(tmp_path):
    """A convolution takes six channels of four steps from 24 units, which can only be removed in fours."""
    import tensorflow as tf

    model = making.randomised(making.shapes())
    making.export(model, tmp_path / "model")
    kprune.mask(tmp_path / "model", {"a": [0, 23]}, output=tmp_path / "masked")
    for weight in model.get_layer(
        "a"
    ).weights:  # relu(0) is 0, so that a zeroed unit is a masked one
        value = weight.numpy()
        value[..., [0, 23]] = 0
        weight.assign(value)
    x = np.random.default_rng(2).normal(size=(3, 32)).astype("float32")
    masked = tf.saved_model.load(str(tmp_path / "masked"))
    (got,) = masked.signatures["serving_default"](tf.constant(x)).values()
    np.testing.assert_allclose(got, model(x), rtol=1e-4, atol=1e-5)
    assert kprune.verify(tmp_path / "model", tmp_path / "masked").passed


def test_an_embedding_can_be_masked(tmp_path):
    import keras
    import tensorflow as tf

    inputs = keras.Input((4,), dtype="int32")
    words = keras.layers.Embedding(9, 5, name="words")(inputs)
    outputs = keras.layers.Dense(2, name="last")(keras.layers.Flatten()(words))
    model = making.randomised(keras.Model(inputs, outputs))
    making.export(model, tmp_path / "model")
    kprune.mask(tmp_path / "model", {"words": [1, 4]}, output=tmp_path / "masked")
    table = model.get_layer("words").embeddings
    table.assign(table.numpy() * np.array([1, 0, 1, 1, 0], "float32"))
    x = np.random.default_rng(2).integers(0, 9, (3, 4)).astype("int32")
    masked = tf.saved_model.load(str(tmp_path / "masked"))
    (got,) = masked.signatures["serving_default"](tf.constant(x)).values()
    np.testing.assert_allclose(got, model(x), rtol=1e-4, atol=1e-5)


def test_a_recurrent_layer_of_keras_2_that_is_only_known_as_a_graph(tmp_path):
    """Its loop stands in a function, and gives numbers beside what the layer gives."""
    import tensorflow as tf

    keras = pytest.importorskip("tf_keras")
    inputs = keras.Input((4, 3))
    states = keras.layers.LSTM(5, name="lstm")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(states))
    model.save(tmp_path / "model", save_format="tf")
    (tmp_path / "model" / "keras_metadata.pb").unlink()
    kprune.mask(tmp_path / "model", {"lstm": [0, 4]}, output=tmp_path / "masked")
    masked = tf.saved_model.load(str(tmp_path / "masked"))
    (got,) = plain.outputs(masked).values()
    (x,) = plain.random_inputs(masked.signatures["serving_default"]).values()
    hidden = keras.Model(inputs, states)(x) * np.array([0, 1, 1, 1, 0])
    np.testing.assert_allclose(got, model.layers[-1](hidden), rtol=1e-4, atol=1e-5)
