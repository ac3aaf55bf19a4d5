"""Branches that are removed as a whole: every unit of one part of a Concatenate was chosen.

A layer without units cannot stay, because Keras has no layer of width 0. It can be removed as a
whole where nothing needs it: where its output ends, perhaps through layers that would have no units
either, in a Concatenate that has other parts.
"""

from __future__ import annotations

import numpy as np

from kprune.graph.model import Call, Layer, Model, TensorRef, leaves
from kprune.labels.groups import Groups

JOINS = frozenset({"Concatenate"})


def dead_branches(groups: Groups, gone: np.ndarray) -> set[Layer]:
    """Layers that are removed as a whole, with the branch they are in.

    Args:
        gone: bool (labels,).
    Returns: layers that have no units left and that no remaining layer needs. If a layer has no
        units left and is not among them, the removal is impossible.
    """
    found: set[Layer] = set()
    for model in _models(groups):
        found |= _dead_in(groups, model, gone)
    return found


def _models(groups: Groups) -> list[Model]:
    nested = [layer.model for layer in groups.map.records if layer.model is not None]
    return [groups.map.model, *nested]


def is_dead(groups: Groups, model: Model, ref: TensorRef, gone: np.ndarray) -> bool:
    """Whether a tensor is left with nothing along some axis."""
    labels = groups.map.tensors.get((model.path, *ref.key))
    if labels is None or not any(gone[factor].any() for factor in labels.factors):
        return False
    axes = {axis for factor in labels.factors for axis in labels.support(factor)}
    return any((dead := labels.axis(axis).dead(gone)).size and bool(dead.all()) for axis in axes)


def _dead_in(groups: Groups, model: Model, gone: np.ndarray) -> set[Layer]:
    made = [call for call in model.calls if call.inputs]
    dead = {
        call.layer
        for call in made
        if call.layer.model is None
        and is_dead(groups, model, TensorRef(call.layer.name, call.node, 0), gone)
    }
    if not dead:
        return set()
    # A layer stays if any call of it gives something, or if a layer that stays needs what it gives.
    dead -= {
        call.layer
        for call in made
        if not is_dead(groups, model, TensorRef(call.layer.name, call.node, 0), gone)
    }
    outputs = {ref.layer for ref in leaves(model.outputs) if isinstance(ref, TensorRef)}
    dead = {layer for layer in dead if layer.name not in outputs}
    while True:
        needed = set()
        for call in made:
            if call.layer in dead:
                continue
            lost = [ref for ref in call.inputs if model.layers.get(ref.layer) in dead]
            if lost and not _can_lose(call, lost):
                needed |= {model.layers[ref.layer] for ref in lost}
        if not needed:
            return dead
        dead -= needed


def _can_lose(call: Call, lost: list[TensorRef]) -> bool:
    keys = {ref.key for ref in lost}
    return call.layer.kind in JOINS and any(ref.key not in keys for ref in call.inputs)
