"""What a model costs: units, parameters, floating point operations, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.graph.weight_groups import is_state
from kprune.labels.map import Weight


class LayerCount(Struct):
    """One layer.

    Attributes:
        name: its path; a layer inside a wrapper counts for the wrapper.
        kind: class name.
        units: how many it issues along its default axis; None if it issues none.
        parameters: all its numbers, as `layer.count_params()` counts them.
        trainable: those that training changes.
        flops: floating point operations per sample, a multiply-add as 2; sizes that are not known
            (a dynamic sequence length) count as 1.
    """

    name: str
    kind: str
    units: int | None = None
    parameters: int = 0
    trainable: int = 0
    flops: int = 0


class Counts(Struct):
    """A whole model. `units`, `parameters`, `trainable`, `flops` are sums over `layers`."""

    layers: dict[str, LayerCount] = field(default_factory=dict)
    units: int = 0
    parameters: int = 0
    trainable: int = 0
    flops: int = 0


def count(
    analysis: Analysis, gone: np.ndarray | None = None, dropped: Iterable[str] = ()
) -> Counts:
    """Count a model, as it is or without some labels.

    Parameters are counted from the tensors in the file, so that layers without a rule count as well;
    and adapters that Keras makes anew when it loads the file, as it counts them too.

    Args:
        gone: bool (labels,): what is taken off.
        dropped: path prefixes of tensors that are left behind, with the layers that own them.
    """
    counts = Counts()
    left, behind = set(), set()
    dropped = tuple(dropped)
    stores: dict[str, LayerCount] = {}
    for layer in analysis.model.walk():
        if layer.is_operation or layer.twin is not None:
            continue
        row = LayerCount(layer.path, layer.kind)
        if layer.model is None:
            counts.layers[layer.path] = row
        stores[layer.store] = row
    weights = {weight.path: weight for weight in analysis.weights}
    for path, tensor in analysis.tensors.items():
        if is_state(path) or path.startswith("metrics/"):
            continue
        row = _owner(stores, analysis.home(path)) or counts.layers.setdefault(
            "", LayerCount("", "")
        )
        counts.layers.setdefault(row.name, row)
        weight = weights.get(path)
        if any(path == prefix or path.startswith(prefix + "/") for prefix in dropped):
            behind.add(row.name)
            continue
        left.add(row.name)
        if weight is not None and weight.duplicate:
            continue
        size = math.prod(tensor.shape) if weight is None else _size(weight, tensor.shape, gone)
        row.parameters += size
        if weight is None or weight.trainable:
            row.trainable += size
        if weight is not None:
            row.flops += int(size * weight.uses * weight.flops)
    for weight in analysis.unstored:
        row = _owner(stores, weight.path) or counts.layers.setdefault("", LayerCount("", ""))
        if not weight.duplicate and None not in weight.shape and row.name not in behind - left:
            size = _size(weight, tuple(size or 0 for size in weight.shape), gone)
            row.parameters += size
            row.trainable += size if weight.trainable else 0
    for axis in analysis.map.axes.values():
        layer_row = counts.layers.get(axis.layer.path)
        if layer_row is None or axis.name == "features" or not axis.default:
            continue
        layer_row.units = len(axis) if gone is None else int((~gone[axis.ids]).sum())
        if layer_row.name in behind - left:
            layer_row.units = 0
    counts.units = sum(row.units or 0 for row in counts.layers.values())
    counts.parameters = sum(row.parameters for row in counts.layers.values())
    counts.trainable = sum(row.trainable for row in counts.layers.values())
    counts.flops = sum(row.flops for row in counts.layers.values())
    return counts


def _owner(stores: Mapping[str, LayerCount], path: str) -> LayerCount | None:
    group = path
    while group:
        group = group.rpartition("/")[0]
        if group in stores:
            return stores[group]
    return None


def _size(weight: Weight, shape: tuple[int, ...], gone: np.ndarray | None) -> int:
    if gone is None:
        return math.prod(shape)
    sizes = [
        size - int(axis.dead(gone).sum()) if axis.factors else size
        for axis, size in zip(weight.axes, shape, strict=True)
    ]
    if weight.grouped is not None and len(weight.grouped.sides) > 1 and weight.out is not None:
        alive = (~gone[weight.grouped.sides[0]]).sum(axis=1)
        sizes[weight.out - 1] = int(alive.max())
    return math.prod(sizes)
