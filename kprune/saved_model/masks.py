"""Masks in a graph: the output of a layer, multiplied by a constant with 0 where a unit is masked.

A layer of a graph is the nodes under its name, or, where a model has no names, those that its
weights go into and the activation behind them. What it gives are the tensors of these nodes that
others read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from kprune.edit import Edit
from kprune.errors import CannotPruneError
from kprune.graph.model import Layer, Model
from kprune.labels.map import UnitAxis
from kprune.saved_model.analysis import GraphAnalysis
from kprune.saved_model.tracing.graph import Graph, Ref, output_starts, output_types
from kprune.saved_model.tracing.trace import GraphTracer
from kprune.text import clean

NAME = "kprune_mask"
LAYER = "_kprune_layer"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a mask stands.

    Attributes:
        graph, node, output: the tensor that is masked.
        axis: along which the units stand; `rank` is the tensor's.
        readers: nodes that are to read the masked tensor.
    """

    graph: str
    node: str
    output: int
    axis: int
    rank: int
    ids: np.ndarray
    readers: tuple[str, ...]


def layer_at(model: Model, path: str) -> Layer:
    """The layer at a path that is known to exist."""
    return model.layers[path]


def channels(analysis: GraphAnalysis, layer: Layer) -> int:
    """How many units of a layer can be masked. Raises: CannotPruneError if it has none."""
    return len(_units(analysis, layer))


def dead_channels(analysis: GraphAnalysis, layer: Layer, gone: np.ndarray) -> np.ndarray:
    """bool: which of the units that a mask counts are gone.

    Args:
        gone: bool (labels,).
    """
    dead: np.ndarray = gone[_units(analysis, layer).ids]
    return dead


def _units(analysis: GraphAnalysis, layer: Layer) -> UnitAxis:
    axis = analysis.map.axes.get(layer.path)
    if axis is None:
        raise CannotPruneError(
            f"'{clean(layer.path)}' cannot be masked",
            why="in a SavedModel a mask is placed behind weights that make units, and this layer has none",
            do="mask a layer that 'kprune inspect' shows with units",
        )
    return axis


def mask(analysis: GraphAnalysis, chosen: Mapping[str, np.ndarray]) -> Edit:
    """The edit that multiplies units' outputs by 0.

    Args:
        chosen: by layer, indices of units.
    """
    return _edit(analysis, dict(chosen), None)


def mask_below(
    analysis: GraphAnalysis, chosen: Mapping[str, np.ndarray | None], below: float
) -> Edit:
    """The edit that zeroes, at run time, activations whose magnitude is under a threshold.

    Args:
        chosen: by layer, indices of units; None for all.
    """
    return _edit(analysis, dict(chosen), below)


def _edit(
    analysis: GraphAnalysis, chosen: Mapping[str, np.ndarray | None], below: float | None
) -> Edit:
    masks = []
    for path, indices in chosen.items():
        axis = _units(analysis, layer_at(analysis.model, path))
        found = list(places(analysis, axis))
        if not found:
            raise CannotPruneError(
                f"cannot find the output of '{clean(path)}'",
                why="none of the operations that it feeds carries its units along one axis",
                do="use 'kprune zero', which needs no such place",
            )
        for place in found:
            hit = positions_of(analysis, place, axis, indices)
            masks.append(
                {
                    "layer": path,
                    "graph": place.graph,
                    "node": place.node,
                    "output": place.output,
                    "shape": [len(hit), *[1] * (place.rank - 1 - place.axis)],
                    "masked": [int(i) for i in np.flatnonzero(hit)],
                    "below": below,
                    "readers": list(place.readers),
                }
            )
    return Edit({**analysis.config, "masks": masks}, analysis.metadata)


def positions_of(
    analysis: GraphAnalysis, place: Place, axis: UnitAxis, indices: np.ndarray | None
) -> np.ndarray:
    """bool, along the axis of a place: where a layer's units stand.

    Args:
        axis: of the layer.
        indices: of the units; None for all.
    """
    of = analysis.groups.of
    if np.array_equal(of[place.ids], of[axis.ids]):
        hit = np.zeros(len(place.ids), bool)
        hit[slice(None) if indices is None else indices] = True
        return hit
    # The gates of a recurrent layer, say: each unit stands at several positions, tied.
    return np.isin(of[place.ids], of[axis.ids if indices is None else axis.ids[indices]])


