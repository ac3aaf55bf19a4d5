"""Operations that move data: the same numpy operation, done to the labels and to sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape
from kprune.labels.layer_call import CannotTell
from kprune.rules.merging import join
from kprune.saved_model.op_call import OpCall
from kprune.saved_model.rules.registry import op
from kprune.saved_model.values import Number, Value


def regroup(call: OpCall, x: Labels, new: Shape) -> Labels:
    """The labels of a tensor that is given another shape.

    Axes are matched in blocks of equal size, from the last on; within a block the labels are
    reshaped like the data. Where sizes are not known, no unit can stand.
    """
    old = call.shape(x)
    blocks: list[tuple[range, range]] = []
    i, j = len(old), len(new)
    while i > 0 and j > 0:
        a, b = i - 1, j - 1
        p, q = old[a], new[b]
        while p is not None and q is not None and p != q:
            if p < q and a > 0:
                a -= 1
                size = old[a]
                p = None if size is None else p * size
            elif q < p and b > 0:
                b -= 1
                size = new[b]
                q = None if size is None else q * size
            else:
                break
        if p is None or q is None or p != q:
            break
        blocks.insert(0, (range(a, i), range(b, j)))
        i, j = a, b
    x = call.hold_axes(
        x, range(i), f"stand along an axis that {call.layer.path!r} folds with one of unknown size"
    )
    factors = []
    for factor in x.factors:
        source, target = [1] * i, [1] * j
        for before, after in blocks:
            if any(factor.shape[axis] > 1 for axis in before):
                source += [old[axis] or 1 for axis in before]
                target += [new[axis] or 1 for axis in after]
            else:
                source += [1] * len(before)
                target += [1] * len(after)
        factors.append(_folded(np.broadcast_to(factor, source).reshape(target)))
    return Labels(new, tuple(factors), x.silent)


def _folded(factor: np.ndarray) -> np.ndarray:
    from kprune.labels.labels import fold

    return fold(factor)


@op("Reshape", does="passes", numbers=True)
def reshape(call: OpCall) -> Any:
    """reshape; the sizes in the shape follow"""
    x, numbers = call.labels(0), call.numbers(1)
    if call.ins[0].numbers is not None:
        held = call.ins[0].numbers
        if numbers is not None and all(number.value is not None for number in numbers.flat):
            sizes = [int(number.value or 0) for number in numbers.flat]
            if -1 in sizes or math.prod(sizes) == held.size:
                return Value(x.with_shape(held.reshape(sizes).shape), held.reshape(sizes))
    recorded = call.recorded.get(0)
    if numbers is None:
        if recorded is None:
            raise CannotTell("gives a tensor of unknown rank")
        return call.shaped(regroup(call, x, recorded), None)
    sizes_: list[int | None] = [
        None if number.value is None or number.value < 0 else number.value
        for number in numbers.ravel()
    ]
    if recorded is not None and len(recorded) == len(sizes_):
        sizes_ = [b if a is None else a for a, b in zip(sizes_, recorded, strict=True)]
    old = call.shape(x)
    if sizes_.count(None) == 1 and None not in old:
        rest = math.prod(size or 1 for size in sizes_)
        sizes_ = [
            math.prod(size or 1 for size in old) // rest if size is None and rest else size
            for size in sizes_
        ]
    return call.shaped(regroup(call, x, tuple(sizes_)), numbers)


@op("Transpose", does="passes", numbers=True)
def transpose(call: OpCall) -> Labels:
    """transpose"""
    shape = call.shape()
    order = [int(axis) % len(shape) for axis in call.constant(1)]
    return call.x.move(lambda factor: factor.transpose(order), tuple(shape[axis] for axis in order))


@op("ExpandDims", does="passes", numbers=True)
def expand_dims(call: OpCall) -> Any:
    """a new axis of size 1"""
    shape = call.shape()
    axis = int(call.constant(1).ravel()[0])
    axis += len(shape) + 1 if axis < 0 else 0
    labels = call.x.move(lambda f: np.expand_dims(f, axis), (*shape[:axis], 1, *shape[axis:]))
    numbers = call.numbers(0)
    return Value(labels, None if numbers is None else np.expand_dims(numbers, axis))


@op("Squeeze", does="passes", numbers=True)
def squeeze(call: OpCall) -> Any:
    """axes of size 1 go"""
    shape = call.shape()
    given = call.attr("squeeze_dims") or []
    axes = tuple(sorted(axis % len(shape) for axis in given)) or tuple(
        a for a, n in enumerate(shape) if n == 1
    )
    x = call.hold_axes(call.x, axes, f"are squeezed away by {call.layer.path!r}")
    labels = x.move(
        lambda f: f.squeeze(axes), tuple(n for a, n in enumerate(shape) if a not in axes)
    )
    numbers = call.numbers(0)
    return Value(labels, None if numbers is None else numbers.squeeze(axes))


@op(
    "Shape",
    "ShapeN",
    does="passes",
    note="its sizes are followed to where they are used",
    numbers=True,
)
def shape(call: OpCall) -> Any:
    results = []
    for held in call.ins:
        known = held.labels.shape
        if known is None:
            results.append(Value(Labels((None,))))
            continue
        from kprune.saved_model.values import size_number

        numbers = np.empty(len(known), object)
        for axis in range(len(known)):
            numbers[axis] = size_number(held.labels, axis)
        results.append(Value(Labels((len(known),)), numbers))
    return results


@op("Rank", does="passes", note="units are not counted")
def rank(call: OpCall) -> Any:
    known = call.x.shape
    if known is None:
        return Labels(())
    return Value(Labels(()), _object(Number(len(known))))


def _object(number: Number) -> np.ndarray:
    numbers = np.empty((), object)
    numbers[()] = number
    return numbers


@op("Pack", does="combines", numbers=True)
def pack(call: OpCall) -> Any:
    """one tensor beside the other along a new axis; what meets is tied"""
    axis = call.attr("axis", 0)
    held = [value.numbers for value in call.ins]
    together = call.combine([value.labels for value in call.ins])
    known = call.shape(together)
    axis += len(known) + 1 if axis < 0 else 0
    result = (*known[:axis], len(call.ins), *known[axis:])
    labels = together.move(lambda f: np.expand_dims(f, axis), result)
    if any(numbers is not None for numbers in held) and all(
        value.labels.shape == () for value in call.ins
    ):
        numbers = np.empty(len(held), object)
        for index, one in enumerate(held):
            numbers[index] = Number(None, lost=True) if one is None else one[()]
        return Value(labels, numbers)
    _stay(call)
    return labels


def _stay(call: OpCall) -> None:
    for value in call.ins:
        if value.numbers is not None:
            for number in value.numbers.flat:
                call.use_value(number)


@op("Unpack", does="passes", numbers=True)
def unpack(call: OpCall) -> Any:
    """one tensor for each position of an axis"""
    known = call.shape()
    axis = call.attr("axis", 0) % len(known)
    size = known[axis] if known[axis] is not None else call.attr("num", 1)
    numbers = call.numbers(0)
    x = call.hold_axes(call.x, [axis], f"are taken apart by {call.layer.path!r}")
    one = x.move(lambda f: f.take(0, axis), (*known[:axis], *known[axis + 1 :]))
    results = []
    for index in range(int(size or 0)):
        picked = None if numbers is None else np.asarray(numbers.take(index, axis), object)
        results.append(Value(one, picked))
    return results


@op("ConcatV2", "Concat", does="combines", numbers=True)
def concat(call: OpCall) -> Any:
    """one after the other along an axis"""
    first = call.op == "Concat"
    axis = int(call.constant(0 if first else len(call.ins) - 1).ravel()[0])
    parts = call.ins[1:] if first else call.ins[:-1]
    held = [value.numbers for value in parts]
    if all(numbers is not None for numbers in held):
        joined = np.concatenate(held, axis)
        return Value(Labels(joined.shape), joined)
    if any(numbers is not None for numbers in held) and all(
        value.labels.rank == 1 for value in parts
    ):
        sizes = [call.shape(value.labels)[0] for value in parts]
        if None not in sizes:
            pieces = [
                np.array([Number(None, lost=True)] * (size or 0), object)
                if numbers is None
                else numbers
                for numbers, size in zip(held, sizes, strict=True)
            ]
            joined = np.concatenate(pieces)
            return Value(Labels(joined.shape), joined)
    _stay(call)
    return join(call, [value.labels for value in parts], axis)


@op("Split", does="passes", numbers=True)
def split(call: OpCall) -> Any:
    """equal runs of an axis: as much goes from each"""
    axis = int(call.constant(0).ravel()[0])
    x, count = call.labels(1), int(call.attr("num_split", 1))
    known = call.shape(x)
    axis %= len(known)
    if known[axis] == count:
        x = _apart(call, x, axis)
    along = x.axis(axis)
    if along.factors and along.size is not None:
        for factor in along.factors:
            runs = np.split(factor, count, axis=1)
            for run in runs[1:]:
                call.tie(runs[0].ravel(), run.ravel())
    size = known[axis]
    part = None if size is None else size // count
    return [_run(x, axis, index * (part or 0), part, known) for index in range(count)]


def _apart(call: OpCall, x: Labels, axis: int) -> Labels:
    """Single positions are taken out: each is its own thing, such as the rows of a GRU's bias."""
    return call.hold_axes(x, [axis], f"are taken one by one by {call.layer.path!r}")


