"""What models do with axes that they fold into the batch: frames, windows, heads, anchors, channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from keras import layers, ops

from tests.oracle.random_models import Builder

FEW = st.integers(0, 2)
Options = list[Callable[[], Any]]


class FoldBuilder(Builder):
    """Grows a model that folds axes into the batch and, mostly, out again."""

    def folds(self, x: Any) -> Options:
        """What can be done with a sequence or an image."""
        kinds = self._sequence_folds if len(x.shape) == 3 else self._image_folds
        return kinds(x)

    def _sequence_folds(self, x: Any) -> Options:
        steps, size = x.shape[1:]
        width = self.width()
        options = [
            lambda: self.places(x),
            lambda: self.heads(x),
            lambda: self.channels(x),
            lambda: ops.reshape(self.places_alone(x, width), (-1, steps * width)),
            lambda: ops.reshape(x, (-1, steps * size)),
        ]
        if steps % 2 == 0:
            options.append(lambda: self.pieces(x))
        return options

    def _image_folds(self, x: Any) -> Options:
        options = [lambda: self.places(x), lambda: self.rows(x), lambda: self.anchors(x)]
        if x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
            options.append(lambda: self.windows(x))
        return options

    # -- each gives a tensor with the batch in front ----------------------------------------------

    def places_alone(self, x: Any, width: int) -> Any:
        """`(…, units)` as `(all places, units)`."""
        y = ops.reshape(x, (-1, x.shape[-1]))
        for _ in range(self.draw(FEW)):
            y = layers.Dense(width + self.draw(FEW), "relu")(y)
            y = layers.BatchNormalization()(y) if self.pick(True, False) else y
        return layers.Dense(width, "tanh")(y)

    def places(self, x: Any) -> Any:
        """Every time step or pixel a sample of its own, and back."""
        width = self.width()
        return ops.reshape(self.places_alone(x, width), (-1, *x.shape[1:-1], width))

    def heads(self, x: Any) -> Any:
        """`(batch, steps, heads * size)` as `(batch * heads, steps, size)`, and back."""
        steps, heads, size = x.shape[1], self.pick(1, 2, 3), self.width()
        y = ops.reshape(layers.Dense(heads * size)(x), (-1, steps, heads, size))
        y = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, steps, size))
        width = self.width()
        inner = self.pick(
            lambda: layers.Dense(width, "relu"), lambda: layers.GRU(width, return_sequences=True)
        )
        y = ops.reshape(inner()(y), (-1, heads, steps, width))
        if self.pick(True, False):
            return ops.mean(y, axis=1)
        return ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, steps, heads * width))

    def channels(self, x: Any) -> Any:
        """Every channel a sample of its own: these units stay, as they are in the batch."""
        (steps, size), width = x.shape[1:], self.width()
        y = ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, steps))
        y = layers.Dense(width)(layers.Dense(self.width(), "relu")(y))
        return ops.transpose(ops.reshape(y, (-1, size, width)), (0, 2, 1))

    def pieces(self, x: Any) -> Any:
        """Two steps a sample: `(batch * steps / 2, 2, units)`."""
        (steps, size), width = x.shape[1:], self.width()
        y = layers.LSTM(width)(ops.reshape(x, (-1, 2, size)))
        return ops.reshape(y, (-1, steps // 2, width))

    def rows(self, x: Any) -> Any:
        """Every row of an image a sequence of its own."""
        height, across, size = x.shape[1:]
        width = self.width()
        y = ops.reshape(x, (-1, across, size))
        if self.pick(True, False):
            return ops.reshape(layers.GRU(width)(y), (-1, height, width))
        y = layers.Conv1D(width, 2, padding="same")(y)
        return ops.reshape(y, (-1, height, across, width))

    def anchors(self, x: Any) -> Any:
        """`(batch, height, width, anchors * figures)` as `(all anchors, figures)`, and back."""
        height, across = x.shape[1:3]
        many, figures, width = self.pick(1, 2, 3), self.width(), self.width()
        y = ops.reshape(layers.Conv2D(many * figures, 1)(x), (-1, figures))
        y = layers.Dense(width)(ops.softmax(y) if self.pick(True, False) else y)
        return ops.reshape(y, (-1, height, across, many * width))

    def windows(self, x: Any) -> Any:
        """Windows of 2 by 2, as a Swin transformer has them, and back."""
        height, across, size = x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
        width = self.width()
        y = ops.transpose(ops.reshape(x, (-1, height, 2, across, 2, size)), (0, 1, 3, 2, 4, 5))
        y = layers.Dense(width, "relu")(ops.reshape(y, (-1, 4, size)))
        y = ops.reshape(y, (-1, height, across, 2, 2, width))
        y = ops.transpose(y, (0, 1, 3, 2, 4, 5))
        return ops.reshape(y, (-1, 2 * height, 2 * across, width))
