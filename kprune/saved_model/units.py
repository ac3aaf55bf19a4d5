"""The units of a SavedModel's layers, and the labels along each axis of their weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kprune.labels.groups import Groups
from kprune.labels.labels import Axis
from kprune.labels.map import Blocks, LabelMap, UnitAxis, Weight
from kprune.saved_model.tracing.find_weights import Found
from kprune.saved_model.tracing.parameters import ATTENTION, Parameter

_KERNELS = ("kernel", "embeddings", "pointwise_kernel", "weights", "weight", "w")


def name_units(label_map: LabelMap, found: Found) -> None:
    """Say what kind of layer each one is, and enter the axes of its units under their names."""
    for layer in found.layers:
        record = label_map.record(layer)
        own = [parameter for parameter in found.parameters if parameter.layer is layer]
        layer.kind = layer.spec["class_name"] = _kind(own)
        for name, ids in _axes(own).items():
            axis = UnitAxis(layer, name, ids, name == "units")
            record.axes[name] = label_map.axes[axis.address] = axis


def _kind(own: list[Parameter]) -> str:
    leaves = {parameter.leaf for parameter in own}
    if "recurrent_kernel" in leaves:
        return "Recurrent"
    if {"moving_mean", "moving_variance"} & leaves:
        return "BatchNormalization"
    if any(p.path.endswith("attention_output/kernel") for p in own):
        return "Attention"
    if "embeddings" in leaves:
        return "Embedding"
    for parameter in own:
        if parameter.kind:
            return parameter.kind
    return "Constant" if any(parameter.constants for parameter in own) else "Variables"


def _axes(own: list[Parameter]) -> dict[str, np.ndarray]:
    """The axes of units of one layer, by name; the default one is `units`."""
    by_leaf = {parameter.leaf: parameter for parameter in own}
    parts = {
        name: p
        for name in ATTENTION
        for p in own
        if p.path.endswith(f"/{name}/kernel") and len(p.shape) == 3
    }
    if len(parts) == len(ATTENTION):
        found = {
            "units": parts["attention_output"].ids[2],
            "heads": parts["query"].ids[1],
            "key_dim": parts["query"].ids[2],
            "value_dim": parts["value"].ids[2],
        }
        return {name: ids for name, ids in found.items() if ids is not None}
    recurrent = by_leaf.get("recurrent_kernel")
    if recurrent is not None and recurrent.ids and recurrent.ids[0] is not None:
        return {"units": recurrent.ids[0]}
    order = sorted(own, key=lambda p: (p.leaf not in _KERNELS, -len(p.shape)))
    for parameter in order:
        made = [axis for axis in sorted(parameter.made) if parameter.ids[axis] is not None]
        if made:
            ids = parameter.ids[made[-1]]
            assert ids is not None
            return {"units": ids}
    return {}


def declare_weights(
    label_map: LabelMap, groups: Groups, found: Found, grouped: Mapping[Parameter, Blocks]
) -> None:
    """Say which labels stand along each axis: the layer's own units where they are tied to them."""
    for parameter in found.parameters:
        assert parameter.layer is not None
        record = label_map.record(parameter.layer)
        unit_of = {
            int(group): int(label)
            for axis in record.axes.values()
            for label, group in zip(axis.ids, groups.of[axis.ids], strict=True)
        }
        units = {label for axis in record.axes.values() for label in axis.ids.tolist()}
        axes, made = [], []
        for number, (size, ids) in enumerate(zip(parameter.shape, parameter.ids, strict=True)):
            if ids is None or (parameter in grouped and number == len(parameter.shape) - 2):
                axes.append(Axis(size))
                continue
            named = np.array(
                [unit_of.get(int(g), int(i)) for i, g in zip(ids, groups.of[ids], strict=True)],
                np.int64,
            )
            axes.append(Axis.of(named))
            whole = not parameter.made or number in parameter.made
            if whole and units.intersection(named.tolist()):
                made.append(number)
        record.weights[parameter.path] = Weight(
            parameter.layer,
            parameter.leaf,
            parameter.path,
            tuple(axes),
            parameter.trainable,
            parameter.uses,
            parameter.flops,
            out=made[-1] if made else None,
            also=tuple(made[:-1]),
            grouped=grouped.get(parameter),
        )
