"""Where a choice leaves no block, the nearest one that does is proposed, and it can be carried out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kprune
from kprune.labels.closure import close
from kprune.labels.nearest import completed
from kprune.opened import analyse, open_model
from tests.small_models import layer, sequential, write


def grouped(folder: Path) -> Path:
    config = sequential(
        layer("Conv2D", "first", filters=8, kernel_size=[1, 1]),
        layer("Conv2D", "grouped", filters=8, kernel_size=[1, 1], groups=2),
        layer("Conv2D", "last", filters=3, kernel_size=[1, 1]),
        shape=(4, 4, 3),
    )
    return write(folder / "grouped.keras", config)


@pytest.mark.parametrize(
    ("chosen", "proposed"),
    [
        ({"grouped": [1]}, {"grouped": [1, 5]}),
        ({"grouped": [0, 1, 6]}, {"grouped": [0, 1, 4, 6]}),
        ({"grouped": [0, 1, 2, 3]}, {"grouped": [0, 1, 2, 3], "first": [0, 1, 2, 3]}),
        ({"first": [2]}, {"first": [2, 6]}),
    ],
)
def test_uneven_groups_are_evened_out(
    chosen: dict[str, list[int]], proposed: dict[str, list[int]], tmp_path: Path
) -> None:
    model = grouped(tmp_path)
    found = kprune.explain(model, chosen)
    assert found.refusal is not None
    assert found.nearest == proposed
    small = tmp_path / "small.keras"
    report = kprune.remove(model, proposed, output=small)
    assert report.changed == {name: proposed[name] for name in report.changed}


def test_a_choice_that_works_is_its_own_nearest(tmp_path: Path) -> None:
    with open_model(grouped(tmp_path)) as source:
        analysis = analyse(source)
    closure = close(analysis.groups, {"last": np.array([0]), "grouped": np.array([0, 4])})
    assert completed(closure, allow_output_change=True) is closure


def test_nothing_is_proposed_where_a_layer_would_go_as_a_whole(tmp_path: Path) -> None:
    found = kprune.explain(grouped(tmp_path), {"grouped": [0, 1, 2, 3, 4]})
    assert found.refusal is not None
    assert found.nearest is None or len(found.nearest["grouped"]) < 8
