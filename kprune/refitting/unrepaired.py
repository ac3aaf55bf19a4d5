"""What is left as it was cut, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.labels.map import Weight
from kprune.refitting.consumers import Variable, WeightKey
from kprune.refitting.kernels import KINDS, kind_of
from kprune.refitting.outcomes import Left, Why
from kprune.refitting.recurrent import CELLS
from kprune.runtime.keras_runtime import keras_layer


def left_out(
    analysis: Analysis,
    variables: Mapping[WeightKey, Variable],
    gone: np.ndarray,
    model: Any,
) -> list[Left]:
    """Layers that sum over units that go, and whose kernels are none that can be refitted.

    Args:
        variables: of the original.
        gone: bool (labels,).
        model: the original.
    """
    runs = {id(layer.cell): layer for layer in model._flatten_layers() if hasattr(layer, "cell")}
    found: dict[str, Left] = {}
    for record in analysis.map.records.values():
        for part in record.whole():
            for key, weight in part.weights.items():
                if not _sums_over(weight, gone) or not analysis.is_stored(weight):
                    continue
                place = variables.get((weight.layer.path, key))
                path = weight.layer.path
                why = _why_unknown(model, path) if place is None else _why(place.owner, runs)
                if why is not None:
                    found.setdefault(path, Left(path, why))
    return list(found.values())


def _sums_over(weight: Weight, gone: np.ndarray) -> bool:
    """Whether a kernel sums over units that go."""
    made = {axis for axis in (weight.out, *weight.also) if axis is not None}
    if weight.out is None or len(weight.axes) < 2 or weight.duplicate:
        return False
    return any(
        gone[factor].any()
        for number, axis in enumerate(weight.axes)
        if number not in made
        for factor in axis.factors
    )


def _why(owner: Any, runs: Mapping[int, Any]) -> Why | None:
    """Why a layer's kernel is none that can be refitted; None if it can."""
    if id(owner) in runs:
        return _why_of_cell(owner, runs[id(owner)])
    if owner is None:
        return "variables"
    if kind_of(owner) is not None:
        return None
    if getattr(owner, "lora_enabled", False):
        return "adapted"
    if getattr(owner, "quantization_mode", None):
        return "quantized"
    if type(owner).__name__ in CELLS:
        return "cell"  # one of several, or in a wrapper
    return "equation" if type(owner).__name__ in KINDS else "class"


def _why_unknown(model: Any, path: str) -> Why:
    """Why the weights of a layer are not among Keras's: one that is adapted or quantized has more of them."""
    try:
        layer = keras_layer(model, path)
    except (AttributeError, StopIteration):
        return "variables"
    changed = {"adapted": "lora_enabled", "quantized": "quantization_mode"}
    for why, name in changed.items():
        if getattr(layer, name, None):
            return cast(Why, why)
    return "variables"


def _why_of_cell(cell: Any, layer: Any) -> Why | None:
    if getattr(layer, "stateful", False):
        return "stateful"
    own = type(cell).__module__.startswith("keras.")
    return None if own and type(cell).__name__ in CELLS else "cell"
