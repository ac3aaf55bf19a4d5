"""What `diff` finds between two model files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.views.diff import Difference, LayerDiff, WeightDiff
from tests.cli.conftest import edited


@pytest.fixture
def model(samples: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(samples / "digits_resnet.keras", tmp_path / "model.keras"))


def layer(found: Difference, name: str) -> LayerDiff:
    return next(row for row in found.layers if row.name == name)


def weight(found: Difference, layer: str, name: str) -> WeightDiff:
    return next(row for row in found.weights if (row.layer, row.weight) == (layer, name))


def test_a_file_equals_itself_and_its_copy_as_a_folder(model: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(model, tmp_path / "folder", "zip")
    for other in (model, tmp_path / "folder"):
        found = kprune.diff(model, other)
        assert found.equal
        assert (found.layers, found.weights, found.fields, found.notes) == ([], [], [], [])


def test_memory_addresses_and_dates_are_no_difference(model: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(model, tmp_path / "other.keras"))

    def readdress(config: Any) -> None:
        for item in config.values() if isinstance(config, dict) else config:
            if isinstance(item, dict) and "shared_object_id" in item:
                item["shared_object_id"] = 1
            if isinstance(item, (dict, list)):
                readdress(item)

    edited(other, readdress)
    assert other.read_bytes() != model.read_bytes()
    assert kprune.diff(model, other).equal


def test_values_of_units_that_are_left_are_compared_with_those_they_had(
    model: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.keras"
    report = kprune.remove(model, {"block_1_2_conv": [0, 3]}, output=small)
    found = kprune.diff(model, small)
    assert not found.equal
    assert {row.path_before for row in found.weights} == {row.path for row in report.weights}
    assert {row.compared for row in found.weights} == {"kept"}
    assert sum(row.different for row in found.weights) == 0
    assert weight(found, "stem_conv", "kernel").values == 3 * 3 * 1 * 14
    conv = layer(found, "stem_conv")
    assert (conv.status, conv.units_before, conv.units_after) == ("changed", 16, 14)
    assert [(field.field, field.before, field.after) for field in conv.fields] == [
        ("filters", 16, 14)
    ]


def test_a_changed_value_among_those_that_are_left_is_found(model: Path, tmp_path: Path) -> None:
    small, changed = tmp_path / "small.keras", tmp_path / "changed.keras"
    kprune.remove(model, {"block_1_2_conv": [0, 3]}, output=small)
    kprune.zero(small, {"stem_conv": [5]}, output=changed)
    found = kprune.diff(model, changed)
    kernel = weight(found, "stem_conv", "kernel")
    assert (kernel.compared, kernel.different) == ("kept", 9)
    assert kernel.largest > 0
    assert layer(found, "stem_conv").values_different == 9


def test_a_second_pruning_is_compared_with_the_first_model(model: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.keras", tmp_path / "twice.keras"
    kprune.remove(model, {"block_1_1_conv": [0, 3]}, output=once)
    kprune.remove(once, {"block_1_1_conv": [0, 1], "block_2_1_conv": [7]}, output=twice)
    for before in (model, once):
        found = kprune.diff(before, twice)
        assert {row.compared for row in found.weights} == {"kept"}
        assert sum(row.different for row in found.weights) == 0
    assert layer(kprune.diff(model, twice), "block_1_1_conv").units_after == 12


def test_two_models_cut_from_one_are_not_compared_value_by_value(
    model: Path, tmp_path: Path
) -> None:
    """Neither holds the other's units."""
    one, other = tmp_path / "one.keras", tmp_path / "other.keras"
    kprune.remove(model, {"block_1_1_conv": [0]}, output=one)
    kprune.remove(model, {"block_1_1_conv": [1, 2]}, output=other)
    assert weight(kprune.diff(one, other), "block_1_1_conv", "kernel").compared == "no"


def test_zeroed_values_are_counted(model: Path, tmp_path: Path) -> None:
    zeroed = tmp_path / "zeroed.keras"
    kprune.zero(model, {"block_1_2_conv": [0, 3]}, output=zeroed)
    found = kprune.diff(model, zeroed)
    assert [row.name for row in found.layers] == ["block_1_2_conv"]
    (kernel,) = found.weights
    assert (kernel.compared, kernel.values, kernel.different) == ("all", 2304, 2 * 9 * 16)
    with_kernel = kprune.diff(zeroed, model)
    assert with_kernel.weights[0].largest == kernel.largest


def test_a_mask_is_a_layer_more_and_a_connection_changed(model: Path, tmp_path: Path) -> None:
    masked = tmp_path / "masked.keras"
    kprune.mask(model, {"stem_relu": [0]}, output=masked)
    found = kprune.diff(model, masked)
    assert layer(found, "kprune_mask_stem_relu").status == "added"
    (field,) = layer(found, "block_1_1_conv").fields
    assert (field.field, field.before, field.after) == (
        "inputs",
        ["stem_relu"],
        ["kprune_mask_stem_relu"],
    )
    assert found.weights == []
    assert layer(kprune.diff(masked, model), "kprune_mask_stem_relu").status == "removed"


def test_a_nested_model_that_one_of_them_lacks_is_one_row(model: Path, tmp_path: Path) -> None:
    masked = tmp_path / "masked.keras"
    kprune.mask(model, {"stem_relu": [0]}, below=0.1, output=masked)
    names = [row.name for row in kprune.diff(model, masked).layers if row.status == "added"]
    assert names == ["kprune_below_stem_relu"]


def test_a_config_entry_is_found_in_a_layer_and_in_the_model(model: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(model, tmp_path / "other.keras"))

    def change(config: dict[str, Any]) -> None:
        stem = next(one for one in config["config"]["layers"] if one["name"] == "stem_bn")
        stem["config"]["epsilon"] = 0.5
        config["compile_config"]["loss"] = "mse"

    found = kprune.diff(model, edited(other, change))
    (row,) = found.layers
    assert row.name == "stem_bn"
    assert [(field.field, field.after) for field in row.fields] == [("epsilon", 0.5)]
    assert [(field.layer, field.field, field.after) for field in found.fields] == [
        ("", "compile_config.loss", "mse")
    ]


def test_progress_runs_up_to_all_bytes(model: Path) -> None:
    seen: list[tuple[int, int]] = []
    kprune.diff(model, model, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 4 * 38682 - 1
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
