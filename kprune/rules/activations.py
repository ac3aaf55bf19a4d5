"""Activation functions and layers (keras/src/activations, keras/src/layers/activations)."""

from __future__ import annotations

from typing import Any

from kprune.labels.labels import Labels
from kprune.labels.layer_call import LayerCall
from kprune.labels.rule_call import CannotTell
from kprune.rules.registry import LAYERS

# f(x) at a position depends on x at that position alone.
ELEMENTWISE = frozenset(
    "linear relu relu6 leaky_relu elu selu celu gelu silu swish mish sigmoid hard_sigmoid hard_silu "
    "hard_swish hard_tanh hard_shrink soft_shrink tanh tanh_shrink softplus softsign sparse_plus "
    "sparse_sigmoid squareplus sparse_plus exponential threshold log_sigmoid sigmoid tanhshrink".split()
)
# Normalised over the last axis: what one unit gives depends on all of them.
OVER_LAST_AXIS = frozenset({"softmax", "log_softmax", "sparsemax"})

# f(0) is not 0: a masked unit still gives something behind these.
AWAY_FROM_ZERO = frozenset(
    "sigmoid hard_sigmoid log_sigmoid softplus sparse_plus sparse_sigmoid squareplus exponential threshold".split()
)

ELEMENTWISE_LAYERS = ("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU")


def activation_name(activation: Any) -> str:
    """The name of a serialized activation: a string, a function's dict, or a layer's dict.

    Returns: `linear` for None; a class name for a layer; `package>name` for a function that is not Keras's.
    """
    if activation is None:
        return "linear"
    if isinstance(activation, str):
        return activation
    if not isinstance(activation, dict):
        return "?"
    kind, module = activation.get("class_name"), activation.get("module") or ""
    if kind == "function":
        name = activation.get("config")
        own = module in ("builtins", "") or module == "keras" or module.startswith("keras.")
        registered = activation.get("registered_name")
        if own and registered in (name, "function", None):
            return str(name)
        return str(registered or name)
    inner = activation.get("config") or {}
    if kind == "Activation":
        return activation_name(inner.get("activation"))
    return str(kind)


def activate(call: LayerCall, labels: Labels, field: str = "activation") -> Labels:
    """What the activation in a layer's config makes of its output."""
    name = activation_name(call.config.get(field))
    if name in ELEMENTWISE or name in ELEMENTWISE_LAYERS:
        return labels.with_silence(False) if name in AWAY_FROM_ZERO else labels
    if name in OVER_LAST_AXIS or name == "Softmax":
        call.mix(
            labels.last, f"are normalised against each other by the {name} of {call.layer.path!r}"
        )
        return labels.with_silence(False)
    raise CannotTell(f"has the activation {name!r}, for which kprune has no rule")


@LAYERS.rule("Activation", does="passes")
def activation(call: LayerCall) -> Labels:
    """element by element; softmax mixes over the last axis"""
    return activate(call, call.x)


@LAYERS.rule(*ELEMENTWISE_LAYERS, does="passes", note="element by element")
def elementwise(call: LayerCall) -> Labels:
    return call.x


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
        call.mix(call.x.axis(axis), f"are normalised against each other by {call.layer.path!r}")
    return call.x.with_silence(False)
