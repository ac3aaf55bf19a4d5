"""How many units of which layers: ratios, counts and thresholds, over whole groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kprune.analysis import Analysis
from kprune.errors import FrozenUnitsError, UsageError
from kprune.labels.explain import reason
from kprune.labels.groups import Groups, connected
from kprune.labels.trace import UnitAxis
from kprune.select.criteria import criterion
from kprune.select.statistics import Statistics
from kprune.text import clean


@dataclass(frozen=True)
class Choice:
    """Units by what ranks them.

    Attributes:
        criterion: the name of a criterion.
        ratio, count, threshold: exactly one: a share of each layer's units, a number of them, or
            the score below which units go.
        round_to: leave a multiple of this many units.
        min_units: leave at least this many.
        seed: for `random`.
    Raises: UsageError if not exactly one limit is given, or it makes no sense.
    """

    criterion: str
    ratio: float | None = None
    count: int | None = None
    threshold: float | None = None
    round_to: int | None = None
    min_units: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        criterion(self.criterion)
        limits = [name for name in ("ratio", "count", "threshold") if getattr(self, name) is not None]
        if len(limits) != 1:
            raise UsageError(
                f"criterion '{self.criterion}' is given {'no limit' if not limits else ' and '.join(limits)}",
                do="give one of --ratio, --count and --threshold",
            )
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(f"a ratio of {self.ratio:g}", why="it must lie between 0 and 1, both excluded")
        if self.count is not None and self.count < 1:
            raise UsageError(f"a count of {self.count}", why="it must be at least 1")

    def quota(self, scores: np.ndarray) -> int:
        """How many of these units should go, before anything is rounded."""
        if self.ratio is not None:
            return int(np.floor(self.ratio * len(scores) + 1e-9))
        if self.count is not None:
            return min(self.count, len(scores))
        assert self.threshold is not None
        return int((scores < self.threshold).sum())

    def allowed(self, units: int, wanted: int) -> int:
        """How many may go of `units`, so that what is left is round and not too few."""
        left = max(units - wanted, self.min_units or 1, 1)
        if self.round_to:
            left = -(-left // self.round_to) * self.round_to
        return max(units - left, 0)


@dataclass(frozen=True)
class Chosen:
    """What a choice came to.

    Attributes:
        units: by address, sorted int64 indices.
        skipped: by address, why nothing of a layer that was meant could be taken.
    """

    units: dict[str, np.ndarray]
    skipped: dict[str, str]


def prunable_axes(analysis: Analysis) -> list[UnitAxis]:
    """The axes of units of which something can go, inputs and outputs left out."""
    frozen = analysis.groups.frozen()
    return [
        axis
        for axis in analysis.map.axes.values()
        if axis.name != "features" and not frozen[axis.ids].all()
    ]


def choose(
    analysis: Analysis, statistics: Statistics, choice: Choice, axes: Iterable[UnitAxis], *, named: bool
) -> Chosen:
    """Choose units layer by layer, in the order of the model.

    A unit is scored by the mean over its whole group, because the group goes as a whole. What an
    earlier layer took along counts towards a later layer's share.

    Args:
        choice: what ranks them and how many.
        axes: the layers.
        named: whether the user named each of them, so that one where nothing can go is an error.
    """
    axes = list(axes)
    groups = blockwise(analysis.groups)
    scores = group_scores(analysis, groups, statistics, choice, axes)
    frozen = groups.frozen()
    gone = np.zeros(analysis.map.count, bool)
    skipped: dict[str, str] = {}
    room = _Room(analysis, choice)
    for axis in axes:
        own = scores[groups.of[axis.ids]]
        free = ~frozen[axis.ids] & ~gone[axis.ids]
        already = int(gone[axis.ids].sum())
        wanted = choice.allowed(len(axis), choice.quota(own)) - already
        if not free.any() and not already:
            skipped[axis.address] = _why_frozen(analysis, axis)
            if named:
                raise FrozenUnitsError(
                    f"no unit of '{clean(axis.address)}' can be removed",
                    why=skipped[axis.address],
                    do="leave the layer out, or use 'kprune explain' to see where its units lead",
                )
            continue
        wanted -= max(wanted, 0) % _runs(analysis, axis)
        taken = 0
        for index in _order(analysis, axis, own, free):
            label = int(axis.ids[index])
            members = groups.members(label)
            own_share = int(np.isin(members, axis.ids).sum())
            if gone[label] or taken + own_share > wanted:
                continue
            if room.take(members):
                gone[members] = True
                taken += own_share
    units = {}
    for axis in axes:
        indices = np.flatnonzero(gone[axis.ids])
        if indices.size:
            units[axis.address] = indices
    return Chosen(units, skipped)


def blockwise(groups: Groups) -> Groups:
    """Groups in which units that stand along several axes at once go by whole rows.

    What is left of such a tensor must be a block. Of its axes the longest is taken, as its rows are
    the smallest portions.
    """
    ties = []
    seen: set[int] = set()
    for labels in groups.map.tensors.values():
        for factor in labels.factors:
            wide = [axis for axis, extent in enumerate(factor.shape) if extent > 1]
            if len(wide) < 2 or id(factor) in seen:
                continue
            seen.add(id(factor))
            rows = np.moveaxis(factor, max(wide, key=lambda axis: factor.shape[axis]), 0)
            rows = rows.reshape(len(rows), -1)
            ties.append((np.broadcast_to(rows[:, :1], rows.shape).ravel(), rows.ravel()))
    if not ties:
        return groups
    a, b = (np.concatenate(side) for side in zip(*ties, strict=True))
    labels_of = connected(groups.map.count, np.concatenate([a, groups.of]), np.concatenate([b, np.arange(len(groups.of))]))
    return Groups(groups.map, labels_of)


def _runs(analysis: Analysis, axis: UnitAxis) -> int:
    """Into how many runs of equal length an axis is divided, from each of which as many must go."""
    runs = 1
    for blocks in analysis.map.blocks:
        for side in blocks.sides:
            if side.shape[1] > 1 and np.isin(side, axis.ids).any():
                runs = max(runs, len(side))
    return runs


def group_scores(
    analysis: Analysis, groups: Groups, statistics: Statistics, choice: Choice, axes: Iterable[UnitAxis]
) -> np.ndarray:
    """float64 (labels,): at a group's number, the mean of the scores of its units in the given axes.

    Units of layers that make none by weights of their own (a depthwise convolution does) count too.
    """
    score = criterion(choice.criterion)
    total = np.zeros(analysis.map.count)
    members = np.zeros(analysis.map.count)
    for axis in axes:
        of = groups.of[axis.ids]
        np.add.at(total, of, score(statistics, axis, choice.seed))
        np.add.at(members, of, 1)
    return total / np.maximum(members, 1)


def _order(analysis: Analysis, axis: UnitAxis, scores: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Free units, the lowest score first; in runs that must stay equal, the lowest of each run by turns."""
    order = np.argsort(scores, kind="stable")
    order = order[free[order]]
    for blocks in analysis.map.blocks:
        for side in blocks.sides:
            at = {int(label): run for run, row in enumerate(side) for label in row}
            runs = np.array([at.get(int(label), -1) for label in axis.ids])
            if (runs < 0).any() or side.shape[1] == 1:
                continue
            seen = np.zeros(len(side), np.int64)
            turn = np.empty(len(order), np.int64)
            for place, index in enumerate(order):
                turn[place] = seen[runs[index]]
                seen[runs[index]] += 1
            order = order[np.argsort(turn, kind="stable")]
    return order


class _Room:
    """How many units each layer still has, so that none is left with fewer than it may."""

    def __init__(self, analysis: Analysis, choice: Choice) -> None:
        self._owner = analysis.groups.owner
        self._left = np.array([len(axis) for axis in analysis.map.axes.values()], np.int64)
        self._least = max(choice.min_units or 1, 1)

    def take(self, members: np.ndarray) -> bool:
        """Take a group's units away if every layer they belong to keeps enough; whether it did."""
        owners, counts = np.unique(self._owner[members], return_counts=True)
        counts, owners = counts[owners >= 0], owners[owners >= 0]
        if (self._left[owners] - counts < self._least).any():
            return False
        self._left[owners] -= counts
        return True


def _why_frozen(analysis: Analysis, axis: UnitAxis) -> str:
    reasons = [reason(freeze) for freeze in analysis.groups.freezes_of(axis.ids)]
    return reasons[0] if reasons else "nothing is left to take"
