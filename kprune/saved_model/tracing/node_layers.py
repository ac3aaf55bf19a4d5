"""Which layer each node of a graph belongs to, as far as names tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kprune.elementwise.table import FUNCTIONS, TENSORFLOW
from kprune.graph.model import Layer
from kprune.saved_model.tracing.graph import Graph
from kprune.saved_model.tracing.parameters import Owners, Parameter
from kprune.saved_model.tracing.values import Value


class NodeLayers:
    """Finds the layers of nodes, in the order in which these run.

    Keras and its like put a layer's nodes into a scope with its name. Where a model has no
    scopes, a layer's nodes are those that its weights go into and the activation behind them.

    Args:
        owners: of labels.
        layers: those that weights belong to, by path.
        functions: names of functions, which are called as operations.

    Attributes:
        of: the layers of the nodes so far, by (graph, node); a node of no layer stands for itself.
        scopes: the scope with its layer's name, of nodes that stand in one: a layer that is
            called again has another.
        makers: nodes that make units with a weight, as a multiplication does, and an added bias not.
    """

    def __init__(
        self, owners: Owners, layers: Mapping[str, Layer], functions: Collection[str]
    ) -> None:
        self.of: dict[tuple[str, str], Layer] = {}
        self.scopes: dict[tuple[str, str], str] = {}
        self.makers: set[tuple[str, str]] = set()
        self._owners, self._layers, self._functions = owners, layers, functions
        self._scopes: dict[tuple[str, str], Layer] = {}

    def find(self, graph: Graph, node: Any, own: Layer, ins: Sequence[Value]) -> Layer:
        """The layer that a node belongs to.

        Args:
            own: stands for the node itself, and is its layer if nothing tells another.
            ins: what the node reads.
        """
        weight = self._weight(ins)
        found = self._by_scope(graph, node, weight) or self._by_weight(node, own, weight)
        if found is None:
            found = self._continued(graph, node) or own
        self.of[graph.name, node.name] = found
        if weight is not None and weight.made:
            self.makers.add((graph.name, node.name))
        return found

    def _by_scope(self, graph: Graph, node: Any, weight: Parameter | None) -> Layer | None:
        """The layer of the innermost scope around a node that is known, or turns out, to be a layer's."""
        scope = str(node.name)
        while "/" in scope:
            scope, _, _ = scope.rpartition("/")
            if weight is not None and weight.layer is not None and _bears(scope, weight.layer):
                self._scopes.setdefault((graph.name, scope), weight.layer)
            if (graph.name, scope) in self._scopes:
                self.scopes[graph.name, node.name] = scope
                return self._scopes[graph.name, scope]
        return None

    def _by_weight(self, node: Any, own: Layer, weight: Parameter | None) -> Layer | None:
        """Outside of any scope: the layer of a weight for what makes its units, no layer for others."""
        if weight is None:
            return None
        calls = node.op in self._functions or "f" in node.attr  # runs many layers' nodes
        makes = bool(weight.made) or node.op in ("BiasAdd", "Add", "AddV2")
        return weight.layer if makes and not calls else own

    def _weight(self, ins: Sequence[Value]) -> Parameter | None:
        """The first weight that a node reads, by its value or by a handle."""
        for value in ins:
            weight = value.parameter or self._owners.whole(value.labels)
            if weight is not None:
                return weight
        return None

    def _continued(self, graph: Graph, node: Any) -> Layer | None:
        """The layer before a node outside of any scope that only goes on with it: its activation."""
        sources = graph.inputs[node.name]
        known = FUNCTIONS[TENSORFLOW].get(node.op)
        if known is None or known.name.operands != 1 or len(sources) != 1:
            return None
        before = self.of.get((graph.name, sources[0][0]))
        if before is None or before.path not in self._layers:
            return None
        inside = any(
            name == graph.name and layer is before for (name, _), layer in self._scopes.items()
        )
        return None if inside else before


def _bears(scope: str, layer: Layer) -> bool:
    """Whether a scope has a layer's name, perhaps with a number: `dense_1` may be the second call of `dense`."""
    last, name = scope.rpartition("/")[2], layer.name.rpartition("/")[2]
    return last == name or (last.startswith(f"{name}_") and last[len(name) + 1 :].isdigit())
