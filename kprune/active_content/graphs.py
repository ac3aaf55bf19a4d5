"""What a SavedModel would do besides computing once TensorFlow runs it: found in its protos, nothing is run.

Every node of every graph is looked at, called or not. What TensorFlow itself reads of the folder is
no business of the graph's: its variables, and the files in `assets` that fill tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from kprune.active_content.active import Active, Kind
from kprune.active_content.operations import (
    CALL_NOTHING,
    CHECKPOINTS,
    TABLES_FROM_FILES,
    UNKNOWN,
    does,
    is_inert,
)
from kprune.page.figures import counted
from kprune.text import clean

MAIN = ""
"""Stands for the main graph where functions have a name."""

ASSETS = "assets"
"""The folder of a SavedModel's own files."""

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_SAME = ("Identity", "IdentityN")
_OF_VARIABLES = ("ReadVariableOp", "AssignVariableOp", "VarIsInitializedOp")


class _Origin(NamedTuple):
    """Where a tensor comes from, followed back through calls.

    Attributes:
        kind: 'node' of a graph, 'object' that a function captured, or '?', whatever its caller hands it.
    """

    kind: str
    graph: str = ""
    node: str = ""
    number: int = -1


def active_in_graphs(proto: Any) -> tuple[Active, ...]:
    """What the graphs of a SavedModel do besides computing: each operation once, with a graph that holds it.

    Args:
        proto: of saved_model.pb, or what has the same fields.
    """
    found: dict[str, set[str]] = {}
    for meta in proto.meta_graphs:
        for name, graph in _Graphs(meta).outward():
            found.setdefault(name, set()).add(graph)
    # Those of which it is known what they do come first: messages show the first few.
    names = sorted(found, key=lambda name: (does(name) == UNKNOWN, name))
    operations = (_operation(name, sorted(found[name])) for name in names)
    assets = (Active(Kind.FILE, ASSETS, name) for name in _escaping_assets(proto))
    return (*operations, *assets)


def _operation(name: str, graphs: list[str]) -> Active:
    more = f", also in {counted(len(graphs) - 1, 'other graph')}" if len(graphs) > 1 else ""
    place = "the main graph" if graphs[0] == MAIN else graphs[0]
    return Active(Kind.OPERATION, place, f"{clean(name)}, which {does(name)}{more}")


def _escaping_assets(proto: Any) -> list[str]:
    """Names of assets that lie outside of the folder for them, sorted."""
    names = {asset.filename for meta in proto.meta_graphs for asset in meta.asset_file_def}
    return sorted(name for name in names if _escapes(name))


