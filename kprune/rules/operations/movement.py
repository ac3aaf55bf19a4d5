"""Operations that move data: the same numpy operation, done to the labels; sizes in the config follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kprune.labels.labels import Labels, require_room
from kprune.labels.sizes import Number
from kprune.rules.effects.movement import (
    flipped,
    folded_blocks,
    new_shape,
    padded,
    permuted,
    spread,
    squeezed,
    tiled,
    with_axes,
)
from kprune.rules.operations.arguments import axes_of, one_axis, raw_argument, sizes_of
from kprune.rules.reshaping import reshaped
from kprune.rules.shapes import replaced
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


@OPERATIONS.rule("Reshape", does="passes")
def reshape(call: LayerCall) -> Labels:
    """newshape follows what is left along each axis"""
    target = [None if size is None else int(size) for size in call.argument(1, "newshape")]
    old = call.shape()
    across = call.in_traced_code and None not in old and None not in target
    if across:
        # A weight has no batch: its labels are spread out whole, and reshaped.
        before = [size or 0 for size in old]
        after = _sizes([size or 0 for size in target], math.prod(before))
        require_room(*before)
        result = call.x.move(lambda f: np.broadcast_to(f, before).reshape(after), after)
    else:
        result = reshaped(call, call.x, new_shape(target, old))
    return call.shaped(result, sizes_of(call, 1, "newshape"))


def _sizes(target: Sequence[int], count: int) -> tuple[int, ...]:
    """A target shape with its -1 worked out. Raises: CannotTell if it holds another number of elements."""
    rest = math.prod(size for size in target if size != -1)
    sizes = tuple(count // max(rest, 1) if size == -1 else size for size in target)
    if math.prod(sizes) != count:
        raise CannotTell(f"reshapes {count} elements to {list(target)}")
    return sizes


@OPERATIONS.rule("Ravel", does="opaque", note="folds the batch into one axis with everything else")
def ravel(call: LayerCall) -> Any:
    return call.opaque(f"{call.layer.path!r} folds the batch and every other axis into one")


@OPERATIONS.rule("Transpose", does="passes")
def transpose(call: LayerCall) -> Labels:
    """transpose"""
    axes, rank = call.argument(1, "axes"), len(call.shape())
    order = reversed(range(rank)) if axes is None else (axis % rank for axis in axes)
    return permuted(call, call.x, list(order))


@OPERATIONS.rule("Moveaxis", does="passes")
def moveaxis(call: LayerCall) -> Labels:
    """moveaxis"""
    source, target = call.argument(1, "source"), call.argument(2, "destination")
    return permuted(call, call.x, _order(len(call.shape()), source, target))


def _order(rank: int, source: Any, target: Any) -> list[int]:
    """Which old axis stands at each new one."""
    sources = [axis % rank for axis in ([source] if isinstance(source, int) else source)]
    targets = [axis % rank for axis in ([target] if isinstance(target, int) else target)]
    order = [axis for axis in range(rank) if axis not in sources]
    for place, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(place, axis)
    return order


@OPERATIONS.rule("Swapaxes", does="passes")
def swapaxes(call: LayerCall) -> Labels:
    """swapaxes"""
    rank = len(call.shape())
    one, other = call.argument(1, "axis1") % rank, call.argument(2, "axis2") % rank
    order = list(range(rank))
    order[one], order[other] = other, one
    return permuted(call, call.x, order)


@OPERATIONS.rule("ExpandDims", does="passes")
def expand_dims(call: LayerCall) -> Labels:
    """expand_dims"""
    axis, rank = call.argument(1, "axis"), len(call.shape())
    axes = sorted(a % (rank + 1) for a in ([axis] if isinstance(axis, int) else axis))
    return with_axes(call, call.x, axes)


@OPERATIONS.rule("Squeeze", does="passes")
def squeeze(call: LayerCall) -> Labels:
    """squeeze; without an axis, the axes are written down if one with units becomes 1"""
    shape = call.shape()
    axis = call.argument(1, "axis")
    axes = (
        [a for a, size in enumerate(shape) if size == 1]
        if axis is None
        else axes_of(axis, len(shape))
    )
    x, result = squeezed(call, call.x, axes)
    if axis is None:
        _write_axes(call, x, axes)
    return result


def _write_axes(call: LayerCall, x: Labels, axes: list[int]) -> None:
    """Have a squeeze of every axis of size 1 say which these are, once an axis with units becomes one more."""
    along = [x.axis(axis) for axis in range(x.rank) if x.varies(axis)]
    if not along:
        return
    if not axes:
        # TensorFlow takes an empty list of axes for every axis of size 1.
        why = "it removes every axis of size 1, and cannot be told to remove none"
        call.keep_several(along, why)
        return
    holder, key = raw_argument(call, 1, "axis")

    def written(*alive: np.ndarray) -> list[int] | None:
        return axes if any(left.sum() == 1 for left in alive) else None

    call.follow(key, written, *along, record=holder)


@OPERATIONS.rule("BroadcastTo", does="passes")
def broadcast_to(call: LayerCall) -> Labels:
    """broadcast_to; shape follows"""
    numbers = sizes_of(call, 1, "shape")
    result = spread(call, call.x, [None, *(number.value for number in numbers[1:])])
    return call.shaped(result, numbers)


@OPERATIONS.rule("Flip", "Fliplr", "Flipud", does="passes")
def flip(call: LayerCall) -> Labels:
    """flip"""
    fixed = {"Fliplr": 1, "Flipud": 0}.get(call.kind)
    axis = call.argument(1, "axis") if fixed is None else fixed
    return flipped(call, call.x, axes_of(axis, len(call.shape())))


@OPERATIONS.rule("Roll", does="passes")
def roll(call: LayerCall) -> Labels:
    """roll; the shift follows"""
    shape = call.shape()
    shift, axis = call.argument(1, "shift"), call.argument(2, "axis")
    if not isinstance(shift, int) or not isinstance(axis, int):
        rolled = axis if isinstance(axis, (list, tuple)) else range(1, len(shape))
        return call.keep_axes_whole(call.x, rolled, f"are rolled by {call.layer.path!r}")
    along = call.x.axis(axis)
    if along.factors and along.size:
        # What was at the end comes to the front: as many as are left of the last `shift`.
        turn = shift % along.size
        call.follow(
            "shift",
            lambda alive: int(alive[len(alive) - turn :].sum()) if turn else 0,
            along,
            record=raw_argument(call, 1, "shift")[0],
        )
    return call.x.move(lambda factor: np.roll(factor, shift, axis), shape)


@OPERATIONS.rule("Repeat", does="passes")
def repeat(call: LayerCall) -> Labels:
    """repeat"""
    shape = call.shape()
    times, axis = call.argument(1, "repeats"), one_axis(call.argument(2, "axis"), len(shape))
    if isinstance(times, list) and len(times) == 1:
        times = times[0]
    if not isinstance(times, int):
        held = call.keep_axes_whole(
            call.x,
            [axis],
            f"are repeated by {call.layer.path!r}, each a different number of times",
        )
        return held.with_shape(replaced(shape, [axis], [None if times is None else sum(times)]))
    size = shape[axis]
    result = replaced(shape, [axis], [None if size is None else size * times])
    if axis == 0:
        return call.x.with_shape(result)
    require_room(*(factor.size for factor in call.x.factors[:1]), times)
    return (
        call.x.move(lambda f: np.repeat(f, times, axis) if f.shape[axis] > 1 else f, result)
        if size != 1
        else call.keep_axes_whole(call.x, [axis], f"are spread by {call.layer.path!r}").with_shape(
            result
        )
    )


@OPERATIONS.rule("Tile", does="passes")
def tile(call: LayerCall) -> Labels:
    """tile"""
    shape = call.shape()
    times = call.argument(1, "repeats")
    times = [times] if isinstance(times, int) else list(times)
    extra = len(times) - len(shape)
    if extra > 0:
        raise CannotTell("adds axes as it tiles")
    return tiled(call, call.x, [1] * -extra + times)


@OPERATIONS.rule("Pad", does="passes")
def pad(call: LayerCall) -> Labels:
    """padding beside units counts as units without names; pad_width follows"""
    x, shape = call.x, call.shape()
    widths = call.argument(1, "pad_width")
    if isinstance(widths, int):
        widths = [[widths, widths]] * len(shape)
    elif len(widths) == 1 and len(shape) > 1:
        widths = [widths[0]] * len(shape)
    elif widths and isinstance(widths[0], int):
        widths = [widths] * len(shape)
    raw, rank = _raw_widths(call), len(shape)
    pairs = []
    for axis, pair in enumerate(widths):
        row = raw[axis] if len(raw) == rank and isinstance(raw[axis], list) else None
        before, after = (
            Number(int(width), None if row is None else (row, side))
            for side, width in enumerate(pair)
        )
        pairs.append((before, after))
    constant = call.config.get("mode", "constant") == "constant"
    zeros = call.argument(2, "constant_values") in (None, 0)
    return padded(call, x, pairs, constant=constant, zeros=zeros)


def _raw_widths(call: LayerCall) -> list[Any]:
    holder, key = raw_argument(call, 1, "pad_width")
    return holder[key] if isinstance(holder[key], list) else []


@OPERATIONS.rule("SpaceToDepth", "DepthToSpace", does="passes")
def depth_space(call: LayerCall) -> Labels:
    """blocks of positions become channels, or the reverse: a channel goes in every position of its block"""
    rank = len(call.shape())
    channels = 1 if call.config.get("data_format") == "channels_first" else rank - 1
    block, grow = int(call.argument(1, "block_size")), call.kind == "DepthToSpace"
    return folded_blocks(call, call.x, block, channels, grow=grow)


@OPERATIONS.rule("Rearrange", does="passes")
def rearrange(call: LayerCall) -> Labels:
    """einops' rearrange: reshape, transpose, reshape"""
    pattern = str(call.argument(1, "pattern"))
    lengths = {k: v for k, v in {**call.config, **call.kwargs}.items() if isinstance(v, int)}
    left, arrow, right = pattern.partition("->")
    if not arrow or "..." in pattern:
        raise CannotTell(f"has the pattern {pattern!r}")
    before, after = _groups(left), _groups(right)
    shape = call.shape()
    if len(before) != len(shape):
        raise CannotTell(f"has the pattern {pattern!r}")
    sizes: dict[str, int | None] = dict(lengths)
    for names, size in zip(before, shape, strict=True):
        unknown = [name for name in names if name not in sizes]
        known = math.prod(sizes[name] or 1 for name in names if name in sizes)
        if len(unknown) == 1:
            sizes[unknown[0]] = None if size is None else size // known
        elif len(unknown) > 1:
            raise CannotTell(f"has the pattern {pattern!r}, of which sizes are missing")
    flat_before = [name for names in before for name in names]
    flat_after = [name for names in after for name in names]
    apart = tuple(sizes[name] for name in flat_before)
    x = reshaped(call, call.x, apart)
    order = [flat_before.index(name) for name in flat_after]
    x = permuted(call, x, order)
    joined = tuple(
        None
        if any(sizes[name] is None for name in names)
        else math.prod(sizes[name] or 1 for name in names)
        for names in after
    )
    result = reshaped(call, x, joined)
    for axis, name in enumerate(flat_after):
        if name in lengths and x.varies(axis):
            holder = raw_argument(call, 99, name)[0]
            call.demand(Number(lengths[name], (holder, name)), x.axis(axis))
    return result


def _groups(side: str) -> list[list[str]]:
    """`b (h w) c` -> [[b], [h, w], [c]]."""
    groups: list[list[str]] = []
    inside = False
    for token in side.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            inside = True
            groups.append([])
        elif token == ")":
            inside = False
        elif inside:
            groups[-1].append(token)
        else:
            groups.append([] if token == "1" else [token])
    return groups
