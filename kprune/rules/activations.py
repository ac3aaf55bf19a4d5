"""Activation functions and layers (keras/src/activations, keras/src/layers/activations)."""

from __future__ import annotations

from typing import Any

from kprune.elementwise.facts import names
from kprune.elementwise.table import LAYER
from kprune.elementwise.written import (
    OVER_LAST_AXIS,
    Written,
    activation_name,
    written_activation,
    written_layer,
)
from kprune.labels.labels import Labels
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


def activate(call: LayerCall, labels: Labels, field: str = "activation") -> Labels:
    """What the activation in a layer's config makes of its output."""
    name = activation_name(call.config.get(field))
    if name in OVER_LAST_AXIS or name == "Softmax":
        call.mix(
            labels.last,
            f"are normalised against each other by the {name} of {call.layer.path!r}",
            kind="softmax",
        )
        return labels.with_keeps_zero(False)
    function = elementwise_activation(call.config, field)
    return labels.with_keeps_zero(labels.keeps_zero and function.keeps_zero)


def elementwise_activation(config: dict[str, Any], field: str) -> Written:
    """The activation in a config, which works element by element.

    Raises: CannotTell if kprune does not know it.
    """
    function = written_activation(config.get(field))
    if function is None:
        name = activation_name(config.get(field))
        raise CannotTell(f"has the {field} {name!r}, for which kprune has no rule")
    return function


@LAYERS.rule("Activation", does="passes")
def activation(call: LayerCall) -> Labels:
    """element by element; softmax mixes over the last axis"""
    return activate(call, call.x)


@LAYERS.rule(
    *names(LAYER, operands=lambda count: count == 1), does="passes", note="element by element"
)
def elementwise(call: LayerCall) -> Labels:
    function = written_layer(call.kind, call.config)
    return call.x.with_keeps_zero(
        call.x.keeps_zero and function is not None and function.keeps_zero
    )


@LAYERS.rule("PReLU", does="passes")
def prelu(call: LayerCall) -> Labels:
    """alpha has every axis but the batch, of size 1 on shared axes"""
    shared = call.config.get("shared_axes") or []
    shared = [shared] if isinstance(shared, int) else shared
    axes = [1 if axis in shared else call.x.axis(axis) for axis in range(1, len(call.shape()))]
    call.weight("alpha", *axes)
    return call.x


@LAYERS.rule("Softmax", does="mixes")
def softmax(call: LayerCall) -> Labels:
    """normalises over an axis: its units depend on each other"""
    axes = call.config.get("axis", -1)
    for axis in [axes] if isinstance(axes, int) else axes:
        why = f"are normalised against each other by {call.layer.path!r}"
        call.mix(call.x.axis(axis), why, kind="softmax")
    return call.x.with_keeps_zero(False)
