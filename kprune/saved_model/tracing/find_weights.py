"""Finds the parameters of a SavedModel: its variables, and the constant weights of a frozen graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from kprune.graph.model import Layer
from kprune.saved_model.files.contents import Contents, object_paths, saved_keys
from kprune.saved_model.tracing.graph import FLOATS, MAIN, constant, function_graph, main_graph
from kprune.saved_model.tracing.parameters import Parameter, name_layers


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
    for node, (name, alone) in _variable_names(meta, keys, copies).items():
        if keys[node] in contents.shapes:
            trainable = meta.object_graph_def.nodes[node].variable.trainable
            parameter = by_object[node] = add(keys[node], name, trainable)
            parameter.alone = alone
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


def _variable_names(
    meta: Any, keys: Mapping[int, str], copies: Mapping[str, str]
) -> dict[int, tuple[str, bool]]:
    """What to call the variables of the object graph: by their own names where these tell them apart.

    Args:
        keys: the checkpoint key of each node.
        copies: see `_copies`.
    Returns: by node, the name, and whether it says nothing of the variable's layer.
    """
    nodes, paths = meta.object_graph_def.nodes, object_paths(meta)
    taken: dict[str, dict[str, None]] = {}  # keys of the variables that have each name, in order
    for node, key in sorted(keys.items()):
        taken.setdefault(_plain(nodes[node].variable.name), {})[copies.get(key, key)] = None
    names: dict[int, tuple[str, bool]] = {}
    for node, key in sorted(keys.items()):
        name = _plain(nodes[node].variable.name)
        nameless = not name or name == "Variable" or name.startswith("Variable_")
        path = paths.get(node, "")
        listed = path.rpartition("/")[2].isdigit()  # a place in a list says nothing of a layer
        if path and (nameless or (len(taken[name]) > 1 and not listed)):
            names[node] = path, listed
        elif len(taken[name]) > 1:
            number = list(taken[name]).index(copies.get(key, key))
            names[node] = f"{name}_{number}" if number else name, True
        else:
            names[node] = name, False
    return names


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
            if node.op != "Const" or node.attr["dtype"].type not in FLOATS:
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
