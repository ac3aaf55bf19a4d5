"""The order in which groups of units go: always the one that costs least for what it saves.

What a group costs is the error that is left once the weights that read it are refitted, summed over
all of them (see `linear_part`). What it saves is what the model is smaller by, at the sizes of the
moment. Both are followed exactly from one group to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from kprune.refitting.ordering.candidates import Candidates
from kprune.refitting.ordering.covariances import Observation, Read
from kprune.refitting.ordering.linear_part import LinearPart, parts_of
from kprune.refitting.ordering.savings import Savings
from kprune.types import Progress

RIDGE, RIDGE_OF_FEW, FEW = 1e-3, 1e-2, 100
"""The ridge, and the one for fewer than so many inputs."""
BITS = 33
"""Costs are compared by so many binary digits, 10 decimal ones: the rest hangs on how sums are rounded."""


class Limits(Struct, frozen=True):
    """How much may go.

    Attributes:
        owner: int64 (labels,), for each label the number of its axis of units; -1 for none.
        left: int64 (axes,), how many units each axis has.
        least: int64 (axes,), how many must stay.
        enough: the savings at which all that follows may be ordered as things then stand.
    """

    owner: np.ndarray
    left: np.ndarray
    least: np.ndarray
    enough: float = np.inf


class Order(Struct, frozen=True):
    """An order of candidates.

    Attributes:
        position: int64 (candidates,), from 0.
        cost: float64 (candidates,), of each when it went.
        saved: float64 (candidates,), what it saved.
    """

    position: np.ndarray
    cost: np.ndarray
    saved: np.ndarray


def ridge_for(inputs: int) -> float:
    """The ridge for covariances of so many inputs."""
    return RIDGE if inputs >= FEW else RIDGE_OF_FEW


def eliminate(
    observations: Iterable[Observation],
    read: Read,
    candidates: Candidates,
    savings: Savings,
    limits: Limits,
    *,
    ridge: float = RIDGE,
    progress: Progress | None = None,
) -> Order:
    """Order candidates, those first whose going costs least for what it saves.

    Those that the limits hold back come last, as things stand at the end.

    Args:
        read: gives the tensors of the model.
        ridge: the share of each input's variance that is added to it; see `ridge_for`.
        progress: called with (candidates that have their place, all).
    """
    gone = np.zeros(candidates.groups.map.count, bool)
    parts = [
        part
        for observation in observations
        for part in parts_of(observation, read, candidates, gone, ridge=ridge)
    ]
    return _Elimination(parts, candidates, savings, limits, gone).run(progress)


class _Elimination:
    """Removes one candidate after the other.

    `_ratio` holds what decides, inf for candidates that cannot go.
    """

    def __init__(
        self,
        parts: Sequence[LinearPart],
        candidates: Candidates,
        savings: Savings,
        limits: Limits,
        gone: np.ndarray,
    ) -> None:
        self._parts, self._candidates, self._savings = parts, candidates, savings
        self._costs = _Costs(parts, len(candidates))
        self._room = _Room(candidates, limits)
        self._gone, self._enough = gone, limits.enough
        self._reading = _readers(parts, len(gone))
        self._left = np.ones(len(candidates), bool)
        self._ratio = np.zeros(len(candidates))
        self._position = np.zeros(len(candidates), np.int64)
        self._cost, self._saved = np.zeros(len(candidates)), np.zeros(len(candidates))
        self._compare(np.arange(len(candidates)))

    def run(self, progress: Progress | None) -> Order:
        saved = 0.0
        number = 0
        while saved < self._enough and self._left.any():
            best = int(np.argmin(self._ratio))
            if not np.isfinite(self._ratio[best]):
                break
            saved += self._take(best, number)
            number += 1
            if progress is not None:
                progress(number, len(self._left))
        rest = np.flatnonzero(self._left)
        cost, saving = self._costs.total[rest], self._savings.of[rest]
        order = np.lexsort((rounded(_per(cost, saving)), self._room.full[rest]))
        self._position[rest[order]] = number + np.arange(len(rest))
        self._cost[rest], self._saved[rest] = cost, saving
        return Order(self._position, self._cost, self._saved)

    def _take(self, best: int, number: int) -> float:
        """Have a candidate go. Returns: what it saves."""
        saved = float(self._savings.of[best])
        self._position[best], self._cost[best] = number, self._costs.total[best]
        self._saved[best], self._left[best], self._ratio[best] = saved, False, np.inf
        members = self._candidates.members[best]
        lost = members[~self._gone[members]]
        self._gone[lost] = True
        changed = [*self._savings.lose(best), *self._room.lose(lost)]
        for number_of_part in self._touched(lost):
            part = self._parts[number_of_part]
            part.lose(self._gone)
            self._costs.put(number_of_part, part)
            changed.append(part.candidates)
        if changed:
            self._compare(np.concatenate(changed))
        return saved

    def _touched(self, labels: np.ndarray) -> list[int]:
        """The parts in which something stands for any of these labels."""
        found: set[int] = set()
        for label in labels.tolist():
            found.update(self._reading.get(label, ()))
        return sorted(found)

    def _compare(self, candidates: np.ndarray) -> None:
        """Work out again what decides between some candidates."""
        ratio = rounded(_per(self._costs.total[candidates], self._savings.of[candidates]))
        out = ~self._left[candidates] | self._room.full[candidates]
        self._ratio[candidates] = np.where(out, np.inf, ratio)


def _per(cost: np.ndarray, saving: np.ndarray) -> np.ndarray:
    return cost / np.maximum(saving, np.finfo(float).tiny)


def rounded(values: np.ndarray) -> np.ndarray:
    """Numbers to as many digits as are compared. values: float64, finite."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(mantissa, BITS)), exponent - BITS)


