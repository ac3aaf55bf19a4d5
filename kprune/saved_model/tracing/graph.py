"""Graphs of operations, the main one and functions, with nodes in the order in which they run."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kprune.errors import DamagedFileError
from kprune.labels.labels import Shape
from kprune.text import clean

MAIN = ""
"""The name of the main graph, where functions have theirs."""

FLOATS = frozenset({1, 2, 14, 19})
"""Types of floats: DT_FLOAT, DT_DOUBLE, DT_BFLOAT16, DT_HALF (tensorflow/core/framework/types.proto)."""

Ref = tuple[str, int]
"""A tensor of a graph: (node or argument, index of the output)."""


@dataclass(eq=False)
class Graph:
    """The main graph, or one function.

    Attributes:
        name: of the function; `MAIN` for the main graph.
        proto: the FunctionDef or GraphDef.
        nodes: by name.
        order: names, inputs first.
        args: names of the function's arguments.
        results: what it returns.
        inputs: for each node the tensors that it reads; control inputs left out.
    """

    name: str
    proto: Any = field(repr=False)
    nodes: dict[str, Any] = field(repr=False)
    order: list[str] = field(repr=False)
    args: list[str] = field(default_factory=list)
    results: list[Ref] = field(default_factory=list)
    inputs: dict[str, list[Ref]] = field(default_factory=dict, repr=False)


def main_graph(meta: Any) -> Graph:
    """The graph that sessions run and signatures name."""
    nodes = {node.name: node for node in meta.graph_def.node}
    inputs = {
        name: [_plain_ref(text) for text in node.input if not text.startswith("^")]
        for name, node in nodes.items()
    }
    return Graph(MAIN, meta.graph_def, nodes, _sorted(nodes, inputs, set()), inputs=inputs)


def _plain_ref(text: str) -> Ref:
    name, _, index = text.partition(":")
    return name, int(index or 0)


def function_graph(function: Any, library: Mapping[str, Any]) -> Graph:
    """A function of the library."""
    nodes = {node.name: node for node in function.node_def}
    args = [arg.name for arg in function.signature.input_arg]
    starts: dict[str, dict[str, int]] = {}

    def ref(text: str) -> Ref:
        parts = text.split(":")
        if len(parts) == 1 or parts[0] not in nodes:
            return parts[0], 0
        if len(parts) == 2:  # only by index, or only by the output's name
            return (
                (parts[0], int(parts[1]))
                if parts[1].isdigit()
                else (parts[0], place(parts[0], parts[1]))
            )
        return parts[0], place(parts[0], parts[1]) + int(parts[2])

    def place(node: str, output: str) -> int:
        if node not in starts:
            starts[node] = output_starts(nodes[node], library)
        if output not in starts[node]:
            raise DamagedFileError(
                f"the function {clean(function.signature.name)} reads an output that is not there",
                where=f"{clean(node)}:{clean(output)}",
            )
        return starts[node][output]

    inputs = {
        name: [ref(text) for text in node.input if not text.startswith("^")]
        for name, node in nodes.items()
    }
    results = [ref(function.ret[arg.name]) for arg in function.signature.output_arg]
    return Graph(
        function.signature.name,
        function,
        nodes,
        _sorted(nodes, inputs, set(args)),
        args,
        results,
        inputs,
    )


def output_starts(node: Any, library: Mapping[str, Any]) -> dict[str, int]:
    """At which flat index each named output of a node begins."""
    found: dict[str, int] = {}
    total = 0
    for name, types in _outputs(node, library):
        found[name] = total
        total += len(types)
    return found


def output_types(node: Any, library: Mapping[str, Any]) -> list[int]:
    """The type of each output of a node, by flat index."""
    return [kind for _, types in _outputs(node, library) for kind in types]


def _outputs(node: Any, library: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """The named outputs of a node, each with the types of the tensors that it is."""
    definition = library[node.op].signature if node.op in library else _definition(node.op)
    if definition is None:
        return
    defaults = {attribute.name: attribute.default_value for attribute in definition.attr}

    def attribute(name: str) -> Any:
        # Files leave out what has its default value, and to ask a proto for it would put it in.
        return node.attr[name] if name in node.attr else defaults[name]

    for output in definition.output_arg:
        if output.type_list_attr:
            yield output.name, list(attribute(output.type_list_attr).list.type)
        else:
            kind = attribute(output.type_attr).type if output.type_attr else output.type
            times = attribute(output.number_attr).i if output.number_attr else 1
            yield output.name, [kind] * times


@functools.cache
def _definition(op: str) -> Any | None:
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(op)


def _sorted(
    nodes: Mapping[str, Any], inputs: Mapping[str, list[Ref]], known: set[str]
) -> list[str]:
    """Names in an order in which inputs come first; what stands in a cycle comes anyhow."""
    order: list[str] = []
    state: dict[str, int] = {}
    for first in nodes:
        stack = [first]
        while stack:
            name = stack[-1]
            if state.get(name) == 2:
                stack.pop()
                continue
            if state.get(name) == 1:
                state[name] = 2
                order.append(stack.pop())
                continue
            state[name] = 1
            for source, _ in inputs[name]:
                if source in nodes and source not in known and source not in state:
                    stack.append(source)
    return order


def shape_of(proto: Any) -> Shape | None:
    """A TensorShapeProto; None if the rank is not known."""
    if proto.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else int(dim.size) for dim in proto.dim)


def recorded_shapes(node: Any) -> list[Shape | None]:
    """The shapes of a node's outputs, as far as the graph says them."""
    if "_output_shapes" in node.attr:
        return [shape_of(shape) for shape in node.attr["_output_shapes"].list.shape]
    if node.op == "Placeholder" and "shape" in node.attr:
        return [shape_of(node.attr["shape"].shape)]
    return []


def constant(node: Any) -> np.ndarray | None:
    """The value of a Const; None if it cannot be made out."""
    from tensorflow.python.framework import tensor_util

    try:
        value: np.ndarray = tensor_util.MakeNdarray(node.attr["value"].tensor)
    except (TypeError, ValueError):
        return None
    return value


def scalar(graph: Graph, ref: Ref) -> float | None:
    """The value of a tensor that is a number written in the graph; None for any other."""
    node = graph.nodes.get(ref[0])
    while node is not None and node.op == "Identity":
        node = graph.nodes.get(graph.inputs[node.name][0][0])
    value = constant(node) if node is not None and node.op == "Const" else None
    if value is None or value.size != 1 or value.dtype.kind not in "fiu":
        return None
    return float(value)


def is_restored(graph: Graph, ref: Ref) -> bool:
    """Whether a tensor comes from a checkpoint, by a few operations at most that reshape or convert it."""
    name = ref[0]
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
