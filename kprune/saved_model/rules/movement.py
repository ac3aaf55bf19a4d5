"""Operations that move data: the same numpy operation, done to the labels and to sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.values import Number, Value
from kprune.tracing.regroup import regrouped
from kprune.tracing.rule_call import CannotTell


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
        return call.shaped(regrouped(call, x, call.shape(x), recorded), None)
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
    return call.shaped(regrouped(call, x, old, tuple(sizes_)), numbers)


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
    """axes of size 1 go; where the graph does not say which, it does once an axis with units becomes 1"""
    shape = call.shape()
    given = call.attr("squeeze_dims") or []
    axes = tuple(sorted(axis % len(shape) for axis in given)) or tuple(
        a for a, n in enumerate(shape) if n == 1
    )
    x = call.hold_axes(call.x, axes, f"are squeezed away by {call.layer.path!r}")
    if not given and x.factors:
        call.traced.squeezed[call.place] = x, axes
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
        from kprune.saved_model.tracing.values import size_number

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
    return Value(Labels(()), object_array(Number(len(known))))


def object_array(number: Number) -> np.ndarray:
    numbers = np.empty((), object)
    numbers[()] = number
    return numbers


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
    plain = call.op == "Pad" or (call.op == "PadV2" and call.scalar(2) == 0)
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