def _run(x: Labels, axis: int, start: int, size: int | None, known: Shape) -> Labels:
    result = (*known[:axis], size, *known[axis + 1 :])
    span = range(start, start + (size or 0))
    return x.move(lambda f: f.take(span, axis) if f.shape[axis] > 1 else f, result)


@op("SplitV", does="passes", numbers=True)
def split_by_sizes(call: OpCall) -> Any:
    """runs of an axis; their sizes follow"""
    x, sizes = call.x, call.numbers(1)
    axis = int(call.constant(2).ravel()[0])
    known = call.shape(x)
    axis %= len(known)
    if sizes is None or any(number.value is None for number in sizes.flat):
        raise CannotTell("splits by sizes that are only known as the model runs")
    values = [int(number.value or 0) for number in sizes.flat]
    if -1 in values and known[axis] is not None:
        rest = int(known[axis] or 0) - sum(value for value in values if value >= 0)
        values = [rest if value < 0 else value for value in values]
    if 1 in values:
        x = _apart(call, x, axis)
    parts, start = [], 0
    for number, size in zip(sizes.flat, values, strict=True):
        part = _run(x, axis, start, size, known)
        if x.varies(axis):
            call.demand(number, part.axis(axis))
            call.size_left(part.axis(axis))
        parts.append(part)
        start += size
    return parts


