"""Operations that pick positions: slices and gathers; constants that say which follow.

A gather with constant indices holds its axis, where a config's list of indices follows: a number in
a constant can be rewritten, but not how many there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Labels
from kprune.rules.effects.slicing import block, cut, indexed, looked_up, picked
from kprune.saved_model.rules.joining import apart
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.values import Number, Value
from kprune.tracing.rule_call import CannotTell


@op("Slice", does="passes", numbers=True)
def cut_out(call: OpCall) -> Any:
    """a block: begin and size along each axis, which follow"""
    x, begins, sizes = call.x, call.numbers(1), call.numbers(2)
    known = call.shape(x)
    if begins is None or sizes is None:
        return call.keep_axes_whole(
            x, range(len(known)), f"are cut out by {call.layer.path!r} at run time"
        ).with_shape(call.recorded.get(0))
    result: list[int | None] = []
    spans: list[slice] = []
    for axis, size in enumerate(known):
        begin, length = begins.ravel()[axis], sizes.ravel()[axis]
        if begin.value is None or length.value is None or size is None:
            x = call.keep_axes_whole(x, [axis], f"are cut out by {call.layer.path!r} at run time")
            result.append(
                length.value if length.value not in (-1, None) and length.value >= 0 else None
            )
            spans.append(slice(None))
            for number in (begin, length):
                call.use_value(number)
            continue
        stop = size if length.value == -1 else begin.value + length.value
        if stop - begin.value == 1:
            x = apart(call, x, axis)
        result.append(stop - begin.value)
        spans.append(slice(begin.value, stop))
        if x.varies(axis):
            block(call, x, axis, begin.value, stop, begin, length)
        else:
            call.use_value(begin)
            call.use_value(length)
    if call.ins[0].numbers is not None:
        held = call.ins[0].numbers[tuple(spans)]
        return Value(Labels(held.shape), held)
    return indexed(x, spans, tuple(result))


@op("StridedSlice", does="passes", numbers=True)
def strided_slice(call: OpCall) -> Any:
    """x[begin:end:stride, …]; begin and end follow"""
    x, known = call.x, call.shape()
    begins, ends, strides = call.numbers(1), call.numbers(2), call.numbers(3)
    if begins is None or ends is None or strides is None:
        held = call.keep_axes_whole(
            x, range(len(known)), f"are sliced by {call.layer.path!r} at run time"
        )
        recorded = call.recorded.get(0)
        if held.factors:
            call.freeze(held, f"are sliced by {call.layer.path!r} at run time")
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
        x, part, new = _span(
            call, x, axis, None if open_begin else begin, None if open_end else end, stride
        )
        index.append(part)
        result.append(new)
        axis += 1
    index += [slice(None)] * (len(known) - axis)
    result += list(known[axis:])
    numbers = call.numbers(0)
    if numbers is not None:
        left = np.asarray(numbers[tuple(index)], object)
        return Value(Labels(left.shape), left)
    return indexed(x, index, tuple(result))


def _span(
    call: OpCall, x: Labels, axis: int, begin: Number | None, end: Number | None, stride: Number
) -> tuple[Labels, slice, int | None]:
    """One `begin:end:stride`.

    Returns: what is sliced, without units along the axis if these must stay; the slice; and the size that is left.
    """
    held = f"are sliced by {call.layer.path!r}"
    size = call.shape(x)[axis]
    given = [number for number in (begin, end) if number is not None]
    step = stride.value
    if size is None or step is None or any(number.value is None for number in given):
        for number in given:
            call.use_value(number)
        if not given and step in (1, -1):
            return x, slice(None, None, step), size
        return call.keep_axes_whole(x, [axis], held), slice(None), None
    part = slice(begin.value if begin else None, end.value if end else None, step)
    new = len(range(size)[part])
    if not x.varies(axis) or new == 1:
        for number in given:
            call.use_value(number)
        return call.keep_axes_whole(x, [axis], held), part, new
    return cut(call, x, axis, part, begin, end), part, new


def _pick(call: OpCall, x: Labels, axis: int, begin: Number) -> Labels:
    """`x[..., index]`: that one position must stay, and what stands before it moves it."""
    along = x.axis(axis)
    if not along.factors or along.size is None:
        if call.ins[0].numbers is None or begin.value is None:
            call.use_value(begin)
        else:
            call.keep_value(begin)
        return x
    if begin.value is None:
        return call.keep_axes_whole(x, [axis], f"are picked out by {call.layer.path!r} at run time")
    picked(call, x, axis, begin, begin.value)
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
    call.hold_numbers()
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
    x = call.keep_axes_whole(
        x, range(axis, axis + depth), f"are looked up by {call.layer.path!r} at run time"
    )
    own = call.shape(indices.labels)
    own = own[:-1] if call.op in ("GatherNd", "ResourceGatherNd") else own
    call.makes(x, [a for a in range(len(known)) if not axis <= a < axis + depth], 0.0)
    return looked_up(x, axis, own, depth=depth)
