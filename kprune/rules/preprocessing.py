"""Preprocessing that only changes values (keras/src/layers/preprocessing)."""

from __future__ import annotations

from kprune.labels.labels import Labels
from kprune.labels.layer_call import LayerCall
from kprune.rules.registry import LAYERS


@LAYERS.rule("Rescaling", does="passes")
def rescaling(call: LayerCall) -> Labels:
    """scale and offset may be numbers, or arrays along the last axes, which are cut"""
    for field in ("scale", "offset"):
        value = call.config[field]
        if isinstance(value, dict):
            value = value["config"]["value"]
        depth = 0
        sizes = []
        while isinstance(value, list):
            sizes.append(len(value))
            value, depth = value[0], depth + 1
        if not depth:
            continue
        rank = len(call.shape())
        axes = [call.x.axis(rank - depth + i) if size != 1 else 1 for i, size in enumerate(sizes)]
        call.constant(field, *axes)
    return call.x