@op("Slice", does="passes", numbers=True)
def cut_out(call: OpCall) -> Any:
    """a block: begin and size along each axis, which follow"""
    x, begins, sizes = call.x, call.numbers(1), call.numbers(2)
    known = call.shape(x)
    if begins is None or sizes is None:
        return call.hold_axes(
            x, range(len(known)), f"are cut out by {call.layer.path!r} as the model runs"
        ).with_shape(call.recorded.get(0))
    result: list[int | None] = []
    spans: list[slice] = []
    for axis, size in enumerate(known):
        begin, length = begins.ravel()[axis], sizes.ravel()[axis]
        if begin.value is None or length.value is None or size is None:
            x = call.hold_axes(x, [axis], f"are cut out by {call.layer.path!r} as the model runs")
            result.append(
                length.value if length.value not in (-1, None) and length.value >= 0 else None
            )
            spans.append(slice(None))
            for number in (begin, length):
                call.use_value(number)
            continue
        stop = size if length.value == -1 else begin.value + length.value
        if stop - begin.value == 1:
            x = _apart(call, x, axis)
        result.append(stop - begin.value)
        spans.append(slice(begin.value, stop))
        _follow_slice(
            call,
            x.axis(axis),
            begin,
            None if length.value == -1 else length,
            begin.value,
            stop,
            length=True,
        )
    if call.ins[0].numbers is not None:
        held = call.ins[0].numbers[tuple(spans)]
        return Value(Labels(held.shape), held)
    return _sliced(x, spans, tuple(result))


def _sliced(x: Labels, spans: list[slice], result: Shape) -> Labels:
    def take(factor: np.ndarray) -> np.ndarray:
        return factor[
            tuple(
                slice(None) if n == 1 else span for n, span in zip(factor.shape, spans, strict=True)
            )
        ]

    return x.move(take, result)


