"""A random choice of units that can go together: whole groups, as kprune sees them."""

from __future__ import annotations

import os

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError
from kprune.labels.closure import check, close
from kprune.opened import analyse, open_model

Units = dict[str, np.ndarray]


def choose(path: str | os.PathLike[str], share: float, seed: int, *, mixed: bool = False) -> Units:
    """Units of a share of all groups that may go, by address.

    One unit of each group is named, the rest has to follow. What would take a layer's last unit, or
    leave no block, is left out: choices are halved until every part is let pass.

    Args:
        mixed: whether units over which a statistic is taken may be chosen.
    """
    with open_model(path) as source:
        analysis = analyse(source)
    groups = analysis.groups
    held = groups.frozen() if mixed else groups.frozen() | groups.mixed()
    rng = np.random.default_rng(seed)
    candidates = [
        (address, index)
        for address, axis in analysis.map.axes.items()
        for index in np.flatnonzero(~held[axis.ids])
        if groups.of[axis.ids[index]] == axis.ids[index]
        or not _named_earlier(analysis, axis.ids[index])
    ]
    order = rng.permutation(len(candidates))[: round(share * len(candidates))]
    chosen: list[tuple[str, int]] = []
    _take(analysis, [candidates[i] for i in order], chosen)
    return _units(chosen)


def _named_earlier(analysis: Analysis, label: int) -> bool:
    """Whether the group's first unit can be named by users, and so was met before."""
    return bool(analysis.groups.owner[analysis.groups.of[label]] >= 0)


def _take(analysis: Analysis, more: list[tuple[str, int]], chosen: list[tuple[str, int]]) -> None:
    if not more:
        return
    try:
        check(close(analysis.groups, _units([*chosen, *more])))
    except CannotPruneError:
        if len(more) > 1:
            half = len(more) // 2
            _take(analysis, more[:half], chosen)
            _take(analysis, more[half:], chosen)
        return
    chosen.extend(more)


def _units(pairs: list[tuple[str, int]]) -> Units:
    units: dict[str, list[int]] = {}
    for address, index in pairs:
        units.setdefault(address, []).append(int(index))
    return {address: np.unique(indices) for address, indices in units.items()}
