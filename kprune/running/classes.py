"""Labels for a model that has lost classes: as the original counts them, or as it does itself."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.graph.model import TensorRef, leaves
from kprune.page.result import Note
from kprune.surgery.compile_config.compile_config import ignored_labels
from kprune.surgery.provenance import left_units


class Classes(Struct, frozen=True):
    """Which classes of an output are left, or which of its figures.

    Attributes:
        kept: int64, the original indices of those that are left, rising.
        rank: of the output, with the batch. Rows of labels have as many axes; numbers of classes one
            less, as (samples, timesteps) beside an output (samples, timesteps, classes), or a last
            one of extent 1.
        axis: along which the classes stand, counted from the end.
        ignored: numbers that labels bear where they say nothing, by the loss or a metric; no class
            that is left has them, and they stay as they are.
    """

    kept: np.ndarray
    rank: int
    axis: int = -1
    ignored: tuple[int, ...] = ()

    def counts(self, labels: np.ndarray) -> bool:
        """Whether labels are as the original counts them: wider rows, or higher numbers, than what is left has."""
        if self._rows(labels):
            return True
        if (
            labels.ndim == self.rank and labels.shape[self.axis] == len(self.kept) > 1
        ):  # rows for these
            return False
        if labels.dtype.kind not in "iu":
            return False
        numbers = labels[~np.isin(labels, self.ignored)]
        return bool(numbers.size and numbers.max() >= len(self.kept))

    def known(self, labels: np.ndarray) -> np.ndarray:
        """bool (samples,): the samples whose classes are all left; for labels as the original counts them."""
        if self._rows(labels):
            if not one_of_each(
                labels, self.axis
            ):  # figures of their own each, not one class of all
                return np.ones(len(labels), bool)
            labels = labels.argmax(axis=self.axis)
        left: np.ndarray = np.isin(labels, self.kept).reshape(len(labels), -1)
        void = np.isin(labels, self.ignored).reshape(len(labels), -1)
        return np.asarray((left | void).all(axis=1) & left.any(axis=1))

    def renumbered(self, labels: np.ndarray) -> np.ndarray:
        """Labels of known samples as the original counts them, as the model does that is left."""
        if self._rows(labels):
            return labels.take(self.kept, self.axis)
        numbers = np.searchsorted(self.kept, labels).astype(labels.dtype)
        return np.where(np.isin(labels, self.ignored), labels, numbers)

    def _rows(self, labels: np.ndarray) -> bool:
        widest = max(len(self.kept), int(self.kept[-1]), 1)
        return labels.ndim == self.rank and labels.shape[self.axis] > widest


def one_of_each(labels: np.ndarray, axis: int = -1) -> bool:
    """Whether labels are rows that choose one, or share out one whole."""
    return bool((labels >= 0).all() and np.allclose(labels.sum(axis=axis), 1, atol=1e-3))


def classes_left(analysis: Analysis, names: list[str]) -> dict[str, Classes]:
    """By output, which of its units are left, where a file says that it lost some.

    Args:
        names: of the outputs, in their order.
    """
    units = left_units(analysis.metadata)
    refs = [leaf for leaf in leaves(analysis.model.outputs) if isinstance(leaf, TensorRef)]
    found = {}
    for number, (name, ref) in enumerate(zip(names, refs, strict=False)):
        labels = analysis.map.tensors.get((analysis.model.path, *ref.key))
        if labels is None or labels.shape is None:
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
    labels: Any, classes: Mapping[str, Classes], name: str
) -> tuple[Any, np.ndarray | None, list[Note]]:
    """Labels as a model counts them that has lost classes.

    Labels in which nothing tells that they are the original's are taken as the model's own.

    Args:
        labels: an array, or a mapping from outputs to arrays.
        classes: by output, what is left.
        name: of the output, where labels are an array.
    Returns: labels of all samples, those that are known renumbered; bool (samples,) for which they
        are, None for all; and notes.
    """
    parts = dict(labels) if isinstance(labels, Mapping) else {name: labels}
    known: np.ndarray | None = None
    notes = []
    for output, own in parts.items():
        left = classes.get(output)
        if left is None:
            continue
        number = len(left.kept)
        if not left.counts(own):
            if own.dtype.kind in "iu":
                text = f"labels are taken as numbers of the {number} classes that are left"
                notes.append(Note("labels", output, text))
            continue
        among = left.known(own)
        out = int((~among).sum())
        text = (
            f"labels are as the original counts them: those of the {number} classes left are "
            f"renumbered, {out:,} of {len(own):,} samples left out"
        )
        notes.append(Note("labels", output, text))
        known = among if known is None else known & among
        parts[output] = left.renumbered(own)
    return (parts if isinstance(labels, Mapping) else parts[name]), known, notes
