"""Pooling (keras/src/layers/pooling)."""

from __future__ import annotations

from kprune.labels.labels import Labels
from kprune.rules.shapes import ints, replaced, spatial_axes, window
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS

POOLING = [f"{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)]
SHORT = [f"{kind}Pool{rank}D" for kind in ("Max", "Avg") for rank in (1, 2, 3)]
GLOBAL = [f"Global{name}" for name in (*POOLING, *SHORT)]


@LAYERS.rule(*POOLING, *SHORT, does="passes")
def pooling(call: LayerCall) -> Labels:
    """channel by channel"""
    shape = call.shape()
    spatial = spatial_axes(call.config.get("data_format"), len(shape))
    x = call.keep_axes_whole(
        call.x, spatial, f"stand along an axis on which {call.layer.path!r} slides"
    )
    pool = ints(call.config["pool_size"], len(spatial))
    strides = call.config.get("strides")
    strides = pool if strides is None else ints(strides, len(spatial))
    padding = call.config.get("padding", "valid")
    sizes = [
        window(shape[axis], k, s, padding)
        for axis, k, s in zip(spatial, pool, strides, strict=True)
    ]
    return x.with_shape(replaced(shape, spatial, sizes))


@LAYERS.rule(*GLOBAL, does="passes")
def global_pooling(call: LayerCall) -> Labels:
    """channel by channel; the pooled axes are removed, or become 1 with keepdims"""
    shape = call.shape()
    spatial = spatial_axes(call.config.get("data_format"), len(shape))
    x = call.keep_axes_whole(
        call.x, spatial, f"stand along an axis over which {call.layer.path!r} pools"
    )
    if call.config.get("keepdims"):
        return x.with_shape(replaced(shape, spatial, [1] * len(spatial)))
    kept = tuple(size for axis, size in enumerate(shape) if axis not in spatial)
    return x.move(lambda factor: factor.squeeze(tuple(spatial)), kept)


@LAYERS.rule(
    *(f"Adaptive{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)),
    does="passes",
)
def adaptive_pooling(call: LayerCall) -> Labels:
    """channel by channel, to a size that is given"""
    shape = call.shape()
    spatial = spatial_axes(call.config.get("data_format"), len(shape))
    x = call.keep_axes_whole(call.x, spatial, f"stand along an axis that {call.layer.path!r} pools")
    return x.with_shape(replaced(shape, spatial, ints(call.config["output_size"], len(spatial))))
