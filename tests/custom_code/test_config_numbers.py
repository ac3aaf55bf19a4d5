"""Numbers in the config of a traced layer that count units follow what is left of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
import pytest
from keras import layers, ops

from kprune.errors import UsageError
from kprune.verbs.change import remove, zero
from kprune.views.inspect import inspect
from tests.custom_code.custom_layers import (
    Configured,
    GatedResidual,
    Slices,
    check,
    custom,
    saved,
    silenced,
)
from tests.oracle.law import assert_equal, outputs, random_inputs

pytestmark = pytest.mark.oracle


# -- units of its own -----------------------------------------------------------------------------


@custom
class OwnDense(layers.Dense):
    """Keras's Dense under another name."""


@custom
class Feed(Configured):
    """Widens and narrows again, by a layer and by a weight; its config says how wide."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"hidden": 6, "other": 6}

    def build(self, shape: Any) -> None:
        self.up = layers.Dense(self.given["hidden"], "relu", name="up")
        self.back = self.add_weight(name="back", shape=(self.given["hidden"], shape[-1]))
        self.wide = self.add_weight(name="wide", shape=(shape[-1], self.given["other"]))
        self.shift = self.add_weight(name="shift", shape=(self.given["other"],))
        self.narrow = self.add_weight(name="narrow", shape=(shape[-1], self.given["other"]))
        self.built = True

    def call(self, x: Any) -> Any:
        y = ops.relu(ops.matmul(x, self.wide) + self.shift)
        return x + ops.matmul(self.up(x), self.back) + ops.matmul(y, ops.transpose(self.narrow))


@pytest.mark.parametrize(
    ("layer", "address", "inside", "emptied"),
    [
        (
            lambda: OwnDense(6, name="own"),
            "own",
            {"own/kernel": 1, "own/bias": 0, "out/kernel": 0},
            2,
        ),
        (
            lambda: Feed(name="own"),
            "own.hidden",
            {"own/up/kernel": 1, "own/up/bias": 0, "own/back": 0},
            2,
        ),
        (
            lambda: Feed(name="own"),
            "own.other",
            {"own/wide": 1, "own/shift": 0, "own/narrow": 1},
            2,
        ),
    ],
)
def test_units_whose_number_is_in_the_config_go_with_it(
    layer: Any, address: str, inside: Slices, emptied: int, tmp_path: Path
) -> None:
    path, small = saved(tmp_path, lambda y: layer()(y)), str(tmp_path / "small.keras")
    report = remove(path, {address: [1, 4]}, output=small, trust=True)
    assert report.exact and report.changed == {address: [1, 4]}
    pruned = keras.models.load_model(small)
    masked = silenced(path, inside, [1, 4])
    inputs = random_inputs(masked)
    zero(path, {address: [1, 4]}, output=str(tmp_path / "zero.keras"), trust=True)
    zeroed = {w.path: w.numpy() for w in keras.models.load_model(tmp_path / "zero.keras").weights}
    changed = {
        w.path for w in silenced(path, {}, []).weights if (w.numpy() != zeroed[w.path]).any()
    }
    assert changed == set(list(inside)[:emptied])
    assert report.output.parameters == pruned.count_params()
    assert_equal(outputs(pruned, inputs)[0], outputs(masked, inputs)[0])


def test_a_number_that_counts_two_sets_of_units_is_left_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, GatedResidual(name="own"))
    assert {row.name: row.units for row in inspect(path, trust=True).layers}["own"] is None
    with pytest.raises(UsageError):
        remove(path, {"own.hidden": [0]}, dry_run=True, trust=True)


# -- channels that come in --------------------------------------------------------------------------


@custom
class Scale(Configured):
    """ConvNeXt's LayerScale: its config says how many channels come in."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"dim": 8, "steps": 5}

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(name="gain", shape=(self.given["dim"],))
        self.built = True

    def call(self, x: Any) -> Any:
        return x * self.gain


def test_a_number_that_counts_the_channels_that_come_in_follows(tmp_path: Path) -> None:
    check(saved(tmp_path, Scale(name="own")), {"own/gain": 0})
    pruned = keras.models.load_model(tmp_path / "small.keras").get_layer("own")
    assert pruned.given == {"dim": 5, "steps": 5}


@custom
class Shaped(Scale):
    """The same in a list, beside a second number that has to agree."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"sizes": [3, 8], "dim": 8}

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(name="gain", shape=(self.given["dim"],))
        self.table = self.add_weight(name="table", shape=tuple(self.given["sizes"]))
        self.built = True

    def call(self, x: Any) -> Any:
        return x * self.gain + ops.sum(self.table, axis=0)


def test_numbers_that_have_to_agree_are_found_together(tmp_path: Path) -> None:
    check(saved(tmp_path, Shaped(name="own")), {"own/gain": 0, "own/table": 1})
    pruned = keras.models.load_model(tmp_path / "small.keras").get_layer("own")
    assert pruned.given == {"sizes": [3, 5], "dim": 5}
