"""Units chosen by rank, over whole groups: layer by layer, in one list, or down to a budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import ExpressionError, FrozenUnitsError, UsageError
from kprune.labels.closure import unbalanced
from kprune.labels.groups import Groups
from kprune.labels.map import UnitAxis
from kprune.labels.paths import reason
from kprune.select.ranking.budget import Budget, Measure
from kprune.select.ranking.bundles import in_bundles
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.criteria import BY_ORDER
from kprune.select.ranking.eliminated import Wanted, eliminated
from kprune.select.ranking.equal_runs import by_turns, dividing, runs_of
from kprune.select.ranking.partial_axes import emptied, narrow_axes
from kprune.select.ranking.ranks import Scores, blockwise, ranked_in_layers, score_groups
from kprune.select.ranking.statistics import Statistics
from kprune.sets import distinct
from kprune.text import clean

SPARE = 1.1
"""An order of groups is followed until so many times as much is saved as has to be: some may not be taken."""


@dataclass(frozen=True)
class Chosen:
    """What a choice came to.

    Attributes:
        units: by address, sorted int64 indices.
        skipped: by address, why nothing of a layer that was meant could be taken.
        achieved: for a budget, the size that is reached.
    """

    units: dict[str, np.ndarray]
    skipped: dict[str, str]
    achieved: float | None = None


def prunable_axes(analysis: Analysis) -> list[UnitAxis]:
    """The axes of units of which something can go, inputs and outputs left out."""
    frozen = analysis.groups.frozen()
    return [
        axis
        for axis in analysis.map.axes.values()
        if axis.name != "features" and not frozen[axis.ids].all()
    ]


def choose(
    analysis: Analysis,
    statistics: Statistics,
    choice: Choice,
    axes: Iterable[UnitAxis],
    *,
    named: bool,
    measure: Measure | None = None,
    whole: Iterable[UnitAxis] = (),
) -> Chosen:
    """Choose units by rank.

    A unit is scored by its whole group, because the group goes as a whole. Layer by layer, what an
    earlier layer took along counts towards a later layer's share.

    Args:
        choice: what ranks them and how many.
        axes: the layers.
        named: whether the user named each of them, so that one where nothing can go is an error.
        measure: what a choice costs, for a budget.
        whole: layers that stay as they are, and with them all units that are tied to theirs.
    """
    axes, whole = list(axes), list(whole)
    enough = np.inf
    if choice.target is not None and measure is not None:
        enough = measure.whole - choice.target.goal(measure.whole)
    picker = _Picker(analysis, statistics, choice, axes, named, whole, enough=enough)
    found = picker.choose(measure)
    if picker.even:
        return found
    # Several layers divide the same units otherwise: now those go together that leave all of them even.
    return _Picker(analysis, statistics, choice, axes, named, whole, bundled=True).choose(measure)


class _Picker:
    """Takes groups, the lowest score first, as long as every layer keeps what it must."""

    def __init__(
        self,
        analysis: Analysis,
        statistics: Statistics,
        choice: Choice,
        axes: list[UnitAxis],
        named: bool,
        whole: list[UnitAxis],
        *,
        bundled: bool = False,
        enough: float = np.inf,
    ) -> None:
        self.analysis, self.choice, self.bundled = analysis, choice, bundled
        self.statistics, self.named, self.enough = statistics, named, enough
        self.groups: Groups = blockwise(analysis.groups)
        self.whole = whole
        self.frozen = self.groups.frozen(held=ids_of(whole))
        self.skipped: dict[str, str] = {}
        self.axes = []
        for axis in axes:
            if self.frozen[axis.ids].all():
                self._skip(axis, named)
            else:
                self.axes.append(axis)
        self.scores = self._scored()
        self.skipped.update(self.scores.left_out)
        self.axes = [axis for axis in self.axes if axis.address not in self.scores.left_out]
        if bundled:
            self.groups, self.frozen = in_bundles(self.groups, self.scores.of, self.frozen)
            self.scores = self._scored()
        every = list(analysis.map.axes.values())
        self.narrow = narrow_axes(analysis.groups)
        self.least = np.array([choice.least(len(axis)) for axis in every], np.int64)
        self.reset()

    def choose(self, measure: Measure | None) -> Chosen:
        """Choose; `measure` is what a choice costs, for a budget."""
        choice, achieved = self.choice, None
        if choice.target is not None:
            assert measure is not None
            achieved = self.to_budget(choice.target, measure)
        elif choice.together:
            self.from_all(choice)
        else:
            self.layer_by_layer(choice)
            if self.bundled:
                self._give_back()
        return Chosen(self.units(), self.skipped, achieved)

    def _scored(self) -> Scores:
        """The scores of all groups. Those that have none for lack of knowledge stay."""
        if self.choice.criterion not in BY_ORDER:
            ranking = self.choice.ranking
            return score_groups(self.groups, self.statistics, ranking, self.axes, strict=self.named)
        found = eliminated(
            self.groups, self.statistics, self.axes, self.frozen, self._least_ordered(), self._wanted()
        )  # fmt: skip
        refused = next(iter(found.left_out), None)
        if refused is not None and (self.named or len(found.left_out) == len(self.axes)):
            raise ExpressionError(
                f"the criterion {self.choice.criterion} does not apply to '{clean(refused)}'",
                why=found.left_out[refused],
                do="leave the layer out (--exclude), or use another criterion",
            )
        self.frozen = self.frozen | found.unknown
        position = found.position
        if self.choice.normalize == "layer-rank":
            position = ranked_in_layers(self.groups, position, self.axes)
        return Scores(position, found.left_out)

    def _wanted(self) -> Wanted:
        """What the choice makes of an order. Where groups are given back, all of it is needed."""
        target, rounds = self.choice.target, self.choice.round_to or self.analysis.map.blocks
        by_layer = self.choice.normalize == "layer-rank"
        return Wanted(
            currency="parameters" if target is None else target.kind,
            weighting=self.choice.ranking.weighting,
            enough=np.inf if rounds or by_layer else SPARE * self.enough,
        )

    def _least_ordered(self) -> np.ndarray:
        """int64, for each axis of the model how many units stay, whatever the order."""
        own = {axis.address for axis in self.axes}
        axes = self.analysis.map.axes.values()
        return np.array([self.choice.staying(a, asked=a.address in own) for a in axes], np.int64)

    @property
    def even(self) -> bool:
        """Whether what is left of every layer that works on equal runs is that."""
        gone = self.groups.spread(np.flatnonzero(self.gone))
        return not any(
            unbalanced(blocks, gone) for part in self.analysis.map.whole() for blocks in part.blocks
        )

    def reset(self) -> None:
        self.gone = np.zeros(self.analysis.map.count, bool)
        self.left = np.array([len(axis) for axis in self.analysis.map.axes.values()], np.int64)

    def _skip(self, axis: UnitAxis, named: bool) -> None:
        self.skipped[axis.address] = self._why_frozen(axis)
        if named:
            raise FrozenUnitsError(
                f"no unit of '{clean(axis.address)}' can be removed",
                why=self.skipped[axis.address],
                do="leave the layer out, or use 'kprune explain' to see where its units lead",
            )

    def _why_frozen(self, axis: UnitAxis) -> str:
        freezes = self.analysis.groups.freezes_of(axis.ids)
        if freezes:
            return reason(freezes[0])
        tied = self.groups.spread(axis.ids)
        for other in self.whole:
            if tied[other.ids].any():
                return f"its units are tied to those of '{clean(other.address)}', which is excluded"
        return "nothing is left to take"

    def units(self) -> dict[str, np.ndarray]:
        found = {}
        for axis in self.axes:
            indices = np.flatnonzero(self.gone[axis.ids])
            if indices.size:
                found[axis.address] = indices
        return found

    def take(self, label: int) -> np.ndarray | None:
        """Take a group if every layer it has units in keeps enough; its labels, or None."""
        members = self.groups.members(label)
        owner = self.groups.owner[members]
        owners, counts = np.unique(owner[owner >= 0], return_counts=True)
        if (self.left[owners] - counts < self.least[owners]).any():
            return None
        self.gone[members] = True
        if self.narrow and emptied(self.narrow, members, self.gone):
            self.gone[members] = False
            return None
        self.left[owners] -= counts
        return members

    def layer_by_layer(self, choice: Choice) -> None:
        for axis in self.axes:
            own = self.scores.of[self.groups.of[axis.ids]]
            already = int(self.gone[axis.ids].sum())
            wanted = self._allowed(axis, choice.quota(axis, own)) - already
            free = ~self.frozen[axis.ids] & ~self.gone[axis.ids]
            named = np.zeros(self.analysis.map.count, bool)
            named[axis.ids] = True
            taken = 0
            for index in self._order(axis, own, free):
                if taken >= wanted:
                    break
                label = int(axis.ids[index])
                share = int(named[self.groups.members(label)].sum())
                if (
                    not self.gone[label]
                    and taken + share <= wanted
                    and self.take(label) is not None
                ):
                    taken += share

    def from_all(self, choice: Choice) -> None:
        """One list of the groups of all layers: a share, a number or a threshold of it."""
        order = self._ranked()
        if choice.threshold is not None:
            order = order[self.scores.of[order] < choice.threshold]
            wanted = len(order)
        elif choice.count is not None:
            wanted = choice.count
        else:
            wanted = int(
                np.floor((choice.ratio or 0) * sum(len(axis) for axis in self.axes) + 1e-9)
            )
        self._take_ranked(order, wanted)
        self._give_back()

    def _ranked(self) -> np.ndarray:
        """One label a group, the lowest score first."""
        ids = ids_of(self.axes)
        heads = distinct(self.groups.of[ids[~self.frozen[ids]]])
        heads = heads[np.isfinite(self.scores.of[heads])]
        return heads[np.argsort(self.scores.of[heads], kind="stable")]

    def _take_ranked(self, order: np.ndarray, wanted: int) -> list[np.ndarray]:
        """Take groups in an order until so many units are gone; gives the labels of each that went."""
        named = np.zeros(self.analysis.map.count, bool)
        for axis in self.axes:
            named[axis.ids] = True
        taken: list[np.ndarray] = []
        units = 0
        for label in order:
            if units >= wanted:
                break
            members = self.take(int(label))
            if members is not None:
                taken.append(members)
                units += int(named[members].sum())
        return taken

    def _let_go(self, groups: list[np.ndarray]) -> None:
        """Have just these groups gone."""
        self.reset()
        for members in groups:
            self.gone[members] = True
        owner = self.groups.owner[self.gone]
        self.left -= np.bincount(owner[owner >= 0], minlength=len(self.left))

    def _give_back(self) -> None:
        """Give groups back until every layer is left with a multiple of `round_to`, and runs are equal."""
        if self.bundled:
            self._give_bundles_back()
            return
        for axis in self.axes:
            runs = self._runs(axis)
            round_to = self.choice.round_to or 1
            if round_to == 1 and runs == 1:
                continue
            own = self.scores.of[self.groups.of[axis.ids]]
            taken = int(self.gone[axis.ids].sum())
            wanted = self._allowed(axis, taken)
            # As many units in all may still be more of one run than of another.
            if wanted == taken and not any(
                unbalanced(blocks, self.gone) for blocks in dividing(self.analysis, axis)
            ):
                continue
            keep_gone = set()
            free = ~self.frozen[axis.ids]
            for index in self._order(axis, own, free)[:wanted]:
                keep_gone.add(int(self.groups.of[axis.ids[index]]))
            back = self.gone[axis.ids] & ~np.isin(self.groups.of[axis.ids], list(keep_gone))
            for label in axis.ids[back]:
                members = self.groups.members(int(label))
                if self.gone[label]:
                    self.gone[members] = False
                    owner = self.groups.owner[members]
                    np.add.at(self.left, owner[owner >= 0], 1)
            for group in keep_gone:
                if not self.gone[group]:
                    self.take(group)

    def _give_bundles_back(self) -> None:
        """The same where groups may have several units of a layer: the highest are given back, until all fit."""
        round_to, fit = self.choice.round_to or 1, False
        while not fit:
            fit = True
            for axis in self.axes:
                gone = axis.ids[self.gone[axis.ids]]
                if gone.size and (len(axis) - gone.size) % round_to:
                    heads = self.groups.of[gone]
                    members = self.groups.members(int(heads[self.scores.of[heads].argmax()]))
                    self.gone[members] = False
                    owner = self.groups.owner[members]
                    np.add.at(self.left, owner[owner >= 0], 1)
                    fit = False

    def _runs(self, axis: UnitAxis) -> int:
        """Into how many runs an axis is divided, from each of which as many must go."""
        return 1 if self.bundled else runs_of(self.analysis, axis)

    def _allowed(self, axis: UnitAxis, wanted: int) -> int:
        """How many units of an axis may go, so that what is left is round, even, and not too few."""
        number, runs = self.choice.allowed(len(axis), wanted), self._runs(axis)
        while number and (number % runs or (len(axis) - number) % (self.choice.round_to or 1)):
            number -= 1
        return number

    def _order(self, axis: UnitAxis, scores: np.ndarray, free: np.ndarray) -> np.ndarray:
        if self.bundled:
            order = np.argsort(scores, kind="stable")
            return order[free[order]]
        return by_turns(self.analysis, axis, scores, free)

    def to_budget(self, budget: Budget, measure: Measure) -> float:
        """Take the shortest beginning of the ranked list that meets a budget; gives the size that is reached.

        Raises: CheckError if all that can go is not enough; its text names the closest.
        """
        goal = budget.goal(measure.whole)
        if measure.whole <= goal:
            raise UsageError(
                f"the model meets the budget as it is: it has {measure.whole:,.0f} {budget.kind}",
                do="ask for fewer",
            )
        # The list is gone through once: a shorter beginning of it takes the same groups as far as it goes.
        taken = self._take_ranked(self._ranked(), len(self.gone))

        def cost(length: int) -> float:
            self._let_go(taken[:length])
            self._give_back()
            return measure(self.gone)

        low, high = 0, len(taken)
        least = cost(high)
        if least > goal:
            raise budget.out_of_reach(least, measure)
        while low < high:
            middle = (low + high) // 2
            if cost(middle) <= goal:
                high = middle
            else:
                low = middle + 1
        return cost(high)


def ids_of(axes: Iterable[UnitAxis]) -> np.ndarray:
    """int64: the labels of all units of some axes."""
    return np.concatenate([np.zeros(0, np.int64), *(axis.ids for axis in axes)])
