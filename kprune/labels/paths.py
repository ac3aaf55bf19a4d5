"""The path of units from the layer that issues them to the place that freezes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from kprune.graph.model import Layer
from kprune.labels.groups import Groups
from kprune.labels.map import LAYER, Freeze, UnitAxis
from kprune.text import clean


def reason(freeze: Freeze) -> str:
    """Why units are frozen, as a clause: about the layer that holds them, or about 'the units there'."""
    why = clean(freeze.why, 300)
    return why if freeze.subject == LAYER else f"the units there {why}"


def path_to_freeze(groups: Groups, axis: UnitAxis, index: int, freeze: Freeze) -> list[str]:
    """Paths of the layers from a unit to where its group is frozen, the nearest way.

    A step leads from a call to one that reads what it gives, or back to one that feeds it, as long
    as the tensor between them carries units of the group.

    Args:
        axis: the axis of units that was named.
        index: the unit.
        freeze: what freezes it.
    """
    group = int(groups.of[axis.ids[index]])
    goal = freeze.at
    neighbours = _neighbours(groups, group)
    if axis.layer not in neighbours:
        return [axis.layer.path, goal] if goal and goal != axis.layer.path else [axis.layer.path]

    def arrived(layer: Layer) -> bool:
        return layer.path == goal if goal else _is_output(groups, layer, group)

    steps = _nearest(neighbours, axis.layer, arrived)
    if goal and steps[-1] != goal:
        steps.append(goal)
    if freeze.kind == "output":
        steps.append("output")
    return steps


def path_between(groups: Groups, start: UnitAxis, index: int, end: UnitAxis) -> list[str]:
    """Paths of the layers from a unit to another layer's units in its group, the nearest way.

    Args:
        start, index: the unit that was named.
        end: the axis of units that is removed with it.
    """
    neighbours = _neighbours(groups, int(groups.of[start.ids[index]]))
    if start.layer not in neighbours:
        return [start.layer.path, end.layer.path]
    steps = _nearest(neighbours, start.layer, lambda layer: layer is end.layer)
    return steps if steps[-1] == end.layer.path else [start.layer.path, end.layer.path]


def _nearest(
    neighbours: Mapping[Layer, list[Layer]], start: Layer, arrived: Callable[[Layer], bool]
) -> list[str]:
    """The layers of the shortest path from a layer to one that will do; the start alone if there is none."""
    came: dict[Layer, Layer | None] = {start: None}
    queue = deque([start])
    last = start
    while queue:
        here = queue.popleft()
        if arrived(here):
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
    return steps[::-1]


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
