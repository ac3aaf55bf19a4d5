"""SavedModels whose layers are cut to a single unit."""

from __future__ import annotations

import numpy as np
import pytest

import kprune
from tests.saved_model import making

pytestmark = pytest.mark.oracle


def convolutions(kind: str, rank: int):
    """A layer with a bias, normalised, and another: Keras 3 exports their biases through a Squeeze."""
    import keras

    inputs = keras.Input((6,) * rank + (3,))
    x = getattr(keras.layers, kind)(4, 3, padding="same", name="c")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    head = getattr(keras.layers, kind.removeprefix("Separable"))(2, 1, name="head")
    return making.randomised(keras.Model(inputs, head(x)))


def served(folder, x):
    import tensorflow as tf

    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return signature(**{name: tf.constant(x)})["output_0"].numpy()


KINDS = [
    ("Conv1D", 1), ("Conv2D", 2), ("Conv3D", 3), ("Conv2DTranspose", 2), ("SeparableConv2D", 2),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "rank"), KINDS)
def test_a_convolution_with_a_bias_keeps_one_filter(tmp_path, kind, rank):
    model = convolutions(kind, rank)
    x = np.random.default_rng(0).normal(size=(2, *[6] * rank, 3)).astype("float32")
    full = np.asarray(model(x))
    folder = making.export(model, tmp_path / "model")
    kprune.remove(folder, {"head": [0]}, output=tmp_path / "answers")
    np.testing.assert_allclose(served(tmp_path / "answers", x), full[..., 1:], 1e-4, 1e-5)

    kprune.remove(folder, {"c": [0, 1, 3]}, output=tmp_path / "hidden")
    head = model.get_layer("head")
    kernel, bias = head.get_weights()
    rows = [slice(None)] * kernel.ndim
    rows[-1 if kind.endswith("Transpose") else -2] = [0, 1, 3]
    kernel[tuple(rows)] = 0
    head.set_weights([kernel, bias])
    np.testing.assert_allclose(served(tmp_path / "hidden", x), np.asarray(model(x)), 1e-4, 1e-5)
    assert kprune.verify(folder, tmp_path / "hidden").passed


@pytest.mark.parametrize("shape", [[-1, 1, 1, 8], [-1, 8]])
def test_a_squeeze_of_all_axes_in_a_graph_says_which_they_are_or_takes_none(tmp_path, shape):
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            rng = np.random.default_rng(0)
            self.one = tf.Variable(rng.normal(size=(6, 8)).astype("float32"), name="a/kernel")
            self.two = tf.Variable(rng.normal(size=(8, 3)).astype("float32"), name="b/kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 6], name="x")])
        def serve(self, x):
            hidden = tf.squeeze(tf.reshape(tf.nn.relu(x @ self.one), shape))
            return {"output_0": tf.ensure_shape(hidden, [None, 8]) @ self.two}

    module, folder = Module(), tmp_path / "model"
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    kprune.remove(folder, {"a": [0, 1, 2, 3, 5, 6, 7]}, output=tmp_path / "pruned")
    x = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    hidden = np.maximum(x @ module.one.numpy()[:, 4:5], 0)
    expected = hidden @ module.two.numpy()[4:5]
    np.testing.assert_allclose(served(tmp_path / "pruned", x), expected, 1e-5, 1e-5)
