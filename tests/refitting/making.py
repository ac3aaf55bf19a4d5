"""Models that lose units and are refitted; units that are the same as others."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kprune
from kprune.labels.closure import close
from kprune.opened import opened
from kprune.refitting.consumers import consumers_of, variables_of
from kprune.refitting.pairs import pairs_of
from kprune.refitting.refit import Refit, Way
from kprune.refitting.streams.room import Room
from kprune.refitting.streams.steps import Program
from kprune.refitting.unrepaired import left_out

EXACT = 1e-7
"""A ridge that holds weights where nothing else does, and else does not show."""


@dataclass
class Cut:
    """A model, and what is left of it: first as it was cut, refitted by `refit`."""

    model: Any
    pruned: Any
    refit: Refit
    room: Room

    @property
    def left(self) -> dict[str, str]:
        return {left.name: left.why for left in self.refit.left}

    @property
    def names(self) -> list[str]:
        return [refitted.name for refitted in self.refit.refitted]


def randomized(model: Any, seed: int = 0) -> Any:
    """All weights random, and what a BatchNormalization knows of its inputs."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        array = rng.normal(size=variable.shape) / np.sqrt(max(np.prod(variable.shape[:-1]), 1))
        if variable.name in ("moving_variance", "gamma"):
            array = rng.uniform(0.5, 1.5, size=variable.shape)
        elif len(variable.shape) == 1:
            array = rng.normal(size=variable.shape) * 0.3
        variable.assign(array)
    return model


def cut(
    model: Any,
    units: Mapping[str, Sequence[int]],
    inputs: Sequence[np.ndarray],
    *,
    ridge: float = EXACT,
    way: Way = "lstsq",
    limit: int = 1 << 30,
    run: bool = True,
    pruned_inputs: Sequence[np.ndarray] | None = None,
    **how: Any,
) -> Cut:
    """Remove units by kprune, and refit what is left. `inputs` as Keras flattens them.

    Args:
        units: none for a copy of the model.
        run: whether to refit at once.
        how: more of `kprune.remove`.
    """
    import keras

    with tempfile.TemporaryDirectory() as name:
        path, small = Path(name) / "model.keras", Path(name) / "small.keras"
        model.save(path)
        if units:
            changed = kprune.remove(path, dict(units), output=small, **how).changed
        else:
            changed = dict(units)
            shutil.copy(path, small)
        pruned = keras.models.load_model(small, compile=False)
        with opened(path) as before, opened(small) as after:
            analysis = before.analysis
            indices = {name: np.array(gone) for name, gone in changed.items()}
            gone = close(analysis.groups, indices).gone
            variables = variables_of(model, analysis)
            left = variables_of(pruned, after.analysis)
            pairs = pairs_of(consumers_of(model, variables), variables, left, pruned, gone)
            others = left_out(analysis, variables, gone, model)
    with Room(limit) as room:
        refit = Refit(
            Program.of(model), Program.of(pruned), pairs, inputs, room,
            way=way, ridge=ridge, left=others, pruned_inputs=pruned_inputs,
        )  # fmt: skip
        if run:
            refit.run()
    return Cut(model, pruned, refit, room)


GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1, "LSTMCell": 4, "GRUCell": 3, "SimpleRNNCell": 1}


def twin(layer: Any, unit: int = 1, of: int = 0) -> None:
    """Have a unit of a layer compute what another one computes."""
    name = type(layer).__name__
    if name == "Bidirectional":
        twin(layer.forward_layer, unit, of)
        twin(layer.backward_layer, unit, of)
        return
    if name in ("TimeDistributed", "RNN"):
        twin(layer.layer if name == "TimeDistributed" else layer.cell, unit, of)
        return
    for variable in layer.weights:
        if variable.name in ("depthwise_kernel",) and name.startswith("Separable"):
            continue  # its inputs'
        array = np.asarray(variable).copy()
        axis = array.ndim - 1
        if name.endswith("Transpose") and variable.name == "kernel":
            axis -= 1
        moved = np.moveaxis(array, axis, 0)
        width = len(moved) // GATES.get(name, 1)
        for gate in range(GATES.get(name, 1)):
            moved[gate * width + unit] = moved[gate * width + of]
        variable.assign(array)


def least_squares(
    x: np.ndarray,
    z: np.ndarray,
    prior: np.ndarray,
    shift: np.ndarray,
    *,
    ridge: float,
    free: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, M) and shift by `lstsq`: one more equation for each input holds its weights.

    sqrt(ridge * A_jj * n) w_j = sqrt(ridge * A_jj * n) w_j' with n rows, and A_jj the variance of the
    input, or its mean square where the shift stays.
    """
    x, z = x.astype(np.float64), z.astype(np.float64)
    power = x.var(axis=0) if free else (x**2).mean(axis=0)
    held = np.diag(np.sqrt(ridge * power * len(x)))
    if free:
        ones, none = np.ones((len(x), 1)), np.zeros((len(held), 1))
        left = np.block([[x, ones], [held, none]])
        found = np.linalg.lstsq(left, np.concatenate([z, held @ prior]), rcond=None)[0]
        return found[:-1], found[-1]
    left, right = np.concatenate([x, held]), np.concatenate([z - shift, held @ prior])
    return np.linalg.lstsq(left, right, rcond=None)[0], shift


def weights(model: Any) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable) for variable in model.weights}


def outputs(model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    import keras

    given = keras.tree.pack_sequence_as(model.input, list(inputs))
    return [np.asarray(y, np.float32) for y in keras.tree.flatten(model(given, training=False))]


def distance(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The largest difference of all outputs, relative to how much each varies."""
    return max(
        float(np.abs(a - b).max() / max(float(a.std()), 1e-6))
        for a, b in zip(one, other, strict=True)
    )
