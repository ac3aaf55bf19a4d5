"""Layers that Keras 2 makes of TensorFlow's functions: TFOpLambda, SlicingOpLambda and their like.

Keras 2 wraps a TensorFlow function that is called on a layer's output into a layer, and writes the
function's name and arguments into the config. `kprune.rules.tensorflow` has an entry for each; a
function that has none freezes what reaches it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.graph.model import leaves
from kprune.labels.labels import Labels
from kprune.text import clean
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS, OPERATIONS
from kprune.tracing.rule_call import CannotTell

GETITEM = "__operators__.getitem"


@LAYERS.rule(
    "TFOpLambda",
    does="passes",
    note="Keras 2: a TensorFlow function, by the rule of its keras.ops twin",
)
def tf_op_lambda(call: LayerCall) -> Any:
    from kprune.rules.tensorflow import functions
    from kprune.rules.tensorflow.registry import odd_arguments
    from kprune.rules.tensorflow.sizes import computed_sizes, hold_sizes
    from kprune.rules.tensorflow.unmapped import why_unmapped

    name = str(call.config.get("function", "")).removeprefix("compat.v1.")
    known = functions().get(name)
    try:
        if known is None:
            raise CannotTell(f"calls tf.{clean(name)}, {why_unmapped(name)}")
        odd = odd_arguments(call, known)
        if odd or len(call.args) != 1:
            what = clean(", ".join(odd)) or "more arguments"
            raise CannotTell(f"calls tf.{clean(name)} with {what}")
        sizes = computed_sizes(call, known)
        if sizes is not None:
            return sizes
        if not known.reads_sizes:
            hold_sizes(call, [call.args, call.kwargs])
        return known.rule(call)
    except CannotTell:
        hold_sizes(call, [call.args, call.kwargs])
        raise


@LAYERS.rule("SlicingOpLambda", does="passes", note="Keras 2: a slice, which follows")
def slicing_op_lambda(call: LayerCall) -> Any:
    from kprune.rules.tensorflow.sizes import hold_sizes, tensor_of

    if call.config.get("function", GETITEM) != GETITEM:
        return tf_op_lambda(call)
    spec = call.kwargs.get("slice_spec")
    key = [_part(item) for item in spec] if isinstance(spec, list) else _part(spec)
    if call.x.numbers is not None:
        if any(isinstance(leaf, Labels) for leaf in leaves([spec])):
            raise CannotTell("picks a size by a number that is computed")
        picked = call.x.numbers[tuple(key) if isinstance(key, list) else key]
        return tensor_of(np.asarray(picked, object))
    if any(isinstance(leaf, Labels) for leaf in leaves([spec])):
        from kprune.rules.tensorflow.movement import held_index

        hold_sizes(call, spec)
        parts = key if isinstance(key, list) else [key]
        return held_index(call, call.x, call.shape(), [_settled(part) for part in parts])
    view = call.seen_as("GetItem", [call.x], {"key": key}, {"key": "slice_spec"})
    return OPERATIONS.rules["GetItem"].function(view)


def _part(item: Any) -> Any:
    """One index of a slice: an int, a slice, None, or an ellipsis; a tensor where it is computed."""
    if isinstance(item, dict) and item.get("class_name") == "__ellipsis__":
        return Ellipsis
    if isinstance(item, dict) and set(item) == {"start", "stop", "step"}:
        return slice(item["start"], item["stop"], item["step"])
    return item


def _settled(part: Any) -> Any:
    """An index with the numbers in it that are known; what is not known stays a tensor."""
    if isinstance(part, slice):
        return slice(*(_settled(bound) for bound in (part.start, part.stop, part.step)))
    if not isinstance(part, Labels):
        return part
    if part.shape != ():
        raise CannotTell("picks positions that are only known at run time")
    value = None if part.numbers is None else part.numbers.ravel()[0].value
    return part if value is None else value


@LAYERS.rule(
    "ClassMethod", "InstanceMethod", "InstanceProperty",
    does="opaque", note="Keras 2: a method or a property of a ragged or sparse tensor",
)  # fmt: skip
def method(call: LayerCall) -> Any:
    return call.opaque(f"{call.layer.path!r} works on a ragged or a sparse tensor")


@LAYERS.rule(
    "TensorFlowOpLayer", does="opaque", note="TensorFlow 2.0 to 2.3: a node of a TensorFlow graph"
)
def tensorflow_op_layer(call: LayerCall) -> Any:
    return call.opaque(
        f"{call.layer.path!r} is a node of a TensorFlow graph, as Keras of TensorFlow 2.0 to 2.3 wrote it"
    )
