"""What puts tensors together, and what takes them apart again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kprune.labels.labels import Axis, Factors, Labels, fold, require_room
from kprune.labels.sizes import Number
from kprune.rules.effects.movement import taken
from kprune.rules.shapes import replaced
from kprune.tracing.rule_call import RuleCall


def join(call: RuleCall, xs: list[Labels], axis: int) -> Labels:
    """The labels of a concatenation.

    Args:
        xs: tensors of one rank.
        axis: along which they are put.
    """
    shapes = [call.shape(x) for x in xs]
    rank = len(shapes[0])
    axis %= rank
    sizes = [shape[axis] for shape in shapes]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    along = [x.axis(axis) for x in xs]
    shape = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    if any(len(one.factors) > 1 or not one.plain for one in along):
        return _join_wide(call, xs, axis, shape)
    elsewhere = [x.without(axis) if x.varies(axis) else x for x in xs]
    kept: Factors = ()
    if any(x.factors for x in elsewhere):
        # What stands along the other axes must agree in every part.
        kept = call.combine(
            [x.with_shape(replaced(call.shape(x), [axis], [1])) for x in elsewhere]
        ).factors
    joined = Labels(shape, kept)
    if total is None or not any(one.factors for one in along):
        for one in along:
            call.freeze(one, f"are joined by {call.layer.path!r} along an axis of unknown size")
        return joined
    require_room(total)
    own = Labels(shape).with_axis(axis, Axis.of(np.concatenate([one.ids for one in along])))
    return Labels(shape, (*own.factors, *kept), all(x.keeps_zero for x in xs))


def _join_wide(
    call: RuleCall, xs: list[Labels], axis: int, shape: tuple[int | None, ...]
) -> Labels:
    """Parts whose units stand along several axes at once: joined as whole arrays, one factor each."""
    if any(len(x.factors) > 1 for x in xs) or any(size is None for size in shape[1:]):
        for x in xs:
            call.freeze(x, f"are joined by {call.layer.path!r} along two axes at once")
        return Labels(shape)
    require_room(*(size or 1 for size in shape))
    parts = []
    for x in xs:
        factor = x.factors[0] if x.factors else np.zeros((1,) * len(shape), np.int64)
        parts.append(x.spread(factor))
    return Labels(shape, (fold(np.concatenate(parts, axis)),), all(x.keeps_zero for x in xs))


def stacked(call: RuleCall, xs: Sequence[Labels], axis: int) -> Labels:
    """One tensor behind the other along a new axis of the result; what meets is tied."""
    together = call.combine(xs)
    shape = call.shape(together)
    axis %= len(shape) + 1
    return together.move(lambda f: np.expand_dims(f, axis), (*shape[:axis], len(xs), *shape[axis:]))


def unstacked(call: RuleCall, x: Labels, axis: int) -> Labels:
    """Any of the tensors that stand along an axis."""
    x = call.keep_axes_whole(x, [axis], f"are taken apart by {call.layer.path!r}")
    shape = call.shape(x)
    return x.move(lambda f: f.take(0, axis), (*shape[:axis], *shape[axis + 1 :]))


def runs(call: RuleCall, x: Labels, axis: int, sizes: Sequence[int]) -> list[Labels]:
    """An axis taken apart in runs of these sizes."""
    shape, ends = call.shape(x), np.cumsum(sizes)
    return [
        taken(x, range(end - size, end), axis, replaced(shape, [axis], [size]))
        for size, end in zip(sizes, ends.tolist(), strict=True)
    ]


def sized_runs(
    call: RuleCall, x: Labels, axis: int, sizes: Sequence[int], numbers: Sequence[Number]
) -> list[Labels]:
    """The same, where each size is a number that follows."""
    parts = runs(call, x, axis, sizes)
    if x.varies(axis):
        for part, number in zip(parts, numbers, strict=True):
            call.demand(number, part.axis(axis))
            call.size_left(part.axis(axis))
    return parts
