"""Inputs made without data: Gaussian noise that is smooth along the axes of space and time.

Images, spectrograms and other sequences are made of long waves and of short ones, and neighbours are
alike. White noise is not: what it gives behind the first layers has nothing to do with what data give.
Fields that are smooth, of a length that is drawn anew for each sample, come near enough to fit weights
on. Their mean, spread and range are what the model's first layers were trained on, as far as those tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError
from kprune.running.divergence import Kind, kinds_of
from kprune.running.input_statistics import channel_axis, input_statistics
from kprune.running.inputs import (
    at,
    dtype_of,
    fixed_batch,
    in_whole_batches,
    is_of_tokens,
    operation_of,
    sizes_of,
    structure,
)
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import output_names, run
from kprune.text import clean

AT_ONCE = 64  # samples that are drawn together, so that the noise of all is never held
MOST = (
    30_000_000  # figures among which samples are chosen: large images are taken as they are drawn
)
BATCH = 256  # samples that are run at once
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
        candidates: for a model that tells classes, how many samples are drawn for each that is used: of
            every class those of which it is surest.
    """

    longest: float = 0.4
    octaves: int = 1
    roughness: float = 0.5
    drift: float = 0.1
    shared: float = 0.7
    candidates: int = 8


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
    size = sum(math.prod(sizes_of(tensor.shape[1:])) for tensor in tree.flatten(wanted))
    output = _class_output(model)
    pool = (
        count if output is None else count * max(1, min(fields.candidates, MOST // (count * size)))
    )
    inputs = tree.map_structure(lambda tensor: _drawn(rng, pool, tensor, fields), wanted)
    if output is None or pool == count:
        return at(inputs, slice(count))
    given = run(model, inputs, batch_size=fixed or BATCH)[output]
    return at(inputs, _surest(given, count))


def _class_output(model: Any) -> int | None:
    """Which output tells classes, by its number; None if none does."""
    kinds = kinds_of(model)
    names = output_names(model)
    classes = (Kind.CLASSES, Kind.CLASS_LOGITS)
    found = [number for number, name in enumerate(names) if kinds.get(name) in classes]
    return found[0] if found and len(model.outputs[found[0]].shape) == 2 else None


def _surest(given: np.ndarray, count: int) -> np.ndarray:
    """The samples of which a model is surest, as many of each class as there are: int64 (count,), rising.

    Noise is taken for few of the classes, and a model that is not sure shows little of what it knows.

    Args:
        given: (samples, classes), probabilities or logits.
    """
    figures = np.asarray(given, np.float64)
    classes = figures.argmax(axis=1)
    first, second = np.sort(figures, axis=1)[:, :-3:-1].T
    order = np.argsort(second - first, kind="stable")
    rank = np.zeros(len(order), np.int64)  # among those of the same class
    for number in np.unique(classes):
        own = order[classes[order] == number]
        rank[own] = np.arange(len(own))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:count])


def _refuse_what_is_no_scale(tensor: Any) -> None:
    dtype, tokens = dtype_of(tensor), is_of_tokens(tensor)
    if dtype.startswith(("float", "bfloat")) and not tokens:
        return
    what = "tokens" if tokens else {"string": "texts", "bool": "booleans"}.get(dtype, "integers")
    name = clean(operation_of(tensor._keras_history).name)
    raise CannotPruneError(
        f"no inputs can be made up for '{name}'",
        why=f"it takes {what}, and noise is like none that the model was trained on",
        do="give inputs with --data FILE.npz; they need no targets",
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
