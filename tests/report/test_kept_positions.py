"""What a report tells to be left of a weight, held against the arrays in the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.report.report import Kept, Report
from kprune.select.plans.plan import parse_plan
from tests.formats.making import contents
from tests.small_models import Network, write

KERNEL = "layers/conv2d_1/vars/0"  # (3, 3, 4, 6): three groups of 4 inputs and 2 outputs each


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 3), filters=12)
    x = net("Conv2D", "g", x, filters=6, groups=3)
    return write(tmp_path / "model.keras", net.functional(net("Conv2D", "out", x, filters=2)))


def kernel_of(report: Report) -> list[Kept]:
    return next(row.kept for row in report.weights if row.path == KERNEL)


def picked(kernel: np.ndarray, kept: list[Any]) -> np.ndarray:
    """What a report says is left of the grouped kernel, picked group by group with plain numpy."""
    rows, columns = kept[2], kept[3] or list(range(kernel.shape[-1]))
    groups = sorted({column // 2 for column in columns})
    assert len(rows) == len(groups)
    parts = [
        kernel[:, :, own][..., [column for column in columns if column // 2 == group]]
        for group, own in zip(groups, rows, strict=True)
    ]
    return np.concatenate(parts, axis=-1)


def applied(model: Path, *steps: dict[str, Any]) -> tuple[Report, np.ndarray]:
    out = model.with_name("out.keras")
    plan = parse_plan(json.dumps({"version": 1, "steps": steps}))
    return kprune.apply(model, plan, output=out, force=True), contents(out)[KERNEL]


def removing(**layers: list[int]) -> dict[str, Any]:
    return {"backend": "remove", "layers": layers}


def test_rows_of_a_grouped_kernel_are_told_for_each_group(model: Path) -> None:
    report = kprune.remove(model, {"a": [1, 6, 8]}, output=model.with_name("out.keras"))
    kept = kernel_of(report)
    assert kept == [None, None, [[0, 2, 3], [0, 1, 3], [1, 2, 3]], None]
    after = contents(model.with_name("out.keras"))[KERNEL]
    np.testing.assert_array_equal(after, picked(contents(model)[KERNEL], kept))
    row = next(row for row in report.weights if row.path == KERNEL)
    assert (row.shape_before, row.shape_after) == ([3, 3, 4, 6], [3, 3, 3, 6])


def test_a_group_that_goes_whole_has_no_rows_in_the_report(model: Path) -> None:
    step = removing(a=[0, 1, 2, 3, 4, 11], g=[0, 1])
    report, after = applied(model, step)
    kept = kernel_of(report)
    assert kept[2:] == [[[1, 2, 3], [0, 1, 2]], [2, 3, 4, 5]]
    np.testing.assert_array_equal(after, picked(contents(model)[KERNEL], kept))


@pytest.mark.parametrize(
    "steps",
    [
        (removing(a=[1, 6, 8]), removing(a=[0, 3, 8])),
        (removing(a=[1, 6, 8]), removing(a=[3, 4, 5], g=[2, 3])),
        (removing(a=[0, 1, 2, 3], g=[0, 1]), removing(a=[0, 7])),
    ],
    ids=["rows twice", "rows, then a group", "a group, then rows"],
)
def test_rows_after_several_steps_are_those_of_the_first_input(
    model: Path, steps: tuple[dict[str, Any], ...]
) -> None:
    report, after = applied(model, *steps)
    np.testing.assert_array_equal(after, picked(contents(model)[KERNEL], kernel_of(report)))


def test_rows_that_were_zeroed_are_told_for_each_group(model: Path) -> None:
    zeroed = {"backend": "zero", "outgoing": True, "layers": {"a": [1, 6]}}
    report, after = applied(model, zeroed)
    rows: Any = kernel_of(report)[2]
    assert rows == [[0, 2, 3], [0, 1, 3], [0, 1, 2, 3]]
    for group, own in enumerate(rows):
        columns = after[..., 2 * group : 2 * group + 2]
        assert [row for row in range(4) if columns[:, :, row].any()] == own
    report, _ = applied(model, zeroed, removing(a=[0, 4, 8]))
    assert kernel_of(report)[2] == [[2, 3], [1, 3], [1, 2, 3]]
