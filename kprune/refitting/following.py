"""What follows a kernel: a BatchNormalization that could take a constant up, a sum with other branches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.refitting.kernels import KernelKind
from kprune.refitting.pairs import Pair
from kprune.refitting.streams.steps import Key, Place, Program, Step
from kprune.refitting.streams.values import Values

HANDS_ON = frozenset(("Dropout", "Identity", "ActivityRegularization", "SpatialDropout1D",
                      "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout"))  # fmt: skip
"""Layers that give what they get when a model is not trained."""


class Behind(Struct):
    """What stands behind the output of one call, as long as nothing else reads it.

    Attributes:
        normalizations: BatchNormalization layers on the way.
        sum: the call that adds it to something; None if it ends in none.
        others: the other summands.
    """

    normalizations: list[Any] = field(default_factory=list)
    sum: Key | None = None
    others: list[Place] = field(default_factory=list)


class Following:
    """What follows each call of a program."""

    def __init__(self, program: Program) -> None:
        self.readers, self.outputs = program.readers(), frozenset(program.outputs)
        self.calls = Counter(id(step.operation) for step in program.steps)

    def behind(self, step: Step, kind: KernelKind, layer: Any) -> Behind:
        """Follow a layer's output through what treats its columns one by one, up to a sum.

        Args:
            step: the call that gives it; kind, layer: the layer with the kernel.
        """
        found, place = Behind(), step.writes[0]
        while place not in self.outputs and len(self.readers.get(place, ())) == 1:
            (reader,) = self.readers[place]
            name = type(reader.operation).__name__
            if name == "Add":
                found.sum = reader.key
                found.others = [other for other in reader.reads if other != place]
                return found
            if len(reader.reads) != 1 or len(reader.writes) != 1:
                return found
            if name == "BatchNormalization" and _by_columns(reader.operation, kind, layer):
                found.normalizations.append(reader.operation)
            elif name not in HANDS_ON and not (name == "Activation" and _linear(reader.operation)):
                return found
            place = reader.writes[0]
        return found

    def taking(self, step: Step, kind: KernelKind, layer: Any) -> Any:
        """The BatchNormalization that can take up a constant that is added to a layer's columns; None without one.

        One that is called elsewhere as well cannot, and none behind an activation, or behind what
        else a call makes of the columns.
        """
        if step.operation is not layer or not _linear(layer):
            return None
        first, *_ = [*self.behind(step, kind, layer).normalizations, None]
        return first if first is not None and self.calls[id(first)] == 1 else None


def _by_columns(normalization: Any, kind: KernelKind, layer: Any) -> bool:
    """Whether a BatchNormalization has a mean for each column of the layer in front of it."""
    rank = normalization.input_spec.ndim
    axis = kind.axis(layer, rank) if rank else None
    return axis is not None and normalization.axis % rank == axis


def _linear(layer: Any) -> bool:
    """Whether a layer has no activation, or one that changes nothing."""
    activation = getattr(layer, "activation", None)
    return activation is None or getattr(activation, "__name__", "") == "linear"


def undone(normalizations: list[Any]) -> np.ndarray:
    """What a change behind normalizations is multiplied by to be one in front of them.

    Returns: float64 (channels,) or (1,); 0 for channels of which they let little through.
    """
    factor = np.ones(1, np.float64)
    for layer in normalizations:
        variance = np.asarray(layer.moving_variance, np.float64) + layer.epsilon
        slope = (np.asarray(layer.gamma, np.float64) if layer.scale else 1.0) / np.sqrt(variance)
        strong = np.abs(slope) > 1e-3 * np.abs(slope).max()
        factor = factor * np.where(strong, 1 / np.where(strong, slope, 1.0), 0.0)
    return factor


class Branches:
    """The other branches of sums, in a model and in what is left of it.

    Args:
        was, now: what follows each call of both models.
        before, after: their tensors.
    """

    def __init__(self, was: Following, now: Following, before: Values, after: Values) -> None:
        self.was, self.now, self.before, self.after = was, now, before, after

    def others(self, pair: Pair, old: Step, step: Step) -> list[tuple[Place, Place]]:
        """Other branches of a sum behind a kernel, in both models, that do not come later."""
        if pair.consumer.kind is None:
            return []
        was = self.was.behind(old, pair.kind, pair.consumer.layer)
        now = self.now.behind(step, pair.kind, pair.left)
        if was.sum != now.sum or len(was.others) != len(now.others):
            return []
        return [
            (one, other)
            for one, other in zip(was.others, now.others, strict=True)
            if self.before.holds([one]) and self.after.holds([other])
        ]

    def lacking(
        self, pair: Pair, old: Step, step: Step, n: int, shape: tuple[int, ...]
    ) -> np.ndarray:
        """What other branches of a sum lack, in terms of the outputs of a kernel: (G, R, M), or zeros to be added.

        Args:
            old, step: the call of the kernel in both models; n: which chunk.
            shape: of the kernel's output in the original. A branch that is repeated along an axis counts as whole.
        """
        columns, total = pair.kind.columns, np.zeros((1, 1, 1))
        for one, other in self.others(pair, old, step):
            before = np.asarray(self.before.get(one, n), np.float32)
            if before.shape == shape:
                after = np.asarray(self.after.get(other, n), np.float32)
                whole = pair.columns(columns(pair.consumer.layer, before))
                total = total + (whole - columns(pair.left, after))
        factor = undone(self.now.behind(step, pair.kind, pair.left).normalizations)
        if factor.size > 1 and total.size > 1:
            factor = factor.reshape(len(total), 1, -1)
        return np.asarray(total * factor if total.any() else total, np.float32)


def measure(layer: Any, chunks: Iterable[np.ndarray]) -> None:
    """Have a BatchNormalization expect what it is given: float64 arrays."""
    total, squares, count = 0.0, 0.0, 0
    for chunk in chunks:
        x = np.moveaxis(chunk, layer.axis, -1).reshape(-1, chunk.shape[layer.axis])
        total, squares, count = total + x.sum(0), squares + (x**2).sum(0), count + len(x)
    mean = np.asarray(total / count)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(np.maximum(squares / count - mean**2, 0.0))
