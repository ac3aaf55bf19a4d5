"""Inputs made without data: Gaussian noise that is smooth along the axes of space and time.

Images, spectrograms and other sequences are made of long waves and of short ones, and neighbours are
alike. White noise is not: what it gives behind the first layers has nothing to do with what data give.
Fields that are smooth, of a length that is drawn anew for each sample, come near enough to fit weights
on. Their mean, spread and range are what the model's first layers were trained on, as far as those tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError
from kprune.running.input_statistics import channel_axis, input_statistics
from kprune.running.inputs import (
    dtype_of,
    fixed_batch,
    in_whole_batches,
    is_of_tokens,
    operation_of,
    sizes_of,
    structure,
)
from kprune.runtime.keras_import import import_keras
from kprune.text import clean

AT_ONCE = 64  # samples that are drawn together, so that the noise of all is never held
SHORTEST = 0.5  # smoothing length, in positions


@dataclass(frozen=True)
class Fields:
    """How fields are drawn.

    Attributes:
        longest: the longest smoothing length, as a share of an axis; the shortest is half a position.
            Between them it is drawn for each sample and axis, evenly on a scale of logarithms.
        octaves: how many fields make a sample, each half as long as the one before.
        roughness: how strong each octave is, relative to the one before.
        drift: the share of the variance that all positions of a sample have in common.
        shared: the share of the rest that the channels of a position have in common.
    """

    longest: float = 0.4
    octaves: int = 1
    roughness: float = 0.5
    drift: float = 0.1
    shared: float = 0.7


DEFAULT = Fields()


def field_inputs(model: Any, samples: int, seed: int, fields: Fields = DEFAULT) -> Any:
    """Arrays in the structure of a Keras model's inputs, the same for the same seed.

    Raises: CannotPruneError for a model that takes anything but numbers on a scale.
    """
    tree = import_keras().tree
    fixed = fixed_batch(model)
    count = in_whole_batches(max(samples, fixed or 1), fixed)
    wanted = structure(model)
    for tensor in tree.flatten(wanted):
        _refuse_what_is_no_scale(tensor)
    rng = np.random.default_rng(seed)
    return tree.map_structure(lambda tensor: _drawn(rng, count, tensor, fields), wanted)


def _refuse_what_is_no_scale(tensor: Any) -> None:
    dtype, tokens = dtype_of(tensor), is_of_tokens(tensor)
    if dtype.startswith(("float", "bfloat")) and not tokens:
        return
    what = "tokens" if tokens else {"string": "texts", "bool": "booleans"}.get(dtype, "integers")
    name = clean(operation_of(tensor._keras_history).name)
    raise CannotPruneError(
        f"no inputs can be made up for '{name}'",
        why=f"it takes {what}, and noise is like none that the model was trained on",
        do="give inputs with --data FILE.npz; they need no labels",
    )


def _drawn(rng: np.random.Generator, count: int, tensor: Any, fields: Fields) -> np.ndarray:
    """Values for one input, float32 or as wide as it takes."""
    sizes, channels = sizes_of(tensor.shape[1:]), channel_axis(tensor)
    statistics = input_statistics(tensor, unit_fields(rng, AT_ONCE, sizes, channels, fields))
    parts = [
        statistics.values(unit_fields(rng, min(AT_ONCE, count - start), sizes, channels, fields))
        for start in range(0, count, AT_ONCE)
    ]
    return np.concatenate(parts).astype("float64" if dtype_of(tensor) == "float64" else "float32")


def unit_fields(
    rng: np.random.Generator,
    count: int,
    sizes: Sequence[int],
    channels: int,
    fields: Fields = DEFAULT,
) -> np.ndarray:
    """Fields of mean 0 and variance 1, float32 (count, *sizes); a vector's figures are independent.

    Args:
        channels: the axis along which nothing is smooth, without the batch.
    """
    axes = [axis for axis in range(len(sizes)) if axis != channels]
    if not axes:
        return rng.standard_normal((count, *sizes), np.float32)
    one = [1 if axis == channels else size for axis, size in enumerate(sizes)]
    common = _waves(rng, count, one, axes, fields)
    if sizes[channels] > 1:
        own = _waves(rng, count, sizes, axes, fields)
        common = np.sqrt(fields.shared) * common + np.sqrt(1 - fields.shared) * own
    whole = rng.standard_normal((count, *[1] * len(sizes)))
    made = np.sqrt(fields.drift) * whole + np.sqrt(1 - fields.drift) * common
    return np.asarray(made, np.float32)


def _waves(
    rng: np.random.Generator,
    count: int,
    sizes: Sequence[int],
    axes: Sequence[int],
    fields: Fields,
) -> np.ndarray:
    """The sum of some fields, each half as long as the one before, of variance 1."""
    lengths = [_lengths(rng, count, sizes[axis], fields) for axis in axes]
    strengths = fields.roughness ** np.arange(fields.octaves)
    strengths /= np.sqrt((strengths**2).sum())
    total = np.zeros((count, *sizes), np.float32)
    for octave, strength in enumerate(strengths):
        noise = rng.standard_normal((count, *sizes), np.float32)
        for axis, own in zip(axes, lengths, strict=True):
            noise = _smoothed(noise, axis + 1, own / 2**octave)
        total += np.float32(strength) * noise
    return total


def _lengths(rng: np.random.Generator, count: int, size: int, fields: Fields) -> np.ndarray:
    """float64 (count,): the smoothing length along an axis, in positions."""
    longest = max(SHORTEST, fields.longest * size)
    return np.exp(rng.uniform(np.log(SHORTEST), np.log(longest), count))


def _smoothed(noise: np.ndarray, axis: int, lengths: np.ndarray) -> np.ndarray:
    """Noise of variance 1, smoothed along one axis by a Gaussian of each sample's own length.

    The first position and the last are not neighbours.
    """
    size = noise.shape[axis]
    far = (np.arange(size)[:, None] - np.arange(size)) / lengths[:, None, None]
    kernel = np.exp(-0.5 * far**2)
    kernel /= np.sqrt((kernel**2).sum(axis=-1, keepdims=True))
    moved = np.moveaxis(noise, axis, 1)
    flat = kernel.astype(np.float32) @ moved.reshape(len(noise), size, -1)
    return np.moveaxis(flat.reshape(moved.shape), 1, axis)
