"""What a model's first layers say of the inputs that it was trained on: mean, spread and range.

A Normalization or a BatchNormalization on the inputs says mean and spread outright, and a Rescaling
says in which range they lie. A BatchNormalization behind the first kernel knows the mean and the
variance of what that gave. A kernel is linear: the inputs' mean solves a least squares problem, and their
spread is the one at which noise gives the same variance. What nothing tells is guessed: images lie in
[0, 1], all else has mean 0 and spread 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kprune.running.inputs import consumers_of

IMAGE_CHANNELS = (1, 3, 4)
KERNELS = ("Conv1D", "Conv2D", "Conv3D", "Dense")
PASSING = frozenset(
    "InputLayer Identity Dropout GaussianNoise RandomFlip RandomRotation RandomZoom "
    "RandomTranslation RandomContrast ZeroPadding1D ZeroPadding2D ZeroPadding3D".split()
)
"""Layers behind which inputs are what they were, as far as mean and spread go."""
RIDGE = 1e-2
"""How much the guessed mean counts where a kernel leaves the mean open, relative to what it tells."""


@dataclass(frozen=True)
class InputStatistics:
    """How the values of an input are spread.

    Attributes:
        mean, spread: mean and standard deviation, float64 (channels,) or ().
        low, high: the range; infinite where there is none.
        channels: the axis of the channels, without the batch.
    """

    mean: np.ndarray
    spread: np.ndarray
    low: float = -np.inf
    high: float = np.inf
    channels: int = -1

    def values(self, fields: np.ndarray) -> np.ndarray:
        """Fields of mean 0 and variance 1, (samples, …), brought to this mean, spread and range."""
        whole = np.moveaxis(fields, 1 + self.channels, -1)
        width = whole.shape[-1]
        mean, spread = (np.broadcast_to(one, width) for one in (self.mean, self.spread))
        if np.isfinite(self.high):
            moves = [
                _clipping(whole[..., channel], float(mean[channel]), float(spread[channel]), self)
                for channel in range(width)
            ]
            mean, spread = np.array(moves).T
        made = np.clip(mean + spread * whole, self.low, self.high)
        return np.moveaxis(made, -1, 1 + self.channels).astype(np.float32)

    def before(self, scale: np.ndarray, offset: np.ndarray) -> InputStatistics:
        """Of x, if these are of x * scale + offset."""
        ends = [self.low, self.high]
        if np.isfinite(self.high):
            ends = sorted(float(np.mean((end - offset) / scale)) for end in ends)
        return replace(
            self,
            mean=(self.mean - offset) / scale,
            spread=self.spread / np.abs(scale),
            low=ends[0],
            high=ends[1],
        )


def _clipping(
    fields: np.ndarray, mean: float, spread: float, to: InputStatistics
) -> tuple[float, float]:
    """The offset and the gain at which fields, once they are clipped, have this mean and spread.

    The gain is bounded: no more than a hundred times the range, where the values are the two ends.
    """
    some = fields.ravel()[:: max(1, fields.size // 20_000)].astype(np.float64)
    size = to.high - to.low

    def offset_of(gain: float) -> float:
        low, high = to.low - 6 * gain, to.high + 6 * gain
        for _ in range(40):
            middle = (low + high) / 2
            below = np.clip(middle + gain * some, to.low, to.high).mean() < mean
            low, high = (middle, high) if below else (low, middle)
        return (low + high) / 2

    low, high = 1e-3 * size, 1e2 * size
    for _ in range(30):
        gain = float(np.sqrt(low * high))
        narrow = np.clip(offset_of(gain) + gain * some, to.low, to.high).std() < spread
        low, high = (gain, high) if narrow else (low, gain)
    return offset_of(gain), gain


def input_statistics(tensor: Any, fields: np.ndarray) -> InputStatistics:
    """Of one input of a Keras model.

    Args:
        fields: some of mean 0 and variance 1, as they will be drawn, shaped like the input.
    """
    path, axis = list(_first_layers(tensor)), channel_axis(tensor)
    found = _guess(path, len(tensor.shape) - 1, tensor.shape[1 + axis], axis)
    kernel = next((n for n, layer in enumerate(path) if type(layer).__name__ in KERNELS), None)
    if kernel is not None and kernel + 1 < len(path):
        found = _in_front_of_kernel(path[kernel], path[kernel + 1], found, fields)
    for layer in reversed(path[:kernel]):
        found = _in_front_of(layer, found)
    return found


def channel_axis(tensor: Any) -> int:
    """The axis of an input's channels, without the batch: the last, unless its first layers say otherwise."""
    rank = len(tensor.shape) - 1
    formats = [getattr(layer, "data_format", None) for layer in _first_layers(tensor)]
    return 0 if rank > 1 and "channels_first" in formats else rank - 1


