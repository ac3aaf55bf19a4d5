"""Operations that bring an axis down to a figure, normalise over it, or slide along it.

Normalisation and pooling stay apart from Keras's layers, which issue weights and know their sizes
from a config; here both come as tensors, and the sizes as the graph records them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from kprune.labels.labels import Labels
from kprune.rules.effects.reductions import extreme_positions, normalised, reduced, running_sums
from kprune.saved_model.rules.contractions import axes_of_image, hold_space
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.values import Value, computed, product
from kprune.tracing.rule_call import CannotTell


@op(
    "Sum",
    "Any",
    does="passes",
    note="over units: a unit that gives 0 is not missed, any other mixes",
    numbers=True,
)
def total(call: OpCall) -> Any:
    return reduce(call, exact=call.x.keeps_zero)


@op(
    "Mean", "Max", "Min", "Prod", "All", "EuclideanNorm",
    does="mixes", note="over units: what is left changes with each that goes", numbers=True,
)  # fmt: skip
def statistic(call: OpCall) -> Any:
    return reduce(call, exact=False)


def reduce(call: OpCall, *, exact: bool) -> Any:
    """The labels of a reduction.

    Args:
        exact: whether nothing is lost with a unit on these axes.
    """
    x, numbers = call.x, call.numbers(0)
    keep = bool(call.attr("keep_dims", False))
    axes = call.axes(1, len(call.shape()))
    if numbers is not None:
        return _reduced_numbers(call, numbers, axes, keep)
    for axis in axes:
        call.traced.summed.append(x.axis(axis).all_ids())
    # exp(0) and the like: a mean of what is not 0 is not 0 either; a maximum of 0 is.
    return reduced(call, x, axes, exact=exact, keepdims=keep)


def _reduced_numbers(call: OpCall, numbers: np.ndarray, axes: list[int], keep: bool) -> Value:
    if call.op == "Prod" and axes == list(range(numbers.ndim)):
        found = product(list(numbers.flat))
    else:
        found = computed(None, list(numbers.flat))
    for number in numbers.flat:
        call.keep_value(number)
    shape = tuple(
        1 if a in axes else n for a, n in enumerate(numbers.shape) if keep or a not in axes
    )
    result = np.empty(shape, object)
    result[...] = found
    return Value(Labels(shape), result)


@op(
    "ArgMax",
    "ArgMin",
    does="mixes",
    note="tells which position is largest: units along that axis must stay",
    numbers=True,
)
def largest(call: OpCall) -> Labels:
    return extreme_positions(call, call.x, call.axes(1, len(call.shape())))


@op(
    "Softmax",
    "LogSoftmax",
    does="mixes",
    note="normalises over the last axis: its units depend on each other",
)
def softmax(call: OpCall) -> Labels:
    return normalised(call, call.x, [call.x.rank - 1], shares=True)


@op("L2Loss", does="passes", note="units that are 0 have no effect")
def l2(call: OpCall) -> Labels:
    if not call.x.keeps_zero:
        call.mix(call.x, f"are reduced by {call.layer.path!r}")
    return Labels(())


@op("Cumsum", does="passes", note="running sums: units that are 0 have no effect", numbers=True)
def running(call: OpCall) -> Labels:
    return running_sums(call, call.x, call.axes(1, len(call.shape())))


@op("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", does="combines")
def batch_normalisation(call: OpCall) -> Any:
    """channel by channel, with four weights each"""
    x = call.x
    rank = len(call.shape(x))
    channels, space = axes_of_image(call, rank)
    others = [value.labels for value in call.ins[1:5]]
    sizes = [1] * rank
    laid = []
    for vector in others:
        size = call.shape(vector)[0]
        if not size:
            continue  # while training, mean and variance come empty
        extents = list(sizes)
        extents[channels] = size
        laid.append(
            vector.move(
                partial(_laid, extents),
                tuple(extents),
            )
        )
    if call.attr("is_training", True):
        held = [axis for axis in space if x.varies(axis)]
        x = call.keep_axes_whole(x, held, f"are normalised together by {call.layer.path!r}")
    result = call.combine([x, *laid])
    keeps_zero = all(vector.keeps_zero and bool(vector.factors) for vector in others[:2])
    vector = others[0]
    return [result.with_keeps_zero(keeps_zero), *[vector] * 5]


def _laid(extents: list[int], factor: np.ndarray) -> np.ndarray:
    """A vector along the one axis that is longer than 1."""
    return factor.reshape([factor.shape[0] if size > 1 else 1 for size in extents])


@op(
    "MaxPool",
    "AvgPool",
    "MaxPool3D",
    "AvgPool3D",
    "MaxPoolV2",
    does="passes",
    note="channel by channel",
)
def pooling(call: OpCall) -> Labels:
    known = call.shape()
    channels, space = axes_of_image(call, len(known))
    windows = call.attr("ksize") or []
    if windows and windows[channels] != 1:
        raise CannotTell("pools over channels")
    x = hold_space(call, call.x, space)
    recorded = call.recorded.get(0)
    sizes: list[int | None] = list(recorded) if recorded is not None else [None] * len(known)
    sizes[channels] = known[channels]
    sizes[0] = known[0]
    return x.with_shape(tuple(sizes))


@op(
    "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea",
    does="passes", note="channel by channel",
)  # fmt: skip
def resize(call: OpCall) -> Labels:
    known = call.shape()
    x = hold_space(call, call.x, [1, 2])
    recorded = call.recorded.get(0)
    space = recorded[1:3] if recorded is not None else (None, None)
    return x.with_shape((known[0], *space, known[3]))


@op("LRN", does="mixes", note="normalises over neighbouring channels")
def local_response(call: OpCall) -> Labels:
    call.mix(call.x.last, f"are normalised against their neighbours by {call.layer.path!r}")
    return call.x