def places(analysis: GraphAnalysis, axis: UnitAxis) -> Iterator[Place]:
    """The tensors that a layer gives to others, outside of loops."""
    tracer = analysis.tracer
    inside = {
        node.attr[name].func.name
        for graph in tracer.graphs.values()
        for node in graph.nodes.values()
        for name in ("body", "cond")
        if node.op in ("While", "StatelessWhile") and name in node.attr
    }
    groups = analysis.groups.of[axis.ids]
    by_graph: dict[str, set[str]] = {}
    for (graph, node), layer in tracer.node_layers.of.items():
        if layer is axis.layer and graph not in inside:
            by_graph.setdefault(graph, set()).add(node)
    for graph, own in by_graph.items():
        known = tracer.graphs[graph]
        for (node, output), names in _given(tracer, known, own).items():
            labels = tracer.traced.tensors.get((graph, node, output))
            if labels is None or tracer.owners.whole(labels) is not None:
                continue
            for number in range(labels.rank):
                along = labels.axis(number)
                if (
                    along.plain
                    and along.factors
                    and set(analysis.groups.of[along.ids]) >= set(groups)
                ):
                    yield Place(graph, node, output, number, labels.rank, along.ids, tuple(names))
                    break


def _given(tracer: GraphTracer, graph: Graph, own: set[str]) -> dict[Ref, list[str]]:
    """The tensors that a layer gives to others, each with the nodes that read it as such.

    Those that hand it back to the layer are none of them: a bias may be added only behind a Reshape.
    """
    layers = tracer.node_layers
    call = {name: layers.scopes.get((graph.name, name), "") for name in own}
    consumers: dict[str, list[str]] = {}
    for name in graph.order:
        for source, _ in graph.inputs[name]:
            consumers.setdefault(source, []).append(name)

    def comes_back(reader: str, to: str) -> bool:
        seen, stack = {reader}, [reader]
        while stack:
            for name in consumers.get(stack.pop(), ()):
                if name in own:
                    if call[name] == to and (graph.name, name) not in layers.makers:
                        return True
                elif name not in seen:
                    seen.add(name)
                    stack.append(name)
        return False

    given: dict[Ref, list[str]] = {}
    for name in graph.order:
        for ref in graph.inputs[name]:
            source = ref[0]
            if source not in own or call.get(name) == call[source]:
                continue
            if name in own or not comes_back(name, call[source]):
                given.setdefault(ref, []).append(name)
    for ref in graph.results:
        if ref[0] in own:
            given.setdefault(ref, [])
    return given


def unmask(analysis: GraphAnalysis, paths: Collection[str] | None) -> tuple[Edit, list[str]]:
    """The edit that takes masks out, and the layers that had one.

    Args:
        paths: layers; None for all.
    """
    freed = []
    for graph in (
        analysis.tracer.meta.graph_def.node,
        *(f.node_def for f in analysis.tracer.library.values()),
    ):
        for node in graph:
            if LAYER in node.attr and NAME in node.name.split("/"):
                path = node.attr[LAYER].s.decode("utf-8", "replace")
                if (paths is None or path in paths) and path not in freed:
                    freed.append(path)
    return Edit({**analysis.config, "unmask": freed}, analysis.metadata), freed


# -- on the protos --------------------------------------------------------------------------------


def put_in(meta: Any, masks: Collection[Mapping[str, Any]]) -> None:
    """Put masks into a MetaGraphDef."""
    for one in masks:
        _Graph(meta, one["graph"]).mask(one)


def take_out(meta: Any, layers: Collection[str]) -> None:
    """Take the masks of some layers out of a MetaGraphDef."""
    for name in ("", *(f.signature.name for f in meta.graph_def.library.function)):
        _Graph(meta, name).unmask(set(layers))


