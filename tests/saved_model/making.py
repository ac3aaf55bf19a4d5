"""Small models, exported to a folder. Weights are random: statistics and biases too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def randomised(model: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" in variable.path or not str(variable.dtype).startswith("float"):
            continue
        value = rng.normal(size=variable.shape) * 0.4
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model


def recurrent(kind: str) -> Any:
    import keras

    inputs = keras.Input((None, 5))
    x = keras.layers.Dense(7, name="first")(inputs)
    x = getattr(keras.layers, kind)(12, name="rnn")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x))


def bidirectional() -> Any:
    import keras

    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 14, mask_zero=True, name="words")(inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(10, return_sequences=True), name="both")(x)
    x = keras.layers.SimpleRNN(9, name="rnn")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x))


def encoder() -> Any:
    import keras

    inputs = keras.Input((None, 12))
    x = keras.layers.Dense(16, name="first")(inputs)
    y = keras.layers.MultiHeadAttention(4, 6, name="mha")(x, x)
    x = keras.layers.LayerNormalization(name="norm")(keras.layers.Add()([x, y]))
    y = keras.layers.Dense(24, activation="gelu", name="wide")(x)
    y = keras.layers.Dense(16, name="narrow")(y)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Add()([x, y]))
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x))


def convolutions() -> Any:
    import keras

    inputs = keras.Input((16, 16, 3))
    x = keras.layers.SeparableConv2D(12, 3, activation="relu", name="separable")(inputs)
    x = keras.layers.Conv2DTranspose(10, 3, strides=2, name="transposed")(x)
    x = keras.layers.Conv2D(8, 3, dilation_rate=2, name="dilated")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.PReLU(shared_axes=[1, 2])(x)
    x = keras.layers.UpSampling2D()(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(4)(x))
    return keras.Model(inputs, [keras.layers.Dense(3)(x), keras.layers.Dense(2)(x)])


def shapes() -> Any:
    import keras

    inputs = keras.Input((32,))
    a = keras.layers.Dense(24, activation="relu", name="a")(inputs)
    b = keras.layers.Conv1D(8, 2, padding="same", name="b")(keras.layers.Reshape((4, 6))(a))
    c = keras.layers.RepeatVector(4)(keras.layers.Dense(8, name="c")(a))
    x = keras.layers.Permute((2, 1))(keras.layers.Concatenate()([b, c]))
    return keras.Model(inputs, keras.layers.Dense(5, name="last")(keras.layers.Flatten()(x)))


MODELS = {
    "lstm": lambda: recurrent("LSTM"),
    "gru": lambda: recurrent("GRU"),
    "bidirectional": bidirectional,
    "convolutions": convolutions,
    "shapes": shapes,
}


def export(model: Any, folder: Path) -> Path:
    model.export(str(folder), verbose=False)
    return folder


def two_signatures(folder: Path) -> Path:
    """A hand-written module: two signatures that share variables, of open batch and length."""
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(0)

            def variable(name: str, *shape: int) -> Any:
                return tf.Variable(rng.normal(size=shape).astype("float32"), name=name)

            self.w1, self.b1 = variable("first/kernel", 8, 16), variable("first/bias", 16)
            self.w2, self.b2 = variable("second/kernel", 16, 12), variable("second/bias", 12)
            self.w3 = variable("third/kernel", 12, 4)
            self.scale = tf.Variable(2.0, name="scale", trainable=False)

        @tf.function(input_signature=[tf.TensorSpec([None, None, 8], name="x")])
        def sequence(self, x: Any) -> Any:
            hidden = tf.nn.relu(tf.tensordot(x, self.w1, 1) + self.b1)
            size = tf.shape(hidden)
            hidden = tf.reshape(hidden, [size[0] * size[1], size[2]])
            hidden = tf.tanh(hidden @ self.w2 + self.b2)
            hidden = tf.reshape(hidden, [size[0], size[1], 12])
            return {"y": tf.einsum("btc,cd->btd", hidden, self.w3) * self.scale}

        @tf.function(input_signature=[tf.TensorSpec([None, 8], name="x")])
        def vector(self, x: Any) -> Any:
            hidden = tf.nn.relu(tf.nn.bias_add(x @ self.w1, self.b1))
            return {"sum": tf.reduce_sum(hidden @ self.w2, -1)}

    module = Module()
    tf.saved_model.save(
        module,
        str(folder),
        signatures={"serving_default": module.sequence, "vector": module.vector},
    )
    return folder
