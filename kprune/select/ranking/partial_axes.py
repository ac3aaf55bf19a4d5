"""Axes that hold a part of a layer's units only: a slice, a part of a split. Something must be left of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from kprune.labels.groups import Groups
from kprune.labels.labels import Axis
from kprune.sets import distinct

Narrow = Mapping[int, Sequence[Axis]]


def narrow_axes(groups: Groups) -> Narrow:
    """The axes that could be emptied while every layer has units left, by each label that they hold."""
    axes = list(groups.map.axes.values())
    lengths = np.array([len(axis) for axis in axes], np.int64)
    found: dict[int, list[Axis]] = defaultdict(list)
    for size in (size for part in groups.map.whole() for size in part.sizes):
        ids = size.axis.all_ids()
        if ids.size and np.array_equal(ids, axes[groups.owner[ids[0]]].ids):
            continue  # nearly every one: a layer's own units
        ids = distinct(ids)
        owners, counts = np.unique(groups.owner[ids], return_counts=True)
        counts, owners = counts[owners >= 0], owners[owners >= 0]
        if counts.size and (counts < lengths[owners]).all():
            for label in ids[ids != 0]:
                found[int(label)].append(size.axis)
    return found


def emptied(narrow: Narrow, members: np.ndarray, gone: np.ndarray) -> bool:
    """Whether some of these axes would be left with nothing.

    Args:
        members: int64, the labels that go last.
        gone: bool (labels,), with these.
    """
    touched = {id(axis): axis for label in members for axis in narrow.get(int(label), ())}
    return any(bool(axis.dead(gone).all()) for axis in touched.values())
