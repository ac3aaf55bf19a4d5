"""The law that every removal obeys, whatever the layers: the pruned file is the masked original."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from kprune.report.report import Report
from kprune.verbs.change import remove
from tests.oracle.masked import MaskedOriginal

TOLERANCE = 1e-4


def randomize(model: Any, seed: int = 0) -> Any:
    """Give every weight random values: none is 0 or 1, variances are large, signals survive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name, shape = weight.path.rpartition("/")[2], tuple(weight.shape)
        if not str(weight.dtype).startswith(("float", "bfloat")):
            continue  # seeds and counts
        if "variance" in name:
            value = rng.uniform(0.5, 1.5, shape)
        elif name in ("gamma", "alpha"):
            value = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        elif name in ("kernel", "recurrent_kernel", "pointwise_kernel", "depthwise_kernel"):
            fan_in = max(int(np.prod(shape[:-1])), 1)
            value = rng.normal(0.0, 1.0, shape) / np.sqrt(fan_in)
        else:
            value = rng.uniform(0.1, 0.6, shape) * rng.choice([-1.0, 1.0], shape)
        weight.assign(value)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with a copy, as one that is loaded does
    return model


def random_inputs(
    model: Any, batch: int = 3, seed: int = 0, tokens: int = 5, steps: int = 4
) -> Any:
    """Inputs in the model's own structure; ints are tokens, unknown sizes become `steps`."""
    rng = np.random.default_rng(seed)

    def draw(spec: Any) -> Any:
        shape = (batch, *(steps if size is None else size for size in spec.shape[1:]))
        if "int" in spec.dtype:
            return rng.integers(0, tokens, shape).astype(spec.dtype)
        return rng.normal(0.0, 1.0, shape).astype("float32")

    return tree.map_structure(draw, _inputs_of(model))


def _inputs_of(model: Any) -> Any:
    return model.inputs[0] if isinstance(model, keras.Sequential) else model._inputs_struct


def outputs(model: Any, inputs: Any) -> list[np.ndarray]:
    """What a model gives, flattened. Called, not `predict`: nothing is traced."""
    return [np.asarray(keras.ops.convert_to_numpy(y)) for y in tree.flatten(model(inputs))]


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value that is expected."""
    assert got.shape == expected.shape, f"{got.shape} instead of {expected.shape}"
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    assert np.isfinite(expected).all(), "the oracle's own outputs are not finite"
    scale = np.abs(expected).max(initial=0.0) or 1.0
    return float(np.abs(got - expected).max(initial=0.0) / scale)


def assert_equal(got: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Equal relative to the largest value."""
    worst = difference(got, expected)
    assert worst <= tolerance, f"outputs differ by {worst:.3g} of the largest"


class Removal:
    """One removal carried out, with everything a test wants to look at.

    Args:
        model: a built Keras model. Its weights are randomised, and its outputs are asked for when
            the removal is checked, which changes its recurrent kernels.
        saved: the file of the model, which is then left as it is; without it, one is written.
    """

    def __init__(
        self,
        model: Any,
        units: Mapping[str, list[int]],
        *,
        saved: Path | None = None,
        seed: int = 0,
        inputs: Any = None,
        tolerance: float = TOLERANCE,
        tokens: int = 5,
        **options: Any,
    ) -> None:
        self.original = model
        with tempfile.TemporaryDirectory() as folder:
            before, after = saved or Path(folder) / "model.keras", Path(folder) / "pruned.keras"
            if saved is None:
                randomize(model, seed).save(before)
            self.report: Report = remove(str(before), units, output=str(after), **options)
            self.pruned = keras.models.load_model(after, compile=False)
        self.inputs = (
            random_inputs(self.original, seed=seed, tokens=tokens) if inputs is None else inputs
        )
        self.tolerance = tolerance

    def check(self) -> None:
        """The file is the masked original, and the report says that it is."""
        self.check_counts()
        assert self.report.exact, self.report.notes
        self.check_outputs()

    def check_counts(self) -> None:
        """The report counts what Keras counts, and Keras counts what is in the file."""
        assert self.report.input.parameters == self.original.count_params()
        assert self.report.output.parameters == self.pruned.count_params()

    def check_outputs(self) -> None:
        masked = MaskedOriginal(self.original, self.report.changed)
        expected = [marked.left() for marked in masked(self.inputs)]
        got = outputs(self.pruned, self.inputs)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_equal(one, other, self.tolerance)


def check_removal(model: Any, units: Mapping[str, list[int]], **options: Any) -> Report:
    """Remove units and hold the file against the masked original.

    Args:
        model: a built Keras model; its weights are randomised.
        units: by address, indices.
        options: of `Removal`, and of `kprune.remove`.
    Returns: the report. It says that the removal is exact, which was checked.
    """
    removal = Removal(model, units, **options)
    removal.check()
    return removal.report
