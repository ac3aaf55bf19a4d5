"""Core layers (keras/src/layers/core)."""

from __future__ import annotations

from typing import Any

from kprune.labels.labels import Labels
from kprune.labels.layer_call import LayerCall
from kprune.rules.activations import activate
from kprune.rules.registry import LAYERS
from kprune.rules.shapes import positions


@LAYERS.rule("Dense", does="issues")
def dense(call: LayerCall) -> Labels:
    """units: kernel (last input axis, units), bias (units)"""
    if call.config.get("quantization_config") or _quantized(call):
        raise_quantized(call)
    units = call.units("units")
    shape = call.shape()
    uses = positions(shape[1:-1])
    call.weight("kernel", call.x.last, units, uses=uses, out=1)
    call.weight("bias", units, when=call.config["use_bias"], uses=uses, flops=1, out=0)
    return activate(call, call.x.with_last(units))


@LAYERS.rule("Embedding", does="issues")
def embedding(call: LayerCall) -> Labels:
    """units: the dimensions of the embedding, embeddings (tokens, units)"""
    if _quantized(call):
        raise_quantized(call)
    units = call.units("output_dim")
    call.weight("embeddings", call.config["input_dim"], units, out=1)
    tokens = call.x
    if tokens.shape is None:
        return Labels(None).with_last(units, call.recorded.get(0))
    call.freeze(tokens, f"are looked up by {call.layer.path!r} as tokens")
    return Labels(tokens.shape).with_axis(len(tokens.shape), units, (*tokens.shape, len(units)))


@LAYERS.rule("Identity", "Masking", "ActivityRegularization", does="passes")
def unchanged(call: LayerCall) -> Labels:
    """hands on what it gets"""
    return call.x


@LAYERS.rule("Lambda", does="opaque", note="its code is in the file as bytecode, which kprune never runs")
def lambda_layer(call: LayerCall) -> Any:
    return call.opaque(f"{call.layer.path!r} is a Lambda layer: what its code does with units cannot be known")


def _quantized(call: LayerCall) -> bool:
    policy = call.config.get("dtype")
    return isinstance(policy, dict) and policy.get("class_name") not in ("DTypePolicy", None)


def raise_quantized(call: LayerCall) -> None:
    from kprune.labels.layer_call import CannotTell

    raise CannotTell("is quantized, and kprune does not cut quantized weights yet: prune before you quantize")
