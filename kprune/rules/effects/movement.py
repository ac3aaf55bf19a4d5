"""What moves data: the same numpy operation, done to the labels; sizes that are written somewhere follow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape, require_room
from kprune.labels.sizes import Number
from kprune.rules.shapes import replaced
from kprune.tracing.rule_call import CannotTell, RuleCall

Counts = Sequence[int | None]


def permuted(call: RuleCall, x: Labels, order: Sequence[int]) -> Labels:
    """A transpose: for each new axis which old one stands there."""
    shape = call.shape(x)
    return x.move(lambda factor: factor.transpose(order), tuple(shape[axis] for axis in order))


def with_axes(call: RuleCall, x: Labels, axes: Sequence[int]) -> Labels:
    """New axes of size 1. axes: where they stand in the result, in order."""
    shape = call.shape(x)
    for at in axes:
        shape = (*shape[:at], 1, *shape[at:])
    return x.move(lambda factor: np.expand_dims(factor, tuple(axes)), shape)


def without_axes(call: RuleCall, x: Labels, axes: Sequence[int]) -> Labels:
    """A tensor without some axes, along which it does not vary."""
    kept = tuple(size for axis, size in enumerate(call.shape(x)) if axis not in axes)
    return x.move(lambda factor: factor.squeeze(tuple(axes)), kept)


def squeezed(call: RuleCall, x: Labels, axes: Sequence[int]) -> tuple[Labels, Labels]:
    """Axes of size 1 go. Returns: what is squeezed, with nothing labelled along these, and the result."""
    x = call.keep_axes_whole(x, axes, f"are squeezed away by {call.layer.path!r}")
    return x, without_axes(call, x, axes)


def flipped(call: RuleCall, x: Labels, axes: Sequence[int]) -> Labels:
    """Some axes turned round."""
    return x.move(lambda factor: np.flip(factor, tuple(axes)), call.shape(x))


def taken(x: Labels, positions: Sequence[int] | np.ndarray, axis: int, shape: Shape) -> Labels:
    """The labels of some positions along an axis."""
    return x.move(lambda f: f.take(positions, axis) if f.shape[axis] > 1 else f, shape)


def tiled(call: RuleCall, x: Labels, times: Counts) -> Labels:
    """The whole tensor several times over.

    Args:
        times: for each axis; None where that is known only at run time.
    """
    shape = call.shape(x)
    unknown = [axis for axis, count in enumerate(times) if count is None]
    grown = [axis for axis, n in enumerate(times) if n not in (1, None) and shape[axis] == 1]
    x = call.keep_axes_whole(x, unknown, f"are repeated by {call.layer.path!r} at run time")
    x = call.keep_axes_whole(x, grown, f"are spread by {call.layer.path!r}")
    result = tuple(
        None if size is None or count is None else size * count
        for size, count in zip(shape, times, strict=True)
    )

    def each(factor: np.ndarray) -> np.ndarray:
        pairs = zip(factor.shape, times, strict=True)
        counts = [(n or 1) if extent > 1 else 1 for extent, n in pairs]
        require_room(factor.size, *counts)
        return np.tile(factor, counts)

    return x.move(each, result)


def spread(call: RuleCall, x: Labels, target: Counts) -> Labels:
    """A tensor of this shape, of one that has size 1 (or no axis) where it is spread. None: as it is."""
    extra = len(target) - x.rank
    old = (1,) * extra + call.shape(x)
    sizes = tuple(b if a is None else a for a, b in zip(target, old, strict=True))
    wide = x.move(lambda factor: factor.reshape((1,) * extra + factor.shape), old)
    grown = [axis for axis, size in enumerate(old) if size == 1 and sizes[axis] != 1]
    wide = call.keep_axes_whole(wide, grown, f"are spread along an axis by {call.layer.path!r}")
    return wide.with_shape(sizes)


def new_shape(target: Sequence[int | None], old: Shape) -> Shape:
    """The shape that a reshape gives, whose target counts the batch.

    Args:
        target: None or -1 for a size that is worked out; at most one of them.
    """
    old = old or (1,)
    sizes = tuple(None if size == -1 else size for size in target)
    if sizes.count(None) != 1:
        return sizes
    at, rest = sizes.index(None), math.prod(size for size in sizes if size is not None)
    whole = math.prod(old[1:]) if None not in old[1:] else None  # type: ignore[arg-type]
    if at == 0 and rest == whole:
        return (old[0], *sizes[1:])
    if whole is None or not rest:
        return sizes
    if old[0] is not None and old[0] * whole % rest == 0:
        return (*sizes[:at], old[0] * whole // rest, *sizes[at + 1 :])
    return sizes


def padded(
    call: RuleCall,
    x: Labels,
    widths: Sequence[tuple[Number, Number]],
    *,
    constant: bool,
    zeros: bool,
) -> Labels:
    """Padding beside units counts as units without names; the numbers that say how much follow.

    Args:
        widths: for each axis what is filled in before and after.
        constant, zeros: whether that is one value, and whether it is 0.
    """
    pairs = [(before.value, after.value) for before, after in widths]
    result = tuple(
        None if n is None or before is None or after is None else n + before + after
        for n, (before, after) in zip(call.shape(x), pairs, strict=True)
    )
    keeps_zero = x.keeps_zero and zeros
    grown = [axis for axis, pair in enumerate(pairs) if pair != (0, 0) and x.varies(axis)]
    follows = constant and len(grown) == 1 and _can_grow(x.axis(grown[0]), widths[grown[0]])
    for axis, pair in enumerate(widths):
        if not follows or axis not in grown:
            for number in pair:
                call.use_value(number)
    if not follows:
        x = call.keep_axes_whole(x, grown, f"are padded by {call.layer.path!r}")
        return Labels(result, x.factors, keeps_zero)
    (axis,) = grown
    ends = [call.anonymous(number.value or 0) for number in widths[axis]]
    for number, ids in zip(widths[axis], ends, strict=True):
        call.demand(number, Axis.of(ids), lambda alive: int(alive.sum()))
    own = Labels(result).with_axis(
        axis, np.concatenate([ends[0], x.axis(axis).ids, ends[1]]), result
    )
    return Labels(result, (*own.factors, *x.without(axis).factors), keeps_zero)


def _can_grow(along: Axis, pair: tuple[Number, Number]) -> bool:
    """Whether positions can be filled in on both sides of units, and their numbers be rewritten."""
    return along.plain and all(
        number.at is not None and number.value is not None for number in pair
    )


def folded_blocks(call: RuleCall, x: Labels, block: int, channels: int, *, grow: bool) -> Labels:
    """Blocks of positions become channels, or the reverse: a channel goes in every position of its block.

    Args:
        block: length of its edges.
        channels: the axis of the channels; all others but the batch are spatial.
        grow: whether channels become positions.
    """
    shape = call.shape(x)
    spatial = [axis for axis in range(1, len(shape)) if axis != channels]
    x = call.keep_axes_whole(x, spatial, f"stand along an axis that {call.layer.path!r} folds")
    along, squared = x.axis(channels), block ** len(spatial)
    sizes = [
        None if size is None else size * block if grow else size // block
        for size in (shape[axis] for axis in spatial)
    ]
    width = shape[channels]
    if width is not None:
        width = width // squared if grow else width * squared
    result = replaced(shape, [*spatial, channels], [*sizes, width])
    if not along.factors or width is None:
        return x.with_shape(result)
    if not along.plain:
        raise CannotTell("is given units that stand along two axes at once")
    if grow:
        # Channel c of position (i, j) in a block comes from channel (i * block + j) * width + c.
        rows = along.ids.reshape(squared, width)
        for row in rows[1:]:
            call.tie(rows[0], row)
        ids = rows[0]
    else:
        require_room(squared, width)
        ids = np.tile(along.ids, squared)
    return Labels(result).with_axis(channels, ids, result).with_keeps_zero(x.keeps_zero)