def _first_layers(tensor: Any) -> Iterator[Any]:
    """The layers that an input goes through one after the other.

    The first kernel is the last of them, except a BatchNormalization right behind it.
    """
    while len(following := consumers_of(tensor)) == 1:
        ((layer, tensor),) = following
        kind = type(layer).__name__
        if kind in KERNELS:
            yield layer
            behind = [after for after, _ in consumers_of(tensor)]
            if [type(after).__name__ for after in behind] == ["BatchNormalization"]:
                yield behind[0]
        if kind not in PASSING and kind not in _SAYING:
            return
        yield layer


def _guess(path: Sequence[Any], rank: int, channels: int | None, axis: int) -> InputStatistics:
    """What is usual in front of the first kernel."""
    scaled = [layer for layer in path if type(layer).__name__ == "Rescaling"]
    offset = np.asarray(scaled[-1].offset, np.float64) if scaled else np.zeros(())
    normal = InputStatistics(np.array(0.0), np.array(1.0), channels=axis)
    if rank != 3 or channels not in IMAGE_CHANNELS or offset.ndim:
        return normal
    if offset == -1:
        return InputStatistics(np.array(-0.2), np.array(0.72), -1.0, 1.0, axis)
    return InputStatistics(np.array(0.4), np.array(0.36), 0.0, 1.0, axis) if offset == 0 else normal


def _in_front_of(layer: Any, found: InputStatistics) -> InputStatistics:
    """What goes into a layer, if this comes out of it."""
    saying = _SAYING.get(type(layer).__name__)
    if saying is None:
        return found
    if saying == ("scale", "offset"):
        return found.before(*(np.asarray(getattr(layer, name), np.float64) for name in saying))
    mean, variance = (_per_channel(getattr(layer, name)) for name in saying)
    return InputStatistics(mean, np.sqrt(variance), channels=found.channels)


_SAYING = {
    "Rescaling": ("scale", "offset"),
    "Normalization": ("mean", "variance"),
    "BatchNormalization": ("moving_mean", "moving_variance"),
}
"""Layers that tell something of what goes into them, and by which attributes."""


def _per_channel(given: Any) -> np.ndarray:
    """Of the layer's own shape, (1, …, channels), the channels; () for one number."""
    values = np.asarray(given, np.float64)
    return values.reshape(-1) if values.size > 1 else values.reshape(())


def _in_front_of_kernel(
    layer: Any, norm: Any, found: InputStatistics, fields: np.ndarray
) -> InputStatistics:
    """Mean and spread of what gives a kernel's outputs the mean and variance that were seen behind it."""
    width = fields.shape[1 + found.channels]
    seen, variance = (
        np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance)
    )

    def given(values: np.ndarray) -> np.ndarray:
        """What the kernel makes of inputs, float64 (samples, places, units)."""
        made = np.moveaxis(np.asarray(layer(values), np.float64), 1 + found.channels, -1)
        return made.reshape(len(values), -1, len(variance))

    # Of an input of ones in one channel; with zeros at the border, where the layer pads.
    ones = np.zeros((1 + width, *fields.shape[1:]), np.float32)
    for channel in range(width):
        ones[1 + channel].swapaxes(found.channels, 0)[channel] = 1.0
    means = given(ones).mean(axis=1)
    sums, seen = means[1:] - means[0], seen - means[0]
    mean = _mean_of(sums / np.sqrt(variance), seen / np.sqrt(variance), found.mean)
    found = _in_its_range(replace(found, mean=mean))
    level = np.moveaxis(np.zeros((1, *fields.shape[1:]), np.float32), 1 + found.channels, -1) + mean
    borders = given(np.moveaxis(level, -1, 1 + found.channels)).var(axis=(0, 1))
    for _ in range(3):  # what is clipped does not spread in proportion
        own = given(found.values(fields)).var(axis=(0, 1))
        ratio = np.maximum(variance - borders, 1e-6 * variance) / np.maximum(own - borders, 1e-12)
        found = _in_its_range(replace(found, spread=found.spread * np.sqrt(np.median(ratio))))
    return found


def _mean_of(sums: np.ndarray, seen: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """The m (channels,) with m @ sums nearest to `seen`; where that leaves it open, near the guess."""
    gram = sums @ sums.T
    ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)) + 1e-12 * np.eye(len(gram))
    start = np.broadcast_to(guess, len(gram))
    return np.asarray(start + np.linalg.solve(gram + ridge, sums @ (seen - start @ sums)))


def _in_its_range(found: InputStatistics) -> InputStatistics:
    """The same with the range dropped, if no values in it have this mean and spread."""
    if not np.isfinite(found.high):
        return found
    room = (found.mean - found.low) * (found.high - found.mean)
    if (found.mean > found.low).all() and (found.spread**2 < 0.98 * room).all():
        return found
    # Near the ends the estimate may have gone a little too far.
    size = found.high - found.low
    if (found.mean > found.low - 0.1 * size).all() and (found.mean < found.high + 0.1 * size).all():
        mean = np.clip(found.mean, found.low + 0.02 * size, found.high - 0.02 * size)
        most = np.sqrt(0.9 * (mean - found.low) * (found.high - mean))
        if (found.spread < 1.5 * most).all():
            return replace(found, mean=mean, spread=np.minimum(found.spread, most))
    return replace(found, low=-np.inf, high=np.inf)
