"""Enters a SavedModel where callers do: by its signatures, its main graph and its other functions."""

from __future__ import annotations

import re
from typing import Any

from kprune.graph.model import Layer
from kprune.labels.labels import Labels
from kprune.labels.map import Freeze, UnitAxis
from kprune.saved_model.tracing.find_weights import Found
from kprune.saved_model.tracing.graph import MAIN
from kprune.saved_model.tracing.trace import GraphTracer
from kprune.saved_model.tracing.values import Value
from kprune.sets import distinct
from kprune.text import clean

_INIT = "__saved_model_init_op"


def trace_from_signatures(meta: Any, tracer: GraphTracer, found: Found) -> None:
    """Trace from the signatures first, then from the root's own functions, then the rest.

    What comes out of the first two is frozen as an output; features that go in become units of their
    own. The functions of objects inside, such as layers, are no interface: they follow.
    """
    objects = meta.object_graph_def
    for name in _signature_functions(objects):
        _entry(tracer, objects, found, name, "are the model's outputs")
    values = tracer.run_main()
    # Maps of a proto come in another order in every process; what is said last must not differ.
    for _, signature in sorted(meta.signature_def.items()):
        for _, info in sorted(signature.outputs.items()):
            name, _, index = info.name.partition(":")
            held = values.get((name, int(index or 0)))
            if held is not None:
                _freeze_output(tracer, held)
    _name_inputs(meta, tracer)
    others = sorted(objects.concrete_functions, key=_made)
    called = _root_functions(objects)
    if not called and not set(meta.signature_def) - {_INIT}:
        called = others  # it is not recorded what is meant to be called
    for name in called:
        # What others call as well is traced: callers from outside then hand it the same.
        _entry(tracer, objects, found, name, f"are given by the function '{clean(name)}'")
    for name in others:
        if name not in tracer.traced.results:
            _follow(tracer, objects, found, name)


def _made(name: str) -> tuple[int, str]:
    """Functions in the order in which TensorFlow made them, which numbers their names."""
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0, name


def _root_functions(objects: Any) -> list[str]:
    """The functions that the saved object itself has: `__call__`, or methods of a tf.Module."""
    names: list[str] = []
    for child in objects.nodes[0].children if objects.nodes else []:
        node = objects.nodes[child.node_id]
        if node.WhichOneof("kind") == "bare_concrete_function":
            names.append(node.bare_concrete_function.concrete_function_name)
        elif node.WhichOneof("kind") == "function":
            names.extend(node.function.concrete_functions)
    return list(dict.fromkeys(names))


def _follow(tracer: GraphTracer, objects: Any, found: Found, name: str) -> None:
    """Trace a function of an object inside: it takes and gives what the model's own call of it does."""
    concrete = objects.concrete_functions.get(name)
    if concrete is None or name not in tracer.library:
        return
    twin = next((other for other in tracer.traced.arguments if _twins(name, other)), None)
    like = tracer.traced.arguments[twin] if twin is not None else []
    tracer.run_inner(name, _captured(tracer, objects, found, concrete), like)


_LAYER = re.compile(r"__inference_(.+)_layer_call_(fn|and_return_conditional_losses)_\d+")


def _twins(one: str, other: str) -> bool:
    """Whether two functions are calls of one layer, by the names that Keras 2 gives these."""
    a, b = _LAYER.fullmatch(one), _LAYER.fullmatch(other)
    return a is not None and b is not None and a[1] == b[1]


def _name_inputs(meta: Any, tracer: GraphTracer) -> None:
    """Have the features of what signatures take count as units, which go if inputs may change."""
    signatures = sorted(meta.signature_def.items(), key=lambda pair: pair[0] != "serving_default")
    for _, signature in signatures:
        for key, info in sorted(signature.inputs.items()):
            name, _, index = info.name.partition(":")
            labels = tracer.traced.tensors.get((MAIN, name, int(index or 0)))
            if labels is None or not labels.factors or key in tracer.map.model.layers:
                continue
            spec = {"class_name": "InputLayer", "config": {}}
            layer = Layer(key, clean(key), "InputLayer", "", None, spec, store=key)
            record = tracer.map.record(layer)
            record.answer = "input"
            axis = record.axes["features"] = UnitAxis(layer, "features", labels.last.ids)
            tracer.map.axes[axis.address] = axis
            tracer.map.model.layers[key] = layer


def _signature_functions(objects: Any) -> list[str]:
    names: list[str] = []
    for child in objects.nodes[0].children if objects.nodes else []:
        if child.local_name == "signatures":
            for entry in sorted(
                objects.nodes[child.node_id].children,
                key=lambda c: c.local_name != "serving_default",
            ):
                node = objects.nodes[entry.node_id]
                if node.WhichOneof("kind") == "bare_concrete_function":
                    names.append(node.bare_concrete_function.concrete_function_name)
                elif node.WhichOneof("kind") == "function":
                    names.extend(node.function.concrete_functions)
    return names


def _entry(tracer: GraphTracer, objects: Any, found: Found, name: str, why: str) -> None:
    concrete = objects.concrete_functions.get(name)
    if concrete is None or name not in tracer.library:
        return
    captured = _captured(tracer, objects, found, concrete)
    for held in tracer.run_entry(name, captured):
        _freeze_output(tracer, held, why)


def _captured(tracer: GraphTracer, objects: Any, found: Found, concrete: Any) -> list[Value]:
    """What a function captured, in order."""
    return [_captured_one(tracer, objects, found, node) for node in concrete.bound_inputs]


def _captured_one(tracer: GraphTracer, objects: Any, found: Found, node: int) -> Value:
    """What a function captured: a variable's handle, or a constant, whose value the main graph has."""
    held = objects.nodes[node]
    if held.WhichOneof("kind") == "constant":
        name = held.constant.operation
        parameter = found.constants.get((MAIN, name))
        if parameter is not None:
            return Value(parameter.labels)
        written = tracer.graph(MAIN).nodes.get(name)
        return Value(Labels(None if written is None else _shape_of(written)))
    return Value(Labels(()), parameter=found.by_object.get(node))


def _shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a Const."""
    return tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)


def _freeze_output(tracer: GraphTracer, held: Value, why: str = "are the model's outputs") -> None:
    ids = held.labels.all_ids()
    ids = distinct(ids[ids != 0])
    if ids.size:
        tracer.map.freezes.append(Freeze("output", ids, why, ""))
