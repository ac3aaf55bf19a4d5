"""Operations that pick positions: slices, indices, ellipses, new axes; constants that say which follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.graph.model import Constant
from kprune.labels.labels import Labels
from kprune.labels.sizes import Number
from kprune.rules.effects.movement import taken
from kprune.rules.effects.slicing import cut, indexed, looked_up, picked
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
    listed = isinstance(key, (list, tuple))
    raws = list(raw) if listed else [raw]
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
            place = (raw, written[number]) if listed else (holder, at)
            picked(call, x, axis, Number(part, place), part)
            index.append(part)
        else:
            if not _whole(part):
                x = _sliced(call, x, axis, part, raws[number])
            index.append(part)
            result.append(None if size is None else len(range(size)[part]))
        axis += 1

    return indexed(x, index, tuple(result))


def _whole(part: slice) -> bool:
    return part.start in (None, 0) and part.stop is None and part.step in (None, 1)


def _sliced(call: LayerCall, x: Labels, axis: int, part: slice, record: Any) -> Labels:
    # Keras 2 writes the bounds alone.
    bounds = record.get("config", record) if isinstance(record, dict) else None

    def number(name: str) -> Number | None:
        value = getattr(part, name)
        return None if value is None else Number(value, bounds and (bounds, name))

    return cut(call, x, axis, part, number("start"), number("stop"))


@OPERATIONS.rule("Take", does="passes")
def take(call: LayerCall) -> Labels:
    """constant indices follow; an index computed at run time freezes the axis"""
    x, shape = call.x, call.shape()
    indices = call.argument(1, "indices")
    axis = call.argument(2, "axis")
    if axis is None:
        raise CannotTell("takes from the flattened tensor")
    axis = one_axis(axis, len(shape))
    if isinstance(indices, Labels):
        x = call.keep_axes_whole(x, [axis], f"are looked up by {call.layer.path!r} at run time")
        return looked_up(x, axis, call.shape(indices))
    value = indices.value if isinstance(indices, Constant) else np.asarray(indices)
    if value.ndim != 1:
        x = call.keep_axes_whole(
            x, [axis], f"are taken by {call.layer.path!r} by an array of indices"
        )
        return looked_up(x, axis, value.shape)
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
        call.size_left(along.take(whole))
    return taken(x, value.astype(np.int64), axis, replaced(shape, [axis], [len(value)]))
