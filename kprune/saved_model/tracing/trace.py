"""Pushes labels through every function of a SavedModel that its signatures and objects reach.

A function is traced once. Where it is called again, what goes in is tied to what went in the first
time, since both calls run the same nodes with the same shapes in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kprune.graph.model import Layer
from kprune.labels.labels import Labels, Shape, merged
from kprune.labels.map import LAYER, Freeze, LabelMap, LayerRecord, Mix, Tie, Visit
from kprune.saved_model.rules import OpRule, table
from kprune.saved_model.tracing.graph import (
    FLOATS,
    MAIN,
    Graph,
    function_graph,
    main_graph,
    recorded_shapes,
    shape_of,
)
from kprune.saved_model.tracing.node_layers import NodeLayers
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.parameters import Owners, Parameter
from kprune.saved_model.tracing.traced import Traced
from kprune.saved_model.tracing.values import Value
from kprune.text import clean
from kprune.tracing.rule_call import CannotTell

# Operations that read parameters on behalf of others: they are on no path.
_SILENT_STEPS = frozenset({"ReadVariableOp", "Identity", "Const", "VarHandleOp", "NoOp"})

# Operations whose outputs are weights, or point to them.
_WEIGHTS = frozenset({"Const", "VarHandleOp", "ReadVariableOp", "VariableV2", "Variable"})


class GraphTracer:
    """Runs the rules for operations. `map` and `traced` grow as it goes.

    Args:
        meta: the MetaGraphDef.
        variables_by_node: VarHandleOp nodes of the main graph and what they stand for.
        constants: constants that are weights, by (graph, node).
        parameters: all weights, labelled.
        skipped: nodes of the main graph that only save and restore.

    Attributes:
        library: functions by name; `graphs` are those that were read, the main graph among them.
        owners: which weight a label was issued for.
        node_layers: which layer each node belongs to.
    """

    def __init__(
        self,
        meta: Any,
        variables_by_node: Mapping[str, Parameter],
        constants: Mapping[tuple[str, str], Parameter],
        parameters: Sequence[Parameter],
        label_map: LabelMap,
        skipped: frozenset[str],
    ) -> None:
        self.meta, self.map = meta, label_map
        self.traced = Traced()
        self.variables_by_node, self.constants = variables_by_node, constants
        self.library = {f.signature.name: f for f in meta.graph_def.library.function}
        self.owners = Owners(parameters)
        self.graphs: dict[str, Graph] = {}
        self.node_layers = NodeLayers(self.owners, label_map.model.layers, self.library)
        self._skipped = skipped
        self._rules = table()
        self._runs: dict[str, tuple[list[Value], list[Value]]] = {}  # arguments and results
        self._running: list[str] = []
        self._numbers: dict[str, int] = {}  # of graphs, whose nodes may have the same names

    def input(self, call: OpCall, shape: Shape | None) -> Labels:
        """Labels of an input of the model: its features are numbered, and stay."""
        return self._input(shape, call.layer.path, call.node.attr["dtype"].type)

    def _input(self, shape: Shape | None, path: str, kind: int) -> Labels:
        labels = Labels(shape)
        size = shape[-1] if shape else None
        if size is None or size < 2 or kind not in FLOATS or len(shape or ()) < 2:
            return labels
        ids = self.map.issue(size)
        self.map.freezes.append(Freeze("input", ids, "are features of the model's input", path))
        return labels.with_last(ids)

    # -- graphs ---------------------------------------------------------------------------------

    def graph(self, name: str) -> Graph:
        """The main graph, or a function, read when it is first asked for."""
        if name not in self.graphs:
            self.graphs[name] = (
                main_graph(self.meta)
                if name == MAIN
                else function_graph(self.library[name], self.library)
            )
        return self.graphs[name]

    def run_main(self) -> dict[tuple[str, int], Value]:
        """Trace the main graph."""
        return self._nodes(self.graph(MAIN), {})

    def run_entry(self, name: str, captured: Sequence[Value]) -> list[Value]:
        """Trace a function that is called from outside.

        Args:
            captured: what it captured, which are its last arguments.
        """
        graph = self.graph(name)
        own = len(graph.args) - len(captured)
        inputs = []
        for index in range(own):
            arg = graph.proto.signature.input_arg[index]
            inputs.append(
                Value(self._input(_arg_shape(graph, index), f"{clean(name)}/{arg.name}", arg.type))
            )
        return self.run(name, [*inputs, *captured])

    def run_inner(
        self, name: str, captured: Sequence[Value], like: Sequence[Labels]
    ) -> list[Value]:
        """Trace a function that belongs to an object inside the model.

        Args:
            captured: see `run_entry`.
            like: what a call of the same layer was given. Where none is known, the last axis has
                units without names: what they meet says which they are.
        """
        graph = self.graph(name)
        inputs = []
        for index in range(len(graph.args) - len(captured)):
            shape = _arg_shape(graph, index)
            known = like[index].shape if index < len(like) else None
            if shape is not None and known is not None and merged(known, shape) is not None:
                labels = like[index].with_shape(shape)
            else:
                labels = Labels(shape)
                kind = graph.proto.signature.input_arg[index].type
                if shape and len(shape) > 1 and (shape[-1] or 0) > 1 and kind in FLOATS:
                    labels = labels.with_last(self.map.issue(shape[-1] or 0))
            inputs.append(Value(labels))
        return self.run(name, [*inputs, *captured])

    def run(self, name: str, inputs: Sequence[Value]) -> list[Value]:
        """What a function makes of its arguments.

        Raises: CannotTell if it cannot be called so.
        """
        if name not in self.library:
            raise CannotTell(f"calls a function {name!r} that is not in the file")
        if name in self._running:
            raise CannotTell(f"calls {name!r}, which is running")
        graph = self.graph(name)
        if len(inputs) != len(graph.args):
            raise CannotTell(
                f"calls {name!r} with {len(inputs)} arguments, of which it has {len(graph.args)}"
            )
        if name in self._runs:
            return self._again(name, inputs)
        self._running.append(name)
        values = {}
        for index, (arg, value) in enumerate(zip(graph.args, inputs, strict=True)):
            shape = _arg_shape(graph, index)
            if value.labels.shape is None and shape is not None and not value.labels.factors:
                value = Value(Labels(shape), value.numbers, value.parameter, value.items)
            values[arg, 0] = value
        found = self._nodes(graph, values)
        self._running.pop()
        results = [found.get(ref, Value(Labels(None))) for ref in graph.results]
        self._runs[name] = (list(inputs), results)
        self.traced.arguments[name] = [value.labels for value in inputs]
        self.traced.results[name] = [value.labels for value in results]
        self.traced.handles[name] = _handles(inputs)
        self.traced.given_handles[name] = _handles(results)
        return results

    def _again(self, name: str, inputs: Sequence[Value]) -> list[Value]:
        """What a function makes of its arguments where it was traced before, with others."""
        before, results = self._runs[name]
        fits = True
        for one, other in zip(before, inputs, strict=True):
            fits = self._same(_seen(one), _seen(other), name) and fits
            if one.items is not None and other.items is not None and one.items is not other.items:
                for element in (one.items.element, other.items.element):
                    if element is not None:
                        why = f"stand in lists that reach '{clean(name)}' in several ways"
                        self.map.freeze(element.all_ids(), why, clean(name))
        if not fits:
            return [Value(Labels(value.labels.shape)) for value in results]
        return results

    def _same(self, a: Labels, b: Labels, name: str) -> bool:
        """Tie what reaches one function in two calls; False if that cannot be."""
        if a is b or (not a.factors and not b.factors):
            return True
        if a.shape is not None and b.shape is not None and len(a.shape) == len(b.shape):
            one, other = list(a.factors), list(b.factors)
            if [f.shape for f in one] == [f.shape for f in other]:
                at = clean(name)
                for x, y in zip(one, other, strict=True):
                    lonely = self.map.tie(x.ravel(), y.ravel(), at)
                    self.map.freeze(lonely, f"meet nothing in a second call of '{at}'", at)
                return True
        for labels in (a, b):
            why = f"reach the function '{clean(name)}' in different ways"
            self.map.freeze(labels.all_ids(), why, clean(name))
        return False

    # -- nodes ----------------------------------------------------------------------------------

    def _nodes(
        self, graph: Graph, values: dict[tuple[str, int], Value]
    ) -> dict[tuple[str, int], Value]:
        for name in graph.order:
            if graph.name == MAIN and name in self._skipped:
                continue
            outputs = self._node(graph, graph.nodes[name], values)
            for index, value in enumerate(outputs):
                values[name, index] = value
                self.traced.tensors[graph.name, name, index] = value.labels
        return values

    def _node(self, graph: Graph, node: Any, values: dict[tuple[str, int], Value]) -> list[Value]:
        ins = [values.get(ref, Value(Labels(None))) for ref in graph.inputs[node.name]]
        recorded = dict(enumerate(recorded_shapes(node)))
        record = LayerRecord(
            Layer(
                node.name,
                clean(node.name),
                node.op,
                "",
                None,
                {"class_name": node.op, "config": {}},
            )
        )
        call = OpCall(self, record, graph.name, node, ins, recorded)
        rule = self._rules.get(node.op)
        marks = len(self.map.freezes), len(self.map.ties), len(self.map.mixes)
        outputs = self._outputs(call, rule)
        if node.op in _WEIGHTS or (ins and all(value.fixed for value in ins)):
            for value in outputs:
                value.fixed = True
        layer = self.node_layers.find(graph, node, record.layer, ins)
        said: tuple[Freeze | Tie | Mix, ...] = (
            *self.map.freezes[marks[0] :],
            *self.map.ties[marks[1] :],
            *self.map.mixes[marks[2] :],
        )
        for entry in said:
            if entry.at == record.layer.path:
                entry.at = layer.path
        visit = Visit(layer, [_seen(value) for value in ins], [value.labels for value in outputs])
        if any(labels.factors for labels in (*visit.inputs, *visit.outputs)):
            self.map.visits.append(visit)
            for index, labels in enumerate(visit.outputs):
                if any(sum(extent > 1 for extent in f.shape) > 1 for f in labels.factors):
                    self.map.tensors[
                        "",
                        clean(node.name),
                        self._numbers.setdefault(graph.name, len(self._numbers)),
                        index,
                    ] = labels
        if layer is not record.layer and node.op not in _SILENT_STEPS:
            owner = self.map.record(layer)
            if any(labels.factors for labels in visit.outputs):
                owner.visits = [visit]
        return outputs

    def _outputs(self, call: OpCall, rule: OpRule | None) -> list[Value]:
        if call.op in self.library:
            rule = OpRule(lambda one: self.run(one.op, one.ins), "passes", "a function", True)
        if rule is None:
            touched = [
                value
                for value in call.ins
                if value.labels.factors or value.items is not None or value.parameter is not None
            ]
            if touched or any(_counts_units(value) for value in call.ins):
                why = f"{call.layer.path!r} is a {clean(call.op)} operation, for which kprune has no rule"
                for value in touched:
                    if value.parameter is not None:
                        call.freeze(value.parameter.labels, why, subject=LAYER)
                    if value.items is not None and value.items.element is not None:
                        call.freeze(value.items.element, why, subject=LAYER)
                call.opaque(why)
            call.hold_numbers()
            return [Value(Labels(call.recorded[index])) for index in sorted(call.recorded)]
        if not rule.numbers:
            call.hold_numbers()
        try:
            outputs = rule.function(call)
        except CannotTell as reason:
            outputs = call.opaque(f"{call.layer.path!r} {reason}")
            call.hold_numbers()
        listed = outputs if isinstance(outputs, list) else [outputs]
        result = []
        for index, item in enumerate(listed):
            value = item if isinstance(item, Value) else Value(item)
            checked = _checked(call, index, value.labels)
            result.append(
                Value(checked, value.numbers, value.parameter, value.items)
                if checked is not value.labels
                else value
            )
        return result


def _checked(call: OpCall, index: int, labels: Labels) -> Labels:
    """Compare an inferred shape with the recorded one. Where they differ, all units involved are frozen."""
    recorded = call.recorded.get(index)
    if recorded is None or labels.shape == recorded:
        return labels
    if labels.shape is None:
        return labels if labels.factors else Labels(recorded)
    shape = merged(labels.shape, recorded)
    if shape is None:
        why = f"{call.layer.path!r} gives {recorded}, where kprune expects {labels.shape}"
        for met in (labels, *call.xs):
            call.freeze(met, why, subject=LAYER)
        return Labels(recorded)
    return labels.with_shape(shape)


def _seen(value: Value) -> Labels:
    """The labels of a value; of what it points to, if it is a handle of a variable."""
    return value.parameter.labels if value.parameter is not None else value.labels


def _handles(values: Sequence[Value]) -> dict[int, Parameter]:
    """The variables among some values, by their place."""
    return {
        index: value.parameter for index, value in enumerate(values) if value.parameter is not None
    }


def _counts_units(value: Value) -> bool:
    """Whether one of its numbers is the size of an axis with units."""
    return value.numbers is not None and any(number.of for number in value.numbers.flat)


def _arg_shape(graph: Graph, index: int) -> Shape | None:
    """The shape of a function's argument, if the file records it."""
    attributes = graph.proto.arg_attr
    if index in attributes and "_output_shapes" in attributes[index].attr:
        shapes = attributes[index].attr["_output_shapes"].list.shape
        return shape_of(shapes[0]) if shapes else None
    return None
