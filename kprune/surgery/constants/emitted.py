"""What a zeroed unit still emits: act(0), and what a BatchNormalization behind it makes of that.

Zero in is not zero out: with a sigmoid a zeroed unit gives 0.5, and BatchNormalization turns a channel
of zeros into beta - gamma * moving_mean / sqrt(moving_variance + epsilon).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.dtypes import as_float
from kprune.elementwise.written import OVER_LAST_AXIS, activation_name, written_activation
from kprune.labels.map import LayerRecord, UnitAxis
from kprune.text import clean

RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "Bidirectional"})


class Emission(Struct, frozen=True):
    """What units emit after they were zeroed.

    Attributes:
        layer: path of the layer after which they emit it.
        kind: `activation`, `batch_normalization` or `softmax`.
        text: a sentence for the report.
    """

    layer: str
    kind: str
    text: str


def emissions(
    analysis: Analysis, read: Callable[[str], np.ndarray], chosen: Mapping[str, np.ndarray]
) -> list[Emission]:
    """Where zeroed units still emit something.

    Args:
        read: reads a tensor by its path.
        chosen: by address, the units that are zeroed.
    """
    found = []
    for address, indices in chosen.items():
        axis = analysis.map.axes[address]
        ids = axis.ids[indices]
        name = activation_name(axis.layer.config.get("activation"))
        if name in OVER_LAST_AXIS or _softmax_follows(analysis, ids):
            found.append(
                Emission(
                    axis.layer.path,
                    "softmax",
                    f"a zeroed logit of '{clean(address)}' still gets exp(0) = 1 of the softmax's sum; "
                    "--silence sets the bias so low that the class gets probability 0",
                )
            )
            continue
        value = 0.0 if axis.layer.kind in RECURRENT else _at_zero(axis.layer.config)
        if value:
            found.append(
                Emission(
                    axis.layer.path,
                    "activation",
                    f"zeroed units of '{clean(address)}' emit {name}(0) = {value:.6g}",
                )
            )
        found += _behind(analysis, read, axis, ids, value)
    return found


def _at_zero(config: Mapping[str, Any]) -> float:
    """What a layer's activation makes of 0."""
    written = written_activation(config.get("activation"))
    function = written.formula if written is not None else None
    return 0.0 if function is None else float(function(np.zeros(1))[0])


def _softmax_follows(analysis: Analysis, ids: np.ndarray) -> bool:
    return any(mix.kind == "softmax" and np.isin(mix.ids, ids).any() for mix in analysis.map.mixes)


def _behind(
    analysis: Analysis,
    read: Callable[[str], np.ndarray],
    axis: UnitAxis,
    ids: np.ndarray,
    value: float,
) -> list[Emission]:
    """BatchNormalizations that the units reach before any other layer has made something else of them."""
    found = []
    for record in analysis.map.records.values():
        gamma_axis = next(
            (weight.axes[0] for weight in record.weights.values() if weight.name == "moving_mean"),
            None,
        )
        if record.layer.kind != "BatchNormalization" or gamma_axis is None or not gamma_axis.plain:
            continue
        at = np.flatnonzero(np.isin(gamma_axis.ids, ids))
        if not at.size:
            continue
        shifted = _normalised(record, read, at, value)
        if not np.any(shifted):
            continue
        low, high = float(shifted.min()), float(shifted.max())
        span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        found.append(
            Emission(
                record.layer.path,
                "batch_normalization",
                f"'{clean(record.layer.path)}' turns the {value:.4g} of zeroed units of "
                f"'{clean(axis.address)}' into {span}",
            )
        )
    return found


def _normalised(
    record: LayerRecord, read: Callable[[str], np.ndarray], at: np.ndarray, value: float
) -> np.ndarray:
    arrays = {
        weight.name: as_float(read(weight.path))[at].astype(np.float64)
        for weight in record.weights.values()
    }
    scale = arrays.get("gamma", 1.0) / np.sqrt(
        arrays["moving_variance"] + record.layer.config["epsilon"]
    )
    return np.asarray(arrays.get("beta", 0.0) + scale * (value - arrays["moving_mean"]))