def _readers(parts: Sequence[LinearPart], labels: int) -> dict[int, list[int]]:
    """By label, the parts in which something stands for it."""
    found: dict[int, list[int]] = {}
    for number, part in enumerate(parts):
        for label in part.labels[part.labels > 0].tolist():
            found.setdefault(label, []).append(number)
    return found


class _Costs:
    """What each candidate costs in each part that reads it. total: float64 (candidates,)."""

    def __init__(self, parts: Sequence[LinearPart], candidates: int) -> None:
        used = np.zeros(candidates, np.int64)
        self._slots = []
        for part in parts:
            self._slots.append(used[part.candidates])
            used[part.candidates] += 1
        self._table = np.zeros((candidates, int(used.max(initial=0))))
        self.total = np.zeros(candidates)
        for number, part in enumerate(parts):
            self.put(number, part)

    def put(self, number: int, part: LinearPart) -> None:
        """Enter the costs of a part."""
        self._table[part.candidates, self._slots[number]] = part.costs()
        self.total[part.candidates] = self._table[part.candidates].sum(axis=1)


class _Room:
    """How many units each axis can still spare. full: bool (candidates,), those that cannot go."""

    def __init__(self, candidates: Candidates, limits: Limits) -> None:
        self._owner = limits.owner
        self._spare = limits.left - limits.least
        self._on_axis = _by_axis(candidates, limits.owner, len(self._spare))
        self.full = np.zeros(len(candidates), bool)
        for axis in range(len(self._spare)):
            self._fill(axis)

    def lose(self, labels: np.ndarray) -> list[np.ndarray]:
        """Follow labels that go. Returns: candidates for which there is no room now, int64 each."""
        owner = self._owner[labels]
        axes, counts = np.unique(owner[owner >= 0], return_counts=True)
        self._spare[axes] -= counts
        return [self._fill(int(axis)) for axis in axes]

    def _fill(self, axis: int) -> np.ndarray:
        candidates, counts = self._on_axis[axis]
        out = candidates[counts > self._spare[axis]]
        self.full[out] = True
        return out


def _by_axis(
    candidates: Candidates, owner: np.ndarray, axes: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each axis of units the candidates that have any there, and how many, int64 each."""
    counted: list[tuple[list[int], list[int]]] = [([], []) for _ in range(axes)]
    for number, members in enumerate(candidates.members):
        own = owner[members]
        for axis, count in zip(*np.unique(own[own >= 0], return_counts=True), strict=True):
            counted[axis][0].append(number)
            counted[axis][1].append(int(count))
    return [(np.array(who, np.int64), np.array(many, np.int64)) for who, many in counted]
