"""Operations that move data: the same numpy operation, done to the labels; sizes in the config follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape
from kprune.rules.operations.arguments import axes_of, one_axis, raw_argument
from kprune.rules.reshaping import reshaped
from kprune.rules.shapes import replaced
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


def taken(x: Labels, positions: Sequence[int] | np.ndarray, axis: int, shape: Shape) -> Labels:
    """The labels of some positions along an axis."""
    return x.move(lambda f: f.take(positions, axis) if f.shape[axis] > 1 else f, shape)


def moved(x: Labels, function: Callable[[np.ndarray], np.ndarray], shape: Shape) -> Labels:
    return x.move(function, shape)


@OPERATIONS.rule("Reshape", does="passes")
def reshape(call: LayerCall) -> Labels:
    """newshape follows what is left along each axis"""
    target = [None if size is None else int(size) for size in call.argument(1, "newshape")]
    old = call.shape()
    across = call.in_drawing and None not in old and None not in target
    if across:
        # A weight has no batch: its labels are spread out whole, and reshaped.
        before = [size or 0 for size in old]
        after = _sizes([size or 0 for size in target], math.prod(before))
        result = call.x.move(lambda f: np.broadcast_to(f, before).reshape(after), after)
    else:
        result = reshaped(call, call.x, new_shape(target, old))
    holder, key = raw_argument(call, 1, "newshape")
    sizes = holder[key] if isinstance(holder[key], list) else None
    for index, size in enumerate(target):
        if (index or across) and size not in (-1, None) and result.varies(index):
            if sizes is None:
                raise CannotTell("has a newshape that is not a list")
            call.follow(index, lambda alive: int(alive.sum()), result.axis(index), record=sizes)
            call.size_left(result.axis(index))
    return result


def new_shape(target: Sequence[int | None], old: Shape) -> Shape:
    """The shape that `ops.reshape` gives, whose target counts the batch.

    Args:
        target: None or -1 for a size that is worked out; at most one of them.
    """
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
    shape = call.shape()
    axes = call.argument(1, "axes")
    order = (
        list(reversed(range(len(shape)))) if axes is None else [axis % len(shape) for axis in axes]
    )
    return moved(
        call.x, lambda factor: factor.transpose(order), tuple(shape[axis] for axis in order)
    )


@OPERATIONS.rule("Moveaxis", does="passes")
def moveaxis(call: LayerCall) -> Labels:
    """moveaxis"""
    source, target = call.argument(1, "source"), call.argument(2, "destination")
    shape = call.shape()
    order = list(np.moveaxis(np.empty([1] * len(shape)), source, target).shape)
    order = _order(len(shape), source, target)
    return moved(
        call.x, lambda factor: factor.transpose(order), tuple(shape[axis] for axis in order)
    )


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
    shape = call.shape()
    rank = len(shape)
    one, other = call.argument(1, "axis1") % rank, call.argument(2, "axis2") % rank
    order = list(range(rank))
    order[one], order[other] = other, one
    return moved(
        call.x, lambda factor: factor.transpose(order), tuple(shape[axis] for axis in order)
    )


@OPERATIONS.rule("ExpandDims", does="passes")
def expand_dims(call: LayerCall) -> Labels:
    """expand_dims"""
    shape = call.shape()
    axis = call.argument(1, "axis")
    axes = sorted(a % (len(shape) + 1) for a in ([axis] if isinstance(axis, int) else axis))
    for at in axes:
        shape = (*shape[:at], 1, *shape[at:])
    return moved(call.x, lambda factor: np.expand_dims(factor, tuple(axes)), shape)


@OPERATIONS.rule("Squeeze", does="passes")
def squeeze(call: LayerCall) -> Labels:
    """squeeze; without an axis, the axes are written down where one with units becomes 1"""
    shape = call.shape()
    axis = call.argument(1, "axis")
    axes = (
        [a for a, size in enumerate(shape) if size == 1]
        if axis is None
        else axes_of(call, axis, len(shape))
    )
    x = call.hold_axes(call.x, axes, f"are squeezed away by {call.layer.path!r}")
    if axis is None:
        _write_axes(call, x, axes)
    left = tuple(size for a, size in enumerate(shape) if a not in axes)
    return moved(x, lambda factor: factor.squeeze(tuple(axes)), left)


def _write_axes(call: LayerCall, x: Labels, axes: list[int]) -> None:
    """Have a squeeze of every axis of size 1 say which these are, once an axis with units becomes one more."""
    along = [x.axis(axis) for axis in range(x.rank) if x.varies(axis)]
    if not along:
        return
    if not axes:
        # TensorFlow takes an empty list of axes for every axis of size 1.
        why = "it takes away every axis of size 1, and cannot be told to take none"
        call.keep_several(along, why)
        return
    holder, key = raw_argument(call, 1, "axis")

    def written(*alive: np.ndarray) -> list[int] | None:
        return axes if any(left.sum() == 1 for left in alive) else None

    call.follow(key, written, *along, record=holder)


@OPERATIONS.rule("BroadcastTo", does="passes")
def broadcast_to(call: LayerCall) -> Labels:
    """broadcast_to; shape follows"""
    shape = tuple(call.argument(1, "shape"))
    x = call.x
    extra = len(shape) - x.rank
    wide = moved(
        x, lambda factor: factor.reshape((1,) * extra + factor.shape), (1,) * extra + call.shape()
    )
    grown = [
        axis for axis in range(len(shape)) if (wide.shape or ())[axis] == 1 and shape[axis] != 1
    ]
    wide = call.hold_axes(wide, grown, f"are spread along an axis by {call.layer.path!r}")
    holder, key = raw_argument(call, 1, "shape")
    for axis in range(1, len(shape)):
        if wide.varies(axis) and isinstance(holder[key], list):
            call.follow(axis, lambda alive: int(alive.sum()), wide.axis(axis), record=holder[key])
    return wide.with_shape(
        tuple((wide.shape or ())[a] if a == 0 else s for a, s in enumerate(shape))
    )


@OPERATIONS.rule("Flip", "Fliplr", "Flipud", does="passes")
def flip(call: LayerCall) -> Labels:
    """flip"""
    fixed = {"Fliplr": 1, "Flipud": 0}.get(call.kind)
    axes = tuple(
        axes_of(call, call.argument(1, "axis") if fixed is None else fixed, len(call.shape()))
    )
    return moved(call.x, lambda factor: np.flip(factor, axes), call.shape())


@OPERATIONS.rule("Roll", does="passes")
def roll(call: LayerCall) -> Labels:
    """roll; the shift follows"""
    shape = call.shape()
    shift, axis = call.argument(1, "shift"), call.argument(2, "axis")
    if not isinstance(shift, int) or not isinstance(axis, int):
        rolled = axis if isinstance(axis, (list, tuple)) else range(1, len(shape))
        return call.hold_axes(call.x, rolled, f"are rolled by {call.layer.path!r}")
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
    return moved(call.x, lambda factor: np.roll(factor, shift, axis), shape)


@OPERATIONS.rule("Repeat", does="passes")
def repeat(call: LayerCall) -> Labels:
    """repeat"""
    shape = call.shape()
    times, axis = call.argument(1, "repeats"), one_axis(call, call.argument(2, "axis"), len(shape))
    if isinstance(times, list) and len(times) == 1:
        times = times[0]
    if not isinstance(times, int):
        held = call.hold_axes(
            call.x,
            [axis],
            f"are repeated by {call.layer.path!r}, each a number of times of its own",
        )
        return held.with_shape(replaced(shape, [axis], [None if times is None else sum(times)]))
    size = shape[axis]
    result = replaced(shape, [axis], [None if size is None else size * times])
    if axis == 0:
        return call.x.with_shape(result)
    return (
        call.x.move(lambda f: np.repeat(f, times, axis) if f.shape[axis] > 1 else f, result)
        if size != 1
        else call.hold_axes(call.x, [axis], f"are spread by {call.layer.path!r}").with_shape(result)
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
    times = [1] * -extra + times
    # None stands for a number that is known only as the model runs, such as the size of the batch.
    grown = [n for n, count in enumerate(times) if count is None or (count > 1 and shape[n] == 1)]
    x = call.hold_axes(call.x, grown, f"are spread by {call.layer.path!r}")
    result = tuple(
        None if size is None or count is None else size * count
        for size, count in zip(shape, times, strict=True)
    )

    def each(factor: np.ndarray) -> np.ndarray:
        return np.tile(
            factor, [count if factor.shape[axis] > 1 else 1 for axis, count in enumerate(times)]
        )

    return x.move(each, result)


@OPERATIONS.rule("Pad", does="passes")
def pad(call: LayerCall) -> Labels:
    """what is filled in beside units counts as units nobody can name; pad_width follows"""
    x, shape = call.x, call.shape()
    widths = call.argument(1, "pad_width")
    if isinstance(widths, int):
        widths = [[widths, widths]] * len(shape)
    elif len(widths) == 1 and len(shape) > 1:
        widths = [widths[0]] * len(shape)
    elif widths and isinstance(widths[0], int):
        widths = [widths] * len(shape)
    pairs = [(int(before), int(after)) for before, after in widths]
    result = tuple(
        None if n is None else n + sum(pair) for n, pair in zip(shape, pairs, strict=True)
    )
    grown = [axis for axis, pair in enumerate(pairs) if any(pair) and x.varies(axis)]
    mode = call.config.get("mode", "constant")
    if len(grown) > 1 or (
        grown
        and (mode != "constant" or len(x.axis(grown[0]).factors) > 1 or not x.axis(grown[0]).plain)
    ):
        x = call.hold_axes(x, grown, f"are padded by {call.layer.path!r}")
        grown = []
    silent = x.silent and call.argument(2, "constant_values") in (None, 0)
    if not grown:
        return Labels(result, x.factors, silent)
    (axis,) = grown
    before, after = pairs[axis]
    filled = (call.anonymous(before), call.anonymous(after))
    ids = np.concatenate([filled[0], x.axis(axis).ids, filled[1]])
    holder, key = raw_argument(call, 1, "pad_width")
    raw = holder[key]
    row = (
        raw[axis]
        if isinstance(raw, list) and len(raw) == len(shape) and isinstance(raw[axis], list)
        else None
    )
    if row is None:
        return Labels(
            result, call.hold_axes(x, grown, f"are padded by {call.layer.path!r}").factors, silent
        )
    for side in (0, 1):
        call.follow(side, lambda alive: int(alive.sum()), Axis.of(filled[side]), record=row)
    others = x.without(axis)
    own = Labels(result).with_axis(axis, ids, result)
    return Labels(result, (*own.factors, *others.factors), silent)


@OPERATIONS.rule("SpaceToDepth", "DepthToSpace", does="passes")
def depth_space(call: LayerCall) -> Labels:
    """blocks of positions become channels, or the reverse: a channel goes in every position of its block"""
    x, shape = call.x, call.shape()
    block = int(call.argument(1, "block_size"))
    channels = 1 if call.config.get("data_format") == "channels_first" else len(shape) - 1
    spatial = [axis for axis in range(1, len(shape)) if axis != channels]
    x = call.hold_axes(x, spatial, f"stand along an axis that {call.layer.path!r} folds")
    along = x.axis(channels)
    squared = block ** len(spatial)
    grow = call.kind == "DepthToSpace"
    sizes = [
        None if size is None else size * block if grow else size // block
        for size in (shape[axis] for axis in spatial)
    ]
    width = None if along.size is None else along.size // squared if grow else along.size * squared
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
        ids = np.tile(along.ids, squared)
    return Labels(result).with_axis(channels, ids, result).with_silence(x.silent)


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
    x = moved(x, lambda f: f.transpose(order), tuple((x.shape or ())[axis] for axis in order))
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
            call.follow(name, lambda alive: int(alive.sum()), x.axis(axis), record=holder)
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
