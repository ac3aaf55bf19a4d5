"""What `inspect` finds out about a model file."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.views.inspect import LayerFacts
from tests.cli.conftest import edited, with_unknown_layer


def layer(found: Any, name: str) -> LayerFacts:
    return next(row for row in found.layers if row.name == name)


def test_each_layer_has_its_figures(samples: Path) -> None:
    found = kprune.inspect(samples / "digits_cnn.keras")
    conv = layer(found, "conv_2")
    assert (conv.class_, conv.output) == ("Conv2D", [None, 8, 8, 24])
    assert (conv.units, conv.free, conv.group_size, conv.tied_to) == (24, 24, 1, [])
    assert (conv.parameters, conv.trainable) == (3 * 3 * 16 * 24 + 24, 3 * 3 * 16 * 24 + 24)
    # A multiply-add counts as 2, for each of 8 x 8 positions; a bias as 1.
    assert conv.flops == 8 * 8 * (2 * 3 * 3 * 16 * 24 + 24)
    norm = layer(found, "bn_2")
    assert (norm.units, norm.parameters, norm.trainable) == (None, 96, 48)


def test_sums_over_the_layers_are_those_of_the_file(samples: Path) -> None:
    for path in samples.glob("*.keras"):
        found = kprune.inspect(path)
        assert found.file.parameters == sum(row.parameters for row in found.layers)
        assert found.file.trainable_parameters == sum(row.trainable for row in found.layers)
        assert found.file.flops == sum(row.flops for row in found.layers)
        assert found.file.units == sum(row.units or 0 for row in found.layers)
        assert found.file.bytes == path.stat().st_size


def test_tied_layers_name_each_other(samples: Path) -> None:
    found = kprune.inspect(samples / "digits_resnet.keras")
    together = {"block_2_shortcut_conv", "block_2_2_conv", "block_3_2_conv"}
    for name in together:
        row = layer(found, name)
        assert set(row.tied_to) == together - {name}
        assert (row.group_size, row.largest_group) == (3, 3)
        assert row.free == row.units


def test_the_models_answers_go_only_when_they_are_named(samples: Path) -> None:
    found = kprune.inspect(samples / "digits_cnn.keras")
    classes = layer(found, "classes")
    assert (classes.units, classes.free, classes.named_only) == (10, 0, 10)
    assert classes.mixed == ["are normalised against each other by the softmax of 'classes'"]
    assert found.free == 16 + 24 + 32 + 64


def test_what_reaches_an_unknown_layer_is_frozen_with_its_reason(model: Path) -> None:
    found = kprune.inspect(with_unknown_layer(model, "pool"))
    why = "'pool' is a my>RankPool layer, for which kprune has no rule"
    assert layer(found, "pool").opaque == why
    frozen = layer(found, "conv_2")
    assert (frozen.free, frozen.named_only, frozen.why_not) == (0, 0, [why])
    assert layer(found, "conv_1").why_not == []
    assert found.carries.foreign == {"pool": "my>RankPool"}


@pytest.fixture
def model(samples: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(samples / "digits_cnn.keras", tmp_path / "model.keras"))


def test_what_a_file_carries_is_said(model: Path) -> None:
    def add_code(config: dict[str, Any]) -> None:
        relu = next(one for one in config["config"]["layers"] if one["name"] == "relu_1")
        relu["config"]["odd"] = {"class_name": "__lambda__", "config": {"value": "4wAAAA=="}}

    with zipfile.ZipFile(edited(model, add_code), "a") as archive:
        archive.writestr("assets/layers/words/vocabulary.txt", "a\nb\n")
    carried = kprune.inspect(model).carries
    assert carried.lambdas == ["relu_1"]
    assert carried.assets == ["assets/layers/words/vocabulary.txt"]
    assert (carried.optimizer, carried.optimizer_note) == ("Adam", "")
    assert carried.keras_version == "3.15.1"
    assert (carried.masks, carried.pruned) == ([], None)


def test_masks_and_earlier_prunings_are_carried(model: Path, tmp_path: Path) -> None:
    small, masked = tmp_path / "small.keras", tmp_path / "masked.keras"
    kprune.remove(model, {"conv_1": [0]}, output=small)
    kprune.mask(small, {"hidden": [3]}, output=masked)
    carried = kprune.inspect(masked).carries
    assert carried.masks == ["hidden"]
    assert carried.pruned is not None
    assert carried.pruned["version"] == kprune.__version__
    assert carried.pruned["units"] == {"conv_1": list(range(1, 16))}
    assert [step["backend"] for step in carried.pruned["plan"]["steps"]] == ["remove", "mask"]


def test_a_state_of_an_optimizer_that_would_be_lost_is_said(model: Path) -> None:
    def rename(config: dict[str, Any]) -> None:
        config["compile_config"]["optimizer"]["class_name"] = "MyAdam"

    carried = kprune.inspect(edited(model, rename)).carries
    assert carried.optimizer == "MyAdam"
    assert "has a layout that kprune does not know" in carried.optimizer_note
