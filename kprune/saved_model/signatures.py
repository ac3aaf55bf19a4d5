"""Enters a SavedModel where callers do: by its signatures, its main graph and its other functions."""

from __future__ import annotations

from typing import Any

from kprune.graph.model import Layer
from kprune.labels.labels import Labels
from kprune.labels.map import Freeze, UnitAxis
from kprune.saved_model.finding import Found
from kprune.saved_model.graph import MAIN
from kprune.saved_model.trace import GraphTracer
from kprune.saved_model.values import Value
from kprune.sets import distinct
from kprune.text import clean


def trace_from_signatures(meta: Any, tracer: GraphTracer, found: Found) -> None:
    """Trace from the signatures first, then whatever else the object graph holds.

    What comes out anywhere is frozen as an output; features that go in become units of their own.
    """
    objects = meta.object_graph_def
    signatures = _signature_functions(objects)
    for name in signatures:
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
    for name in objects.concrete_functions:
        if name not in tracer.traced.results and name in tracer.library:
            _entry(tracer, objects, found, name, f"are given by the function '{clean(name)}'")


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
    captured = [
        Value(Labels(()), parameter=found.by_object.get(node)) for node in concrete.bound_inputs
    ]
    for held in tracer.run_entry(name, captured):
        _freeze_output(tracer, held, why)


def _freeze_output(tracer: GraphTracer, held: Value, why: str = "are the model's outputs") -> None:
    ids = held.labels.all_ids()
    ids = distinct(ids[ids != 0])
    if ids.size:
        tracer.map.freezes.append(Freeze("output", ids, why, ""))
