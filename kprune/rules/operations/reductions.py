"""Operations that take one figure of several positions, or normalise over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kprune.graph.model import Constant
from kprune.labels.labels import Labels
from kprune.rules.effects.reductions import extreme_positions, normalised, reduced, running_sums
from kprune.rules.operations.arguments import axes_of
from kprune.rules.operations.elementwise import with_constant
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
    return reduce(call, exact=call.x.keeps_zero)


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
    axes = axes_of(call.argument(1, "axis"), len(call.shape()))
    return extreme_positions(call, call.x, axes, keepdims=call.argument(2, "keepdims", False))


def reduce(call: LayerCall, *, exact: bool) -> Labels:
    """The labels of a reduction over some axes (all of them if `axis` is None).

    Args:
        exact: whether nothing is lost with a unit on these axes.
    """
    axes = axes_of(call.argument(1, "axis"), len(call.shape()))
    if call.kind == "Average":
        _weighted(call, axes)
    return reduced(call, call.x, axes, exact=exact, keepdims=call.argument(2, "keepdims", False))


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
    axes = axes_of(given.get("axis"), len(call.shape()))
    x = reduced(call, call.x, axes, exact=False, keepdims=bool(given.get("keepdims", False)))
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
def normalisation(call: LayerCall) -> Labels:
    x, rank = call.x, len(call.shape())
    axes = axes_of(call.config.get("axis", call.kwargs.get("axis", -1)), rank)
    result = normalised(call, x, axes, shares=call.kind in SHARES)
    for operand in [*call.args[1:], *call.kwargs.values()]:
        if isinstance(operand, Constant) and call.kind in ("RMSNorm", "LayerNorm"):
            result = _scaled(call, result, operand, axes)
        elif isinstance(operand, Labels):
            spread = call.kind == "LayerNorm" and operand.rank != rank
            result = call.combine([result, _spread(call, operand, axes) if spread else operand])
    return result.with_keeps_zero(call.kind in ("Normalize", "RMSNorm") and x.keeps_zero)


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
    axes = axes_of(call.argument(1, "axes"), len(call.shape()))
    keepdims = call.argument(2, "keepdims", False)
    return reduced(call, call.x, axes, exact=False, keepdims=keepdims).with_keeps_zero(False)


@OPERATIONS.rule(
    "Cumsum",
    "Nancumsum",
    does="passes",
    note="running sums along an axis: a unit that gives 0 is not missed",
)
def running(call: LayerCall) -> Labels:
    return running_sums(call, call.x, axes_of(call.argument(1, "axis"), len(call.shape())))
