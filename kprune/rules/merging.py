"""Merging layers (keras/src/layers/merging)."""

from __future__ import annotations

from kprune.elementwise.table import LAYER
from kprune.labels.labels import Labels
from kprune.rules.effects.joining import join
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


@LAYERS.rule("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", does="combines")
def merge(call: LayerCall) -> Labels:
    """element by element: what meets is tied"""
    ranks = {len(call.shape(x)) for x in call.xs}
    if len(ranks) > 1:
        raise CannotTell("merges tensors of different ranks")
    keeps_zero = call.gives_zero(LAYER, call.kind, call.xs, {})
    return call.combine(call.xs).with_keeps_zero(keeps_zero)


@LAYERS.rule("Concatenate", does="combines")
def concatenate(call: LayerCall) -> Labels:
    """one after the other along an axis; along the others what meets is tied"""
    return join(call, call.xs, call.config.get("axis", -1))
