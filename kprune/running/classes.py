"""Labels for a model that has lost classes: as the original counts them, or as it does itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis import Analysis
from kprune.graph.model import TensorRef, leaves
from kprune.page.result import Note
from kprune.surgery.provenance import left_units


class Classes(Struct, frozen=True):
    """Which classes of an output are left, or which of its figures.

    Attributes:
        kept: int64, the original indices of those that are left, rising.
        rank: of the output, with the batch. Rows of labels have as many axes; numbers of classes one
            less, as (samples, timesteps) beside an output (samples, timesteps, classes), or a last
            one of extent 1.
    """

    kept: np.ndarray
    rank: int

    def counts(self, labels: np.ndarray) -> bool:
        """Whether labels are as the original counts them: wider rows, or higher numbers, than what is left has."""
        if self._rows(labels):
            return True
        if labels.ndim == self.rank and labels.shape[-1] == len(self.kept) > 1:  # rows for these
            return False
        return bool(labels.dtype.kind in "iu" and labels.size and labels.max() >= len(self.kept))

    def known(self, labels: np.ndarray) -> np.ndarray:
        """bool (samples,): the samples whose classes are all left; for labels as the original counts them."""
        if self._rows(labels):
            if not one_of_each(labels):  # figures of their own each, not one class of all
                return np.ones(len(labels), bool)
            labels = labels.argmax(axis=-1)
        found: np.ndarray = np.isin(labels, self.kept).reshape(len(labels), -1)
        return np.asarray(found.all(axis=1))

    def renumbered(self, labels: np.ndarray) -> np.ndarray:
        """Labels of known samples as the original counts them, as the model does that is left."""
        if self._rows(labels):
            return labels[..., self.kept]
        return np.searchsorted(self.kept, labels).astype(labels.dtype)

    def _rows(self, labels: np.ndarray) -> bool:
        widest = max(len(self.kept), int(self.kept[-1]), 1)
        return labels.ndim == self.rank and labels.shape[-1] > widest


def one_of_each(labels: np.ndarray) -> bool:
    """Whether labels are rows that choose one, or share out one whole."""
    return bool((labels >= 0).all() and np.allclose(labels.sum(axis=-1), 1, atol=1e-3))


def classes_left(analysis: Analysis, names: list[str]) -> dict[str, Classes]:
    """By output, which of its units are left, where a file says that it lost some.

    Args:
        names: of the outputs, in their order.
    """
    units = left_units(analysis.metadata)
    refs = [leaf for leaf in leaves(analysis.model.outputs) if isinstance(leaf, TensorRef)]
    found = {}
    for name, ref in zip(names, refs, strict=False):
        labels = analysis.map.tensors.get((analysis.model.path, *ref.key))
        if labels is None or labels.shape is None or not labels.last.plain:
            continue
        for address, kept in units.items():
            axis = analysis.map.axes.get(address)
            if axis is not None and np.array_equal(axis.ids, labels.last.ids):
                found[name] = Classes(np.asarray(kept, np.int64), labels.rank)
    return found


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
