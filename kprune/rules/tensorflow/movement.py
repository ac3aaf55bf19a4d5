"""TensorFlow functions that move data, whose sizes and positions in the config follow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape
from kprune.rules.operations.movement import new_shape, taken
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
from kprune.rules.tensorflow.sizes import hold_sizes, known_sizes, meet, size_list
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


@function("reshape", takes="shape", reads_sizes=True)
def reshape(call: LayerCall) -> Labels:
    """reshape; sizes follow, be they written down or computed"""
    numbers = size_list(call, "shape")
    result = reshaped(call, call.x, new_shape(known_sizes(numbers), call.shape()))
    for axis, number in enumerate(numbers):
        meet(call, number, result.axis(axis))
    return result


@function("broadcast_to", takes="shape", reads_sizes=True)
def broadcast_to(call: LayerCall) -> Labels:
    """broadcast_to; sizes follow"""
    numbers, old = size_list(call, "shape"), call.shape()
    extra = len(numbers) - len(old)
    wide = call.x.move(lambda f: f.reshape((1,) * extra + f.shape), (1,) * extra + old)
    sizes: Shape = tuple(
        number.value if number.value is not None else size
        for number, size in zip(numbers, call.shape(wide), strict=True)
    )
    grown = [axis for axis, size in enumerate(call.shape(wide)) if size == 1 and sizes[axis] != 1]
    wide = call.hold_axes(wide, grown, f"are spread along an axis by {call.layer.path!r}")
    for axis, number in enumerate(numbers):
        meet(call, number, wide.axis(axis))
    return wide.with_shape(sizes)


@function("ensure_shape", takes="shape")
def ensure_shape(call: LayerCall) -> Labels:
    """hands on what it gets; its shape follows"""
    if not isinstance(call.kwargs.get("shape"), list):
        if call.x.factors:
            raise CannotTell("has a shape that is no list")
        return call.x
    for axis, number in enumerate(size_list(call, "shape")):
        meet(call, number, call.x.axis(axis))
    return call.x


@function("tile", takes="multiples", reads_sizes=True)
def tile(call: LayerCall) -> Labels:
    """tile; only axes without units may be repeated a computed number of times"""
    times = known_sizes(size_list(call, "multiples"))
    hold_sizes(call, call.kwargs)
    open_axes = [axis for axis, count in enumerate(times) if count is None]
    x = call.hold_axes(call.x, open_axes, f"are repeated by {call.layer.path!r} as the model runs")
    counts = [1 if count is None else count for count in times]
    view = call.seen_as("Tile", [x], {"repeats": counts}, {}, config={})
    result: Labels = OPERATIONS.rules["Tile"].function(view)
    return result.with_shape(replaced(result.shape or (), open_axes, [None] * len(open_axes)))


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
    """what is filled in beside units counts as units nobody can name; paddings follow"""
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
        runs = [None if size is None else size // where] * where
    else:
        rest = None if size is None else size - sum(count for count in where if count > 0)
        runs = [rest if count == -1 else count for count in where]
    if size is None or None in runs:
        return [x.with_shape(replaced(shape, [axis], [run])) for run in runs]
    starts = np.cumsum([0, *runs])
    parts = [range(int(a), int(b)) for a, b in pairwise(starts)]
    if x.varies(axis):
        _follow_parts(call, x.axis(axis), parts, where)
    return [taken(x, part, axis, replaced(shape, [axis], [len(part)])) for part in parts]


def _follow_parts(call: LayerCall, along: Axis, parts: list[range], where: Any) -> None:
    """Have the sizes of runs follow: their number if all stay equal, else a list of sizes."""

    def follow(alive: np.ndarray) -> Any:
        counts = [int(alive[part.start : part.stop].sum()) for part in parts]
        return where if isinstance(where, int) and len(set(counts)) == 1 else counts

    call.follow("num_or_size_splits", follow, along, record=written(call))
    for part in parts:
        call.size_left(Axis(len(part), tuple(f[:, part.start : part.stop] for f in along.factors)))


@function("gather", takes="indices axis batch_dims")
def gather(call: LayerCall) -> Any:
    """constant indices follow; an index computed as the model runs holds the axis"""
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
        call.size_left(Axis(len(picked), tuple(f[:, picked] for f in along.factors)))
    return taken(x, picked, axis, replaced(shape, [axis], [len(picked)]))


@function("slice", takes="begin size", reads_sizes=True)
def slice_(call: LayerCall) -> Labels:
    """a block; where it begins and how long it is follow"""
    x, shape = call.x, call.shape()
    begins, sizes = size_list(call, "begin"), size_list(call, "size")
    hold_sizes(call, call.kwargs)
    spans: list[slice] = []
    result: list[int | None] = []
    for axis, size in enumerate(shape):
        begin, length = begins[axis].value, sizes[axis].value
        if begin == 0 and length == -1:
            spans.append(slice(None))
            result.append(size)
            continue
        if begin is None or length is None or size is None:
            x = call.hold_axes(x, [axis], f"are cut out by {call.layer.path!r} as the model runs")
            spans.append(slice(None))
            result.append(None if length == -1 else length)
            continue
        stop = size if length == -1 else begin + length
        spans.append(slice(begin, stop))
        result.append(stop - begin)
        _follow_block(call, x.axis(axis), axis, begin, stop, open_end=length == -1)
    return x.move(lambda f: f[_narrow(f, spans)], tuple(result))


def _narrow(factor: np.ndarray, spans: list[slice]) -> tuple[slice, ...]:
    return tuple(
        slice(None) if extent == 1 else span
        for extent, span in zip(factor.shape, spans, strict=True)
    )


def _follow_block(
    call: LayerCall, along: Axis, axis: int, begin: int, stop: int, *, open_end: bool
) -> None:
    if not along.factors:
        return
    record = written(call)
    if not all(isinstance(record[key], list) for key in ("begin", "size")):
        raise CannotTell("cuts out units at a place that is computed")
    call.follow(axis, lambda alive: int(alive[:begin].sum()), along, record=record["begin"])
    if not open_end:
        call.follow(axis, lambda alive: int(alive[begin:stop].sum()), along, record=record["size"])
    call.size_left(Axis(stop - begin, tuple(f[:, begin:stop] for f in along.factors)))


MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


@function("strided_slice", takes=f"begin end strides {' '.join(MASKS)}", idle="var")
def strided_slice(call: LayerCall) -> Labels:
    """x[begin:end:strides, …]; an axis that is not taken whole holds its units"""
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
            x = call.hold_axes(x, [axis], f"are sliced by {call.layer.path!r}")
            index[-1] = slice(None) if isinstance(part, slice) else 0
        if isinstance(part, slice):
            result.append(_slice_size(size, part))
        axis += 1
    return x.move(lambda f: f[tuple(index)], tuple(result))


def _slice_size(size: int | None, part: slice) -> int | None:
    """How many positions a slice leaves; None if that is not known."""
    if part in (slice(None), slice(None, None, 1)):
        return size
    bounds = (part.start, part.stop)
    if size is None or any(bound is not None and not isinstance(bound, int) for bound in bounds):
        return None
    return len(range(size)[part])
