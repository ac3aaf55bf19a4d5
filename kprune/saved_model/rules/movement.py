"""Operations that move data: the same numpy operation, done to the labels and to sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kprune.labels.labels import Labels, Shape
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
    old = call.shape(x)
    target = new_shape(_target(call, numbers), old)
    return call.shaped_by(regrouped(call, x, old, target), numbers)


def _target(call: OpCall, numbers: Any) -> Shape:
    """The shape that a tensor gets, as far as the numbers that say it or the file know it."""
    recorded = call.recorded.get(0)
    if numbers is None:
        if recorded is None:
            raise CannotTell("gives a tensor of unknown rank")
        return recorded
    sizes = [None if n.value is None or n.value < 0 else n.value for n in numbers.flat]
    if recorded is None or len(recorded) != len(sizes):
        return tuple(sizes)
    return tuple(b if a is None else a for a, b in zip(sizes, recorded, strict=True))


@op("Transpose", does="passes", numbers=True)
def transpose(call: OpCall) -> Labels:
    """transpose"""
    rank = len(call.shape())
    order = [int(axis) % rank for axis in call.constant(1)]
    return permuted(call, call.x, order)


@op("ExpandDims", does="passes", numbers=True)
def expand_dims(call: OpCall) -> Any:
    """a new axis of size 1"""
    (axis,) = call.axes(1, len(call.shape()) + 1)
    numbers = call.numbers(0)
    return Value(
        with_axes(call, call.x, [axis]), None if numbers is None else np.expand_dims(numbers, axis)
    )


@op("Squeeze", does="passes", numbers=True)
def squeeze(call: OpCall) -> Any:
    """axes of size 1 are removed; if an axis with units becomes 1, the graph then says which"""
    shape = call.shape()
    given = call.attr("squeeze_dims") or []
    axes = tuple(sorted(axis % len(shape) for axis in given)) or tuple(
        a for a, n in enumerate(shape) if n == 1
    )
    x, labels = squeezed(call, call.x, axes)
    if not given and x.factors:
        call.traced.squeezed[call.place] = x, axes
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
    numbers = call.numbers(1)
    if numbers is None:
        raise CannotTell("repeats a number of times that is only known at run time")
    call.use_values(1)
    return tiled(call, call.x, [number.value for number in numbers.flat])


@op("BroadcastTo", does="passes", numbers=True)
def broadcast_to(call: OpCall) -> Labels:
    """spreads axes of size 1; the shape follows"""
    numbers = call.numbers(1)
    return call.shaped_by(spread(call, call.x, _target(call, numbers)), numbers)


@op("ReverseV2", does="passes", note="an axis is turned round", numbers=True)
def reverse(call: OpCall) -> Labels:
    return flipped(call, call.x, call.axes(1, len(call.shape())))


@op(
    "Pad",
    "PadV2",
    "MirrorPad",
    does="passes",
    note="padding beside units counts as units without names",
    numbers=True,
)
def pad(call: OpCall) -> Labels:
    numbers, known = call.numbers(1), call.shape()
    if numbers is None:
        x = call.keep_axes_whole(
            call.x, range(1, len(known)), f"are padded by {call.layer.path!r} at run time"
        )
        return x.with_shape(call.recorded.get(0))
    zeros = call.op == "Pad" or (call.op == "PadV2" and call.scalar(2) == 0)
    constant = call.op != "MirrorPad"
    return padded(call, call.x, list(numbers), constant=constant, zeros=zeros)


@op("DepthToSpace", "SpaceToDepth", does="passes")
def depth_and_space(call: OpCall) -> Labels:
    """channels become blocks of space, and back: what a channel takes part in is tied"""
    layout, block = call.attr("data_format", "NHWC"), int(call.attr("block_size", 1))
    if layout != "NHWC":
        raise CannotTell(f"folds channels in the order {layout}")
    return folded_blocks(call, call.x, block, 3, grow=call.op == "DepthToSpace")


@op("BatchToSpaceND", "SpaceToBatchND", does="passes", numbers=True)
def blocks(call: OpCall) -> Any:
    """blocks of space become samples and back"""
    call.hold_numbers()
    x = call.x
    sizes = call.numbers(1)
    depth = 2 if sizes is None else sizes.size
    x = call.keep_axes_whole(
        x, range(1, 1 + depth), f"stand along an axis that {call.layer.path!r} folds"
    )
    known = call.shape(x)
    return x.with_shape(
        (known[0] if known[0] is None else None, *[None] * depth, *known[1 + depth :])
    )