class _Graph:
    """The nodes of the main graph or of one function, changed in place."""

    def __init__(self, meta: Any, name: str) -> None:
        self.meta, self.name = meta, name
        self.library = {f.signature.name: f for f in meta.graph_def.library.function}
        if name:
            self.function = self.library[name]
            self.nodes = self.function.node_def
        else:
            self.function, self.nodes = None, meta.graph_def.node

    def text(self, node: str, output: str = "", index: int = 0) -> str:
        """A tensor as inputs name it."""
        if self.function is None:
            return node if not index else f"{node}:{index}"
        return f"{node}:{output}:{index}"

    def _texts(self, node: Any, index: int) -> set[str]:
        """All ways in which inputs may name one output of a node."""
        if self.function is None:
            return {node.name, f"{node.name}:0"} if index == 0 else {f"{node.name}:{index}"}
        starts = output_starts(node, self.library)
        name = max((start, name) for name, start in starts.items() if start <= index)[1]
        return {f"{node.name}:{name}:{index - starts[name]}"}

    def mask(self, one: Mapping[str, Any]) -> None:
        from tensorflow.python.framework import dtypes, tensor_util

        node = next(node for node in self.nodes if node.name == one["node"])
        before = self._texts(node, one["output"])
        source = sorted(before)[0]
        base, number = f"{node.name}/{NAME}", 1
        taken = {other.name for other in self.nodes}
        while base in taken:
            base, number = f"{node.name}/{NAME}/{number}", number + 1
        kind = output_types(node, self.library)[one["output"]]
        dtype = dtypes.as_dtype(kind)
        shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else []
        shape = shapes[one["output"]] if one["output"] < len(shapes) else None

        def add(name: str, op: str, inputs: list[str], like: Any = None, **attributes: Any) -> str:
            new = self.nodes.add(name=name, op=op, input=inputs)
            new.attr[LAYER].s = one["layer"].encode()
            for key, value in attributes.items():
                if isinstance(value, int):
                    new.attr[key].type = value
                else:
                    new.attr[key].tensor.CopyFrom(value)
            if like is not None:
                new.attr["_output_shapes"].list.shape.add().CopyFrom(like)
            return name

        def const(name: str, values: Any) -> str:
            tensor = tensor_util.make_tensor_proto(values, dtype=dtype)
            return self.text(
                add(f"{base}/{name}", "Const", [], tensor.tensor_shape, dtype=kind, value=tensor),
                "output",
            )

        masked = np.zeros(one["shape"], bool)
        masked.reshape(-1)[one["masked"]] = True
        if one["below"] is None:
            factor = const("values", (~masked).astype(dtype.as_numpy_dtype))
        else:
            size = self.text(add(f"{base}/abs", "Abs", [source], shape, T=kind), "y")
            large = self.text(
                add(
                    f"{base}/large",
                    "GreaterEqual",
                    [size, const("below", one["below"])],
                    shape,
                    T=kind,
                ),
                "z",
            )
            factor = self.text(add(f"{base}/cast", "Cast", [large], shape, SrcT=10, DstT=kind), "y")
            if not masked.all():
                others = const("values", (~masked).astype(dtype.as_numpy_dtype))
                factor = self.text(
                    add(f"{base}/others", "Maximum", [factor, others], shape, T=kind), "z"
                )
        result = self.text(add(base, "Mul", [source, factor], shape, T=kind), "z")
        self._reroute(before, result, set(one["readers"]))

    def _reroute(self, before: set[str], after: str, readers: set[str] | None) -> None:
        for node in self.nodes:
            if readers is None or node.name in readers:
                for index, text in enumerate(node.input):
                    if text in before:
                        node.input[index] = after
        if self.function is not None:
            for name, text in self.function.ret.items():
                if text in before:
                    self.function.ret[name] = after
        elif any(text in before for text in before):
            for signature in self.meta.signature_def.values():
                for info in signature.outputs.values():
                    if info.name in before or info.name.removesuffix(":0") in before:
                        info.name = after if ":" in after else f"{after}:0"

    def unmask(self, layers: set[str]) -> None:
        gone = [
            node
            for node in self.nodes
            if LAYER in node.attr and node.attr[LAYER].s.decode("utf-8", "replace") in layers
        ]
        names = {node.name for node in gone}
        for node in gone:
            if node.op == "Mul":
                texts = (
                    {node.name, f"{node.name}:0"} if self.function is None else {f"{node.name}:z:0"}
                )
                self._reroute(texts, node.input[0], None)
        for index in reversed([i for i, node in enumerate(self.nodes) if node.name in names]):
            del self.nodes[index]
