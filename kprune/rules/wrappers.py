"""Layers around layers (keras/src/layers/rnn: bidirectional.py, time_distributed.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.graph.model import leaves
from kprune.labels.labels import Axis, Labels
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


@LAYERS.rule("Bidirectional", does="issues")
def bidirectional(call: LayerCall) -> Any:
    """units: forward, then backward ones; unit i of both directions goes together"""
    config = call.config
    states = call.xs[1:]
    half = len(states) // 2
    forward = call.inner(config["layer"], "forward_layer", call.x, more=states[:half])
    backward = call.inner(_backward(config), "backward_layer", call.x, more=states[half:])
    ahead, back = list(leaves(forward)), list(leaves(backward))
    one, other = ahead[0], back[0]
    mode = config.get("merge_mode", "concat")
    # Keras infers the width of the joined halves from the forward one alone, so halves of unequal
    # width would not load; and every other mode adds up unit i of both. So they are always tied.
    if one.last.ids.size and one.last.ids.size == other.last.ids.size:
        call.tie(one.last, other.last)
        ids = (
            np.concatenate([one.last.ids, other.last.ids])
            if mode in ("concat", None)
            else one.last.ids
        )
        call.adopt("units", ids)
    else:
        raise CannotTell("has halves of unequal width")
    if mode is None:
        outputs: list[Labels] = [one, other]
    elif mode == "concat":
        width = None if one.last.size is None else one.last.size + (other.last.size or 0)
        joined = Axis.of(np.concatenate([one.last.ids, other.last.ids]))
        outputs = [one.with_last(joined, (*call.shape(one)[:-1], width))]
    else:
        outputs = [call.combine([one, other])]
    outputs += ahead[1:] + back[1:]
    return outputs if len(outputs) > 1 else outputs[0]


def _backward(config: dict[str, Any]) -> dict[str, Any]:
    """The backward layer's dict. Keras 2 leaves it out where it mirrors the forward one.

    Both halves then read one dict, and can: their units go together.
    """
    found: dict[str, Any] = config.get("backward_layer") or config["layer"]
    return found


@LAYERS.rule("TimeDistributed", does="passes")
def time_distributed(call: LayerCall) -> Any:
    """whatever the layer inside does, at every time step"""
    shape = call.shape()
    x = call.keep_axes_whole(call.x, [1], f"stand along the time axis of {call.layer.path!r}")
    step = Labels((shape[0], *shape[2:]), tuple(factor[:, 0] for factor in x.factors))
    result = call.inner(call.config["layer"], "layer", step, times=shape[1] or 1)
    for name, ids in call.inner_units("layer").items():
        call.adopt(name, ids)

    def with_time(labels: Labels) -> Labels:
        if labels.shape is None:
            raise CannotTell("wraps a layer whose output has an unknown shape")
        return Labels(
            (labels.shape[0], shape[1], *labels.shape[1:]),
            tuple(factor[:, None] for factor in labels.factors),
        )

    outputs = [with_time(labels) for labels in leaves(result)]
    return outputs if len(outputs) > 1 else outputs[0]


@LAYERS.rule("SpectralNormalization", does="passes")
def spectral_normalization(call: LayerCall) -> Any:
    """whatever the layer inside does; vector_u (1, the kernel's last axis)"""
    outputs = call.inner(call.config["layer"], "layer", call.x)
    kernel = call.inner_weight("layer", ("kernel", "embeddings"))
    # The wrapper keeps the inner kernel as an attribute of its own, so Keras saves it for both.
    call.weight(
        "kernel",
        *kernel.axes,
        out=kernel.out,
        also=kernel.also,
        grouped=kernel.grouped,
        duplicate=True,
    )
    call.weight("vector_u", 1, kernel.axes[-1], trainable=False)
    for name, ids in call.inner_units("layer").items():
        call.adopt(name, ids)
    return outputs