def _follow_slice(
    call: OpCall,
    along: Axis,
    begin: Number,
    end: Number | None,
    start: int,
    stop: int,
    *,
    length: bool = False,
) -> None:
    if not along.factors:
        for number in (begin, end):
            if number is not None:
                call.use_value(number)
        return
    call.demand(begin, along, lambda alive: int(alive[:start].sum()))
    if end is not None:
        call.demand(end, along, lambda alive: int(alive[start if length else 0 : stop].sum()))
    call.size_left(Axis(stop - start, tuple(factor[:, start:stop] for factor in along.factors)))


@op("StridedSlice", does="passes", numbers=True)
def strided_slice(call: OpCall) -> Any:
    """x[begin:end:stride, …]; begin and end follow"""
    x, known = call.x, call.shape()
    begins, ends, strides = call.numbers(1), call.numbers(2), call.numbers(3)
    if begins is None or ends is None or strides is None:
        held = call.hold_axes(
            x, range(len(known)), f"are sliced by {call.layer.path!r} as the model runs"
        )
        recorded = call.recorded.get(0)
        if held.factors:
            call.freeze(held, f"are sliced by {call.layer.path!r} as the model runs")
        return Labels(recorded)
    masks = {
        name: int(call.attr(name, 0))
        for name in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    }
    index: list[Any] = []
    result: list[int | None] = []
    axis = 0
    count = begins.size
    explicit = sum(
        1 for i in range(count) if not (masks["new_axis_mask"] | masks["ellipsis_mask"]) >> i & 1
    )
    for i in range(count):
        begin, end, stride = (part.ravel()[i] for part in (begins, ends, strides))
        if masks["ellipsis_mask"] >> i & 1:
            for _ in range(len(known) - explicit):
                index.append(slice(None))
                result.append(known[axis])
                axis += 1
            continue
        if masks["new_axis_mask"] >> i & 1:
            index.append(None)
            result.append(1)
            continue
        size = known[axis]
        if masks["shrink_axis_mask"] >> i & 1:
            x = _pick(call, x, axis, begin)
            index.append(
                begin.value
                if begin.value is not None and (size is not None or begin.value in (0, -1))
                else 0
            )
            axis += 1
            continue
        open_begin, open_end = masks["begin_mask"] >> i & 1, masks["end_mask"] >> i & 1
        part, new = _span(
            call, x, axis, None if open_begin else begin, None if open_end else end, stride
        )
        if part is None:
            x = call.hold_axes(x, [axis], f"are sliced by {call.layer.path!r}")
            part = slice(None)
        index.append(part)
        result.append(new)
        axis += 1
    index += [slice(None)] * (len(known) - axis)
    result += list(known[axis:])
    numbers = call.numbers(0)
    if numbers is not None:
        picked = np.asarray(numbers[tuple(index)], object)
        return Value(Labels(picked.shape), picked)

    def take(factor: np.ndarray) -> np.ndarray:
        own: list[Any] = []
        at = 0
        for part in index:
            if part is None:
                own.append(None)
                continue
            narrow = factor.shape[at] == 1
            own.append((slice(None) if isinstance(part, slice) else 0) if narrow else part)
            at += 1
        return factor[tuple(own)]

    return x.move(take, tuple(result))


def _span(
    call: OpCall, x: Labels, axis: int, begin: Number | None, end: Number | None, stride: Number
) -> tuple[slice | None, int | None]:
    """One `begin:end:stride`.

    Returns: the slice, or None if units along it must stay; and the size that is left.
    """
    size = call.shape(x)[axis]
    given = [number for number in (begin, end) if number is not None]
    step = stride.value
    if size is None or step is None or any(number.value is None for number in given):
        for number in given:
            call.use_value(number)
        whole = not given and step in (1, -1)
        return slice(None, None, step) if whole else None, size if whole else None
    start, stop, _ = slice(
        begin.value if begin else None, end.value if end else None, step
    ).indices(size)
    part = slice(begin.value if begin else None, end.value if end else None, step)
    new = len(range(start, stop, step))
    along = x.axis(axis)
    if new == 1 and along.factors:
        for number in given:
            call.use_value(number)
        return None, 1
    if not along.factors:
        for number in given:
            call.use_value(number)
        return part, new
    if not given:
        return (part, new) if step in (1, -1) else (None, new)
    if step != 1 or any((number.value or 0) < 0 for number in given) or stop > size:
        return None, new
    for bound, at in ((begin, start), (end, stop)):
        if bound is not None:
            call.demand(bound, along, partial(_left_before, at))
    call.size_left(Axis(stop - start, tuple(factor[:, start:stop] for factor in along.factors)))
    return part, new


