"""Random models with arrays in their configs, widths of 1, and axes folded into the batch and out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

from tests.oracle.random_folds import FoldBuilder, Options
from tests.oracle.random_models import STEPS

Constant, MaxNorm = keras.initializers.Constant, keras.constraints.MaxNorm


class ArrayBuilder(FoldBuilder):
    """Grows a model whose layers start with arrays and meet them, whatever their shapes.

    Every array has a shape that Keras broadcasts against a weight or a tensor: whole, or of size 1 along
    some axes, or without the first ones; as numpy, list or tensor.
    """

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        super().__init__(draw)
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def width(self) -> int:
        return self.draw(st.integers(1, 6))

    # -- arrays ---------------------------------------------------------------------------------

    def array(self, *shape: int) -> np.ndarray:
        return self.rng.uniform(0.3, 0.9, shape).astype("float32")

    def part(self, *shape: int) -> np.ndarray:
        """An array that broadcasts to a shape."""
        sizes = [self.pick(size, size, 1) for size in shape]
        return self.array(*sizes[self.pick(0, 0, len(shape) - 1) :])

    def start(self, *shape: int) -> Any:
        value = self.part(*shape)
        return Constant(self.pick(value, value.tolist(), ops.convert_to_tensor(value)))

    def maybe(self, *shape: int) -> Any:
        return self.pick("glorot_uniform" if len(shape) > 1 else "zeros", self.start(*shape))

    # -- what can be done with a tensor ---------------------------------------------------------

    def on_anything(self, x: Any) -> Options:
        return [*super().on_anything(x), *self.with_starts(x), *self.with_operands(x)]

    def with_starts(self, x: Any) -> Options:
        size, width = x.shape[-1], self.width()
        return [
            lambda: layers.Dense(
                width,
                self.pick("linear", "relu", "tanh"),
                kernel_initializer=self.maybe(size, width),
                bias_initializer=self.maybe(width),
                kernel_constraint=self.pick(None, MaxNorm(self.part(width))),
            )(x),
            lambda: layers.BatchNormalization(
                gamma_initializer=self.maybe(size),
                beta_initializer=self.maybe(size),
                moving_mean_initializer=self.maybe(size),
                moving_variance_initializer=self.maybe(size),
            )(x),
            lambda: layers.PReLU(alpha_initializer=self.start(*x.shape[1:]))(x),
            lambda: layers.Dropout(0.2, noise_shape=(None, *(self.pick(n, 1) for n in x.shape[1:])))(x),
        ]  # fmt: skip

    def with_operands(self, x: Any) -> Options:
        size, shape = x.shape[-1], x.shape[1:]
        return [
            lambda: x * self.part(*shape),
            lambda: ops.subtract(self.part(1, *shape), x),
            lambda: ops.maximum(x, self.part(*shape)),
            lambda: ops.clip(x, (-self.part(size) - 1.0).tolist(), (self.part(size) + 1.0).tolist()),
            lambda: ops.where(x > 0.0, x, self.array(*shape)),
            lambda: ops.batch_normalization(
                x, self.array(size), self.array(size), -1, self.array(size), self.array(size)
            ),
            lambda: layers.Rescaling(self.array(size), self.array(size).tolist())(x),
            lambda: layers.Normalization(mean=self.array(size), variance=self.array(size))(x),
            lambda: layers.Add()([self.dense(x), ops.convert_to_tensor(self.array(1, *shape))]),
        ]  # fmt: skip

    @staticmethod
    def dense(x: Any) -> Any:
        """Keras takes a product with an array for sparse, and sums of such with arrays fail."""
        return layers.Activation("linear")(x) if x.sparse else x

    def on_sequences(self, x: Any) -> Options:
        size, width = x.shape[-1], self.draw(st.integers(1, 4))
        return [
            *super().on_sequences(x),
            lambda: layers.LSTM(
                width,
                unit_forget_bias=False,
                kernel_initializer=self.maybe(size, 4 * width),
                recurrent_initializer=self.start(width, 4 * width),
                bias_initializer=self.maybe(4 * width),
            )(x),
            lambda: layers.Bidirectional(
                layers.GRU(width, bias_initializer=self.start(2, 3 * width))
            )(x),
            lambda: layers.TimeDistributed(layers.Dense(width, bias_initializer=self.start(width)))(x),
            lambda: layers.Conv1D(width, 2, padding="same", kernel_initializer=self.start(2, size, width))(x),
            *self.folds(x),
            lambda: self.folded(x),
        ]  # fmt: skip

    def on_images(self, x: Any) -> Options:
        size, width = x.shape[-1], self.width()
        return [
            *super().on_images(x),
            *self.folds(x),
            lambda: layers.Conv2D(
                width,
                2,
                padding="same",
                kernel_initializer=self.start(2, 2, size, width),
                bias_initializer=self.maybe(width),
            )(x),
            lambda: layers.DepthwiseConv2D(
                2, padding="same", depthwise_initializer=self.start(2, 2, size, 1)
            )(x),
            lambda: layers.SeparableConv2D(
                width,
                2,
                padding="same",
                depthwise_initializer=self.start(2, 2, size, 1),
                pointwise_initializer=self.start(1, 1, size, width),
            )(x),
        ]

    def folded(self, x: Any) -> Any:
        """Every time step a sample of its own, meeting an array there, and back."""
        steps, size = x.shape[1:]
        width = self.width()
        y = layers.Dense(width, "relu")(ops.reshape(x, (-1, size)))
        return ops.reshape(y * self.part(width), (-1, steps, width))

    def finished(self) -> Any:
        """An embedding that starts with an array is another input."""
        if self.draw(st.booleans()):
            tokens, width = keras.Input((STEPS,), dtype="int32"), self.width()
            self.inputs.append(tokens)
            start = self.start(5, width)
            self.tensors.append(layers.Embedding(5, width, embeddings_initializer=start)(tokens))
        return super().finished()


def draw_array_model(data: Any, calls: tuple[int, int] = (3, 8)) -> Any:
    """A built Keras model.

    Args:
        data: of hypothesis's `st.data()`; see `random_models.draw_model`.
    """
    return ArrayBuilder(data.draw).model(data.draw(st.integers(*calls)))
