"""Groups of units that may go, and which positions of an axis go with them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from msgspec import Struct

from kprune.labels.groups import Groups
from kprune.labels.labels import Axis
from kprune.labels.map import LabelMap
from kprune.sets import distinct


class Candidates(Struct, eq=False, dict=True):
    """Groups of units that may go, counted from 0 in the order of their labels.

    Attributes:
        groups: units that stay or go as one.
        heads: int64 (n,), sorted: the number of each group, its smallest label.
    """

    groups: Groups
    heads: np.ndarray

    @classmethod
    def among(cls, groups: Groups, labels: np.ndarray) -> Candidates:
        """The groups of some labels. labels: int64."""
        heads = distinct(groups.of[labels])
        return cls(groups, heads[heads != 0])

    def __len__(self) -> int:
        return len(self.heads)

    @cached_property
    def members(self) -> list[np.ndarray]:
        """For each candidate, int64: every label that goes with it."""
        return [self.groups.members(int(head)) for head in self.heads]

    @cached_property
    def _by_label(self) -> tuple[np.ndarray, np.ndarray]:
        """Candidates sorted by the labels that go with them, and where each label begins among them."""
        none = np.zeros(0, np.int64)
        sizes = [len(own) for own in self.members]
        candidates = np.repeat(np.arange(len(self), dtype=np.int64), sizes)
        labels = np.concatenate([none, *self.members])
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], np.arange(self.groups.map.count + 1))
        return candidates[order], starts

    def with_labels(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which candidates each label goes with: nearly always one, or none.

        Args:
            labels: int64 (m,).
        Returns: int64 (pairs,), the candidate, and int64 (pairs,), the index into `labels`.
        """
        candidates, starts = self._by_label
        counts = starts[labels + 1] - starts[labels]
        index = np.repeat(np.arange(len(labels)), counts)
        within = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
        return candidates[starts[labels][index] + within], index

    def with_positions(self, axis: Axis, gone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which candidates would take which positions of an axis with them, given what is gone.

        Args:
            axis: its derived labels spelled out; see `spelled_out`.
            gone: bool (labels,).
        Returns: int64 (pairs,), the candidate, and int64 (pairs,), the position; sorted by both.
        """
        size = axis.size or 0
        there = ~axis.dead(gone)
        found = [np.zeros(0, np.int64)]
        for factor in axis.factors:
            left = ~gone[factor]
            able = there & (factor != 0).all(axis=0)
            level, position = np.nonzero(left & able)
            candidate, index = self.with_labels(factor[level, position])
            pairs, counts = np.unique(candidate * size + position[index], return_counts=True)
            found.append(pairs[counts == left.sum(axis=0)[pairs % max(size, 1)]])
        pairs = distinct(*found)
        return pairs // max(size, 1), pairs % max(size, 1)


def spelled_out(axis: Axis, label_map: LabelMap) -> Axis:
    """The same axis with the units themselves in the place of derived labels, which go when all of those do."""
    return Axis(axis.size, tuple(_spelled_out(factor, label_map) for factor in axis.factors))


def _spelled_out(factor: np.ndarray, label_map: LabelMap) -> np.ndarray:
    for derived in reversed(label_map.derived):  # a later one may have earlier ones as members
        hit = np.isin(factor, derived.ids)
        if not hit.any():
            continue
        order = np.argsort(derived.ids, kind="stable")
        place = order[np.searchsorted(derived.ids[order], factor[hit])]
        # (k, n) becomes (k * m, n); a label that is not derived stands there m times.
        wide = np.repeat(factor[:, None, :], derived.members.shape[1], axis=1)
        wide.transpose(0, 2, 1)[hit] = derived.members[place]
        factor = wide.reshape(-1, factor.shape[1])
    return factor
