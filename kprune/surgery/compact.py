"""Which units can be removed without any effect: dead and constant ones, except those that a layer still needs.

The search starts with all units and keeps those that a remaining layer needs, until nothing
changes: a unit whose only readers are removed can be removed too.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.labels.branches import dead_branches
from kprune.labels.groups import Groups
from kprune.labels.map import Blocks
from kprune.labels.paths import reason
from kprune.sets import distinct
from kprune.surgery.constants.constants import Constants
from kprune.surgery.fold import missed


class Search(Struct):
    """The units that stay, and why.

    Attributes:
        stays: bool (labels,), whole groups.
        why: by group, the first reason that was found.
    """

    groups: Groups
    stays: np.ndarray
    why: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, groups: Groups) -> Search:
        found = cls(groups, np.zeros(groups.map.count, bool))
        for freeze in groups.map.freezes:
            found.keep(freeze.ids, _frozen(freeze.kind, reason(freeze)))
        found.keep(np.flatnonzero(groups.frozen()), "they are tied to units that cannot go")
        for mix in groups.map.mixes:
            found.keep(mix.ids, f"they {mix.why}")
        for call in (call for part in groups.map.whole() for call in part.traced_calls):
            # What the code of a layer makes of a constant is not followed.
            why = f"they reach the code of '{call.record.layer.path}'"
            for labels in (*call.map.tensors.values(), *call.record.held.values()):
                found.keep(labels.all_ids(), why)
        return found

    @property
    def gone(self) -> np.ndarray:
        gone = ~self.stays
        gone[0] = False
        return gone

    def keep(self, ids: np.ndarray, why: str) -> bool:
        """Say that units stay, with all that is tied to them. Returns: whether any was going."""
        ids = ids[ids != 0]
        fresh = ids[~self.stays[ids]]
        if not fresh.size:
            return False
        for group in distinct(self.groups.of[fresh]):
            self.why.setdefault(int(group), why)
        self._spread(fresh)
        return True

    def _spread(self, ids: np.ndarray) -> None:
        """A position at which several units stand stays with any of them, and holds all of them."""
        of = self.groups.of
        while ids.size:
            hit = np.zeros(len(of), bool)
            hit[of[ids]] = True
            fresh = hit[of] & ~self.stays
            fresh[0] = False
            self.stays |= fresh
            further = []
            for derived in self.groups.map.derived:
                held = self.stays[derived.ids]
                alive = self.stays[derived.members].any(axis=1)
                further += [derived.members[held].ravel(), derived.ids[alive]]
            ids = np.concatenate([np.zeros(0, np.int64), *further])
            ids = ids[(ids != 0) & ~self.stays[ids]]
            for group in distinct(of[ids]):
                self.why.setdefault(int(group), "they share positions with units that stay")

    def why_of(self, label: int) -> str:
        return self.why.get(int(self.groups.of[label]), "they are tied to units that stay")


def _frozen(kind: str, why: str) -> str:
    return {"input": "they are the model's inputs", "output": "they are the model's outputs"}.get(
        kind, why
    )


def removable(analysis: Analysis, constants: Constants, may_go: np.ndarray | None = None) -> Search:
    """The largest set of units that can be removed without any effect.

    Args:
        may_go: bool (labels,), whole groups; None for all.
    """
    search = Search.of(analysis.groups)
    if may_go is not None:
        search.keep(np.flatnonzero(~may_go), "they are not among those that may go")
    for label, why in constants.held.items():
        search.keep(np.array([label]), f"they {why}")
    while _take_back(search, constants) or _complete(search):
        pass
    return search


def _take_back(search: Search, constants: Constants) -> bool:
    """Keep what a remaining layer needs; readers come before what they read."""
    changed = False
    for site in reversed(constants.summing_kernels.values()):
        for labels, why in missed(constants, site, search.gone):
            changed |= search.keep(labels, why)
    return changed


def _complete(search: Search) -> bool:
    """Keep what every layer must have: a last unit, whole rows, runs of equal length."""
    return _last_units(search) or _whole_rows(search) or _equal_runs(search)


def _last_units(search: Search) -> bool:
    groups, gone = search.groups, search.gone
    leaving = dead_branches(groups, gone) if gone.any() else set()
    why = "no layer can lose its last unit"
    for axis in groups.map.axes.values():
        if len(axis) and axis.layer not in leaving and gone[axis.ids].all():
            return search.keep(axis.ids[:1], why)
    for size in groups.map.sizes:
        dead = size.axis.dead(gone)
        if size.layer not in leaving and dead.size and dead.all():
            return search.keep(np.concatenate([factor[:, 0] for factor in size.axis.factors]), why)
    return False


def _whole_rows(search: Search) -> bool:
    seen: set[int] = set()
    for labels in search.groups.map.tensors.values():
        for factor in labels.factors:
            if id(factor) in seen or sum(extent > 1 for extent in factor.shape) < 2:
                continue
            seen.add(id(factor))
            alive = ~search.gone[factor]
            block = np.ones((1,) * alive.ndim, bool)
            for axis in range(alive.ndim):
                others = tuple(other for other in range(alive.ndim) if other != axis)
                block = block & alive.any(axis=others, keepdims=True)
            if search.keep(
                factor[block & ~alive], "only whole rows of units that stand along two axes can go"
            ):
                return True
    return False


def _equal_runs(search: Search) -> bool:
    return any(_even_out(search, blocks) for blocks in search.groups.map.blocks)


def _even_out(search: Search, blocks: Blocks) -> bool:
    why = f"the groups of '{blocks.layer.path}' must stay equal"
    dead = [search.gone[side] for side in blocks.sides]
    whole = np.logical_and.reduce([side.all(axis=1) for side in dead])
    if whole.all():
        return search.keep(blocks.sides[0][0, :1], why)
    for side, gone in zip(blocks.sides, dead, strict=True):
        counts = gone[~whole].sum(axis=1)
        least = min(int(counts.min()), side.shape[1] - 1)
        for run, lost in zip(side[~whole], gone[~whole], strict=True):
            extra = run[np.flatnonzero(lost)[least:]]
            if search.keep(extra, why):
                return True
    return False
