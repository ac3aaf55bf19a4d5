"""What takes one figure of several positions, or normalises over them."""

from __future__ import annotations

from collections.abc import Sequence

from kprune.labels.labels import Labels
from kprune.rules.effects.movement import without_axes
from kprune.rules.shapes import replaced
from kprune.tracing.rule_call import RuleCall


def reduced(
    call: RuleCall, x: Labels, axes: Sequence[int], *, exact: bool, keepdims: bool
) -> Labels:
    """One figure for all positions along some axes.

    Args:
        axes: from 0, in order.
        exact: whether nothing is lost with a unit on these axes.
        keepdims: whether the axes stay, with size 1.
    """
    if not exact:
        for axis in axes:
            call.mix(x.axis(axis), f"are reduced by {call.layer.path!r}")
    return _left(call, call.collapse(x, axes), axes, keepdims=keepdims)


def extreme_positions(
    call: RuleCall, x: Labels, axes: Sequence[int], *, keepdims: bool = False
) -> Labels:
    """The number of the largest (or smallest) position: all of them must stay."""
    x = call.keep_axes_whole(x, axes, f"are indexed by {call.layer.path!r}")
    return _left(call, x, axes, keepdims=keepdims).with_keeps_zero(False)


def _left(call: RuleCall, x: Labels, axes: Sequence[int], *, keepdims: bool) -> Labels:
    if keepdims:
        return x.with_shape(replaced(call.shape(x), axes, [1] * len(axes)))
    return without_axes(call, x, axes)


def normalised(call: RuleCall, x: Labels, axes: Sequence[int], *, shares: bool) -> Labels:
    """Every position divided by something that depends on all along some axes.

    Args:
        shares: whether these add up to 1, as after a softmax.
    """
    why = f"are normalised against each other by {call.layer.path!r}"
    for axis in axes:
        call.mix(x.axis(axis), why, kind="softmax" if shares else "statistic")
    return x.with_keeps_zero(False)


def running_sums(call: RuleCall, x: Labels, axes: Sequence[int]) -> Labels:
    """Every position with the sum of all before it: units that are 0 have no effect."""
    for axis in axes:
        along = x.axis(axis)
        if along.factors and not x.keeps_zero:
            call.mix(along, f"are summed up by {call.layer.path!r}")
    return x.with_keeps_zero(False)