def _left_before(at: int, alive: np.ndarray) -> int:
    return int(alive[:at].sum())


def _pick(call: OpCall, x: Labels, axis: int, begin: Number) -> Labels:
    """`x[..., index]`: that one position must stay, and what stands before it moves it."""
    along = x.axis(axis)
    if not along.factors or along.size is None:
        if call.ins[0].numbers is None or begin.value is None:
            call.use_value(begin)
        elif begin.at is not None:
            call.tracer.valued.add(begin.at)
        return x
    if begin.value is None:
        return call.hold_axes(x, [axis], f"are picked out by {call.layer.path!r} as the model runs")
    place = begin.value % along.size
    for factor in along.factors:
        call.freeze(factor[:, place], f"are picked out by number in {call.layer.path!r}")
    if begin.value >= 0:
        call.demand(begin, along, lambda alive: int(alive[:place].sum()))
    return x


@op(
    "GatherV2",
    "Gather",
    "GatherNd",
    "ResourceGather",
    "ResourceGatherNd",
    does="passes",
    numbers=True,
)
def gather(call: OpCall) -> Any:
    """positions of an axis are looked up, so it must stay whole; the other axes pass"""
    indices = call.ins[1]
    x = call.ins[0].parameter.labels if call.ins[0].parameter is not None else call.labels(0)
    known = call.shape(x)
    axis = 0
    if call.op == "GatherV2":
        axis = int(call.constant(2).ravel()[0]) % max(len(known), 1)
    numbers = call.numbers(0)
    if numbers is not None and call.op in ("GatherV2", "Gather"):
        at = call.constant(1)
        picked = np.asarray(numbers.take(at, axis), object)
        return Value(Labels(picked.shape), picked)
    _stay(call)
    call.freeze(indices.labels, f"are looked up by {call.layer.path!r} as positions")
    depth = 1
    if call.op in ("GatherNd", "ResourceGatherNd"):
        last = (indices.labels.shape or (None,))[-1]
        if last is None:
            raise CannotTell("looks up positions of unknown depth")
        depth = last
    if call.attr("batch_dims", 0):
        call.freeze(x, f"are looked up sample by sample by {call.layer.path!r}")
        return Labels(call.recorded.get(0))
    x = call.hold_axes(
        x, range(axis, axis + depth), f"are looked up by {call.layer.path!r} as the model runs"
    )
    own = call.shape(indices.labels)
    own = own[:-1] if call.op in ("GatherNd", "ResourceGatherNd") else own
    call.makes(x, [a for a in range(len(known)) if not axis <= a < axis + depth], 0.0)
    result = (*known[:axis], *own, *known[axis + depth :])
    extents = [1] * len(own)
    return x.move(lambda f: f.reshape(*f.shape[:axis], *extents, *f.shape[axis + depth :]), result)


@op("Tile", does="passes", numbers=True)
def tile(call: OpCall) -> Labels:
    """tile; along an axis with units it repeats them"""
    x, known, numbers = call.x, call.shape(), call.numbers(1)
    if numbers is None:
        raise CannotTell("repeats a number of times that is only known as the model runs")
    times = [number.value for number in numbers.flat]
    for number in numbers.flat:
        call.use_value(number)
    grown = [axis for axis, count in enumerate(times) if count != 1 and known[axis] == 1]
    x = call.hold_axes(x, grown, f"are spread by {call.layer.path!r}")
    for axis, count in enumerate(times):
        if count is None and x.varies(axis):
            x = call.hold_axes(x, [axis], f"are repeated by {call.layer.path!r}")
    result = tuple(
        None if None in (n, count) else (n or 0) * (count or 0)
        for n, count in zip(known, times, strict=True)
    )
    return x.move(
        lambda f: np.tile(
            f, [(count or 1) if f.shape[axis] > 1 else 1 for axis, count in enumerate(times)]
        ),
        result,
    )


