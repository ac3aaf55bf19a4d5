"""A plan says all that the command line says; and what a file says of its past is a plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.cli.options import Choosing
from kprune.criteria_table import BUILTIN
from kprune.errors import CheckError, FileError, UsageError
from kprune.opened import open_model
from kprune.pruning.selection import Selection
from kprune.select.plans.plan import LayerChoice, Step, parse_plan
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.options import BUDGETS, OPTIONS, RankOptions


@pytest.fixture
def model(samples: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(samples / "digits_cnn.keras", tmp_path / "model.keras"))


def applied(model: Path, step: dict[str, Any], **rest: Any) -> Any:
    """The report of a plan with one step, and the bytes of what it wrote."""
    plan = parse_plan(json.dumps({"version": 1, "steps": [step], **rest}))
    out = model.with_name("by_plan.keras")
    report = kprune.apply(model, plan, output=out, force=True)
    return report, out.read_bytes()


def test_every_option_of_a_choice_is_on_the_command_line_and_in_a_plan() -> None:
    command = {*Choosing.__struct_fields__, *RankOptions.__struct_fields__}
    plan = {*LayerChoice.__struct_encode_fields__, *Step.__struct_encode_fields__}
    library = {*Choice.__struct_fields__} | {*Selection.__struct_fields__}
    names = {name for name in OPTIONS if name not in ("global", *BUDGETS)}
    assert names - {"data"} <= library
    for name in OPTIONS:
        assert {"global": "together"}.get(name, name) in command
        assert name in plan
    assert all(name in OPTIONS["criterion"].text for name in BUILTIN.criteria)


CHOICES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"criterion": "random", "ratio": 0.3, "seed": 7}, {}),
    ({"criterion": "l2", "count": 5, "reduce": "max", "normalize": "layer-mean"}, {}),
    ({"criterion": "fpgm", "ratio": 0.9, "max_ratio": 0.5, "round_to": 4, "min_units": 6}, {}),
    ({"criterion": "lamp", "ratio": 0.3}, {"global": True}),
    ({"criterion": "lamp"}, {"target_params": "50%"}),
    ({"criterion": "l1", "normalize": "layer-max"}, {"target_flops": 400000}),
    ({"criterion": "l1"}, {"target_bytes": "400k"}),
]


@pytest.mark.parametrize(("said", "of_step"), CHOICES)
def test_a_plan_chooses_what_the_command_line_does(
    said: dict[str, Any], of_step: dict[str, Any], model: Path
) -> None:
    budget = next(((BUDGETS[key], str(v)) for key, v in of_step.items() if key in BUDGETS), None)
    choice = Choice(
        **said, target=Budget(*budget) if budget else None, together=of_step.get("global", False)
    )
    out = model.with_name("direct.keras")
    direct = kprune.remove(model, choice=choice, output=out)
    report, content = applied(model, {"backend": "remove", "layers": {"*": said}, **of_step})
    assert direct.changed and report.changed == direct.changed
    assert content == out.read_bytes()


def test_a_budget_that_cannot_be_met_is_a_failed_check_with_the_line(model: Path) -> None:
    text = "version: 1\nsteps:\n- backend: remove\n  layers: {'*': {criterion: l1}}\n"
    with pytest.raises(CheckError, match="50 parameters cannot be reached") as caught:
        kprune.apply(model, parse_plan(text + "  target_params: 50\n"))
    assert "plan.yaml, line 5" in caught.value.where
    assert not model.with_name("model.pruned.keras").exists()


def test_a_threshold_at_run_time_is_a_plan_too(model: Path) -> None:
    out = model.with_name("direct.keras")
    kprune.mask(model, ["conv_1:3"], layers=["relu_1"], below=0.25, output=out)
    step = {"backend": "mask", "layers": {"conv_1": [3], "relu_1": "all"}, "below": 0.25}
    assert applied(model, step)[1] == out.read_bytes()


def test_data_that_a_plan_names_stand_beside_it(model: Path) -> None:
    plan = model.with_name("plan.yaml")
    plan.write_text(
        "version: 1\nsteps:\n- backend: remove\n  data: none.npz\n"
        "  layers: {conv_1: {criterion: apoz, ratio: 0.5}}\n"
    )
    with pytest.raises(FileError, match=r"none\.npz"):
        kprune.apply(model, plan)


def provenance(path: Path) -> dict[str, Any]:
    with open_model(path) as source:
        found: dict[str, Any] = source.metadata["kprune"]["plan"]
    return found


PASTS = {
    "remove": lambda m, out: kprune.remove(m, {"conv_1": [1, 2]}, output=out),
    "fold": lambda m, out: kprune.remove(m, {"conv_3": [1, 2]}, fold=True, output=out),
    "output": lambda m, out: kprune.remove(m, ["classes:3"], allow_output_change=True, output=out),
    "zero": lambda m, out: kprune.zero(m, {"hidden": [0]}, outgoing=True, output=out),
    "silence": lambda m, out: kprune.zero(m, {"classes": [0]}, silence=True, output=out),
    "mask": lambda m, out: kprune.mask(m, {"hidden": [0]}, output=out),
    "below": lambda m, out: kprune.mask(m, layers=["relu_1"], below=0.1, output=out),
    "apply": lambda m, out: kprune.apply(
        m,
        parse_plan(
            "version: 1\nsteps:\n- {backend: zero, layers: {conv_1: '0-3'}}\n"
            "- {backend: compact, check: false}\n- {backend: remove, layers: {hidden: '0-7'}}\n"
        ),
        output=out,
    ),
}


@pytest.mark.parametrize("past", PASTS)
def test_what_a_file_says_of_its_past_is_a_plan_that_makes_it_again(past: str, model: Path) -> None:
    out, again = model.with_name("out.keras"), model.with_name("again.keras")
    PASTS[past](model, out)
    plan = parse_plan(json.dumps(provenance(out)))
    kprune.apply(model, plan, output=again)
    assert again.read_bytes() == out.read_bytes()


def zeroed(model: Path) -> Path:
    """Eight filters whose weights are 0, and what stands behind them as well."""
    out = model.with_name("zeroed.keras")
    kprune.zero(model, {"conv_3": [0, 1, 2, 3, 4, 5, 6, 7]}, outgoing=True, output=out)
    return out


def test_a_step_removes_what_is_dead(model: Path) -> None:
    dead, out = zeroed(model), model.with_name("out.keras")
    direct = kprune.compact(dead, check=False, output=out)
    assert direct.changed == {"conv_3": list(range(8))}
    report, content = applied(dead, {"backend": "compact", "check": False})
    assert (report.command, report.backend) == ("apply", "compact")
    assert report.changed == direct.changed and content == out.read_bytes()


def test_of_the_units_that_a_step_names_those_go_that_are_dead(model: Path) -> None:
    report, _ = applied(
        zeroed(model), {"backend": "compact", "check": False, "layers": {"conv_3": "4-11"}}
    )
    assert report.changed == {"conv_3": [4, 5, 6, 7]}
    texts = [note.text for note in report.notes if note.layer == "conv_3"]
    assert "units 8-11 of 'conv_3' are neither dead nor constant, and were left" in texts


def test_what_a_compact_step_is_expected_to_leave_is_checked_first(model: Path) -> None:
    with pytest.raises(CheckError, match="expectations do not hold"):
        applied(zeroed(model), {"backend": "compact"}, expect={"units": "< 10"})
    assert not model.with_name("by_plan.keras").exists()


def test_an_unknown_criterion_in_a_plan_is_told_with_its_line(model: Path) -> None:
    text = (
        "version: 1\nsteps:\n- backend: remove\n  layers:\n    conv_1: {criterion: l3, ratio: .5}"
    )
    with pytest.raises(UsageError, match="there is no criterion 'l3'") as caught:
        kprune.apply(model, parse_plan(text))
    assert "plan.yaml, line 5" in caught.value.where


def test_steps_are_told_in_terms_of_the_plans_own_input(model: Path) -> None:
    """Also where that was pruned before, so that its file counts the units of yet another model."""
    pruned = model.with_name("pruned.keras")
    kprune.remove(model, {"hidden": range(10)}, output=pruned)
    step = {"backend": "remove", "layers": {"hidden": [0]}}
    plan = parse_plan(json.dumps({"version": 1, "steps": [step, step]}))
    for path in (model, pruned):
        report = kprune.apply(path, plan, dry_run=True)
        assert report.changed == report.selected == {"hidden": [0, 1]}


def test_a_layer_of_which_a_list_over_all_layers_leaves_next_to_nothing_is_pointed_out(
    samples: Path,
) -> None:
    resnet = samples / "digits_resnet.keras"

    def notes(**how: Any) -> list[Any]:
        choice = Choice("l1", target=Budget("parameters", "15%"), **how)
        report = kprune.remove(resnet, choice=choice, dry_run=True)
        kept = {
            row.name: row.units_after / row.units_before
            for row in report.layers
            if row.units_before
        }
        narrow = [note for note in report.notes if note.kind == "narrow"]
        assert bool(narrow) == (min(kept.values()) < 0.1)
        return narrow

    (note,) = notes()
    assert "units" in note.text and "--max-ratio 0.9 bounds" in note.text
    assert not notes(max_ratio=0.9)
