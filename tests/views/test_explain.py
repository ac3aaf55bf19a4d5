"""What `explain` says about a choice of units."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.errors import CannotPruneError
from tests.cli.conftest import with_unknown_layer


@pytest.fixture
def resnet(samples: Path) -> Path:
    return samples / "digits_resnet.keras"


@pytest.fixture
def model(samples: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(samples / "digits_cnn.keras", tmp_path / "model.keras"))


def test_what_goes_along_is_said_with_the_road_and_what_ties(resnet: Path) -> None:
    found = kprune.explain(resnet, "block_2_2_conv:3,5")
    assert found.possible
    assert found.exact
    along = {row.layer: row for row in found.along}
    assert set(along) == {"block_2_shortcut_conv", "block_3_2_conv"}
    near, far = along["block_2_shortcut_conv"], along["block_3_2_conv"]
    assert (near.units, far.units) == ([3, 5], [3, 5])
    assert (near.road[0], near.road[-1]) == ("block_2_2_conv", "block_2_shortcut_conv")
    assert "block_2_add" in near.road
    assert near.tied_by == ["block_2_add"]
    assert (far.road[0], far.road[-1]) == ("block_2_2_conv", "block_3_2_conv")
    assert "block_3_add" in far.tied_by


def test_the_cuts_are_those_that_remove_makes(resnet: Path) -> None:
    chosen = {"block_1_2_conv": [0, 3]}
    found = kprune.explain(resnet, chosen)
    report = kprune.remove(resnet, chosen, dry_run=True)
    assert found.changed == report.changed
    shapes: dict[str, list[int]] = {}
    for cut in found.weights:
        shape = shapes.setdefault(cut.path, list(cut.shape))
        assert shape[cut.axis] == cut.before
        shape[cut.axis] = cut.after
    assert shapes == {row.path: row.shape_after for row in report.weights}
    assert {(field.layer, field.field, field.before, field.after) for field in found.fields} == {
        ("stem_conv", "filters", 16, 14),
        ("block_1_2_conv", "filters", 16, 14),
    }


def test_one_weight_may_be_cut_along_two_axes(samples: Path) -> None:
    found = kprune.explain(samples / "digits_lstm.keras", "lstm:0")
    recurrent = [cut for cut in found.weights if cut.weight == "recurrent_kernel"][:2]
    assert [(cut.axis, cut.before, cut.after) for cut in recurrent] == [(0, 48, 47), (1, 192, 188)]


def test_where_they_cannot_go_it_says_what_remove_would(model: Path) -> None:
    with_unknown_layer(model, "pool")
    found = kprune.explain(model, ["conv_2:0-3", "conv_1:1"])
    with pytest.raises(CannotPruneError) as refusal:
        kprune.remove(model, ["conv_2:0-3", "conv_1:1"], dry_run=True)
    assert not found.possible
    assert found.refusal is not None
    said: Any = refusal.value
    assert (found.refusal.what, found.refusal.where) == (said.what, said.where)
    assert (found.refusal.why, found.refusal.do) == (said.why, said.do)
    assert (found.weights, found.fields) == ([], [])
    assert found.nearest == {"conv_1": [1]}  # the part of the choice that is free


def test_the_nearest_choice_to_a_whole_layer_keeps_one_unit(resnet: Path) -> None:
    found = kprune.explain(resnet, "stem_conv:0--1")
    assert found.refusal is not None
    assert found.refusal.kind == "LastUnitError"
    assert found.nearest == {"stem_conv": list(range(15))}
    assert kprune.explain(resnet, found.nearest).possible


def test_where_nothing_is_free_there_is_no_nearest_choice(samples: Path) -> None:
    found = kprune.explain(samples / "digits_cnn.keras", "image:0")
    assert not found.possible
    assert found.nearest is None


def test_input_features_may_go_if_inputs_may_change(samples: Path) -> None:
    path = samples / "digits_resnet.keras"
    kept = kprune.explain(path, "image:0", allow_output_change=True)
    assert kept.refusal is not None  # it has one only
    assert kept.refusal.kind == "LastUnitError"


def test_a_statistic_over_the_units_is_noted(samples: Path) -> None:
    found = kprune.explain(samples / "digits_cnn.keras", "classes:1")
    assert found.possible
    assert not found.exact
    assert [(note.kind, note.layer) for note in found.notes] == [("inexact", "classes")]
