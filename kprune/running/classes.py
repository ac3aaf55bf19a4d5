"""Targets for a model from which classes were removed: numbered as in the original, or as in the model itself."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.page.result import Note
from kprune.surgery.compile_config.compile_config import ignored_labels
from kprune.surgery.provenance import left_units


class Classes(Struct, frozen=True):
    """Which classes of an output are left, or which of its figures.

    Attributes:
        kept: int64, the original indices of those that are left, rising.
        rank: of the output, with the batch. Rows of targets have as many axes; numbers of classes one
            less, as (samples, timesteps) beside an output (samples, timesteps, classes), or a last
            one of extent 1.
        axis: along which the classes stand, counted from the end.
        ignored: numbers of targets that the loss or a metric ignores; no class
            that is left has them, and they stay as they are.
    """

    kept: np.ndarray
    rank: int
    axis: int = -1
    ignored: tuple[int, ...] = ()

    def counts(self, targets: np.ndarray) -> bool:
        """Whether targets count classes as the original does: rows wider, or numbers higher, than what is left."""
        if self._rows(targets):
            return True
        if (
            targets.ndim == self.rank and targets.shape[self.axis] == len(self.kept) > 1
        ):  # rows for these
            return False
        if targets.dtype.kind not in "iu":
            return False
        numbers = targets[~np.isin(targets, self.ignored)]
        return bool(numbers.size and numbers.max() >= len(self.kept))

    def known(self, targets: np.ndarray) -> np.ndarray:
        """bool (samples,): the samples whose classes are all left; for targets as the original counts them."""
        if self._rows(targets):
            if not one_of_each(
                targets, self.axis
            ):  # figures of their own each, not one class of all
                return np.ones(len(targets), bool)
            targets = targets.argmax(axis=self.axis)
        left: np.ndarray = np.isin(targets, self.kept).reshape(len(targets), -1)
        void = np.isin(targets, self.ignored).reshape(len(targets), -1)
        return np.asarray((left | void).all(axis=1) & left.any(axis=1))

    def renumbered(self, targets: np.ndarray) -> np.ndarray:
        """Targets of known samples, renumbered from the original to the model that is left."""
        if self._rows(targets):
            return targets.take(self.kept, self.axis)
        numbers = np.searchsorted(self.kept, targets).astype(targets.dtype)
        return np.where(np.isin(targets, self.ignored), targets, numbers)

    def _rows(self, targets: np.ndarray) -> bool:
        widest = max(len(self.kept), int(self.kept[-1]), 1)
        return targets.ndim == self.rank and targets.shape[self.axis] > widest


def one_of_each(targets: np.ndarray, axis: int = -1) -> bool:
    """Whether each target is a one-hot row, or a row of shares that add up to 1."""
    return bool((targets >= 0).all() and np.allclose(targets.sum(axis=axis), 1, atol=1e-3))


def classes_left(analysis: Analysis, names: list[str]) -> dict[str, Classes]:
    """By output, which of its units are left, where a file says that it lost some.

    Args:
        names: of the outputs, in their order.
    """
    units = left_units(analysis.metadata)
    ends = analysis.tensors_of(analysis.model.outputs)
    found = {}
    for number, (name, (_, labels)) in enumerate(zip(names, ends, strict=False)):
        if labels.shape is None:
            continue
        for place in range(1 - labels.rank, 0):
            along = labels.axis(labels.rank + place)
            for address, kept in units.items():
                axis = analysis.map.axes.get(address)
                if axis is None or not along.plain or not np.array_equal(axis.ids, along.ids):
                    continue
                void = ignored_numbers(analysis, number, range(len(kept)))
                found[name] = Classes(np.asarray(kept, np.int64), labels.rank, place, void)
    return found


def ignored_numbers(analysis: Analysis, output: int, classes: Container[int]) -> tuple[int, ...]:
    """The numbers that losses and metrics of an output ignore, as a file says, and that are no classes.

    Args:
        output: which one, in the model's order.
        classes: the numbers of its classes.
    """
    found = ignored_labels(analysis)
    return tuple(sorted(number for number in found[output] if number not in classes))


def fitted(
    targets: Any, classes: Mapping[str, Classes], name: str
) -> tuple[Any, np.ndarray | None, list[Note]]:
    """Labels as a model counts them that has lost classes.

    Targets that show no sign of the original's numbering are read as numbered by the model.

    Args:
        targets: an array, or a mapping from outputs to arrays.
        classes: by output, what is left.
        name: of the output, where targets are an array.
    Returns: targets of all samples, those that are known renumbered; bool (samples,) for which they
        are, None for all; and notes.
    """
    parts = dict(targets) if isinstance(targets, Mapping) else {name: targets}
    known: np.ndarray | None = None
    notes = []
    for output, own in parts.items():
        left = classes.get(output)
        if left is None:
            continue
        number = len(left.kept)
        if not left.counts(own):
            if own.dtype.kind in "iu":
                text = f"targets are read as numbers of the {number} classes that are left"
                notes.append(Note("labels", output, text))
            continue
        among = left.known(own)
        out = int((~among).sum())
        text = (
            f"targets count classes as the original does: those of the {number} classes left are "
            f"renumbered, {out:,} of {len(own):,} samples left out"
        )
        notes.append(Note("labels", output, text))
        known = among if known is None else known & among
        parts[output] = left.renumbered(own)
    return (parts if isinstance(targets, Mapping) else parts[name]), known, notes
