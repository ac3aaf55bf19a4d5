"""Layers without a rule whose own code was traced: the graph of that trace says what becomes of labels.

Keras is not needed here. Whoever traces (`kprune.custom_code.code_tracer`) builds the layer from its config
and calls it on symbolic tensors, with symbolic tensors in place of its weights; what comes out
is a graph like that of any Functional model, through which labels are pushed as through any other.
Every axis of every weight has labels of its own to begin with, and what the graph ties together
says which of them are the channels.

That Keras makes the same graph, only smaller, of the layer once units are gone is not taken for
granted: `kprune.custom_code.rebuild_check` has it traced again and compares.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kprune.errors import DamagedFileError
from kprune.graph.model import Constant, Model, TensorRef, leaves, map_leaves
from kprune.graph.parse import inner_graph, make_layer
from kprune.labels.groups import connected
from kprune.labels.labels import Axis, Labels
from kprune.labels.map import TOKENS, LabelMap, LayerRecord, TracedCall, Weight
from kprune.tracing.code_graph import CodeTracer, Held, Part, Tensor, TracedCode, Untraceable
from kprune.tracing.counting_fields import Fields
from kprune.tracing.layer_call import LayerCall, Tracing
from kprune.tracing.rule_call import CannotTell

PRODUCTS = frozenset({"Matmul", "Einsum", "Dot", "Tensordot"})


def _token_rows(map_: LabelMap) -> np.ndarray:
    """The labels of the rows of all embeddings in a graph, int64."""
    axes = [axis for part in map_.whole() for axis in part.axes.values() if axis.name == TOKENS]
    return np.concatenate([np.zeros(0, np.int64), *(axis.ids for axis in axes)])


class CodeTracing(Tracing, Protocol):
    """The same for one that can trace a graph inside: see `Tracer`."""

    def inside(self, label_map: LabelMap) -> CodeTracing: ...

    def run(self, model: Model, inputs: list[Labels] | None) -> Any: ...


class TracedLayer:
    """One call of such a layer."""

    def __init__(self, tracer: CodeTracing, call: LayerCall, code_tracer: CodeTracer) -> None:
        self._tracer, self._map, self._call = tracer, tracer.map, call
        self._record = tracer.map.record(call.layer)
        self._code_tracer = code_tracer
        self._made: set[str] = set()  # weights whose last axis is that of what they make

    def trace(self) -> Any:
        """What the call gives, in labels. Raises: Untraceable."""
        described = self._arguments()
        traces = self._code_tracer.trace(self._call.layer.spec, described)
        first = len(self._map.ties)
        runs = []
        for traced in traces:
            map_ = self._map.within(self._graph(traced))
            try:
                outputs = self._run(map_, traced)
            except (
                CannotTell,
                DamagedFileError,
                KeyError,
                TypeError,
                ValueError,
                IndexError,
            ) as error:
                raise Untraceable(f"whose code kprune cannot follow ({error})") from error
            runs.append((traced, map_, outputs))
        outputs = runs[0][2]
        for _, _, others in runs[1:]:
            self._same(outputs, others)
        if not self._record.visits:
            self._note_makers(runs[0][1])
        self._name_once(first, [map_ for _, map_, _ in runs])
        for traced, map_, _ in runs:
            weights = self._declare(traced.whole, map_, self._record)
            self._map.traced_calls.append(
                TracedCall(
                    self._record,
                    (self._call.args, self._call.kwargs),
                    described,
                    traced,
                    map_,
                    weights,
                )
            )
        if not self._record.visits:
            fields = Fields(self._call, self._record, self._code_tracer, described, self._made)
            fields.find(self._map.traced_calls[-1].weights, _token_rows(runs[0][1]))
        self._record.answer = "traced"
        return outputs

    def _arguments(self) -> Any:
        """The arguments of the call, for the code tracer."""
        call = self._call
        if any(isinstance(leaf, Constant) for leaf in leaves([call.args, call.kwargs])):
            raise Untraceable("which is called with an array that is written into the config")
        refs: list[Any] = []
        if call.graph_call is not None:
            given = leaves([call.graph_call.args, call.graph_call.kwargs])
            refs = [leaf for leaf in given if isinstance(leaf, TensorRef)]
        dtypes = iter([ref.dtype for ref in refs])

        def described(leaf: Any) -> Any:
            if not isinstance(leaf, Labels):
                return leaf
            if leaf.shape is None:
                raise Untraceable("which is called on a tensor of unknown shape")
            return Tensor(leaf.shape, next(dtypes, None))

        # Leaves of dicts are counted by sorted key, and map_leaves goes by the dict's own order.
        return map_leaves(described, _in_order((call.args, call.kwargs)))

    def _graph(self, traced: TracedCode) -> Any:
        try:
            return inner_graph(traced.config, self._call.layer)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise Untraceable(f"whose code makes no graph ({error})") from error

    def _run(self, map_: LabelMap, traced: TracedCode) -> Any:
        tracer = self._tracer.inside(map_)
        given = [
            leaf
            for leaf in leaves([self._call.args, self._call.kwargs])
            if isinstance(leaf, Labels)
        ]
        made = [held for held in traced.whole.all_weights() if held.input]
        held = [self._labels(held) for held in (*made, *traced.invented)]
        mask = [Labels(given[0].shape[:2])] if traced.masked and given[0].shape else []
        outputs = tracer.run(map_.model, [*given, *held, *mask])
        shapes = iter(traced.gives)

        def shaped(labels: Any) -> Any:
            shape = next(shapes, None)
            known = isinstance(labels, Labels) and labels.shape is not None
            return labels if shape is None or known else Labels(shape)

        return map_leaves(shaped, _in_order(outputs))

    def _labels(self, held: Held) -> Labels:
        """Labels of a weight: fresh ones along each axis, the same at every call."""
        known = self._record.held.get(held.path)
        if known is None:
            factors = []
            for axis, size in enumerate(held.shape):
                if size is not None and size > 1:
                    extents = [1] * len(held.shape)
                    extents[axis] = size
                    factors.append(self._map.issue(size).reshape(extents))
            known = self._record.held[held.path] = Labels(held.shape, tuple(factors))
        return known

    def _same(self, outputs: Any, others: Any) -> None:
        """What the layer gives in one way of calling it has the same units as what it gives in another."""
        for one, other in zip(leaves(outputs), leaves(others), strict=True):
            if not isinstance(one, Labels) or not isinstance(other, Labels):
                continue
            if [f.shape for f in one.factors] == [f.shape for f in other.factors]:
                for a, b in zip(one.factors, other.factors, strict=True):
                    self._call.tie(a.ravel(), b.ravel())
            else:
                why = f"leave {self._call.layer.path!r} as other units where time steps are masked"
                self._call.freeze(one, why)
                self._call.freeze(other, why)

    def _name_once(self, first: int, maps: list[LabelMap]) -> None:
        """Give positions of weights that were found to be the same units the same label.

        The smallest one: units that come in had theirs before the layer was looked at. So a weight
        has the labels that a rule would have stated.

        Args:
            first: how many ties there were before.
            maps: of the graphs, whose layers have weights as well.
        """
        ties = self._map.ties[first:]
        if not ties:
            return
        pairs = [np.concatenate([getattr(tie, side).ravel() for tie in ties]) for side in "ab"]
        known, places = np.unique(np.concatenate(pairs), return_inverse=True)
        half = len(pairs[0])
        root = known[connected(len(known), places[:half], places[half:])]

        def named(ids: np.ndarray) -> np.ndarray:
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            return np.where(known[at] == ids, root[at], ids)

        for path, labels in self._record.held.items():
            factors = tuple(named(factor) for factor in labels.factors)
            self._record.held[path] = Labels(labels.shape, factors, labels.keeps_zero)
        records = [
            record for map_ in maps for found in map_.records.values() for record in found.whole()
        ]
        for weight in (weight for record in records for weight in record.weights.values()):
            weight.axes = tuple(
                Axis(axis.size, tuple(named(factor) for factor in axis.factors))
                for axis in weight.axes
            )

    def _note_makers(self, map_: LabelMap) -> None:
        """Note which weights are multiplied and summed so that their last axis is left."""
        left = [np.zeros(0, np.int64)]
        for visit in map_.visits:
            if visit.layer.kind in PRODUCTS:
                left += [labels.all_ids() for labels in visit.outputs]
        found = np.unique(np.concatenate(left))
        for path, labels in self._record.held.items():
            if labels.rank > 1 and np.isin(labels.last.all_ids(), found).all():
                self._made.add(f"{self._call.layer.store}/{path}")

    # -- weights --------------------------------------------------------------------------------

    def _declare(self, part: Part, map_: LabelMap, record: LayerRecord) -> list[Weight]:
        """Enter the weights of a part in Keras's order. Returns: all of them, in that order."""
        found = []
        for held in part.weights:
            found.append(self._weight(record, held))
        for inner in part.parts:
            child = record.children.get(inner.name)
            in_graph = map_.model.layers.get(inner.name) if inner.own else None
            traced = None if in_graph is None else map_.records.get(in_graph)
            if child is None:
                child = record.children[inner.name] = traced or LayerRecord(
                    make_layer(
                        inner.name,
                        {"class_name": inner.kind, "config": {}},
                        record.layer.path + "/",
                    )
                )
            if traced is not None:
                _adopt_layers(traced, map_)
                found += self._bound(child, traced, list(inner.weights))
            else:
                found += self._declare(inner, map_, child)
        return found

    def _weight(self, record: LayerRecord, held: Held) -> Weight:
        labels = self._record.held.get(held.path, Labels(held.shape))
        axes = tuple(labels.axis(axis) for axis in range(len(held.shape)))
        known = record.weights.get(held.path)
        if known is None:
            layer = self._call.layer
            known = record.weights[held.path] = Weight(
                layer,
                held.name,
                f"{layer.store}/{held.path}",
                tuple(Axis(axis.size, axis.factors) for axis in axes),
                held.trainable and layer.trainable,
            )
        return known

    def _bound(self, child: LayerRecord, traced: LayerRecord, held: list[Held]) -> list[Weight]:
        """Hold the weights that a rule declared for a layer inside against those that it has.

        Keras's order of `layer.weights` and the rules' may differ in which comes first, the
        trainable ones or not; among each kind it is one order.
        """
        declared = sorted(_weights(traced), key=lambda weight: not weight.trainable)
        order = sorted(range(len(held)), key=lambda place: not held[place].trainable)
        fits = len(declared) == len(held) and all(
            len(weight.shape) == len(held[place].shape)
            and all(a in (None, b) for a, b in zip(weight.shape, held[place].shape, strict=True))
            for weight, place in zip(declared, order, strict=True)
        )
        if not fits:
            raise Untraceable(
                f"whose '{traced.layer.name}' ({traced.layer.kind}) has other weights than "
                "kprune's rule for it"
            )
        before = sorted(_weights(child), key=lambda weight: not weight.trainable)
        result: list[Weight | None] = [None] * len(held)
        for weight, first, place in zip(declared, before, order, strict=True):
            if first is weight:
                weight.path = f"{self._call.layer.store}/{held[place].path}"
                weight.trainable = held[place].trainable and self._call.layer.trainable
            else:
                self._call.tie_weight(first, weight.axes)
            result[place] = first
        return [weight for weight in result if weight is not None]


def _adopt_layers(record: LayerRecord, map_: LabelMap) -> None:
    """Put the records of a nested model's layers below its own: no graph of the file lists them."""
    if record.layer.model is None:
        return
    for layer in record.layer.model.layers.values():
        inner = map_.records.get(layer.twin or layer)
        if inner is not None:
            record.children[layer.name] = inner
            _adopt_layers(inner, map_)


def _weights(record: LayerRecord) -> list[Weight]:
    """The weights of a layer and of all layers inside it."""
    found = list(record.weights.values())
    for child in record.children.values():
        found += _weights(child)
    return found


def _in_order(structure: Any) -> Any:
    """The same structure, with dicts in the order of their sorted keys."""
    if isinstance(structure, (list, tuple)):
        return type(structure)(_in_order(item) for item in structure)
    if isinstance(structure, dict):
        return {key: _in_order(structure[key]) for key in sorted(structure)}
    return structure
