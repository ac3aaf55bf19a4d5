"""What a model is smaller by when a group of units goes, at the sizes of the moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.labels.labels import Axis
from kprune.labels.map import Weight
from kprune.refitting.ordering.candidates import Candidates
from kprune.surgery.optimizer import find_slots


class Savings:
    """The savings of all candidates, kept up to date as they go.

    Attributes:
        of: float64 (candidates,), in the currency: `parameters`, `flops` or `bytes`.

    A position at which several labels stand (the input axis of a grouped kernel) counts in parts: each
    of k labels takes 1 / k of it.
    """

    def __init__(self, analysis: Analysis, candidates: Candidates, currency: str) -> None:
        self.of = np.zeros(len(candidates))
        self._tensors = []
        for axes, shape, price in _priced(analysis, currency):
            tensor = _Tensor.of(axes, shape, price, candidates)
            self.of[tensor.candidates] += tensor.savings()
            if len(tensor.axes) > 1:  # others are worth the same at any time
                self._tensors.append(tensor)
        self._touching: list[list[int]] = [[] for _ in range(len(candidates))]
        for number, tensor in enumerate(self._tensors):
            for candidate in tensor.candidates:
                self._touching[candidate].append(number)

    def lose(self, candidate: int) -> list[np.ndarray]:
        """Follow a candidate that goes. Returns: those whose savings are others now, int64 each."""
        changed = []
        for number in self._touching[candidate]:
            tensor = self._tensors[number]
            before = tensor.savings()
            tensor.lose(candidate)
            self.of[tensor.candidates] += tensor.savings() - before
            changed.append(tensor.candidates)
        return changed


class _Tensor(Struct):
    """One tensor.

    Attributes:
        candidates: int64 (n,), sorted: those that have positions on any of its axes.
        axes: how many of the positions of each axis that has units go with each, float64 (n,) each.
        extents: how many positions are left of each such axis, float64 (axes,).
        price: of one element, times the extents of all other axes.
    """

    candidates: np.ndarray
    axes: np.ndarray
    extents: np.ndarray
    price: float

    @classmethod
    def of(
        cls,
        axes: Iterable[Axis],
        shape: tuple[int, ...],
        price: float,
        candidates: Candidates,
    ) -> _Tensor:
        taken, extents = [], []
        for axis, size in zip(axes, shape, strict=True):
            lost = _positions(axis, candidates)
            if lost is None:
                price *= size
                continue
            taken.append(lost)
            extents.append(float(size))
        held = np.stack(taken) if taken else np.zeros((0, len(candidates)))
        present = np.flatnonzero(held.any(axis=0))
        return cls(present, held[:, present], np.array(extents), price)

    def savings(self) -> np.ndarray:
        """float64 (n,)."""
        left = (self.extents[:, None] - self.axes).clip(min=0)
        return self.price * (self.extents.prod() - left.prod(axis=0))

    def lose(self, candidate: int) -> None:
        own = int(np.searchsorted(self.candidates, candidate))
        self.extents = (self.extents - self.axes[:, own]).clip(min=0)
        self.axes[:, own] = 0


def _positions(axis: Axis, candidates: Candidates) -> np.ndarray | None:
    """How many positions of an axis go with each candidate, float64 (candidates,); None for none of any."""
    total = np.zeros(len(candidates))
    for factor in axis.factors:
        candidate, _ = candidates.with_labels(factor.ravel())
        total += np.bincount(candidate, minlength=len(candidates)) / len(factor)
    return total if total.any() else None


def _priced(
    analysis: Analysis, currency: str
) -> Iterator[tuple[tuple[Axis, ...], tuple[int, ...], float]]:
    """The axes and sizes of every tensor that counts, and what one element of it does."""
    for weight in analysis.weights:
        if weight.duplicate and currency != "bytes":
            continue
        stored = analysis.tensors[weight.path]
        price = 1.0 if currency == "parameters" else weight.uses * weight.flops
        if currency == "bytes":
            price = _bytes(stored)
        yield _axes(weight), tuple(stored.shape), price
    if currency == "bytes":
        for slot in find_slots(analysis).found:
            stored = analysis.tensors[slot.path]
            axes = tuple(_axes(slot.weight)[axis] for axis in slot.axes)
            yield axes, tuple(stored.shape), _bytes(stored)
    if currency == "parameters":
        for weight in analysis.unstored:
            if not weight.duplicate and None not in weight.shape:
                yield _axes(weight), tuple(size or 0 for size in weight.shape), 1.0


def _axes(weight: Weight) -> tuple[Axis, ...]:
    """Those of a weight; on the input axis of a grouped kernel the runs stand one over the other."""
    blocks = weight.grouped
    if blocks is None or len(blocks.sides) < 2 or weight.out is None:
        return weight.axes
    inputs = weight.out - 1
    runs = Axis(blocks.sides[0].shape[1], (blocks.sides[0],))
    return (*weight.axes[:inputs], runs, *weight.axes[inputs + 1 :])


def _bytes(stored: object) -> float:
    return float(np.dtype(getattr(stored, "dtype", np.float32)).itemsize)
