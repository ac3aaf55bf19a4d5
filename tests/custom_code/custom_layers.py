"""A custom layer between two of Keras's, and what is to come of it once units are gone.

The oracle is plain Keras with the original whose units are silenced by hand: each test states which
slices of which weights belong to the units, as one reads them off the layer's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.errors import FrozenUnitsError
from kprune.report.report import Report
from kprune.verbs.change import remove
from kprune.views.inspect import inspect
from tests.oracle.law import assert_equal, outputs, random_inputs, randomize

custom = keras.saving.register_keras_serializable("traced_tests")
UNITS = [1, 4, 6]
Slices = Mapping[str, int | tuple[int, ...]]


class Configured(layers.Layer):
    """Keeps what its constructor was given; the tests' layers descend from it."""

    FIELDS: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, **kwargs: Any) -> None:
        own = {key: kwargs.pop(key) for key in list(kwargs) if key in self.FIELDS}
        super().__init__(**kwargs)
        self.given = {**self.FIELDS, **own}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.given}


@custom
class GatedResidual(Configured):
    """Its hidden layers are as wide as its config says, and its last as wide as its input."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"hidden": 6}

    def build(self, shape: Any) -> None:
        hidden = self.given["hidden"]
        self.up = layers.Dense(hidden, activation="relu", name="up")
        self.stack = [layers.Dense(hidden, name="one"), layers.Dense(shape[-1], name="two")]
        self.gate = self.add_weight(name="gate", shape=(shape[-1],))
        self.drop = layers.Dropout(0.5)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        y = self.stack[1](ops.relu(self.stack[0](self.up(x))))
        return x + ops.sigmoid(self.gate) * self.drop(y, training=training)


def saved(folder: Path, middle: Callable[[Any], Any], shape: tuple[int, ...] = (5,)) -> str:
    """A Dense(8) 'a', what is to be traced, and a Dense(2) 'out'."""
    x = keras.Input(shape)
    y = middle(layers.Dense(8, name="a")(x))
    model = randomize(keras.Model(x, layers.Dense(2, name="out")(y)), 3)
    path = str(folder / "model.keras")
    model.save(path)
    return path


BESIDE: Slices = {"a/kernel": 1, "a/bias": 0, "out/kernel": 0}


def silenced(path: str, slices: Slices, units: list[int]) -> Any:
    """The original with the units' slices at 0, by Keras alone."""
    model = keras.models.load_model(path, compile=False)
    left = dict(slices)
    for weight in model.weights:
        if weight.path in left:
            axes = left.pop(weight.path)
            value = weight.numpy()
            for axis in (axes,) if isinstance(axes, int) else axes:
                np.moveaxis(value, axis, 0)[units] = 0
            weight.assign(value)
    assert not left, f"no such weights: {left}, but {[w.path for w in model.weights]}"
    return model


def check(path: str, slices: Slices, units: list[int] = UNITS, **options: Any) -> Report:
    """Remove units of 'a', and hold what comes out against the silenced original."""
    small = str(Path(path).with_name("small.keras"))
    report = remove(path, {"a": units}, output=small, trust=True, **options)
    assert report.exact
    pruned = keras.models.load_model(small, compile=False)
    masked = silenced(path, {**BESIDE, **slices}, units)
    assert report.input.parameters == masked.count_params()
    assert report.output.parameters == pruned.count_params() < masked.count_params()
    inputs = random_inputs(masked)
    for one, other in zip(outputs(pruned, inputs), outputs(masked, inputs), strict=True):
        assert_equal(one, other)
    return report


def refused(path: str, *texts: str, units: list[int] = UNITS) -> None:
    """Nothing of 'a' is free, and the reason holds each of the texts."""
    with pytest.raises(FrozenUnitsError) as caught:
        remove(path, {"a": units}, dry_run=True, trust=True)
    for text in texts:
        assert text in caught.value.why
    assert {row.name: row.free for row in inspect(path, trust=True).layers}["a"] == 0