@op("BroadcastTo", does="passes", numbers=True)
def broadcast_to(call: OpCall) -> Labels:
    """spreads axes of size 1; the shape follows"""
    numbers, recorded = call.numbers(1), call.recorded.get(0)
    x = call.x
    if numbers is None:
        if recorded is None:
            raise CannotTell("gives a tensor of unknown rank")
        target: Shape = recorded
    else:
        target = tuple(
            n.value if n.value is not None and n.value >= 0 else None for n in numbers.flat
        )
        if recorded is not None and len(recorded) == len(target):
            target = tuple(b if a is None else a for a, b in zip(target, recorded, strict=True))
    extra = len(target) - x.rank
    wide = x.move(lambda f: f.reshape((1,) * extra + f.shape), (1,) * extra + call.shape(x))
    result = Labels(target, wide.factors, x.silent)
    return call.shaped(result, numbers)


@op("ReverseV2", does="passes", note="an axis is turned round", numbers=True)
def reverse(call: OpCall) -> Labels:
    axes = tuple(int(axis) % len(call.shape()) for axis in call.constant(1).ravel())
    return call.x.move(lambda f: np.flip(f, axes), call.shape())


@op("Pad", "PadV2", "MirrorPad", does="passes", note="axes with units are not padded", numbers=True)
def pad(call: OpCall) -> Labels:
    numbers, known = call.numbers(1), call.shape()
    if numbers is None:
        x = call.hold_axes(
            call.x, range(1, len(known)), f"are padded by {call.layer.path!r} as the model runs"
        )
        return x.with_shape(call.recorded.get(0))
    for number in numbers.flat:
        call.use_value(number)
    pairs = [[number.value for number in row] for row in numbers]
    grown = [axis for axis, pair in enumerate(pairs) if pair != [0, 0]]
    x = call.hold_axes(call.x, grown, f"are padded by {call.layer.path!r}")
    sizes = tuple(
        None if n is None or None in pair else n + sum(int(side or 0) for side in pair)
        for n, pair in zip(known, pairs, strict=True)
    )
    plain = call.op == "Pad" or (call.op == "PadV2" and call.tracer.scalar(call, 2) == 0)
    return Labels(sizes, x.factors, x.silent and plain)


@op("DepthToSpace", "SpaceToDepth", does="passes")
def depth_and_space(call: OpCall) -> Labels:
    """channels become blocks of space, and back: what a channel takes part in is tied"""
    layout, block = call.attr("data_format", "NHWC"), int(call.attr("block_size", 1))
    if layout != "NHWC":
        raise CannotTell(f"folds channels in the order {layout}")
    channels = 3
    x = call.hold_axes(call.x, [1, 2], f"stand along an axis that {call.layer.path!r} folds")
    along, known = x.axis(channels), call.shape()
    wider = call.op == "DepthToSpace"
    sizes = list(known)
    for axis in (1, 2):
        size = known[axis]
        sizes[axis] = None if size is None else size * block if wider else size // block
    count = known[channels]
    if count is not None:
        sizes[channels] = count // block**2 if wider else count * block**2
    if not along.factors:
        return Labels(tuple(sizes))
    if not along.plain:
        raise CannotTell("takes channels that stand along two axes at once")
    # Channel (i * block + j) * depth + c is at row i and column j of each block of channel c.
    if not wider:
        return x.with_axis(channels, Axis.of(np.tile(along.ids, block**2)), tuple(sizes))
    runs = along.ids.reshape(block**2, -1)
    for run in runs[1:]:
        call.tie(runs[0], run)
    return x.with_axis(channels, Axis.of(runs[0]), tuple(sizes))


@op("BatchToSpaceND", "SpaceToBatchND", does="passes", numbers=True)
def blocks(call: OpCall) -> Any:
    """blocks of space become samples and back"""
    _stay_sizes(call)
    x = call.x
    sizes = call.numbers(1)
    depth = 2 if sizes is None else sizes.size
    x = call.hold_axes(
        x, range(1, 1 + depth), f"stand along an axis that {call.layer.path!r} folds"
    )
    known = call.shape(x)
    return x.with_shape(
        (known[0] if known[0] is None else None, *[None] * depth, *known[1 + depth :])
    )


def _stay_sizes(call: OpCall) -> None:
    for value in call.ins:
        if value.numbers is not None:
            for number in value.numbers.flat:
                call.use_value(number)


def at_each(call: OpCall, function: Callable[[Labels], Labels]) -> list[Labels]:
    """One rule for an operation on several tensors, each by itself."""
    return [function(value.labels) for value in call.ins]
