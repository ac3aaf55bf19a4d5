"""What picks positions: slices, blocks, single positions and look-ups; numbers that say which follow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from kprune.labels.labels import Labels, Shape
from kprune.labels.sizes import Number
from kprune.tracing.rule_call import RuleCall


def indexed(x: Labels, index: Sequence[int | slice | None], shape: Shape) -> Labels:
    """x[index], with an entry for each axis and each new one."""

    def take(factor: np.ndarray) -> np.ndarray:
        own: list[Any] = []
        axis = 0
        for part in index:
            if part is not None:
                if factor.shape[axis] == 1:
                    part = slice(None) if isinstance(part, slice) else 0
                axis += 1
            own.append(part)
        return factor[tuple(own)]

    return x.move(take, shape)


def picked(call: RuleCall, x: Labels, axis: int, number: Number, place: int) -> None:
    """One position of an axis is taken by its number: it must stay, and what stands before it moves it."""
    along = x.axis(axis)
    if not along.factors or along.size is None:
        return
    at = place % along.size
    for factor in along.factors:
        call.freeze(factor[:, at], f"are picked out by number in {call.layer.path!r}")
    if place != -1:  # that is the last one, whatever goes
        call.demand(number, along, partial(_left_of, at))


def cut(
    call: RuleCall, x: Labels, axis: int, part: slice, begin: Number | None, end: Number | None
) -> Labels:
    """x[…, part, …] along an axis: where it begins and ends follows.

    Args:
        part: the slice; `begin` and `end` are the numbers that say its bounds, if it has them.
    Returns: what is sliced; held along the axis if the numbers cannot follow.
    """
    along = x.axis(axis)
    if not along.factors or along.size is None:
        return x
    if part.step not in (None, 1):
        if part.step == -1 and part.start is None and part.stop is None:
            return x
        return call.keep_axes_whole(x, [axis], f"are taken in steps by {call.layer.path!r}")
    start, stop, _ = part.indices(along.size)
    for number, place in ((begin, start), (end, stop)):
        if number is not None:
            call.demand(number, along, partial(_left_of, place))
    call.size_left(along.take(range(start, stop)))
    return x


def block(
    call: RuleCall, x: Labels, axis: int, start: int, stop: int, begin: Number, length: Number
) -> None:
    """Positions start … stop - 1 of an axis: where they begin and how many they are follows.

    Args:
        begin, length: the numbers that say so; a length of -1 is all that is left.
    """
    along = x.axis(axis)
    if not along.factors:
        return
    call.demand(begin, along, partial(_left_of, start))
    part = along.take(range(start, stop))
    call.demand(length, part)
    call.size_left(part)


def looked_up(x: Labels, axis: int, sizes: Shape, *, depth: int = 1) -> Labels:
    """The positions of `depth` axes in a row replaced by others, for which nothing may vary along them.

    Args:
        sizes: of the tensor of indices, whose axes stand in their place.
    """
    shape, extents = x.shape or (), [1] * len(sizes)
    return x.move(
        lambda f: f.reshape(*f.shape[:axis], *extents, *f.shape[axis + depth :]),
        (*shape[:axis], *sizes, *shape[axis + depth :]),
    )


def _left_of(place: int, alive: np.ndarray) -> int:
    """How many of the positions before one are left."""
    return int(alive[:place].sum())
