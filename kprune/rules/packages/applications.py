"""Layers that belong to keras.applications."""

from __future__ import annotations

from kprune.labels.labels import Labels
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS


@LAYERS.rule("LayerScale", does="passes")
def layer_scale(call: LayerCall) -> Labels:
    """ConvNeXt: gamma (channels) times what it gets; its config counts them"""
    call.size("projection_dim", call.x.last)
    call.weight("gamma", call.x.last)
    return call.x


@LAYERS.rule("StochasticDepth", does="passes", values="same")
def stochastic_depth(call: LayerCall) -> Labels:
    """ConvNeXt: drops whole samples, in training only"""
    return call.x


@LAYERS.rule("CustomScaleLayer", does="combines")
def custom_scale(call: LayerCall) -> Labels:
    """InceptionResNetV2: first input + scale * second"""
    return call.combine(call.xs)
