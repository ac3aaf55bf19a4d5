"""Merging layers (keras/src/layers/merging)."""

from __future__ import annotations

import numpy as np

from kprune.elementwise.table import LAYER
from kprune.labels.labels import Axis, Factors, Labels
from kprune.rules.shapes import replaced
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell, RuleCall


@LAYERS.rule("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", does="combines")
def merge(call: LayerCall) -> Labels:
    """element by element: what meets is tied"""
    ranks = {len(call.shape(x)) for x in call.xs}
    if len(ranks) > 1:
        raise CannotTell("merges tensors of different ranks")
    silent = call.gives_zero(LAYER, call.kind, call.xs, {})
    return call.combine(call.xs).with_silence(silent)


@LAYERS.rule("Concatenate", does="combines")
def concatenate(call: LayerCall) -> Labels:
    """one after the other along an axis; along the others what meets is tied"""
    return join(call, call.xs, call.config.get("axis", -1))


def join(call: RuleCall, xs: list[Labels], axis: int) -> Labels:
    """The labels of a concatenation.

    Args:
        xs: tensors of one rank.
        axis: along which they are put.
    """
    shapes = [call.shape(x) for x in xs]
    rank = len(shapes[0])
    axis %= rank
    sizes = [shape[axis] for shape in shapes]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    along = [x.axis(axis) for x in xs]
    shape = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    if any(len(one.factors) > 1 or not one.plain for one in along):
        return _join_wide(call, xs, axis, shape)
    elsewhere = [x.without(axis) if x.varies(axis) else x for x in xs]
    kept: Factors = ()
    if any(x.factors for x in elsewhere):
        # What stands along the other axes must agree in every part.
        kept = call.combine(
            [x.with_shape(replaced(call.shape(x), [axis], [1])) for x in elsewhere]
        ).factors
    joined = Labels(shape, kept)
    if total is None or not any(one.factors for one in along):
        for one in along:
            call.freeze(one, f"are joined by {call.layer.path!r} along an axis of unknown size")
        return joined
    ids = [one.ids if one.factors else np.zeros(one.size or 0, np.int64) for one in along]
    own = Labels(shape).with_axis(axis, Axis.of(np.concatenate(ids)))
    return Labels(shape, (*own.factors, *kept), all(x.silent for x in xs))


def _join_wide(
    call: RuleCall, xs: list[Labels], axis: int, shape: tuple[int | None, ...]
) -> Labels:
    """Parts whose units stand along several axes at once: joined as whole arrays, one factor each."""
    if any(len(x.factors) > 1 for x in xs) or any(size is None for size in shape[1:]):
        for x in xs:
            call.freeze(x, f"are joined by {call.layer.path!r} along two axes at once")
        return Labels(shape)
    parts = []
    for x in xs:
        factor = x.factors[0] if x.factors else np.zeros((1,) * len(shape), np.int64)
        parts.append(x.spread(factor))
    from kprune.labels.labels import fold

    return Labels(shape, (fold(np.concatenate(parts, axis)),), all(x.silent for x in xs))
