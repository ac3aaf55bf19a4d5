"""TensorFlow functions that move data, whose sizes and positions in the config follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape, require_room
from kprune.rules.effects.joining import runs, sized_runs
from kprune.rules.effects.movement import new_shape, spread, taken, tiled
from kprune.rules.effects.slicing import block, indexed
from kprune.rules.reshaping import reshaped
from kprune.rules.shapes import replaced
from kprune.rules.tensorflow.registry import (
    argument,
    function,
    only,
    plain_list,
    whole_number,
    written,
)
from kprune.rules.tensorflow.sizes import hold_sizes, known_sizes, size_list
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


@function("reshape", takes="shape", reads_sizes=True)
def reshape(call: LayerCall) -> Labels:
    """reshape; sizes follow, whether written down or computed"""
    numbers = size_list(call, "shape")
    result = reshaped(call, call.x, new_shape(known_sizes(numbers), call.shape()))
    return call.shaped(result, numbers)


@function("broadcast_to", takes="shape", reads_sizes=True)
def broadcast_to(call: LayerCall) -> Labels:
    """broadcast_to; sizes follow"""
    numbers = size_list(call, "shape")
    return call.shaped(spread(call, call.x, known_sizes(numbers)), numbers)


@function("ensure_shape", takes="shape")
def ensure_shape(call: LayerCall) -> Labels:
    """passes its input on unchanged; its shape follows"""
    if not isinstance(call.kwargs.get("shape"), list):
        if call.x.factors:
            raise CannotTell("has a shape that is not a list")
        return call.x
    return call.shaped(call.x, size_list(call, "shape"))


@function("tile", takes="multiples", reads_sizes=True)
def tile(call: LayerCall) -> Labels:
    """tile; only axes without units may be repeated a computed number of times"""
    times = known_sizes(size_list(call, "multiples"))
    hold_sizes(call, call.kwargs)
    if len(times) != len(call.shape()):
        raise CannotTell("adds axes as it tiles")
    return tiled(call, call.x, times)


@function("roll", takes="shift axis")
def roll(call: LayerCall) -> Labels:
    """roll; the shift follows"""
    view = call.seen_as(
        "Roll", call.args, dict(call.kwargs), {"shift": "shift", "axis": "axis"}, config={}
    )
    result: Labels = OPERATIONS.rules["Roll"].function(view)
    return result


@function("pad", takes="paddings mode constant_values")
def pad(call: LayerCall) -> Labels:
    """padding beside units counts as units without names; paddings follow"""
    plain_list(call, call.kwargs.get("paddings"))
    view = call.seen_as(
        "Pad",
        call.args,
        {
            "pad_width": call.kwargs["paddings"],
            "constant_values": argument(call, "constant_values", 0),
        },
        {"pad_width": "paddings"},
        config={"mode": str(argument(call, "mode", "constant")).lower()},
    )
    result: Labels = OPERATIONS.rules["Pad"].function(view)
    return result


@function("split", takes="num_or_size_splits axis", idle="num")
def split(call: LayerCall) -> list[Labels]:
    """runs of one axis; their sizes follow"""
    x, shape = call.x, call.shape()
    axis = whole_number(call, "axis", 0) % len(shape)
    size: int | None = shape[axis]
    where: Any = call.kwargs.get("num_or_size_splits")
    plain_list(call, where)
    if isinstance(where, int):
        require_room(where)
    if size is None:
        sizes = (
            [None] * where if isinstance(where, int) else [n if n != -1 else None for n in where]
        )
        return [x.with_shape(replaced(shape, [axis], [run])) for run in sizes]
    if not isinstance(where, int):
        numbers = size_list(call, "num_or_size_splits")
        rest = size - sum(count for count in where if count > 0)
        counts = [rest if count == -1 else count for count in where]
        return sized_runs(call, x, axis, counts, numbers)
    parts = runs(call, x, axis, [size // where] * where)
    if x.varies(axis):
        _follow_parts(call, x.axis(axis), where, size // where)
        for part in parts:
            call.size_left(part.axis(axis))
    return parts


def _follow_parts(call: LayerCall, along: Axis, number: int, length: int) -> None:
    """Have the number of equal runs become a list of sizes, unless as much goes from each."""

    def follow(alive: np.ndarray) -> int | list[int]:
        counts = alive.reshape(number, length).sum(axis=1).tolist()
        return number if len(set(counts)) == 1 else counts

    call.follow("num_or_size_splits", follow, along, record=written(call))


@function("gather", takes="indices axis batch_dims")
def gather(call: LayerCall) -> Any:
    """constant indices follow; an index computed at run time freezes the axis"""
    only(call, "batch_dims", 0)
    kwargs = {"indices": call.kwargs.get("indices"), "axis": whole_number(call, "axis", 0)}
    view = call.seen_as("Take", [call.x], kwargs, {"indices": "indices"}, config={})
    return OPERATIONS.rules["Take"].function(view)


@function("boolean_mask", takes="mask axis")
def boolean_mask(call: LayerCall) -> Labels:
    """the positions of one axis that a mask in the config keeps; the mask follows"""
    x, shape = call.x, call.shape()
    axis, mask = whole_number(call, "axis", 0) % len(shape), call.kwargs.get("mask")
    keep = plain_list(call, mask).astype(bool)
    if keep.ndim != 1:
        raise CannotTell("masks several axes at once")
    along, picked = x.axis(axis), np.flatnonzero(keep)
    if along.factors:
        call.follow(
            "mask",
            lambda alive: [bool(kept) for kept, left in zip(keep, alive, strict=True) if left],
            along,
            record=written(call),
        )
        call.size_left(along.take(picked))
    return taken(x, picked, axis, replaced(shape, [axis], [len(picked)]))


@function("slice", takes="begin size", reads_sizes=True)
def slice_(call: LayerCall) -> Labels:
    """a block; its begin and length follow"""
    x, shape = call.x, call.shape()
    begins, sizes = size_list(call, "begin"), size_list(call, "size")
    hold_sizes(call, call.kwargs)
    spans: list[slice] = []
    result: list[int | None] = []
    for axis, (size, begin, length) in enumerate(zip(shape, begins, sizes, strict=True)):
        if begin.value == 0 and length.value == -1:
            spans.append(slice(None))
            result.append(size)
            continue
        if begin.value is None or length.value is None or size is None:
            x = call.keep_axes_whole(x, [axis], f"are cut out by {call.layer.path!r} at run time")
            spans.append(slice(None))
            result.append(None if length.value == -1 else length.value)
            continue
        stop = size if length.value == -1 else begin.value + length.value
        spans.append(slice(begin.value, stop))
        result.append(stop - begin.value)
        block(call, x, axis, begin.value, stop, begin, length)
    return indexed(x, spans, tuple(result))


MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


@function("strided_slice", takes=f"begin end strides {' '.join(MASKS)}", idle="var")
def strided_slice(call: LayerCall) -> Labels:
    """x[begin:end:strides, …]; an axis that is not taken whole has its units frozen"""
    x, shape = call.x, call.shape()
    begin, end = (plain_list(call, call.kwargs.get(name)) for name in ("begin", "end"))
    steps = plain_list(call, argument(call, "strides", [1] * len(begin)))
    masks = {name: whole_number(call, name, 0) for name in MASKS}
    key: list[Any] = []
    for place, (first, last, step) in enumerate(zip(begin, end, steps, strict=True)):
        bit = {name: mask >> place & 1 for name, mask in masks.items()}
        if bit["ellipsis_mask"] or bit["new_axis_mask"]:
            key.append(Ellipsis if bit["ellipsis_mask"] else None)
        elif bit["shrink_axis_mask"]:
            key.append(int(first))
        else:
            low = None if bit["begin_mask"] else int(first)
            key.append(slice(low, None if bit["end_mask"] else int(last), int(step)))
    return held_index(call, x, shape, key)


def held_index(call: LayerCall, x: Labels, shape: Shape, key: list[Any]) -> Labels:
    """The labels of x[key], where every axis of which something is taken holds its units."""
    used = sum(part is not None and part is not Ellipsis for part in key)
    spot = key.index(Ellipsis) if Ellipsis in key else len(key)
    full = [*key[:spot], *[slice(None)] * (len(shape) - used), *key[spot + 1 :]]
    axis = 0
    result: list[int | None] = []
    index: list[Any] = []
    for part in full:
        index.append(part)
        if part is None:
            result.append(1)
            continue
        size = shape[axis]
        if part != slice(None) and not (isinstance(part, slice) and part == slice(None, None, 1)):
            x = call.keep_axes_whole(x, [axis], f"are sliced by {call.layer.path!r}")
            index[-1] = slice(None) if isinstance(part, slice) else 0
        if isinstance(part, slice):
            result.append(_slice_size(size, part))
        axis += 1
    return indexed(x, index, tuple(result))


def _slice_size(size: int | None, part: slice) -> int | None:
    """How many positions a slice leaves; None if that is not known."""
    if part in (slice(None), slice(None, None, 1)):
        return size
    bounds = (part.start, part.stop)
    if size is None or any(bound is not None and not isinstance(bound, int) for bound in bounds):
        return None
    return len(range(size)[part])
