"""By which road units get from the layer that issues them to the place that holds them."""

from __future__ import annotations

from collections import deque

import numpy as np

from kprune.graph.model import Layer
from kprune.labels.groups import Groups
from kprune.labels.trace import Freeze, UnitAxis


def road(groups: Groups, axis: UnitAxis, index: int, freeze: Freeze) -> list[str]:
    """Paths of the layers from a unit to where its group is frozen, the nearest way.

    A step leads from a call to one that reads what it gives, or back to one that feeds it, as long
    as the tensor between them carries units of the group.

    Args:
        axis: the axis of units that was named.
        index: the unit.
        freeze: what holds it.
    """
    group = groups.of[axis.ids[index]]
    neighbours = _neighbours(groups, group)
    start = axis.layer
    goal = freeze.at
    if start not in neighbours:
        return [axis.layer.path, goal] if goal and goal != axis.layer.path else [axis.layer.path]
    came: dict[Layer, Layer | None] = {start: None}
    queue = deque([start])
    last = start
    outputs = {layer for layer in neighbours if _is_output(groups, layer, group)}
    while queue:
        here = queue.popleft()
        if (goal and here.path == goal) or (not goal and here in outputs):
            last = here
            break
        for there in neighbours[here]:
            if there not in came:
                came[there] = here
                queue.append(there)
    steps: list[str] = []
    at: Layer | None = last
    while at is not None:
        steps.append(at.path)
        at = came[at]
    steps.reverse()
    if goal and steps[-1] != goal:
        steps.append(goal)
    if freeze.kind == "output":
        steps.append("output")
    return steps


def _neighbours(groups: Groups, group: int) -> dict[Layer, list[Layer]]:
    """Layers whose tensors carry units of a group, and which of them share a tensor."""
    carriers: dict[int, list[Layer]] = {}
    for visit in groups.map.visits:
        if visit.of_model:
            continue
        for labels in (*visit.inputs, *visit.outputs):
            for factor in labels.factors:
                key = id(factor)
                if key in carriers:
                    if carriers[key][-1] is not visit.layer:
                        carriers[key].append(visit.layer)
                elif (groups.of[factor] == group).any():
                    carriers[key] = [visit.layer]
    neighbours: dict[Layer, list[Layer]] = {}
    for layers in carriers.values():
        for one in layers:
            neighbours.setdefault(one, [])
            neighbours[one].extend(other for other in layers if other is not one)
    return neighbours


def _is_output(groups: Groups, layer: Layer, group: int) -> bool:
    """Whether a tensor this layer gives is an output of the outermost model and carries the group."""
    from kprune.graph.model import TensorRef, leaves

    model = groups.map.model
    for ref in leaves(model.outputs):
        if isinstance(ref, TensorRef) and model.layers.get(ref.layer) is layer:
            labels = groups.map.tensors.get((model.path, *ref.key))
            if labels is not None and (groups.of[labels.all_ids()] == group).any():
                return True
    return False


def members(groups: Groups, ids: np.ndarray) -> dict[str, np.ndarray]:
    """By address, the indices of every unit in the groups of some labels."""
    gone = groups.spread(ids)
    found = {}
    for address, axis in groups.map.axes.items():
        indices = np.flatnonzero(gone[axis.ids])
        if indices.size:
            found[address] = indices
    return found
