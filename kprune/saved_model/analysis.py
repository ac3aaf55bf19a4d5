"""A SavedModel with everything kprune knows of it: the same object that a `.keras` file gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from msgspec import field

from kprune.analysis.analysis import Analysis, Stored
from kprune.errors import Cannot
from kprune.graph.model import Model
from kprune.labels.groups import Groups
from kprune.labels.labels import Labels
from kprune.labels.map import LabelMap
from kprune.saved_model.files.contents import Contents
from kprune.saved_model.tracing.after_tracing import settle
from kprune.saved_model.tracing.find_weights import Found
from kprune.saved_model.tracing.parameters import Parameter
from kprune.saved_model.tracing.signatures import trace_from_signatures
from kprune.saved_model.tracing.trace import GraphTracer
from kprune.saved_model.units import declare_weights, name_units

_CANNOT = {
    "fold": Cannot(
        "constants are not folded into a SavedModel",
        why="its biases are additions like any other in a graph of operations",
        do="leave out --fold, or fold in the .keras file and export that",
    ),
    "merge": Cannot(
        "units of a SavedModel are not merged",
        do="leave out --merge; dead ones are still removed",
    ),
    "constants": Cannot(
        "constants cannot be followed in a SavedModel",
        why="it holds TensorFlow operations instead of Keras layers",
        do="work on the .keras or .h5 file that it was exported from",
    ),
    "whole layers": Cannot(
        "whole layers cannot be removed from a SavedModel",
        why="it is a graph of operations, in which layers are not separate parts",
        do="remove them from the .keras or .h5 file, and export that",
    ),
    "observe layers": Cannot(
        "the inputs of a SavedModel's layers cannot be observed",
        why="it is run as one graph of operations",
        do="choose units by another criterion, or in the .keras file, and export that",
    ),
    "repair": Cannot(
        "a SavedModel cannot be refitted",
        why="it is a graph of operations, in which kernels cannot be refitted one by one",
        do="repair the .keras file, and export that; or leave out --repair",
    ),
    "tokens": Cannot(
        "rows of embeddings are removed from Keras files, not from a SavedModel",
        do="remove them from the .keras file, and export that",
    ),
}


class GraphAnalysis(Analysis, eq=False):
    """The layers, labels, groups and weights of a SavedModel.

    Attributes:
        tracer: what was found in its graphs.
        held: by path, every variable and constant weight.
    """

    tracer: Any = None
    held: dict[str, Parameter] = field(default_factory=dict)
    layered: ClassVar[bool] = False
    cannot: ClassVar[Mapping[str, Cannot]] = _CANNOT
    masking: ClassVar[str] = "kprune.saved_model.masks"

    def rewritten(self, gone: np.ndarray, branches: Any = ()) -> dict[str, Any]:
        """What changes in the graphs when some labels are gone.

        Returns: the config with `changes`: under `graphs` by graph and node the `shapes` of its
            outputs, the `value` of a constant (by flat index) and the `axes` of a Squeeze; under
            `arguments` and `results` shapes of what functions take and give, under `handles` and
            `given_handles` those of the variables among these.
        """
        changes: dict[str, Any] = {"graphs": {}, "arguments": {}, "results": {}}
        gone = self._with_rows(gone)

        def node(graph: str, name: str) -> dict[str, Any]:
            found: dict[str, Any] = changes["graphs"].setdefault(graph, {}).setdefault(name, {})
            return found

        for (graph, name, index), labels in self.tracer.traced.tensors.items():
            shape = _shape_left(labels, gone)
            if shape is not None:
                node(graph, name).setdefault("shapes", {})[index] = shape
        for demand in self.tracer.traced.demands:
            dead = demand.axis.dead(gone)
            if dead.any():
                graph, name, index = demand.place
                node(graph, name).setdefault("value", {})[index] = demand.count(~dead)
        for part in ("handles", "given_handles"):
            for name, parameters in getattr(self.tracer.traced, part).items():
                for index, parameter in parameters.items():
                    shape = _shape_left(parameter.labels, gone)
                    if shape is not None:
                        changes.setdefault(part, {}).setdefault(name, {})[index] = shape
        for (graph, name), (labels, axes) in self.tracer.traced.squeezed.items():
            if 1 in (_shape_left(labels, gone) or ()):
                node(graph, name)["axes"] = axes
        for part in ("arguments", "results"):
            for name, listed in getattr(self.tracer.traced, part).items():
                for index, labels in enumerate(listed):
                    shape = _shape_left(labels, gone)
                    if shape is not None:
                        changes[part].setdefault(name, {})[index] = shape
        return {**self.config, "changes": changes}

    def _with_rows(self, gone: np.ndarray) -> np.ndarray:
        """The labels that are gone, with as many rows of each grouped kernel as its groups lose inputs."""
        gone = gone.copy()
        for parameter, blocks in self.tracer.traced.grouped.items():
            rows = parameter.ids[-2]
            if rows is not None:
                left = int((~gone[blocks.sides[0]]).sum(axis=1).max())
                gone[rows[left:]] = True
        return gone


def _shape_left(labels: Labels, gone: np.ndarray) -> list[int | None] | None:
    """The shape of a tensor once some labels are gone; None if it stays."""
    if labels.shape is None or not labels.factors or not any(gone[f].any() for f in labels.factors):
        return None
    result = list(labels.shape)
    for axis, size in enumerate(labels.shape):
        along = labels.axis(axis)
        if along.factors and size is not None:
            result[axis] = size - int(along.dead(gone).sum())
    return result if result != list(labels.shape) else None


def analyse(
    contents: Contents, metadata: dict[str, Any], tensors: Mapping[str, Stored], found: Found
) -> GraphAnalysis:
    """Trace a SavedModel.

    Args:
        metadata, tensors: of the opened source.
        found: its parameters, with their layers.
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
        label_map,
        found.skipped,
    )
    trace_from_signatures(contents.meta, tracer, found)
    settle(tracer.traced, label_map)
    name_units(label_map, found)
    groups = Groups.solve(label_map)
    config = {"class_name": "SavedModel", "config": {"layers": []}}
    declare_weights(label_map, groups, found, tracer.traced.grouped)
    return GraphAnalysis(
        config,
        metadata,
        tensors,
        model,
        label_map,
        groups,
        tracer=tracer,
        held={p.path: p for p in found.parameters},
    )
