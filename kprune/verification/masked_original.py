"""The reference for `verify`: the original with every pruned unit masked.

Removed units are masked in the file: every weight that belongs to them is set to 0. Zeroed and masked
units are masked at run time, in the way their backend defines: the activation of a zeroed unit is
applied to 0, and the output of a masked one is replaced by 0. So a file is never compared with its own
weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.edit import combined
from kprune.formats import Source, write_model
from kprune.formats.registry import usual_suffix
from kprune.labels.closure import Closure
from kprune.opened import open_model
from kprune.pruning.pruned_units import Mask, PrunedUnits
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import keras_layer, load
from kprune.surgery.zero import SILENT, zero, zero_through

# Layers that end in `self.activation(outputs)`, channels on one axis.
BY_ACTIVATION = frozenset(
    f"{kind}{rank}D{end}"
    for kind, end in (
        ("Conv", ""),
        ("Conv", "Transpose"),
        ("DepthwiseConv", ""),
        ("SeparableConv", ""),
    )
    for rank in (1, 2, 3)
) | {"Dense"}


def masked_original(source: Source, analysis: Analysis, pruned: PrunedUnits, folder: Path) -> Any:
    """A Keras model.

    Args:
        source: the original, opened.
        folder: where a copy of it may be written.
    """
    running = {
        address
        for address in (*pruned.zeroed, *pruned.silenced)
        if _by_activation(analysis, address)
    }
    in_file = {address: units for address, units in pruned.zeroed.items() if address not in running}
    edit = zero_through(analysis, Closure(analysis.groups, {}, pruned.weightless))
    edit = combined(edit, zero(analysis, in_file))
    if edit.tensors:
        copy = folder / ("masked" + usual_suffix(source))
        write_model(source, edit, copy, force=True)
        with open_model(copy, trust=source.trusted) as changed:
            model = load(changed, folder)
    else:
        model = load(source, folder)
    for units, value in ((pruned.zeroed, 0.0), (pruned.silenced, SILENT)):
        for address, indices in units.items():
            if address in running:
                _set_before_activation(
                    keras_layer(model, analysis.map.axes[address].layer.path), indices, value
                )
    for mask in pruned.masks:
        _mask_output(keras_layer(model, mask.path), mask)
    return model


def _by_activation(analysis: Analysis, address: str) -> bool:
    axis = analysis.map.axes[address]
    record = analysis.map.record(axis.layer)
    while len(record.children) == 1:  # TimeDistributed goes by the layer inside it
        record = next(iter(record.children.values()))
    return record.layer.kind in BY_ACTIVATION and axis.default


def _set_before_activation(layer: Any, indices: np.ndarray, value: float) -> None:
    """From now on the layer's activation sees `value` in place of what the units compute."""
    while hasattr(layer, "layer"):
        layer = layer.layer
    keras = import_keras()
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    inner: Callable[[Any], Any] = layer.activation or keras.activations.linear

    def activation(x: Any) -> Any:
        low = max(value, -6e4) if x.dtype == "float16" else value
        return inner(keras.ops.where(_chosen(x, axis, indices), keras.ops.cast(low, x.dtype), x))

    layer.activation = activation


def _mask_output(layer: Any, mask: Mask) -> None:
    keras = import_keras()
    inner = layer.call

    def masked(x: Any) -> Any:
        axis = (
            1
            if getattr(layer, "data_format", None) == "channels_first" and len(x.shape) > 2
            else -1
        )
        off = _chosen(x, axis, mask.channels)
        if mask.below is not None:
            off = keras.ops.logical_and(off, keras.ops.abs(x) < mask.below)
        result = keras.ops.where(off, keras.ops.zeros((), x.dtype), x)
        timesteps = getattr(x, "_keras_mask", None)
        if timesteps is not None:
            result._keras_mask = timesteps
        return result

    def call(*args: Any, **kwargs: Any) -> Any:
        return keras.tree.map_structure(masked, inner(*args, **kwargs))

    layer.call = call


def _chosen(x: Any, axis: int, indices: np.ndarray | None) -> np.ndarray:
    """bool, broadcasting against x: the chosen positions along one axis; all of them for None."""
    shape = [1] * len(x.shape)
    if indices is None:
        return np.ones(shape, bool)
    shape[axis] = x.shape[axis]
    on = np.zeros(x.shape[axis], bool)
    on[indices] = True
    return on.reshape(shape)
