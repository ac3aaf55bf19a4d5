"""Operations that put tensors, or sizes, together, and those that take them apart again.

`Split` is not Keras's: it has its number of equal runs in an attribute that no sizes can replace, so
as much has to go from each. Parts of weights are split here too, which no layer's rule ever sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Labels
from kprune.rules.effects.joining import join, runs, sized_runs, stacked, unstacked
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.values import Number, Value
from kprune.tracing.rule_call import CannotTell


@op("Pack", does="combines", numbers=True)
def pack(call: OpCall) -> Any:
    """one tensor beside the other along a new axis; what meets is tied"""
    held = [value.numbers for value in call.ins]
    labels = stacked(call, [value.labels for value in call.ins], call.attr("axis", 0))
    if any(numbers is not None for numbers in held) and all(
        value.labels.shape == () for value in call.ins
    ):
        numbers = np.empty(len(held), object)
        for index, one in enumerate(held):
            numbers[index] = Number(None, lost=True) if one is None else one[()]
        return Value(labels, numbers)
    call.hold_numbers()
    return labels


@op("Unpack", does="passes", numbers=True)
def unpack(call: OpCall) -> Any:
    """one tensor for each position of an axis"""
    known = call.shape()
    axis = call.attr("axis", 0) % len(known)
    size = known[axis] if known[axis] is not None else call.attr("num", 1)
    numbers = call.numbers(0)
    one = unstacked(call, call.x, axis)
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
    call.hold_numbers()
    return join(call, [value.labels for value in parts], axis)


@op("Split", does="passes", numbers=True)
def split(call: OpCall) -> Any:
    """equal runs of an axis: the same number is removed from each"""
    axis = int(call.constant(0).ravel()[0])
    x, count = call.labels(1), int(call.attr("num_split", 1))
    known = call.shape(x)
    axis %= len(known)
    if known[axis] == count:
        x = apart(call, x, axis)
    along = x.axis(axis)
    if along.factors and along.size is not None:
        for factor in along.factors:
            equal = np.split(factor, count, axis=1)
            for part in equal[1:]:
                call.tie(equal[0].ravel(), part.ravel())
    size = known[axis]
    if size is None:
        return [x] * count
    return runs(call, x, axis, [size // count] * count)


def apart(call: OpCall, x: Labels, axis: int) -> Labels:
    """Single positions are taken out: each is its own thing, such as the rows of a GRU's bias."""
    return call.keep_axes_whole(x, [axis], f"are taken one by one by {call.layer.path!r}")


@op("SplitV", does="passes", numbers=True)
def split_by_sizes(call: OpCall) -> Any:
    """runs of an axis; their sizes follow"""
    x, sizes = call.x, call.numbers(1)
    axis = int(call.constant(2).ravel()[0])
    known = call.shape(x)
    axis %= len(known)
    if sizes is None or any(number.value is None for number in sizes.flat):
        raise CannotTell("splits by sizes that are only known at run time")
    values = [int(number.value or 0) for number in sizes.flat]
    if -1 in values and known[axis] is not None:
        rest = int(known[axis] or 0) - sum(value for value in values if value >= 0)
        values = [rest if value < 0 else value for value in values]
    if 1 in values:
        x = apart(call, x, axis)
    return sized_runs(call, x, axis, values, list(sizes.flat))
