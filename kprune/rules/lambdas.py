"""Lambda (keras/src/layers/core/lambda_layer.py): a function of the user's, in the file as bytecode or by name."""

from __future__ import annotations

from typing import Any

from kprune.tracing.declared_shapes import declared_outputs
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS


@LAYERS.rule(
    "Lambda",
    does="opaque",
    code=True,
    note="its code is run only if you trust the file (--trust), and then traced; "
    "or register a rule for 'Lambda:NAME'",
)
def lambda_layer(call: LayerCall) -> Any:
    """freezes what reaches it; the output has the shape that output_shape declares"""
    given = call.xs[0].shape if call.xs else None
    for index, shape in enumerate(declared_outputs(call.config, given[0] if given else None)):
        if call.recorded.get(index) is None:
            call.recorded[index] = shape
    path = call.layer.path
    rule = f"register a rule for 'Lambda:{path}' (--rules my_layers.py)"
    mask = "or use 'kprune mask', which changes no shape"
    if call.untraced:
        why = f"{path!r} is a Lambda layer, {call.untraced}"
        return call.opaque(why, f"choose other units; {rule}; {mask}")
    return call.opaque(
        f"{path!r} is a Lambda layer: what its code does with units cannot be known",
        f"choose other units; have its code traced, which runs it (--trust); {rule}; {mask}",
    )
