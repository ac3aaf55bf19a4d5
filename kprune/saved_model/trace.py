"""Pushes labels through every function of a SavedModel that its signatures and objects reach.

A function is traced once. Where it is called again, what goes in is tied to what went in the first
time, since both calls run the same nodes with the same shapes in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kprune.graph.model import Layer, Model
from kprune.labels.labels import Axis, Labels, Shape, merged
from kprune.labels.map import Blocks, Freeze, LabelMap, LayerRecord, Mix, Tie, Visit
from kprune.labels.rule_call import CannotTell
from kprune.saved_model.graph import (
    MAIN,
    Graph,
    constant,
    function_graph,
    main_graph,
    recorded_shapes,
)
from kprune.saved_model.op_call import OpCall
from kprune.saved_model.parameters import Parameter
from kprune.saved_model.rules import OpRule, table
from kprune.saved_model.rules.elementwise import GIVES_OTHER, KEEPS_ZERO
from kprune.saved_model.values import Place, TensorList, Value
from kprune.sets import distinct
from kprune.text import clean

Count = Callable[[np.ndarray], int]

# Operations that read parameters on behalf of others: they stand in no road.
_SILENT_STEPS = frozenset({"ReadVariableOp", "Identity", "Const", "VarHandleOp", "NoOp"})


# Operations whose outputs are weights, or point to them.
_WEIGHTS = frozenset({"Const", "VarHandleOp", "ReadVariableOp", "VariableV2", "Variable"})


@dataclass(eq=False)
class Demand:
    """A number in a constant that has to follow what is left along an axis."""

    place: Place
    axis: Axis
    count: Count


@dataclass(eq=False)
class Traced:
    """What tracing a SavedModel found, beside the labels.

    Attributes:
        tensors: labels of each tensor, by graph, node (or argument) and index.
        demands: numbers in constants that follow.
        results: for each function that was traced, what it returns.
    """

    tensors: dict[tuple[str, str, int], Labels] = field(default_factory=dict)
    arguments: dict[str, list[Labels]] = field(default_factory=dict)
    results: dict[str, list[Labels]] = field(default_factory=dict)
    demands: list[Demand] = field(default_factory=list)


class GraphTracer:
    """Runs the rules for operations. `map` and `traced` grow as it goes.

    Args:
        meta: the MetaGraphDef.
        variables_by_node: VarHandleOp nodes of the main graph and what they stand for.
        constants: constants that are weights, by (graph, node).
        consumed: axes of weights that are multiplied with units and summed.
        grouped: kernels whose rows stand for other channels in each run of filters.
        loud, summed: labels of units that meet such an axis though a masked one gives no 0 there,
            or that are summed without a weight.
        parameters: all weights, labelled.
    """

    def __init__(
        self,
        meta: Any,
        variables_by_node: Mapping[str, Parameter],
        constants: Mapping[tuple[str, str], Parameter],
        parameters: Sequence[Parameter],
        model: Model,
        label_map: LabelMap,
        skipped: frozenset[str],
    ) -> None:
        self.meta, self.map = meta, label_map
        self.traced = Traced()
        self.variables_by_node, self.constants = variables_by_node, constants
        self.library = {f.signature.name: f for f in meta.graph_def.library.function}
        self.valued: set[Place] = set()
        self.consumed: set[tuple[Parameter, int]] = set()
        self.loud: list[np.ndarray] = []
        self.summed: list[np.ndarray] = []
        self.grouped: dict[Parameter, Blocks] = {}
        self.list_shapes: list[tuple[TensorList, np.ndarray, OpCall]] = []
        self.skipped = skipped
        self._rules = table()
        self._ops: dict[tuple[str, str], LayerRecord] = {}
        self._runs: dict[str, tuple[list[Value], list[Value]]] = {}
        self._running: list[str] = []
        self._values: dict[str, dict[tuple[str, int], Value]] = {}
        self._scopes: dict[tuple[str, str], Layer] = {}
        self._numbers: dict[str, int] = {}
        self.layers_of_nodes: dict[tuple[str, str], Layer] = {}
        self._owners: list[tuple[int, int, Parameter, int]] = []
        for parameter in parameters:
            for axis, ids in enumerate(parameter.ids):
                if ids is not None:
                    self._owners.append((int(ids[0]), int(ids[-1]), parameter, axis))
        self._starts = np.array([start for start, _, _, _ in self._owners], np.int64)

    # -- what rules ask for ---------------------------------------------------------------------

    def owner(self, label: int) -> tuple[Parameter, int] | None:
        """The weight along whose axis a label was issued."""
        at = int(np.searchsorted(self._starts, label, "right")) - 1
        if at < 0:
            return None
        start, end, parameter, axis = self._owners[at]
        return (parameter, axis) if start <= label <= end else None

    def made(self, label: int) -> None:
        """Note that an operation made units along the axis that issued this label."""
        found = self.owner(label)
        if found is not None:
            found[0].made.add(found[1])

    def kind(self, label: int, kind: str) -> None:
        """Note the operation that a weight is for."""
        found = self.owner(label)
        if found is not None:
            found[0].kind = found[0].kind or kind

    def used(self, label: int, times: float, flops: float) -> None:
        """Note how often a weight's elements are used: the first use counts."""
        found = self.owner(label)
        if found is not None and not found[0].uses:
            found[0].uses, found[0].flops = times, flops

    def demand(self, place: Place, axis: Axis, count: Count, call: OpCall) -> None:
        """Note that a number in a constant follows what is left along an axis."""
        self.traced.demands.append(Demand(place, axis, count))

    def scalar(self, call: OpCall, index: int) -> float | None:
        """The value of a float operand that is a constant scalar; None for any other."""
        graph, _ = call.place
        known = self._graphs[graph]
        name, _ = known.inputs[call.node.name][index]
        node = known.nodes.get(name)
        while node is not None and node.op == "Identity":
            node = known.nodes.get(known.inputs[node.name][0][0])
        if node is None or node.op != "Const":
            return None
        value = constant(node)
        return (
            float(value)
            if value is not None and value.size == 1 and value.dtype.kind in "fiu"
            else None
        )

    def restored(self, place: tuple[str, str]) -> bool:
        """Whether an assignment writes what it reads from a checkpoint."""
        graph = self._graphs[place[0]]
        name = graph.inputs[place[1]][1][0]
        for _ in range(8):
            node = graph.nodes.get(name)
            if node is None:
                return False
            if node.op in ("RestoreV2", "Restore", "RestoreSlice"):
                return True
            if not graph.inputs[name]:
                return False
            name = graph.inputs[name][0][0]
        return False

    def input(self, call: OpCall, shape: Shape | None) -> Labels:
        """Labels of an input of the model: its features are numbered, and stay."""
        return self._input(shape, call.layer.path, call.node.attr["dtype"].type)

    def _input(self, shape: Shape | None, path: str, kind: int) -> Labels:
        labels = Labels(shape)
        size = shape[-1] if shape else None
        if size is None or size < 2 or kind not in (1, 2, 14, 19) or len(shape or ()) < 2:
            return labels
        ids = self.map.issue(size)
        self.map.freezes.append(Freeze("input", ids, "are features of the model's input", path))
        return labels.with_last(ids)

    # -- graphs ---------------------------------------------------------------------------------

    @property
    def _graphs(self) -> dict[str, Graph]:
        if not hasattr(self, "_known"):
            self._known: dict[str, Graph] = {}
        return self._known

    def graph(self, name: str) -> Graph:
        if name not in self._graphs:
            self._graphs[name] = (
                main_graph(self.meta)
                if name == MAIN
                else function_graph(self.library[name], self.library)
            )
        return self._graphs[name]

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
        return self.run(name, [*inputs, *captured], None)

    def run(self, name: str, inputs: Sequence[Value], call: OpCall | None) -> list[Value]:
        """What a function makes of its arguments."""
        if name not in self.library:
            raise CannotTell(f"calls a function {name!r} that is not in the file")
        if name in self._running:
            raise CannotTell(f"calls {name!r}, which is running")
        if name in self._runs:
            return self._again(name, inputs, call)
        graph = self.graph(name)
        if len(inputs) != len(graph.args):
            raise CannotTell(
                f"calls {name!r} with {len(inputs)} arguments, of which it has {len(graph.args)}"
            )
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
        return results

    def _again(self, name: str, inputs: Sequence[Value], call: OpCall | None) -> list[Value]:
        before, results = self._runs[name]
        fits = True
        for one, other in zip(before, inputs, strict=True):
            a = one.parameter.labels if one.parameter is not None else one.labels
            b = other.parameter.labels if other.parameter is not None else other.labels
            fits = self._same(a, b, name) and fits
            if one.items is not None and other.items is not None and one.items is not other.items:
                for element in (one.items.element, other.items.element):
                    if element is not None:
                        self._freeze(
                            element,
                            f"stand in lists that reach '{clean(name)}' by several roads",
                            name,
                        )
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
                for x, y in zip(one, other, strict=True):
                    self._tie(x.ravel(), y.ravel(), name)
                return True
        for labels in (a, b):
            self._freeze(labels, f"reach the function '{clean(name)}' by roads that differ", name)
        return False

    def _tie(self, one: np.ndarray, other: np.ndarray, at: str) -> None:

        paired = (one != 0) & (other != 0)
        self.map.ties.append(Tie(one[paired], other[paired], clean(at)))
        lonely = np.concatenate([one[~paired], other[~paired]])
        if lonely.any():
            self.map.freezes.append(
                Freeze(
                    "rule",
                    distinct(lonely[lonely != 0]),
                    f"meet nothing in a second call of '{clean(at)}'",
                    clean(at),
                )
            )

    def _freeze(self, labels: Labels, why: str, at: str) -> None:
        ids = labels.all_ids()
        ids = distinct(ids[ids != 0])
        if ids.size:
            self.map.freezes.append(Freeze("rule", ids, why, clean(at)))

    # -- nodes ----------------------------------------------------------------------------------

    def _nodes(
        self, graph: Graph, values: dict[tuple[str, int], Value]
    ) -> dict[tuple[str, int], Value]:
        for name in graph.order:
            if graph.name == MAIN and name in self.skipped:
                continue
            outputs = self._node(graph, graph.nodes[name], values)
            for index, value in enumerate(outputs):
                values[name, index] = value
                self.traced.tensors[graph.name, name, index] = value.labels
        return values

    def _node(self, graph: Graph, node: Any, values: dict[tuple[str, int], Value]) -> list[Value]:
        ins = [values.get(ref, Value(Labels(None))) for ref in graph.inputs[node.name]]
        recorded = dict(enumerate(recorded_shapes(node)))
        record = self._record(graph.name, node)
        call = OpCall(self, record, graph.name, node, ins, recorded)
        rule = self._rules.get(node.op)
        marks = len(self.map.freezes), len(self.map.ties), len(self.map.mixes)
        outputs = self._outputs(call, rule)
        if node.op in _WEIGHTS or (ins and all(value.fixed for value in ins)):
            for value in outputs:
                value.fixed = True
        layer = self._layer_of(graph.name, node, record.layer, ins)
        self.layers_of_nodes[graph.name, node.name] = layer
        said: tuple[Freeze | Tie | Mix, ...] = (
            *self.map.freezes[marks[0] :],
            *self.map.ties[marks[1] :],
            *self.map.mixes[marks[2] :],
        )
        for entry in said:
            if entry.at == record.layer.path:
                entry.at = layer.path
        visit = Visit(layer, [_seen(value) for value in ins], [value.labels for value in outputs])
        record.visits.append(visit)
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
            rule = OpRule(lambda one: self.run(one.op, one.ins, one), "passes", "a function", True)
        if rule is None:
            touched = [
                value
                for value in call.ins
                if value.labels.factors or value.items is not None or value.parameter is not None
            ]
            if touched or any(_counts(value) for value in call.ins):
                for value in touched:
                    if value.parameter is not None:
                        call.freeze(value.parameter.labels, self._no_rule(call))
                    if value.items is not None and value.items.element is not None:
                        call.freeze(value.items.element, self._no_rule(call))
                call.opaque(self._no_rule(call))
            self._hold_numbers(call)
            return [Value(Labels(call.recorded[index])) for index in sorted(call.recorded)]
        if not rule.numbers:
            self._hold_numbers(call)
        try:
            outputs = rule.function(call)
        except CannotTell as reason:
            outputs = call.opaque(f"{call.layer.path!r} {reason}")
            self._hold_numbers(call)
        listed = outputs if isinstance(outputs, list) else [outputs]
        result = []
        for index, item in enumerate(listed):
            value = item if isinstance(item, Value) else Value(item)
            checked = self._checked(call, index, value.labels)
            result.append(
                Value(checked, value.numbers, value.parameter, value.items)
                if checked is not value.labels
                else value
            )
        return result

    def _checked(self, call: OpCall, index: int, labels: Labels) -> Labels:
        """Hold an inferred shape against the recorded one."""
        recorded = call.recorded.get(index)
        if recorded is None or labels.shape == recorded:
            return labels
        if labels.shape is None:
            return labels if labels.factors else Labels(recorded)
        shape = merged(labels.shape, recorded)
        if shape is None:
            why = f"{call.layer.path!r} gives {recorded}, where kprune expects {labels.shape}"
            call.freeze(labels, why)
            for x in call.xs:
                call.freeze(x, why)
            return Labels(recorded)
        return labels.with_shape(shape)

    def _hold_numbers(self, call: OpCall) -> None:
        for value in call.ins:
            if value.numbers is not None:
                for number in value.numbers.flat:
                    call.use_value(number)

    def _no_rule(self, call: OpCall) -> str:
        return f"{call.layer.path!r} is a {clean(call.op)} operation, for which kprune has no rule"

    def _record(self, graph: str, node: Any) -> LayerRecord:
        key = graph, node.name
        if key not in self._ops:
            layer = Layer(
                node.name,
                clean(node.name),
                node.op,
                "",
                None,
                {"class_name": node.op, "config": {}},
            )
            self._ops[key] = LayerRecord(layer)
        return self._ops[key]

    def _layer_of(self, graph: str, node: Any, own: Layer, ins: Sequence[Value]) -> Layer:
        """The layer that a node belongs to, as far as names tell; else the node itself."""
        scope = node.name
        while scope:
            scope = scope.rpartition("/")[0]
            if (graph, scope) in self._scopes:
                return self._scopes[graph, scope]
        for value in ins:
            found = value.parameter
            if found is None and value.labels.factors:
                issued = self.owner(int(value.labels.factors[0].flat[0]))
                found = (
                    issued[0] if issued is not None and value.labels is issued[0].labels else None
                )
            if found is not None and found.layer is not None:
                last = found.layer.name.rpartition("/")[2]
                parts = node.name.split("/")
                for depth in range(len(parts) - 1, 0, -1):
                    part = parts[depth - 1]
                    if part == last or (
                        part.startswith(f"{last}_") and part[len(last) + 1 :].isdigit()
                    ):
                        self._scopes[graph, "/".join(parts[:depth])] = found.layer
                        return found.layer
                return found.layer if self._made_by(node, found) else own
        return self._continued(graph, node, own)

    def _made_by(self, node: Any, parameter: Parameter) -> bool:
        """Whether a node outside of any scope makes a layer's units, or adds to them."""
        calls = node.op in self.library or "f" in node.attr  # runs many layers' nodes
        return not calls and (bool(parameter.made) or node.op in ("BiasAdd", "Add", "AddV2"))

    def _continued(self, graph: str, node: Any, own: Layer) -> Layer:
        """A node outside of any scope that only goes on with one layer: its activation."""
        sources = self._graphs[graph].inputs[node.name]
        if node.op not in KEEPS_ZERO + GIVES_OTHER or len(sources) != 1:
            return own
        before = self.layers_of_nodes.get((graph, sources[0][0]))
        inside = any(key[0] == graph and layer is before for key, layer in self._scopes.items())
        return (
            before
            if before is not None and before.path in self.map.model.layers and not inside
            else own
        )

    # -- the end --------------------------------------------------------------------------------

    def settle(self) -> None:
        """What can be said once everything was seen: shapes of lists, numbers with two meanings."""
        for items, numbers, call in self.list_shapes:
            element = items.element
            if element is None or element.shape is None or numbers.size != element.rank:
                continue
            for axis, number in enumerate(numbers.ravel()):
                call.demand(number, element.axis(axis))
        self._settle_groups()
        first: dict[Place, Demand] = {}
        for demand in self.traced.demands:
            ids = demand.axis.all_ids()
            where = f"{demand.place[1]!r}"
            if demand.place in self.valued:
                self.map.freezes.append(
                    Freeze(
                        "rule",
                        distinct(ids[ids != 0]),
                        f"{where} is a size and a value at once",
                        clean(demand.place[1]),
                    )
                )
            known = first.setdefault(demand.place, demand)
            if known is demand:
                continue
            one, other = known.axis, demand.axis
            if [f.shape for f in one.factors] == [f.shape for f in other.factors]:
                for a, b in zip(one.factors, other.factors, strict=True):
                    self._tie(a.ravel(), b.ravel(), demand.place[1])
            else:
                for along in (one, other):
                    found = along.all_ids()
                    self.map.freezes.append(
                        Freeze(
                            "rule",
                            distinct(found[found != 0]),
                            f"{where} is the size of several axes",
                            clean(demand.place[1]),
                        )
                    )

    def _settle_groups(self) -> None:
        """A grouped kernel's rows may only be shortened if nothing else is known of them."""
        known = [ids[tie.a != tie.b] for tie in self.map.ties for ids in (tie.a, tie.b)]
        known += [freeze.ids for freeze in self.map.freezes]
        known += [mix.ids for mix in self.map.mixes]
        known += [demand.axis.all_ids() for demand in self.traced.demands]
        elsewhere = distinct(np.concatenate(known)) if known else np.zeros(0, np.int64)
        for parameter, blocks in self.grouped.items():
            rows = parameter.ids[-2]
            if rows is not None and np.isin(rows, elsewhere).any():
                ids = distinct(np.concatenate([side.ravel() for side in blocks.sides]))
                why = f"are channels of the groups of '{clean(blocks.layer.path)}', whose kernel is used otherwise too"
                self.map.freezes.append(
                    Freeze("rule", ids[ids != 0], why, clean(blocks.layer.path))
                )
            self.map.blocks.append(blocks)


def _seen(value: Value) -> Labels:
    return value.parameter.labels if value.parameter is not None else value.labels


def _counts(value: Value) -> bool:
    return value.numbers is not None and any(number.of for number in value.numbers.flat)


def _arg_shape(graph: Graph, index: int) -> Shape | None:
    from kprune.saved_model.graph import shape_of

    attributes = graph.proto.arg_attr
    if index in attributes and "_output_shapes" in attributes[index].attr:
        shapes = attributes[index].attr["_output_shapes"].list.shape
        return shape_of(shapes[0]) if shapes else None
    return None
