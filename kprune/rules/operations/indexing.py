"""Operations that pick positions: slices, indices, ellipses, new axes; constants that say which follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.graph.model import Constant
from kprune.labels.labels import Axis, Labels
from kprune.rules.operations.arguments import one_axis, raw_argument
from kprune.rules.shapes import replaced
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


@OPERATIONS.rule("GetItem", does="passes")
def get_item(call: LayerCall) -> Labels:
    """slices and indices, which follow"""
    x, shape = call.x, call.shape()
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    holder, at = raw_argument(call, 1, "key")
    raw = holder[at]
    parts = list(key) if isinstance(key, (list, tuple)) else [key]
    if isinstance(raw, dict) and raw.get("class_name") == "__tuple__":
        raw = raw["config"]["value"]
    raws = list(raw) if isinstance(key, (list, tuple)) else [raw]
    written = list(range(len(parts)))  # where each part stands in the config
    used = sum(part is not None and part is not Ellipsis for part in parts)
    fill = [slice(None)] * (len(shape) - used)
    if Ellipsis in parts:
        spot = parts.index(Ellipsis)
        parts[spot : spot + 1], raws[spot : spot + 1] = fill, [None] * len(fill)
        written[spot : spot + 1] = [spot] * len(fill)
    else:
        parts, raws = parts + fill, raws + [None] * len(fill)
    index: list[Any] = []
    result: list[int | None] = []
    axis = 0
    for number, part in enumerate(parts):
        if part is None:
            index.append(None)
            result.append(1)
            continue
        size = shape[axis]
        if isinstance(part, bool) or not isinstance(part, (int, slice)):
            raise CannotTell(f"is indexed with {type(part).__name__}")
        if isinstance(part, int):
            listed = isinstance(key, (list, tuple))
            place = raw if listed else holder
            x = _picked(call, x, axis, part, place, written[number] if listed else at)
            index.append(part)
        else:
            if not _whole(part):
                x = _sliced(call, x, axis, part, raws[number])
            index.append(part)
            result.append(None if size is None else len(range(size)[part]))
        axis += 1

    def take(factor: np.ndarray) -> np.ndarray:
        own: list[Any] = []
        at_axis = 0
        for part in index:
            if part is None:
                own.append(None)
                continue
            narrow = factor.shape[at_axis] == 1
            own.append(slice(None) if narrow and isinstance(part, slice) else 0 if narrow else part)
            at_axis += 1
        return factor[tuple(own)]

    return x.move(take, tuple(result))


def _whole(part: slice) -> bool:
    return part.start in (None, 0) and part.stop is None and part.step in (None, 1)


def _picked(call: LayerCall, x: Labels, axis: int, index: int, record: Any, key: Any) -> Labels:
    """`x[..., index]`: that one position must stay, and what stands before it moves it."""
    along = x.axis(axis)
    if not along.factors or along.size is None:
        return x
    index %= along.size
    for factor in along.factors:
        call.freeze(factor[:, index], f"are picked out by number in {call.layer.path!r}")
    call.follow(key, lambda alive: int(alive[:index].sum()), along, record=record)
    return x


def _sliced(call: LayerCall, x: Labels, axis: int, part: slice, record: Any) -> Labels:
    along = x.axis(axis)
    if not along.factors or along.size is None:
        return x
    if part.step not in (None, 1) or not isinstance(record, dict):
        if part.step == -1 and part.start is None and part.stop is None:
            return x
        return call.hold_axes(x, [axis], f"are taken in steps by {call.layer.path!r}")
    size = along.size
    start, stop, _ = part.indices(size)
    bounds = record.get("config", record)  # Keras 2 writes the bounds alone
    if bounds["start"] is not None:
        call.follow("start", lambda alive: int(alive[:start].sum()), along, record=bounds)
    if bounds["stop"] is not None:
        call.follow("stop", lambda alive: int(alive[:stop].sum()), along, record=bounds)
    call.size_left(Axis(stop - start, tuple(factor[:, start:stop] for factor in along.factors)))
    return x


@OPERATIONS.rule("Take", does="passes")
def take(call: LayerCall) -> Labels:
    """constant indices follow; an index computed as the model runs holds the axis"""
    x, shape = call.x, call.shape()
    indices = call.argument(1, "indices")
    axis = call.argument(2, "axis")
    if axis is None:
        raise CannotTell("takes from the flattened tensor")
    axis = one_axis(call, axis, len(shape))
    if isinstance(indices, Labels):
        x = call.hold_axes(x, [axis], f"are looked up by {call.layer.path!r} as the model runs")
        at = indices.rank
        result = (*shape[:axis], *call.shape(indices), *shape[axis + 1 :])
        return x.move(
            lambda f: f.reshape(*f.shape[:axis], *([1] * at), *f.shape[axis + 1 :]), result
        )
    value = indices.value if isinstance(indices, Constant) else np.asarray(indices)
    if value.ndim != 1:
        x = call.hold_axes(x, [axis], f"are taken by {call.layer.path!r} by an array of indices")
        result = (*shape[:axis], *value.shape, *shape[axis + 1 :])
        return x.move(
            lambda f: f.reshape(*f.shape[:axis], *([1] * value.ndim), *f.shape[axis + 1 :]), result
        )
    along = x.axis(axis)
    if along.factors and along.size:
        whole = value.astype(np.int64) % along.size

        def follow(alive: np.ndarray) -> list[int]:
            place = np.cumsum(alive) - 1
            return [int(place[i]) for i in whole if alive[i]]

        if isinstance(indices, Constant):
            call.follow(indices.key, follow, along, record=indices.record)
        else:
            holder, key = raw_argument(call, 1, "indices")
            call.follow(key, follow, along, record=holder)
        call.size_left(Axis(len(whole), tuple(factor[:, whole] for factor in along.factors)))
    result = replaced(shape, [axis], [len(value)])
    return x.move(
        lambda f: f.take(value.astype(np.int64), axis) if f.shape[axis] > 1 else f, result
    )
