"""Which layer each node of a graph belongs to, as far as names tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kprune.graph.model import Layer
from kprune.saved_model.graph import Graph
from kprune.saved_model.parameters import Owners, Parameter
from kprune.saved_model.rules.elementwise import GIVES_OTHER, KEEPS_ZERO
from kprune.saved_model.values import Value


class NodeLayers:
    """Finds the layers of nodes, in the order in which these run.

    Keras and its like put a layer's nodes into a scope that bears its name. Where a model has no
    scopes, a layer's nodes are those that its weights go into and the activation behind them.

    Args:
        owners: of labels.
        layers: those that weights belong to, by path.
        functions: names of functions, which are called as operations.

    Attributes:
        of: the layers of the nodes so far, by (graph, node); a node of no layer stands for itself.
    """

    def __init__(
        self, owners: Owners, layers: Mapping[str, Layer], functions: Collection[str]
    ) -> None:
        self.of: dict[tuple[str, str], Layer] = {}
        self._owners, self._layers, self._functions = owners, layers, functions
        self._scopes: dict[tuple[str, str], Layer] = {}

    def find(self, graph: Graph, node: Any, own: Layer, ins: Sequence[Value]) -> Layer:
        """The layer that a node belongs to.

        Args:
            own: stands for the node itself, and is its layer if nothing tells another.
            ins: what the node reads.
        """
        found = self._by_scope(graph, node)
        if found is None:
            found = self._by_weights(graph, node, own, ins) or self._continued(graph, node) or own
        self.of[graph.name, node.name] = found
        return found

    def _by_scope(self, graph: Graph, node: Any) -> Layer | None:
        """The layer of the innermost scope around a node that is known for a layer's."""
        scope = node.name
        while scope:
            scope = scope.rpartition("/")[0]
            if (graph.name, scope) in self._scopes:
                return self._scopes[graph.name, scope]
        return None

    def _by_weights(
        self, graph: Graph, node: Any, own: Layer, ins: Sequence[Value]
    ) -> Layer | None:
        """The layer of the first weight that a node reads; a scope of the same name is noted as its."""
        parameter = next(filter(None, map(self._weight, ins)), None)
        if parameter is None or parameter.layer is None:
            return None
        layer = parameter.layer
        last = layer.name.rpartition("/")[2]
        parts = node.name.split("/")
        for depth in range(len(parts) - 1, 0, -1):
            part = parts[depth - 1]
            numbered = part.startswith(f"{last}_") and part[len(last) + 1 :].isdigit()
            if part == last or numbered:
                self._scopes[graph.name, "/".join(parts[:depth])] = layer
                return layer
        return layer if self._made_by(node, parameter) else own

    def _weight(self, value: Value) -> Parameter | None:
        """The weight that a value is, or points to; None for whatever is computed."""
        if value.parameter is not None:
            return value.parameter
        if not value.labels.factors:
            return None
        issued = self._owners.find(int(value.labels.factors[0].flat[0]))
        return issued[0] if issued is not None and value.labels is issued[0].labels else None

    def _made_by(self, node: Any, parameter: Parameter) -> bool:
        """Whether a node outside of any scope makes a layer's units, or adds to them."""
        calls = node.op in self._functions or "f" in node.attr  # runs many layers' nodes
        return not calls and (bool(parameter.made) or node.op in ("BiasAdd", "Add", "AddV2"))

    def _continued(self, graph: Graph, node: Any) -> Layer | None:
        """The layer before a node outside of any scope that only goes on with it: its activation."""
        sources = graph.inputs[node.name]
        if node.op not in KEEPS_ZERO + GIVES_OTHER or len(sources) != 1:
            return None
        before = self.of.get((graph.name, sources[0][0]))
        if before is None or before.path not in self._layers:
            return None
        inside = any(
            name == graph.name and layer is before for (name, _), layer in self._scopes.items()
        )
        return None if inside else before
