"""Models with zeroed units: saved, compacted or folded, and run in plain Keras."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import kprune

TOLERANCE = 1e-5
SAID = 2500  # bytes of metadata and of HDF5's alignment


def randomised(model: Any, seed: int = 0) -> Any:
    """Weights of which no two are alike; variances stay positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if str(variable.dtype).startswith("float"):
            values = rng.normal(0, 0.4, variable.shape)
            variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return model


def zeroed_by_another_tool(
    model: Any, share: float = 0.4, *, biases: bool = False, seed: int = 0
) -> dict:
    """Set the incoming weights of a share of the units of each inner layer to 0, in Keras.

    Args:
        biases: whether their biases stay as they are.
    Returns: by layer, what was zeroed.
    """
    rng = np.random.default_rng(seed)
    done = {}
    for layer in model._flatten_layers(include_self=False):
        recurrent = isinstance(layer, (layers.LSTM, layers.GRU, layers.SimpleRNN))
        if not (recurrent or isinstance(layer, (layers.Dense, layers.Conv1D, layers.Conv2D))):
            continue
        if isinstance(layer, layers.DepthwiseConv2D) or layer.name.startswith("out"):
            continue
        weights = layer.get_weights()
        units = layer.units if recurrent else weights[0].shape[-1]
        chosen = np.sort(rng.permutation(units)[: int(units * share)])
        for number, array in enumerate(weights):
            if not recurrent and number and biases:
                continue
            gates = array.reshape(*array.shape[:-1], -1, units)
            gates[..., chosen] = 0
        layer.set_weights(weights)
        done[layer.name] = chosen.tolist()
    return done


def inputs_of(model: Any, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(4, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]


def outputs(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    result = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(y, np.float64) for y in keras.tree.flatten(result)]


def difference(one: Path | Any, other: Path | Any) -> float:
    """The largest difference of two models' outputs, relative to the first one's magnitude."""
    pair = [keras.models.load_model(m) if isinstance(m, Path) else m for m in (one, other)]
    inputs = inputs_of(pair[0])
    expected, got = (outputs(model, inputs) for model in pair)
    assert [y.shape for y in expected] == [y.shape for y in got]
    return max(
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
        for a, b in zip(expected, got, strict=True)
    )


def compacted(model: Any, folder: Path, **options: Any) -> Any:
    """The report, after the result was found to compute the same."""
    folder.mkdir(exist_ok=True)
    before, after = folder / "before.keras", folder / "after.keras"
    model.save(before)
    report = kprune.compact(before, output=after, check=False, **options)
    assert difference(model, after) < TOLERANCE
    # Each parameter that went took its four bytes along; what kprune says of itself takes a few.
    shrunk = before.stat().st_size - after.stat().st_size
    assert abs(shrunk - 4 * (report.input.parameters - report.output.parameters)) < SAID
    return report


def folded(model: Any, units: dict, folder: Path) -> tuple[Any, float]:
    """Fold, and find that the result computes what `zero` makes of the model.

    `zero` is given what the file says was zeroed: the named units, and those that notes name.

    Returns: the report, and how far off a plain removal would have been.
    """
    before, after, zeroed = (folder / f"{name}.keras" for name in ("before", "after", "zeroed"))
    model.save(before)
    report = kprune.remove(before, units, fold=True, output=after)
    with zipfile.ZipFile(after) as archive:
        step = json.loads(archive.read("metadata.json"))["kprune"]["plan"]["steps"][-1]
    assert step["fold"] is True
    coupled = {note.layer for note in report.notes if note.kind == "coupled"}
    assert set(step["layers"]) == set(units) | coupled
    kprune.zero(before, step["layers"], output=zeroed)
    assert difference(zeroed, after) < TOLERANCE
    plain = folder / "plain.keras"
    kprune.remove(before, units, output=plain)
    return report, difference(zeroed, plain)
