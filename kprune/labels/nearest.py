"""From a choice that would not leave a block, or would leave uneven runs, to the nearest one that works."""

from __future__ import annotations

import numpy as np

from kprune.errors import CannotPruneError, NotARectangleError
from kprune.labels.closure import Closure, check, close, unbalanced
from kprune.labels.map import Blocks
from kprune.sets import distinct

ROUNDS = 16


def completed(closure: Closure, *, allow_output_change: bool = False) -> Closure | None:
    """The choice with as few additional units as possible, or None if there is none.

    Units that stand along several axes at once are completed to whole rows of the longest axis;
    groups that would be uneven lose the same positions as the one that loses most, and a group that
    loses all its outputs loses its inputs.

    Args:
        closure: a choice that was refused for either reason.
    """
    groups = closure.groups
    for _ in range(ROUNDS):
        try:
            check(closure, allow_output_change=allow_output_change)
            return closure
        except NotARectangleError:
            more = _rows(closure)
        except CannotPruneError:
            more = _evened(closure)
        more = more[groups.owner[more] >= 0]
        if not more.size:
            return None
        closure = close(groups, _by_address(closure, more))
    return None


def _by_address(closure: Closure, more: np.ndarray) -> dict[str, np.ndarray]:
    """The chosen units with some more labels."""
    chosen = dict(closure.chosen)
    for address, axis in closure.groups.map.axes.items():
        added = np.flatnonzero(np.isin(axis.ids, more) & ~closure.gone[axis.ids])
        if added.size:
            chosen[address] = distinct(chosen.get(address, np.zeros(0, np.int64)), added)
    return chosen


def _rows(closure: Closure) -> np.ndarray:
    """Labels that complete what goes to whole rows, in every tensor with units along several axes."""
    found = [np.zeros(0, np.int64)]
    tensors = (labels for part in closure.groups.map.whole() for labels in part.tensors.values())
    for labels in tensors:
        for factor in labels.factors:
            wide = [axis for axis, extent in enumerate(factor.shape) if extent > 1]
            if len(wide) < 2:
                continue
            rows = np.moveaxis(factor, max(wide, key=lambda axis: factor.shape[axis]), 0)
            rows = rows.reshape(len(rows), -1)
            found.append(rows[closure.gone[rows].any(axis=1)].ravel())
    return np.concatenate(found)


def _evened(closure: Closure) -> np.ndarray:
    """Labels that even out the first runs that are not."""
    for blocks in (blocks for part in closure.groups.map.whole() for blocks in part.blocks):
        if unbalanced(blocks, closure.gone):
            return _even(blocks, closure.gone)
    return np.zeros(0, np.int64)


def _even(blocks: Blocks, gone: np.ndarray) -> np.ndarray:
    dead = [gone[side] for side in blocks.sides]
    empty = np.any([side.all(axis=1) for side in dead], axis=0)
    if empty.all():
        return np.zeros(0, np.int64)
    # A run that is empty on one side goes as a whole; the others lose what any of them loses.
    found = [side[empty].ravel() for side in blocks.sides]
    for side, lost in zip(blocks.sides, dead, strict=True):
        counts = lost[~empty].sum(axis=1)
        most = lost[~empty][counts.argmax()]
        for row, own in zip(side[~empty], lost[~empty], strict=True):
            missing = int(counts.max()) - int(own.sum())
            wanted = np.flatnonzero(most & ~own)[:missing]
            found.append(row[wanted])
    return np.concatenate(found)
