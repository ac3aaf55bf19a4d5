"""Operations that take one figure of several positions, or normalise over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kprune.graph.model import Constant
from kprune.labels.labels import Labels
from kprune.rules.operations.arguments import axes_of
from kprune.rules.operations.elementwise import with_constant
from kprune.rules.shapes import replaced
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell

SUMS = "Sum Nansum CountNonzero Any".split()
SHARES = ("Softmax", "LogSoftmax", "Sparsemax")
OTHERS = (
    "Mean Nanmean Average Max Amax Nanmax Min Amin Nanmin Prod Nanprod All Std Nanstd Var Nanvar Median Nanmedian "
    "Ptp Logsumexp Norm"
).split()


@OPERATIONS.rule(
    *SUMS, does="passes", note="over units: a unit that gives 0 is not missed, any other mixes"
)
def sums(call: LayerCall) -> Labels:
    return reduce(call, exact=call.x.silent)


@OPERATIONS.rule(*OTHERS, does="mixes", note="over units: what is left changes with each that goes")
def statistics(call: LayerCall) -> Labels:
    return reduce(call, exact=False)


@OPERATIONS.rule(
    "Argmax",
    "Argmin",
    "Nanargmax",
    "Nanargmin",
    does="mixes",
    note="tells which position is largest: units along that axis must stay",
)
def positions_of_extremes(call: LayerCall) -> Labels:
    axes = axes_of(call, call.argument(1, "axis"), len(call.shape()))
    x = call.hold_axes(call.x, axes, f"are indexed by {call.layer.path!r}")
    keepdims = call.argument(2, "keepdims", False)
    return _without_axes(call, x, axes, keepdims=keepdims).with_silence(False)


def reduce(call: LayerCall, *, exact: bool) -> Labels:
    """The labels of a reduction over some axes (all of them if `axis` is None).

    Args:
        exact: whether nothing is lost with a unit on these axes.
    """
    axes = axes_of(call, call.argument(1, "axis"), len(call.shape()))
    if call.kind == "Average":
        _weighted(call, axes)
    return reduced(call, axes, exact=exact, keepdims=call.argument(2, "keepdims", False))


def reduced(call: LayerCall, axes: list[int], *, exact: bool, keepdims: bool) -> Labels:
    """The labels of a reduction over these axes, from 0."""
    x = call.x
    for axis in axes:
        if not exact:
            call.mix(x.axis(axis), f"are reduced by {call.layer.path!r}")
    return _without_axes(call, call.collapse(x, axes), axes, keepdims=keepdims)


def _without_axes(call: LayerCall, x: Labels, axes: list[int], *, keepdims: bool) -> Labels:
    """A tensor that nothing varies along some axes of, without them unless `keepdims` keeps them."""
    shape = call.shape(x)
    if keepdims:
        return x.with_shape(replaced(shape, axes, [1] * len(axes)))
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return x.move(lambda factor: factor.squeeze(tuple(axes)), kept)


def _weighted(call: LayerCall, axes: list[int]) -> None:
    """`weights` of an average: one for each element, or for each position along its axis."""
    for array in call.constants:
        if len(array.shape) == 1 and len(axes) == 1:
            call.constant(array, call.x.axis(axes[0]))
        else:
            with_constant(call, call.x, array)


@OPERATIONS.rule(
    "Quantile", "Nanquantile", "Percentile", "Nanpercentile",
    does="mixes", note="over units: what is left changes with each that goes",
)  # fmt: skip
def quantiles(call: LayerCall) -> Labels:
    """a figure for each q, in front of the axes that are left"""
    q = call.argument(1, "q")
    if isinstance(q, Labels):
        raise CannotTell("takes quantiles that are computed in the model")
    if isinstance(q, Constant):
        call.leave(q)
    given = call.kwargs if "axis" in call.kwargs else call.config
    axes = axes_of(call, given.get("axis"), len(call.shape()))
    x = reduced(call, axes, exact=False, keepdims=bool(given.get("keepdims", False)))
    front = np.shape(q.value if isinstance(q, Constant) else q)
    extents = (1,) * len(front)
    return x.move(lambda factor: factor.reshape(extents + factor.shape), (*front, *call.shape(x)))


@OPERATIONS.rule(
    *SHARES,
    "Normalize",
    "RMSNorm",
    "LayerNorm",
    does="mixes",
    note="normalises over an axis: its units depend on each other",
)
def normalised(call: LayerCall) -> Labels:
    x, rank = call.x, len(call.shape())
    axes = axes_of(call, call.config.get("axis", call.kwargs.get("axis", -1)), rank)
    for axis in axes:
        why = f"are normalised against each other by {call.layer.path!r}"
        call.mix(x.axis(axis), why, kind="softmax" if call.kind in SHARES else "statistic")
    result = x
    for operand in [*call.args[1:], *call.kwargs.values()]:
        if isinstance(operand, Constant) and call.kind in ("RMSNorm", "LayerNorm"):
            result = _scaled(call, result, operand, axes)
        elif isinstance(operand, Labels):
            spread = call.kind == "LayerNorm" and operand.rank != rank
            result = call.combine([result, _spread(call, operand, axes) if spread else operand])
    return result.with_silence(call.kind in ("Normalize", "RMSNorm") and x.silent)


def _scaled(call: LayerCall, x: Labels, constant: Constant, axes: list[int]) -> Labels:
    """The labels of what is normalised, times or plus an array: along the axes of the normalisation."""
    sizes = constant.shape
    if call.kind == "RMSNorm" or len(sizes) == x.rank:
        return with_constant(call, x, constant)
    shape = call.shape(x)
    if sizes == tuple(shape[axis] for axis in axes):
        call.constant(constant, *(x.axis(axis) for axis in axes))
    return x


def _spread(call: LayerCall, operand: Labels, axes: list[int]) -> Labels:
    """A tensor with an axis for each that is normalised, laid along these (`_broadcast` in keras.ops)."""
    shape, own = call.shape(), call.shape(operand)
    if len(own) != len(axes):
        raise CannotTell("scales by a tensor of another rank than the axes that it normalises")

    def laid(sizes: Sequence[int | None]) -> list[Any]:
        wide: list[Any] = [1] * len(shape)
        for axis, size in zip(axes, sizes, strict=True):
            wide[axis] = size
        return wide

    return operand.move(lambda factor: factor.reshape(laid(factor.shape)), tuple(laid(own)))


@OPERATIONS.rule("Moments", does="mixes", note="mean and variance over some axes")
def moments(call: LayerCall) -> Any:
    one = reduce(call, exact=False) if "axis" in call.config else _over(call)
    return [one, one]


def _over(call: LayerCall) -> Labels:
    x, shape = call.x, call.shape()
    axes = axes_of(call, call.argument(1, "axes"), len(shape))
    for axis in axes:
        call.mix(x.axis(axis), f"are reduced by {call.layer.path!r}")
    x = call.collapse(x, axes).with_silence(False)
    return _without_axes(call, x, axes, keepdims=call.argument(2, "keepdims", False))


@OPERATIONS.rule(
    "Cumsum",
    "Nancumsum",
    does="passes",
    note="running sums along an axis: a unit that gives 0 is not missed",
)
def running(call: LayerCall) -> Labels:
    x = call.x
    for axis in axes_of(call, call.argument(1, "axis"), len(call.shape())):
        along = x.axis(axis)
        if along.factors and not x.silent:
            call.mix(along, f"are summed up by {call.layer.path!r}")
    return x.with_silence(False)
