"""What reads units and is no consumer: nothing is known of what their removal costs there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.labels.labels import Labels
from kprune.labels.map import LabelMap, Visit, Weight
from kprune.sets import distinct, without
from kprune.text import clean

_NONE = np.zeros(0, np.int64)


class Reader(Struct, frozen=True, eq=False):
    """One place where units are read.

    Attributes:
        ids: int64 (n,).
        why: the rest of a sentence that starts with the units.
    """

    ids: np.ndarray
    why: str


def read_elsewhere(analysis: Analysis, known: Collection[str]) -> Iterator[Reader]:
    """What reads units besides consumers.

    Args:
        known: paths of the weights of all consumers.
    """
    for weight in analysis.variables:
        rows = _rows(weight)
        if rows.size and weight.path not in known and not weight.duplicate:
            yield Reader(rows, f"are read by '{clean(weight.layer.path)}', which is not refitted")
        if weight.scaled is not None:
            ids = weight.axes[weight.scaled].all_ids()
            yield Reader(ids, _multiplied(weight.layer.path))
    for part in analysis.map.whole():
        refitted = _rows_of(analysis, known) if part.outer is not None else _NONE
        for visit in part.visits:
            ids = without(_summed_away(analysis, part, visit), refitted)
            if ids.size:
                yield Reader(ids, _multiplied(visit.layer.path))


def _multiplied(path: str) -> str:
    return f"are multiplied or summed by '{clean(path)}', which has nothing to refit"


def _rows(weight: Weight) -> np.ndarray:
    """The labels of what a weight reads; none for vectors, and for what works element by element."""
    if weight.grouped is not None and len(weight.grouped.sides) > 1:
        return weight.grouped.sides[0].ravel()
    if len(weight.axes) < 2 or weight.out is None:
        return _NONE
    made = (weight.out, *weight.also)
    ids = distinct(_NONE, *(axis.all_ids() for n, axis in enumerate(weight.axes) if n not in made))
    return ids[ids != 0]


def _rows_of(analysis: Analysis, paths: Collection[str]) -> np.ndarray:
    return distinct(
        _NONE, *(_rows(weight) for weight in analysis.variables if weight.path in paths)
    )


def _summed_away(analysis: Analysis, part: LabelMap, visit: Visit) -> np.ndarray:
    """The labels that a layer without weights of its own has read and does not hand on.

    A slice hands on some of those that stand along an axis; what sums them up, none.
    """
    record = part.records.get(visit.layer)
    if visit.of_model or record is None or not visit.inputs:
        return _NONE
    makes = any(weight.out is not None for own in record.whole() for weight in own.weights.values())
    if makes or record.answer in ("traced", "model", "input"):
        return _NONE
    of = analysis.groups.of  # a sum hands on the units that others are tied to
    left = of[_ids(visit.outputs, part)]
    gone = [
        ids
        for labels in visit.inputs
        for factor in labels.factors
        if not np.isin(of[ids := distinct(factor.ravel())], left).any()
    ]
    found = distinct(_NONE, *gone)
    return found[found != 0]


def _ids(tensors: list[Labels], part: LabelMap) -> np.ndarray:
    """Every label in some tensors, with the members of those that are derived."""
    ids = distinct(_NONE, *(labels.all_ids() for labels in tensors))
    for derived in reversed(part.derived):
        ids = distinct(ids, derived.members[np.isin(derived.ids, ids)].ravel())
    return ids[ids != 0]
