"""Operations that put tensors together, and those that take them apart again."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Labels, require_room
from kprune.rules.effects.joining import join, runs, stacked, unstacked
from kprune.rules.operations.arguments import one_axis, raw_argument, tensors_of
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


@OPERATIONS.rule("Concatenate", "Append", "Hstack", "Vstack", "Dstack", does="combines")
def concatenate(call: LayerCall) -> Labels:
    """one after the other along an axis; along the others what meets is tied"""
    xs = tensors_of(call)
    rank = len(call.shape(xs[0]))
    if call.kind in ("Concatenate", "Append"):
        axis = call.config.get(
            "axis", call.kwargs.get("axis", 0 if call.kind == "Concatenate" else None)
        )
        return join(call, xs, one_axis(axis, rank))
    least, axis = {"Hstack": (2, 1), "Vstack": (2, 0), "Dstack": (3, 2)}[call.kind]
    if rank < least:
        raise CannotTell(f"stacks tensors of rank {rank}")
    return join(call, xs, axis)


@OPERATIONS.rule("Stack", does="combines")
def stack(call: LayerCall) -> Labels:
    """one tensor behind the other along a new axis; what meets is tied"""
    xs = tensors_of(call)
    rank = len(call.shape(xs[0])) + 1
    axis = one_axis(call.argument(1, "axis", 0), rank)
    return stacked(call, xs, axis)


@OPERATIONS.rule("Unstack", does="passes")
def unstack(call: LayerCall) -> Any:
    """one tensor for each position of an axis"""
    shape = call.shape()
    axis = one_axis(call.argument(2, "axis", 0), len(shape))
    size = shape[axis]
    if size is None:
        raise CannotTell("unstacks an axis of unknown size")
    require_room(size)
    return [unstacked(call, call.x, axis)] * size


@OPERATIONS.rule("Split", "ArraySplit", "Hsplit", "Vsplit", "Dsplit", does="passes")
def split(call: LayerCall) -> Any:
    """runs of one axis; the points where it is split follow"""
    shape = call.shape()
    fixed = {"Hsplit": 1, "Vsplit": 0, "Dsplit": 2}.get(call.kind)
    axis = one_axis(call.argument(2, "axis", 0) if fixed is None else fixed, len(shape))
    size = shape[axis]
    where = call.argument(1, "indices_or_sections")
    if size is None:
        raise CannotTell("splits an axis of unknown size")
    require_room(max(size, where) if isinstance(where, int) else size)
    if isinstance(where, int):
        sizes = [len(part) for part in np.array_split(np.arange(size), where)]
        points = [int(point) for point in np.cumsum(sizes)[:-1]]
    else:
        points = [int(point) for point in where]
        sizes = [len(part) for part in np.split(np.arange(size), points)]
    parts = runs(call, call.x, axis, sizes)
    if call.x.varies(axis):
        holder, key = raw_argument(call, 1, "indices_or_sections")

        def follow(alive: np.ndarray) -> Any:
            counts = [int(part.sum()) for part in np.split(alive, points)]
            if isinstance(where, int) and len(set(counts)) == 1:
                return where
            return [int(point) for point in np.cumsum(counts)[:-1]]

        call.follow(key, follow, call.x.axis(axis), record=holder)
        for part in parts:
            call.size_left(part.axis(axis))
    return parts
