"""An Edit carried out on the protos: shapes, sizes in constants, constant weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kprune.errors import DamagedFileError
from kprune.saved_model.tracing.graph import MAIN, constant, shape_of
from kprune.text import clean

# Operations that say their output's shape in an attribute of their own.
_SHAPED = frozenset(
    {
        "Placeholder",
        "PlaceholderWithDefault",
        "EnsureShape",
        "VarHandleOp",
        "VariableV2",
        "Variable",
    }
)


def carry_out(
    meta: Any,
    changes: Mapping[str, Any],
    variables: Mapping[str, list[int]],
    objects: Mapping[int, list[int]],
    constants: Mapping[tuple[str, str], np.ndarray],
    savers: Collection[str],
) -> None:
    """Rewrite a MetaGraphDef in place.

    Args:
        changes: what `GraphAnalysis.rewritten` gave.
        variables: by VarHandleOp node of the main graph, new shapes.
        objects: by node of the object graph, new shapes of variables.
        constants: new values of constant weights.
        savers: nodes of the main graph that call a function to save or restore variables.
    """
    library = {f.signature.name: f for f in meta.graph_def.library.function}
    nodes = {MAIN: {node.name: node for node in meta.graph_def.node}}
    for graph, changed in changes.get("graphs", {}).items():
        if graph not in nodes:
            nodes[graph] = {node.name: node for node in library[graph].node_def}
        for name, change in changed.items():
            _change_node(nodes[graph][name], change)
    for (graph, name), value in constants.items():
        held = nodes.get(graph) or {node.name: node for node in library[graph].node_def}
        _set_constant(held[name], value)
        _set_shapes(held[name], {0: list(value.shape)})
    for name, shape in variables.items():
        if name not in nodes[MAIN]:
            raise DamagedFileError("a variable of the graph has no node in it", where=clean(name))
        _set_shape(nodes[MAIN][name].attr["shape"].shape, shape)
    for node, shape in objects.items():
        _set_shape(meta.object_graph_def.nodes[node].variable.shape, shape)
    for name, shapes in changes.get("arguments", {}).items():
        _change_arguments(library[name], shapes)
        _change_signature(meta, name, shapes, "canonicalized_input_signature")
    _change_functions(meta, changes.get("arguments", {}))
    for name in sorted(savers):
        _change_saver(nodes[MAIN][name], library, variables)
    for part, field in (("handles", "input_arg"), ("given_handles", "output_arg")):
        for name, shapes in changes.get(part, {}).items():
            _change_handles(getattr(library[name].signature, field), shapes)
    for name, shapes in changes.get("results", {}).items():
        _change_signature(meta, name, shapes, "output_signature")
    _change_signature_defs(meta, changes)


def _change_node(node: Any, change: Mapping[str, Any]) -> None:
    shapes = change.get("shapes", {})
    _set_shapes(node, shapes)
    if node.op in _SHAPED and "shape" in node.attr and 0 in shapes and node.op != "VarHandleOp":
        _merge(node.attr["shape"].shape, shapes[0])
    if "axes" in change:
        _write_axes(node, change["axes"])
    numbers = change.get("value")
    if numbers:
        value = constant(node)
        assert value is not None
        flat = value.ravel().copy()
        for index, number in numbers.items():
            flat[index] = number
        _set_constant(node, flat.reshape(value.shape))


def _write_axes(node: Any, axes: Sequence[int]) -> None:
    """Have a Squeeze say what it takes away. An empty list means every axis of size 1."""
    if axes:
        node.attr["squeeze_dims"].list.i[:] = axes
        return
    node.op = "Identity"
    node.attr.pop("squeeze_dims", None)


def _set_shapes(node: Any, shapes: Mapping[int, list[int | None]]) -> None:
    for attribute in ("_output_shapes", "output_shapes"):
        if attribute in node.attr:
            listed = node.attr[attribute].list.shape
            for index, shape in shapes.items():
                if index < len(listed):
                    _merge(listed[index], shape)


def _merge(proto: Any, shape: Sequence[int | None]) -> None:
    """Set the sizes that the proto knows; what it leaves open stays open."""
    if proto.unknown_rank or len(proto.dim) != len(shape):
        return
    for dim, size in zip(proto.dim, shape, strict=True):
        if dim.size >= 0 and size is not None:
            dim.size = size


def _set_shape(proto: Any, shape: list[int]) -> None:
    if len(proto.dim) != len(shape):
        raise DamagedFileError(
            f"a variable has {len(proto.dim)} axes in the graph and {len(shape)} in the checkpoint"
        )
    for dim, size in zip(proto.dim, shape, strict=True):
        dim.size = size


def _set_constant(node: Any, value: np.ndarray) -> None:
    from tensorflow.python.framework import tensor_util

    kind = node.attr["value"].tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(value))
    node.attr["value"].tensor.dtype = kind


def _change_arguments(function: Any, shapes: Mapping[int, list[int | None]]) -> None:
    for index, shape in shapes.items():
        if index in function.arg_attr and "_output_shapes" in function.arg_attr[index].attr:
            for proto in function.arg_attr[index].attr["_output_shapes"].list.shape:
                _merge(proto, shape)
        if "_input_shapes" in function.attr and index < len(
            function.attr["_input_shapes"].list.shape
        ):
            _merge(function.attr["_input_shapes"].list.shape[index], shape)


def _change_saver(
    node: Any, library: Mapping[str, Any], variables: Mapping[str, list[int]]
) -> None:
    """What a function that saves or restores variables says of their shapes."""
    function = library[node.attr["f"].func.name]
    sources = [text.partition(":")[0] for text in node.input]
    shapes = {i: variables[source] for i, source in enumerate(sources) if source in variables}
    if shapes:
        forget_shapes(function)
        _change_handles(function.signature.input_arg, shapes)


def forget_shapes(function: Any) -> None:
    """Have a function record no shapes: TensorFlow infers them again."""
    nodes = [*function.node_def, *function.arg_attr.values()]
    for attributes in (function.attr, *(node.attr for node in nodes)):
        for name in ("_output_shapes", "_input_shapes"):
            attributes.pop(name, None)


def _change_handles(arguments: Any, shapes: Mapping[int, Sequence[int | None]]) -> None:
    """What a function says of the variables that it takes or gives."""
    for index, shape in shapes.items():
        for data in arguments[index].handle_data if index < len(arguments) else ():
            _merge(data.shape, shape)


def _change_signature(
    meta: Any, name: str, shapes: Mapping[int, list[int | None]], field: str
) -> None:
    concrete = meta.object_graph_def.concrete_functions.get(name)
    if concrete is None:
        return
    for index, spec in enumerate(specs(getattr(concrete, field))):
        if index in shapes:
            _merge(spec.shape, shapes[index])


def _change_functions(meta: Any, arguments: Mapping[str, Mapping[int, list[int | None]]]) -> None:
    """Shapes that a `tf.function` was declared to take."""
    for node in meta.object_graph_def.nodes:
        if node.WhichOneof("kind") != "function" or not node.function.concrete_functions:
            continue
        shapes = arguments.get(node.function.concrete_functions[0], {})
        for index, spec in enumerate(specs(node.function.function_spec.input_signature)):
            if index in shapes:
                _merge(spec.shape, shapes[index])


def specs(value: Any) -> Iterator[Any]:
    """The tensor specs in a structure, in the order in which TensorFlow flattens it."""
    kind = value.WhichOneof("kind")
    if kind in ("tensor_spec_value", "bounded_tensor_spec_value"):
        yield getattr(value, kind)
    elif kind in ("list_value", "tuple_value"):
        for item in getattr(value, kind).values:
            yield from specs(item)
    elif kind == "dict_value":
        for key in sorted(value.dict_value.fields):
            yield from specs(value.dict_value.fields[key])
    elif kind == "named_tuple_value":
        for pair in value.named_tuple_value.values:
            yield from specs(pair.value)


def _change_signature_defs(meta: Any, changes: Mapping[str, Any]) -> None:
    main = changes.get("graphs", {}).get(MAIN, {})
    for signature in meta.signature_def.values():
        for info in (*signature.outputs.values(), *signature.inputs.values()):
            name, _, index = info.name.partition(":")
            shape = main.get(name, {}).get("shapes", {}).get(int(index or 0))
            if shape is not None:
                _merge(info.tensor_shape, shape)


__all__ = ["carry_out", "shape_of"]
