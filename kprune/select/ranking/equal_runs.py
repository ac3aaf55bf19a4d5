"""Layers whose units are divided into runs of equal length, from each of which as many must go."""

from __future__ import annotations

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.labels.map import Blocks, UnitAxis


def runs_of(analysis: Analysis, axis: UnitAxis) -> int:
    """Into how many runs of equal length an axis is divided, from each of which as many must go."""
    return max((len(blocks.sides[0]) for blocks in dividing(analysis, axis)), default=1)


def dividing(analysis: Analysis, axis: UnitAxis) -> list[Blocks]:
    """What divides an axis into runs of more than one unit."""
    return [
        blocks
        for blocks in analysis.map.blocks
        if any(side.shape[1] > 1 and np.isin(side, axis.ids).any() for side in blocks.sides)
    ]


def by_turns(
    analysis: Analysis, axis: UnitAxis, scores: np.ndarray, free: np.ndarray
) -> np.ndarray:
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
