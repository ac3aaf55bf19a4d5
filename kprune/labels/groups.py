"""Ties, solved: the group of every unit, and what is known of whole groups."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from msgspec import Struct

from kprune.labels.map import TOKENS, Freeze, LabelMap

FREEZES = ("input", "output", TOKENS, "rule")
"""The kinds of freezes; `FIXED` are those that --allow-output-change lets stand."""
FIXED = (TOKENS, "rule")


def connected(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each of 0 … count-1 the smallest number that it is connected to.

    Pairs are merged all at once and paths are halved until nothing moves: a few passes over the
    arrays, where scipy's connected_components would take 0.8 s to import.

    Args:
        a, b: int64 (pairs,).
    Returns: int64 (count,).
    """
    root = np.arange(count, dtype=np.int64)
    while True:
        left, right = root[a], root[b]
        apart = left != right
        if not apart.any():
            return root
        a, b, left, right = a[apart], b[apart], left[apart], right[apart]
        np.minimum.at(root, np.maximum(left, right), np.minimum(left, right))
        while True:
            above = root[root]
            if (above == root).all():
                break
            root = above


class Groups(Struct, eq=False, dict=True):
    """Units that stay or go together.

    Attributes:
        map: what tracing found.
        of: int64 (labels,), each label's group: the smallest label in it. `of[0]` is 0.
    """

    map: LabelMap
    of: np.ndarray

    @classmethod
    def solve(cls, label_map: LabelMap) -> Groups:
        nothing = np.zeros(0, np.int64)
        a = np.concatenate([nothing, *(tie.a for tie in label_map.ties)])
        b = np.concatenate([nothing, *(tie.b for tie in label_map.ties)])
        return cls(label_map, connected(label_map.count, a, b))

    @cached_property
    def owner(self) -> np.ndarray:
        """int64 (labels,): for each label the position of its axis in `map.axes`; -1 for none."""
        owner = np.full(self.map.count, -1, np.int64)
        for index, axis in enumerate(self.map.axes.values()):
            owner[axis.ids] = index
        return owner

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 (labels,): how many units that a user can name are in each label's group."""
        named = self.owner >= 0
        return np.bincount(self.of[named], minlength=self.map.count)[self.of]

    @cached_property
    def _by_group(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels sorted by group, and where each group begins among them."""
        order = np.argsort(self.of, kind="stable")
        return order, np.searchsorted(self.of[order], np.arange(self.map.count + 1))

    def members(self, label: int) -> np.ndarray:
        """int64: every label that goes with one."""
        if self.map.derived:
            return np.flatnonzero(self.spread(np.array([label])))
        order, starts = self._by_group
        group = self.of[label]
        return order[starts[group] : starts[group + 1]]

    def spread(self, ids: np.ndarray) -> np.ndarray:
        """bool (labels,): the groups of some labels, whole, and what goes when all of its units do.

        A derived label goes when all its members go; and all its members go when it goes.
        """
        gone = self._tied(ids)
        while self.map.derived:
            before = int(gone.sum())
            for derived in self.map.derived:
                whole = gone[derived.members].all(axis=1) | gone[derived.ids]
                if whole.any():
                    gone[derived.ids[whole]] = True
                    gone[derived.members[whole].ravel()] = True
            gone = self._tied(np.flatnonzero(gone))
            if int(gone.sum()) == before:
                break
        return gone

    def _tied(self, ids: np.ndarray) -> np.ndarray:
        """bool (labels,): the groups of some labels, whole."""
        hit = np.zeros(self.map.count, bool)
        hit[self.of[ids]] = True
        hit[0] = False
        gone = hit[self.of]
        gone[0] = False
        return gone

    def frozen(
        self,
        kinds: tuple[str, ...] = FREEZES,
        held: np.ndarray | None = None,
    ) -> np.ndarray:
        """bool (labels,): the labels in whose group something is frozen, or among `held` (labels).

        A derived label of which one member is frozen cannot go either; that it is frozen holds none
        of its members by itself, only the last.
        """
        ids = [freeze.ids for freeze in self.map.freezes if freeze.kind in kinds]
        if held is not None:
            ids.append(held)
        if not ids:
            return np.zeros(self.map.count, bool)
        frozen = self._tied(np.concatenate(ids))
        while self.map.derived:
            before = int(frozen.sum())
            for derived in self.map.derived:
                frozen[derived.ids[frozen[derived.members].any(axis=1)]] = True
            frozen = self._tied(np.flatnonzero(frozen))
            if int(frozen.sum()) == before:
                break
        return frozen

    def mixed(self) -> np.ndarray:
        """bool (labels,): the labels in whose group something is mixed."""
        ids = [mix.ids for mix in self.map.mixes]
        return self._tied(np.concatenate([np.zeros(0, np.int64), *ids]))

    def freezes_of(self, ids: np.ndarray) -> list[Freeze]:
        """The freezes that hold any of the groups of some labels."""
        gone = self.spread(ids)
        return [freeze for freeze in self.map.freezes if gone[freeze.ids].any()]
