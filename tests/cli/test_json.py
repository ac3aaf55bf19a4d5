"""The keys of the JSON that programs rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import ValidationError

from kprune.verbs.schemas import SCHEMAS, schema_of
from tests.cli.conftest import Kprune, fits

FIRST = ["kprune", "schema", "command"]
FILE = ["path", "format", "bytes", "parameters", "trainable_parameters", "flops", "units"]


def test_the_report_has_the_keys_of_the_contract(kprune: Kprune, resnet: Path) -> None:
    report = kprune("remove", resnet, "block_1_2_conv:0,3", "-o", "small.keras", "--json").json
    assert list(report) == [
        "kprune", "schema", "command", "backend", "exact", "input", "output",
        "selected", "changed", "layers", "weights", "notes",
    ]  # fmt: skip
    assert (report["schema"], report["command"], report["backend"]) == (1, "remove", "remove")
    assert report["exact"] is True
    assert list(report["input"]) == list(report["output"]) == FILE
    assert report["output"]["bytes"] == Path("small.keras").stat().st_size
    assert report["selected"] == {"block_1_2_conv": [0, 3]}
    assert report["changed"] == {"stem_conv": [0, 3], "block_1_2_conv": [0, 3]}
    assert report["layers"][0] == {
        "name": "stem_conv", "class": "Conv2D", "units_before": 16, "units_after": 14,
        "parameters_before": 144, "parameters_after": 126,
        "flops_before": 18432, "flops_after": 16128,
    }  # fmt: skip
    kernel = next(row for row in report["weights"] if row["path"] == "layers/conv2d_1/vars/0")
    assert kernel == {
        "path": "layers/conv2d_1/vars/0",
        "shape_before": [3, 3, 16, 16],
        "shape_after": [3, 3, 14, 16],
        "kept": [None, None, [1, 2, *range(4, 16)], None],
    }
    assert report["notes"] == []


def test_zero_keeps_shapes_and_says_what_was_not_zeroed(kprune: Kprune, model: Path) -> None:
    report = kprune("zero", model, "conv_1:0,3", "--json").json
    kernel, bias = report["weights"]
    left = [1, 2, *range(4, 16)]
    assert kernel["shape_before"] == kernel["shape_after"] == [3, 3, 1, 16]
    assert (kernel["kept"], bias["kept"]) == ([None, None, None, left], [left])


def test_a_mixed_removal_is_not_exact_and_says_where(kprune: Kprune, model: Path) -> None:
    report = kprune("remove", model, "classes:3", "--json").json
    assert report["exact"] is False
    assert [(note["kind"], note["layer"]) for note in report["notes"]] == [("inexact", "classes")]


def test_json_goes_alone_to_standard_output(kprune: Kprune, model: Path) -> None:
    ran = kprune("zero", model, "conv_3:0", "--json")  # which has a note
    assert ran.err == ""
    assert [note["kind"] for note in ran.json["notes"]] == ["emits"]


def test_every_command_that_looks_gives_json(kprune: Kprune, model: Path) -> None:
    inspection = kprune("inspect", model, "--json").json
    assert list(inspection) == [*FIRST, "file", "name", "free", "layers", "carries", "notes"]
    assert list(inspection["file"]) == FILE
    explanation = kprune("explain", model, "conv_1:0", "--json").json
    assert (explanation["possible"], explanation["changed"]) == (True, {"conv_1": [0]})
    assert list(explanation)[:3] == FIRST and explanation["command"] == "explain"
    difference = kprune("diff", model, model, "--json").json
    assert (difference["equal"], difference["layers"]) == (True, [])
    assert list(difference)[:3] == FIRST and difference["notes"] == []
    known = kprune("rules", "Dense", "--json").json
    assert [(rule["name"], rule["kind"], rule["does"]) for rule in known] == [
        ("Dense", "layer", "issues")
    ]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("remove model.keras conv_1:0", "report"),
        ("remove model.keras --criterion l1 --ratio 0.3 --dry-run", "report"),
        ("zero model.keras conv_1:0", "report"),
        ("mask model.keras conv_1:0", "report"),
        ("compact model.keras --no-check", "report"),
        ("inspect model.keras", "inspect"),
        ("explain model.keras conv_1:0", "explain"),
        ("diff model.keras model.keras", "diff"),
    ],
)
def test_the_schemas_describe_what_is_printed(
    kprune: Kprune, model: Path, line: str, name: str
) -> None:
    ran = kprune(*line.split(), "--json")
    assert ran.code == 0 and fits(ran.json, name)


def test_a_report_that_is_not_as_the_schema_says_is_noticed(kprune: Kprune, model: Path) -> None:
    report = kprune("inspect", model, "--json").json
    with pytest.raises(ValidationError):
        fits({**report, "layers": 3}, "inspect")
    assert not fits({**report, "more": 3}, "inspect")


def test_schema_lists_what_there_is(kprune: Kprune) -> None:
    listed = kprune("schema").out
    for name in SCHEMAS:
        assert name in listed
        assert kprune("schema", name).json == schema_of(name)
    ran = kprune("schema", "inspct")
    assert ran.code == 2 and "did you mean 'inspect'?" in ran.err
    plan = kprune("schema", "plan").json
    assert {"version", "steps", "model", "expect"} == set(plan["$defs"]["Plan"]["properties"])


def test_a_list_of_numbers_stands_on_one_line(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, "hidden:0-31", "--json", "--dry-run")
    assert f'    "hidden": {list(range(32))}\n' in ran.out
    assert json.loads(ran.out)["selected"]["hidden"] == list(range(32))
