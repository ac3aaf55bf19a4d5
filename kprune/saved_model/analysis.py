"""A SavedModel with everything kprune knows of it: the same object that a `.keras` file gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.analysis import Analysis, Stored
from kprune.errors import CannotPruneError
from kprune.graph.model import Layer, Model
from kprune.labels.groups import Groups
from kprune.labels.labels import Axis
from kprune.labels.map import Blocks, Freeze, LabelMap, UnitAxis, Weight
from kprune.saved_model.contents import Contents, object_paths, saved_keys
from kprune.saved_model.graph import MAIN, constant, function_graph, main_graph, recorded_shapes
from kprune.saved_model.parameters import ATTENTION, Parameter, name_layers
from kprune.saved_model.trace import GraphTracer
from kprune.saved_model.values import Value
from kprune.sets import distinct
from kprune.text import clean

_KERNELS = ("kernel", "embeddings", "pointwise_kernel", "weights", "weight", "w")


class GraphAnalysis(Analysis, eq=False):
    """The layers, labels, groups and weights of a SavedModel.

    Attributes:
        tracer: what was found in its graphs.
        held: by path, every variable and constant weight.
    """

    tracer: Any = None
    held: dict[str, Parameter] = field(default_factory=dict)

    def rewritten(self, gone: np.ndarray, branches: Any = ()) -> dict[str, Any]:
        """What changes in the graphs once some labels are gone.

        Returns: the config with `changes`: under `graphs` by graph and node the `shapes` of its
            outputs and the `value` of a constant (by flat index); under `arguments` and `results`
            shapes of what functions take and give.
        """
        changes: dict[str, Any] = {"graphs": {}, "arguments": {}, "results": {}}
        gone = self._with_rows(gone)

        def node(graph: str, name: str) -> dict[str, Any]:
            found: dict[str, Any] = changes["graphs"].setdefault(graph, {}).setdefault(name, {})
            return found

        for (graph, name, index), labels in self.tracer.traced.tensors.items():
            shape = left(labels, gone)
            if shape is not None:
                node(graph, name).setdefault("shapes", {})[index] = shape
        for demand in self.tracer.traced.demands:
            dead = demand.axis.dead(gone)
            if dead.any():
                graph, name, index = demand.place
                node(graph, name).setdefault("value", {})[index] = demand.count(~dead)
        for part in ("arguments", "results"):
            for name, listed in getattr(self.tracer.traced, part).items():
                for index, labels in enumerate(listed):
                    shape = left(labels, gone)
                    if shape is not None:
                        changes[part].setdefault(name, {})[index] = shape
        return {**self.config, "changes": changes}

    def _with_rows(self, gone: np.ndarray) -> np.ndarray:
        """The labels that are gone, with as many rows of each grouped kernel as its groups lose inputs."""
        gone = gone.copy()
        for parameter, blocks in self.tracer.grouped.items():
            rows = parameter.ids[-2]
            if rows is not None:
                left = int((~gone[blocks.sides[0]]).sum(axis=1).max())
                gone[rows[left:]] = True
        return gone


def left(labels: Any, gone: np.ndarray) -> list[int | None] | None:
    """The shape of a tensor once some labels are gone; None if it stays."""
    if labels.shape is None or not labels.factors or not any(gone[f].any() for f in labels.factors):
        return None
    result = list(labels.shape)
    for axis in range(len(result)):
        along = labels.axis(axis)
        if along.factors and result[axis] is not None:
            result[axis] -= int(along.dead(gone).sum())
    return result if result != list(labels.shape) else None


def analyse(
    contents: Contents, metadata: dict[str, Any], tensors: Mapping[str, Stored], found: Found
) -> GraphAnalysis:
    """Trace a SavedModel.

    Args:
        found: its parameters, named (`find_parameters`).
    """
    model = Model("saved_model", "", "SavedModel", {"config": {"layers": []}}, {}, [], [], [])
    label_map = LabelMap(model)
    for parameter in found.parameters:
        parameter.label(label_map.issue)
    model.layers.update({layer.path: layer for layer in found.layers})
    tracer = GraphTracer(
        contents.meta,
        found.by_node,
        found.constants,
        found.parameters,
        model,
        label_map,
        found.skipped,
    )
    _trace(contents.meta, tracer, found)
    tracer.settle()
    _name_units(label_map, model, found, tracer)
    groups = Groups.solve(label_map)
    config = {"class_name": "SavedModel", "config": {"layers": []}}
    analysis = GraphAnalysis(
        config,
        metadata,
        tensors,
        model,
        label_map,
        groups,
        tracer=tracer,
        held={p.path: p for p in found.parameters},
    )
    _declare_weights(label_map, groups, found, tracer.grouped)
    return analysis


class Found(Struct, eq=False):
    """The weights of a SavedModel.

    Attributes:
        parameters: each once, in the order of the object graph, constants last.
        by_node: VarHandleOp nodes of the main graph.
        by_object: nodes of the object graph.
        constants: by (graph, node).
        skipped: nodes of the main graph that only save and restore.
    """

    parameters: list[Parameter]
    layers: list[Layer]
    by_node: dict[str, Parameter]
    by_object: dict[int, Parameter]
    constants: dict[tuple[str, str], Parameter]
    skipped: frozenset[str]


def find_parameters(contents: Contents) -> Found:
    """Find every variable and every constant weight, and name the layers."""
    meta = contents.meta
    library = {f.signature.name: f for f in meta.graph_def.library.function}
    restored, skipped = _restored_nodes(meta, library)
    copies = _copies(meta, restored)
    by_key: dict[str, Parameter] = {}
    by_object: dict[int, Parameter] = {}
    parameters: list[Parameter] = []

    def add(key: str, name: str, trainable: bool) -> Parameter:
        original = copies.get(key, key)
        if original in by_key:
            known = by_key[original]
            if key not in known.keys:
                known.keys.append(key)
            return known
        new = Parameter(
            _plain(name),
            contents.shapes[original],
            contents.dtypes[original],
            [original],
            trainable=trainable,
        )
        if key != original:
            new.keys.append(key)
        by_key[original] = new
        parameters.append(new)
        return new

    stored = contents.object_graph()
    keys = {} if stored is None else dict(saved_keys(meta, stored))
    paths = object_paths(meta)
    nodes = meta.object_graph_def.nodes
    taken: dict[str, dict[str, None]] = {}
    for node, key in sorted(keys.items()):
        named = taken.setdefault(_plain(nodes[node].variable.name), {})
        named[copies.get(key, key)] = None
    for node in sorted(keys):
        key, variable = keys[node], nodes[node].variable
        if key not in contents.shapes:
            continue
        name = _plain(variable.name)
        nameless = not name or name == "Variable" or name.startswith("Variable_")
        path = paths.get(node, "")
        listed = path.rpartition("/")[2].isdigit()  # a place in a list says nothing of a layer
        if path and (nameless or (len(taken.get(name, ())) > 1 and not listed)):
            name = path
        elif len(held := taken.get(name, ())) > 1:
            number = list(held).index(copies.get(key, key))
            name, listed = f"{name}_{number}" if number else name, True
        else:
            listed = False
        parameter = by_object[node] = add(key, name, variable.trainable)
        parameter.alone = listed
    for place, key in restored.items():
        if key in contents.shapes and copies.get(key, key) not in by_key:
            add(key, place, True)
    by_node = {
        place: by_key[copies.get(key, key)]
        for place, key in restored.items()
        if copies.get(key, key) in by_key
    }
    names = {p.name: p for p in parameters}
    for node in meta.graph_def.node:
        if node.op == "VarHandleOp" and node.name not in by_node:
            shared = node.attr["shared_name"].s.decode("utf-8", "replace") or node.name
            known = names.get(_plain(shared))
            shape = tuple(dim.size for dim in node.attr["shape"].shape.dim)
            if known is not None and known.shape == shape:
                by_node[node.name] = known
    constants = _constant_weights(meta, library, skipped)
    every = [*parameters, *constants.values()]
    return Found(every, name_layers(every), by_node, by_object, constants, skipped)


def _plain(name: str) -> str:
    return name.removesuffix(":0").strip("/")


def _restored_nodes(meta: Any, library: Mapping[str, Any]) -> tuple[dict[str, str], frozenset[str]]:
    """What the main graph restores.

    Returns: by node, the checkpoint key; and the nodes that do nothing but save and restore.
    """
    graph = main_graph(meta)
    found: dict[str, str] = {}
    skipped: set[str] = set()

    def scan(
        nodes: Mapping[str, Any],
        inputs: Mapping[str, list[tuple[str, int]]],
        args: Mapping[str, str],
    ) -> None:
        for name, node in nodes.items():
            if node.op not in ("AssignVariableOp", "Assign"):
                continue
            target, _ = inputs[name][0]
            source, index = inputs[name][1]
            while source in nodes and nodes[source].op in ("Identity", "Cast", "Reshape"):
                source, index = inputs[source][0]
            if source not in nodes or nodes[source].op != "RestoreV2":
                continue
            listed = nodes.get(inputs[source][1][0])
            keys = None if listed is None or listed.op != "Const" else constant(listed)
            if keys is not None and index < keys.size:
                found[args.get(target, target)] = bytes(keys.ravel()[index]).decode(
                    "utf-8", "replace"
                )

    scan(graph.nodes, graph.inputs, {})
    ends = {meta.saver_def.save_tensor_name.partition(":")[0], meta.saver_def.restore_op_name}
    for name in ends:
        node = graph.nodes.get(name)
        if node is None or "f" not in node.attr or node.attr["f"].func.name not in library:
            continue
        skipped.add(name)
        inner = function_graph(library[node.attr["f"].func.name], library)
        args = dict(zip(inner.args, (source for source, _ in graph.inputs[name]), strict=False))
        scan(inner.nodes, inner.inputs, args)
    return found, frozenset(skipped)


def _copies(meta: Any, restored: Mapping[str, str]) -> dict[str, str]:
    """Keys of variables that another one starts from: Keras exports all of its variables twice.

    Returns: by the key of the copy, the key of the variable that counts.
    """
    graph = main_graph(meta)
    found: dict[str, str] = {}
    for name, node in graph.nodes.items():
        if node.op != "AssignVariableOp":
            continue
        (target, _), (source, _) = graph.inputs[name][:2]
        while source in graph.nodes and graph.nodes[source].op in ("ReadVariableOp", "Identity"):
            source = graph.inputs[source][0][0]
        one, other = restored.get(target), restored.get(source)
        if one is not None and other is not None and one != other:
            found[other] = one
    return found


def _constant_weights(
    meta: Any, library: Mapping[str, Any], skipped: frozenset[str]
) -> dict[tuple[str, str], Parameter]:
    """Float constants with several numbers in them: the weights of a frozen graph."""
    found = {}
    graphs = [(MAIN, meta.graph_def.node), *((name, f.node_def) for name, f in library.items())]
    several = len(graphs) > 2
    for name, nodes in graphs:
        for node in nodes:
            if node.op != "Const" or node.attr["dtype"].type not in (1, 2, 14, 19):
                continue
            if all(dim.size <= 1 for dim in node.attr["value"].tensor.tensor_shape.dim):
                continue
            value = constant(node)
            if value is None:
                continue
            called = f"{name}/{node.name}" if several and name else node.name
            found[name, node.name] = Parameter(
                called,
                tuple(value.shape),
                value.dtype,
                constants=[(name, node.name)],
                trainable=False,
            )
    return found


def _trace(meta: Any, tracer: GraphTracer, found: Found) -> None:
    """From the signatures first, then whatever else the object graph holds."""
    objects = meta.object_graph_def
    signatures = _signature_functions(objects)
    for name in signatures:
        _entry(tracer, objects, found, name, "are the model's outputs")
    values = tracer.run_main()
    for signature in meta.signature_def.values():
        for info in signature.outputs.values():
            name, _, index = info.name.partition(":")
            held = values.get((name, int(index or 0)))
            if held is not None:
                _freeze_output(tracer, held, name)
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
    from kprune.labels.labels import Labels

    concrete = objects.concrete_functions.get(name)
    if concrete is None or name not in tracer.library:
        return
    captured = [
        Value(Labels(()), parameter=found.by_object.get(node)) for node in concrete.bound_inputs
    ]
    for held in tracer.run_entry(name, captured):
        _freeze_output(tracer, held, name, why)


def _freeze_output(
    tracer: GraphTracer, held: Value, name: str, why: str = "are the model's outputs"
) -> None:
    ids = held.labels.all_ids()
    ids = distinct(ids[ids != 0])
    if ids.size:
        tracer.map.freezes.append(Freeze("output", ids, why, ""))


# -- units and weights ----------------------------------------------------------------------------


def _name_units(label_map: LabelMap, model: Model, found: Found, tracer: GraphTracer) -> None:
    for layer in found.layers:
        record = label_map.record(layer)
        own = [parameter for parameter in found.parameters if parameter.layer is layer]
        layer.kind = layer.spec["class_name"] = _kind(own)
        for name, ids in _axes(own).items():
            axis = UnitAxis(layer, name, ids, name == "units")
            record.axes[name] = label_map.axes[axis.address] = axis


def _kind(own: list[Parameter]) -> str:
    leaves = {parameter.leaf for parameter in own}
    if "recurrent_kernel" in leaves:
        return "Recurrent"
    if {"moving_mean", "moving_variance"} & leaves:
        return "BatchNormalization"
    if any(p.path.endswith("attention_output/kernel") for p in own):
        return "Attention"
    if "embeddings" in leaves:
        return "Embedding"
    for parameter in own:
        if parameter.kind:
            return parameter.kind
    return "Constant" if any(parameter.constants for parameter in own) else "Variables"


def _axes(own: list[Parameter]) -> dict[str, np.ndarray]:
    """The axes of units of one layer, by name; the default one is `units`."""
    by_leaf = {parameter.leaf: parameter for parameter in own}
    parts = {
        name: p
        for name in ATTENTION
        for p in own
        if p.path.endswith(f"/{name}/kernel") and len(p.shape) == 3
    }
    if len(parts) == len(ATTENTION):
        found = {
            "units": parts["attention_output"].ids[2],
            "heads": parts["query"].ids[1],
            "key_dim": parts["query"].ids[2],
            "value_dim": parts["value"].ids[2],
        }
        return {name: ids for name, ids in found.items() if ids is not None}
    recurrent = by_leaf.get("recurrent_kernel")
    if recurrent is not None and recurrent.ids and recurrent.ids[0] is not None:
        return {"units": recurrent.ids[0]}
    order = sorted(own, key=lambda p: (p.leaf not in _KERNELS, -len(p.shape)))
    for parameter in order:
        made = [axis for axis in sorted(parameter.made) if parameter.ids[axis] is not None]
        if made:
            ids = parameter.ids[made[-1]]
            assert ids is not None
            return {"units": ids}
    return {}


def _declare_weights(
    label_map: LabelMap, groups: Groups, found: Found, grouped: Mapping[Parameter, Blocks]
) -> None:
    """Say which labels stand along each axis: the layer's own units where they are tied to them."""
    for parameter in found.parameters:
        assert parameter.layer is not None
        record = label_map.record(parameter.layer)
        unit_of = {
            int(group): int(label)
            for axis in record.axes.values()
            for label, group in zip(axis.ids, groups.of[axis.ids], strict=True)
        }
        units = {label for axis in record.axes.values() for label in axis.ids.tolist()}
        axes, made = [], []
        for number, (size, ids) in enumerate(zip(parameter.shape, parameter.ids, strict=True)):
            if ids is None or (parameter in grouped and number == len(parameter.shape) - 2):
                axes.append(Axis(size))
                continue
            named = np.array(
                [unit_of.get(int(g), int(i)) for i, g in zip(ids, groups.of[ids], strict=True)],
                np.int64,
            )
            axes.append(Axis.of(named))
            whole = not parameter.made or number in parameter.made
            if whole and units.intersection(named.tolist()):
                made.append(number)
        record.weights[parameter.path] = Weight(
            parameter.layer,
            parameter.leaf,
            parameter.path,
            tuple(axes),
            parameter.trainable,
            parameter.uses,
            parameter.flops,
            out=made[-1] if made else None,
            also=tuple(made[:-1]),
            grouped=grouped.get(parameter),
        )


def refuse(why: str) -> CannotPruneError:
    """The refusal for what a SavedModel cannot have done to it."""
    return CannotPruneError("this cannot be done to a SavedModel", why=why)


__all__ = [
    "Found",
    "GraphAnalysis",
    "analyse",
    "find_parameters",
    "left",
    "recorded_shapes",
    "refuse",
]