def _escapes(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "://" in name or "\0" in name


class _Graphs:
    """The graphs of one MetaGraphDef.

    Attributes:
        nodes: by graph and name.
    """

    def __init__(self, meta: Any) -> None:
        self.meta = meta
        self.functions = {f.signature.name: f for f in meta.graph_def.library.function}
        self.nodes: dict[str, dict[str, Any]] = {
            MAIN: {node.name: node for node in meta.graph_def.node},
            **{
                name: {node.name: node for node in function.node_def}
                for name, function in self.functions.items()
            },
        }
        self.arguments = {
            name: {arg.name: index for index, arg in enumerate(function.signature.input_arg)}
            for name, function in self.functions.items()
        }
        self.filename = _node(meta.saver_def.filename_tensor_name)
        self.assets = {_node(asset.tensor_info.name) for asset in meta.asset_file_def}

    def outward(self) -> Iterator[tuple[str, str]]:
        """(operation, graph) of all that is not inert."""
        for graph, node in self._listed():
            if not (
                node.op in self.functions or is_inert(node) or self._of_the_folder(graph, node)
            ):
                yield node.op, graph

    def _listed(self) -> Iterator[tuple[str, Any]]:
        # Not from the tables by name: of two nodes of one name, both count.
        yield from ((MAIN, node) for node in self.meta.graph_def.node)
        for function in self.meta.graph_def.library.function:
            yield from ((function.signature.name, node) for node in function.node_def)

    def _of_the_folder(self, graph: str, node: Any) -> bool:
        """Whether all that a node reads or writes is a file of the model's own."""
        if node.op in TABLES_FROM_FILES:
            origins = self._origins(graph, _data_input(node, TABLES_FROM_FILES[node.op]))
            return bool(origins) and all(map(self._is_asset, origins))
        if node.op not in CHECKPOINTS or not self._only_for_saving(graph, node):
            return False
        if node.op != "RestoreV2":  # TensorFlow saves when it is told to, not when it loads or runs
            return True
        origins = self._origins(graph, _data_input(node, 0))
        return origins == {_Origin("node", MAIN, self.filename)}

    def _is_asset(self, origin: _Origin) -> bool:
        if origin.kind == "object":
            nodes = self.meta.object_graph_def.nodes
            inside = 0 <= origin.number < len(nodes)
            return inside and nodes[origin.number].WhichOneof("kind") == "asset"
        return origin.kind == "node" and origin.graph == MAIN and origin.node in self.assets

    # -- what is there for the sake of saving and restoring alone ---------------------------------

    def _only_for_saving(self, graph: str, node: Any) -> bool:
        if graph == MAIN:
            return node.name in self._saving_nodes
        return graph in self._saving_functions

    @cached_property
    def _saving_nodes(self) -> set[str]:
        """Nodes of the main graph that nothing needs but the saver."""
        saver = self.meta.saver_def
        roots = {_node(saver.save_tensor_name), _node(saver.restore_op_name)}
        return self._ancestors(roots) - self._ancestors(self._run_nodes())

    def _run_nodes(self) -> set[str]:
        """Nodes of the main graph that signatures and collections name."""
        names = {
            info.name
            for signature in self.meta.signature_def.values()
            for info in (*signature.inputs.values(), *signature.outputs.values())
        }
        for key in self.meta.collection_def:
            names.update(self.meta.collection_def[key].node_list.value)
        return {_node(name) for name in names}

    def _ancestors(self, roots: set[str]) -> set[str]:
        seen: set[str] = set()
        stack = [name for name in roots if name in self.nodes[MAIN]]
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                read = (_node(text.removeprefix("^")) for text in self.nodes[MAIN][name].input)
                stack.extend(source for source in read if source in self.nodes[MAIN])
        return seen

    @cached_property
    def _saving_functions(self) -> set[str]:
        """Functions that nothing calls but nodes that are there for saving."""
        main = self.nodes[MAIN].values()
        others = [node for node in main if node.name not in self._saving_nodes]
        saving = [node for node in main if node.name in self._saving_nodes]
        run = self._called(others) | self._inside(
            set(self.meta.object_graph_def.concrete_functions)
        )
        return self._called(saving) - run

    def _called(self, nodes: list[Any]) -> set[str]:
        """Functions that nodes call, and those that these call."""
        return self._inside({name for node in nodes for name in self._names(node)})

    def _inside(self, functions: set[str]) -> set[str]:
        seen: set[str] = set()
        stack = list(functions)
        while stack:
            name = stack.pop()
            if name in self.functions and name not in seen:
                seen.add(name)
                stack.extend(
                    inner for node in self.functions[name].node_def for inner in self._names(node)
                )
        return seen

    def _names(self, node: Any) -> Iterator[str]:
        """Functions that a node calls."""
        if node.op in CALL_NOTHING:
            return
        if node.op in self.functions:
            yield node.op
        for value in node.attr.values():
            yield value.func.name
            yield from (function.name for function in value.list.func)

    # -- where a tensor comes from ----------------------------------------------------------------

    def _origins(self, graph: str, text: str) -> set[_Origin]:
        """All places that a tensor comes from.

        Args:
            text: as inputs name it.
        """
        found: set[_Origin] = set()
        seen: set[tuple[str, str]] = set()
        stack = [(graph, text)]
        while stack:
            here = graph, text = stack.pop()
            if here in seen:
                continue
            seen.add(here)
            name = _node(text)
            if graph != MAIN and name in self.arguments[graph] and name not in self.nodes[graph]:
                handed, origins = self._handed(graph, self.arguments[graph][name])
                stack.extend(handed)
                found |= origins
            elif name in self.nodes[graph] and self.nodes[graph][name].op in _SAME:
                stack.append((graph, _data_input(self.nodes[graph][name], _index(text))))
            elif graph == MAIN and name in self._assigned:
                stack.extend((MAIN, value) for value in self._assigned[name])
            else:
                found.add(_Origin("node", graph, name))
        return found

    @cached_property
    def _assigned(self) -> Mapping[str, list[str]]:
        """What is assigned to variables that only the main graph uses, by the nodes that read them.

        The name of an asset goes through one.
        """
        nodes = list(self.nodes[MAIN].values())
        variables = [node for _, node in self._listed() if node.op == "VarHandleOp"]
        names = Counter(_variable_name(node) for node in variables)
        shared = {node.name for node in variables if names[_variable_name(node)] > 1}
        handed = {
            _node(text) for node in nodes if node.op not in _OF_VARIABLES for text in node.input
        }
        values: dict[str, list[str]] = {}
        for node in nodes:
            if node.op == "AssignVariableOp":
                values.setdefault(_node(_data_input(node, 0)), []).append(_data_input(node, 1))
        return {
            node.name: values[handle]
            for node in nodes
            if node.op == "ReadVariableOp"
            and (handle := _node(_data_input(node, 0))) in values
            and handle not in handed | shared
        }

    def _handed(self, function: str, index: int) -> tuple[list[tuple[str, str]], set[_Origin]]:
        """What callers hand a function as one of its arguments: tensors of theirs, and other things."""
        tensors, origins = [], set()
        for graph, node in self._callers.get(function, ()):
            if node.op == function or node.op in _CALLS:
                tensors.append((graph, _data_input(node, index)))
            else:
                origins.add(_Origin("?"))
        concrete = self.meta.object_graph_def.concrete_functions
        if function in concrete:
            captured = list(concrete[function].bound_inputs)
            place = index - (len(self.arguments[function]) - len(captured))
            origins.add(_Origin("object", number=captured[place]) if place >= 0 else _Origin("?"))
        return tensors, origins

    @cached_property
    def _callers(self) -> Mapping[str, list[tuple[str, Any]]]:
        found: dict[str, list[tuple[str, Any]]] = {}
        for graph, node in self._listed():
            for name in self._names(node):
                found.setdefault(name, []).append((graph, node))
        return found


def _node(text: str) -> str:
    return text.partition(":")[0]


def _variable_name(node: Any) -> bytes:
    """The name by which nodes share a variable."""
    shared = node.attr["shared_name"].s if "shared_name" in node.attr else b""
    return bytes(shared) or node.name.encode()


def _index(text: str) -> int:
    """Which output of a node a text names: `node`, `node:1`, or in functions `node:output:1`."""
    tail = text.rpartition(":")[2]
    return int(tail) if tail.isdigit() else 0


def _data_input(node: Any, index: int) -> str:
    """The tensor that a node reads as its input of some number; "" if it has no such input."""
    read = [text for text in node.input if not text.startswith("^")]
    return str(read[index]) if index < len(read) else ""
