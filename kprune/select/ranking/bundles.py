"""Groups put together so that whatever divides them into equal runs stays even when they go.

One grouped convolution is easy to obey: the lowest unit of each run goes, by turns. Where several
divide the same units otherwise (a channel shuffle between two of them, a concatenation in front of
one, GroupNormalizations on both sides of a sum), a few units have to be found that stand equally
often in all runs of all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from kprune.labels.groups import Groups, connected

TRIES = 500  # for a bundle of which no run loses more than so many units
MOST = 6  # as many as that, for units that stand in one place of a run

Row = tuple[int, int]  # a side, and one of its runs
Kind = tuple[tuple[Row, int], ...]  # how many of a group's units stand in which runs


def in_bundles(groups: Groups, scores: np.ndarray, frozen: np.ndarray) -> tuple[Groups, np.ndarray]:
    """Groups in which those that have to go together for evenness' sake are one.

    Args:
        scores: float64 (labels,), at a group's number its score.
        frozen: bool (labels,), what cannot go.
    Returns: the groups, and bool (labels,): what cannot go, with groups that found no others to go with.
    """
    kinds = _kinds(groups)
    free = sorted((head for head in kinds if not frozen[head]), key=lambda head: scores[head])
    waiting: dict[Kind, list[int]] = {}
    for head in reversed(free):
        waiting.setdefault(kinds[head], []).append(head)  # the lowest score last
    runs = {number: len(side) for number, side in _sides(groups)}
    pairs, stuck = [], [head for head in kinds if frozen[head]]
    while any(waiting.values()):
        first = min(
            (heads[-1] for heads in waiting.values() if heads), key=lambda head: scores[head]
        )
        bundle = _bundle(first, kinds, waiting, runs, scores)
        if not bundle:
            waiting[kinds[first]].pop()
            stuck.append(first)
        pairs += [(bundle[0], other) for other in bundle[1:]]
    count = groups.map.count
    a = np.array([pair[0] for pair in pairs], np.int64)
    b = np.array([pair[1] for pair in pairs], np.int64)
    every = np.arange(count)
    made = Groups(groups.map, connected(count, np.append(a, groups.of), np.append(b, every)))
    held = np.zeros(count, bool)
    held[stuck] = True
    return made, frozen | held[groups.of]


def _sides(groups: Groups) -> Iterator[tuple[int, np.ndarray]]:
    """Sides whose runs do not go as wholes, with a number each."""
    number = 0
    for blocks in (blocks for part in groups.map.whole() for blocks in part.blocks):
        for side in blocks.sides:
            number += 1
            of = groups.of[side]
            if side.shape[1] > 1 and not (of == of[:, :1]).all():
                yield number, side


def _kinds(groups: Groups) -> dict[int, Kind]:
    """By group, how many of its units stand in which runs; groups that stand in none are left out."""
    found: dict[int, Counter[Row]] = {}
    for number, side in _sides(groups):
        for run, row in enumerate(side):
            for head in groups.of[row[row > 0]].tolist():
                found.setdefault(head, Counter())[number, run] += 1
    return {head: tuple(sorted(rows.items())) for head, rows in found.items()}


def _bundle(
    first: int,
    kinds: dict[int, Kind],
    waiting: dict[Kind, list[int]],
    runs: dict[int, int],
    scores: np.ndarray,
) -> list[int]:
    """The group and others that make it even, taken from those that wait; [] where there are none.

    Of groups that stand in the same runs the lowest goes first, and of others the one that leaves the
    least lacking. How many units a run may lose in all is raised step by step, so that small bundles
    are found first.
    """
    bundle: list[int] = []
    tries = 0

    def able(total: Counter[Row], row: Row) -> list[int]:
        found = [
            kind for kind, heads in waiting.items() if heads and any(at == row for at, _ in kind)
        ]
        left = {kind: sum(_lacking(total + Counter(dict(kind)), runs).values()) for kind in found}
        return [
            waiting[k][-1] for k in sorted(found, key=lambda k: (left[k], scores[waiting[k][-1]]))
        ]

    def filled(head: int, before: Counter[Row], most: int) -> bool:
        """Whether it can be done with this group; it and the others are in the bundle then."""
        nonlocal tries
        total = before + Counter(dict(kinds[head]))
        tries -= 1
        if tries < 0 or max(total.values()) > most:
            return False
        waiting[kinds[head]].pop()
        bundle.append(head)
        lacking = _lacking(total, runs)
        if not lacking or any(filled(other, total, most) for other in able(total, min(lacking))):
            return True
        waiting[kinds[head]].append(bundle.pop())
        return False

    alone = max(count for _, count in kinds[first])
    for most in range(alone, MOST * alone + 1):
        tries = TRIES
        if filled(first, Counter(), most):
            break
    return bundle


def _lacking(total: Counter[Row], runs: dict[int, int]) -> dict[Row, int]:
    """How many units are lacking in which runs."""
    found = {}
    for side in {row[0] for row in total}:
        most = max(total[side, run] for run in range(runs[side]))
        for run in range(runs[side]):
            if total[side, run] < most:
                found[side, run] = most - total[side, run]
    return found
