"""What a wanted accuracy lets go, from curves that were measured: no model is run here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.errors import CheckError, FileError, KpruneError, UsageError
from kprune.opened import analyse, open_model
from kprune.select.plans.curves import Candidate, Curves, Point, read_curves
from kprune.select.plans.sensitivity import Wanted, within
from kprune.verbs.change import plan


@pytest.fixture(scope="module")
def resnet(samples: Path) -> Analysis:
    with open_model(samples / "digits_resnet.keras") as source:
        return analyse(source)


def candidate(figures: list[float], *layers: str, units: int = 32, why: str = "") -> Candidate:
    """Layers that came to these figures without 1, 2, 3 … of their units."""
    points = [
        Point(0.1 * n, {name: list(range(n)) for name in layers}, 1000 - n, {"accuracy": figure})
        for n, figure in enumerate(figures, start=1)
    ]
    return Candidate(dict.fromkeys(layers, units), points, why or None)


@pytest.fixture
def curves(resnet: Analysis) -> Curves:
    return Curves(
        kprune="0", model="resnet.keras", parameters=count(resnet).parameters, data="d.npz",
        samples=10, criterion="l1", seed=0, ratios=[0.1, 0.2, 0.3], metric="accuracy",
        higher_is_better=True, baseline={"accuracy": 0.95},
        candidates=[
            candidate([0.9, 0.8, 0.7], "stem_conv", "block_1_2_conv", units=16),
            candidate([0.95, 0.6, 0.95], "block_2_1_conv"),  # dips and recovers
            candidate([float("nan")], "block_3_1_conv"),
            candidate([], "classes", units=10, why="the model's outputs"),
        ],
    )  # fmt: skip


def taken(curves: Curves, resnet: Analysis, **wanted: float) -> dict[str, list[int]]:
    chosen, _ = within(curves, Wanted(**wanted), resnet)
    return {address: indices.tolist() for address, indices in chosen.items()}


def test_each_candidate_loses_what_leaves_it_good_enough(curves: Curves, resnet: Analysis) -> None:
    assert taken(curves, resnet, min_accuracy=0.8) == {
        "stem_conv": [0, 1], "block_1_2_conv": [0, 1], "block_2_1_conv": [0],
    }  # fmt: skip
    assert taken(curves, resnet, min_accuracy=0.81)["stem_conv"] == [0]
    assert taken(curves, resnet, max_drop=0.0) == {"block_2_1_conv": [0]}
    # 0.8 - 0.1 is more than 0.7, by a rounding error.
    lower = msgspec.structs.replace(curves, baseline={"accuracy": 0.8})
    assert taken(lower, resnet, max_drop=0.1)["stem_conv"] == [0, 1, 2]


def test_of_a_loss_less_is_better(curves: Curves, resnet: Analysis) -> None:
    """The same figures read as losses; the whole model's is 0.75."""
    loss = msgspec.structs.replace(curves, higher_is_better=False, baseline={"accuracy": 0.75})
    loss.candidates[0].points.reverse()  # the order of the points is not relied on
    assert taken(loss, resnet, max_drop=0.2) == {
        "stem_conv": [0, 1, 2], "block_1_2_conv": [0, 1, 2], "block_2_1_conv": [0, 1, 2],
    }  # fmt: skip
    with pytest.raises(UsageError, match="for which lower is better"):
        taken(loss, resnet, min_accuracy=0.8)


def test_the_notes_say_what_to_expect_of_each(curves: Curves, resnet: Analysis) -> None:
    _, notes = within(curves, Wanted(min_accuracy=0.8), resnet)
    assert [note.text for note in notes] == [
        "stem_conv + block_1_2_conv loses 20 %: accuracy 0.8000 expected of that alone",
        "block_2_1_conv loses 10 %: accuracy 0.9500 expected of that alone",
        "block_3_1_conv stays whole: accuracy nan with 10 % of it gone",
        "accuracy 0.9500 with none cut; together the cuts usually cost more than each alone: "
        "check with 'kprune verify --data'",
    ]


def test_an_accuracy_that_nothing_leaves_is_refused(curves: Curves, resnet: Analysis) -> None:
    with pytest.raises(CheckError, match=r"no layer can lose units at accuracy 0\.9900") as refusal:
        taken(curves, resnet, min_accuracy=0.99)
    assert "0.9500 at best" in refusal.value.why


@pytest.mark.parametrize("wanted", [{}, {"min_accuracy": 0.9, "max_drop": 0.1}, {"max_drop": -1.0}])
def test_the_wanted_accuracy_is_said_in_one_way(wanted: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Wanted(**wanted)


def test_a_plan_is_made_of_the_file_and_leaves_out_what_is_excluded(
    curves: Curves, samples: Path, tmp_path: Path
) -> None:
    path = tmp_path / "curves.json"
    finite = msgspec.structs.replace(curves, candidates=curves.candidates[:2])
    path.write_text(finite.to_json())
    assert read_curves(path) == finite

    def planned(**options: Any) -> dict[str, Any]:
        made = plan(samples / "digits_resnet.keras", sensitivity=path, max_drop=0.2, **options)
        return dict(made.steps[0].layers)

    assert list(planned()) == ["stem_conv", "block_1_2_conv", "block_2_1_conv"]
    assert list(planned(exclude=["block_1_*"])) == ["block_2_1_conv"]
    with pytest.raises(UsageError, match="already determines which units are removed"):
        planned(units="stem_conv:0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": 3}, "another model"),
        ({"candidates": [candidate([1.0], "nowhere")]}, "another model"),
        ({"candidates": [candidate([1.0], "stem_conv", units=17)]}, "another model"),
        ({"candidates": [Candidate({}, [Point(0.1, {"stem_conv": [16]}, 1, {"accuracy": 1.0})])]},
         "another model"),
    ],
)  # fmt: skip
def test_curves_of_another_model_are_refused(
    change: dict[str, Any], words: str, curves: Curves, resnet: Analysis
) -> None:
    with pytest.raises(UsageError, match=words):
        taken(msgspec.structs.replace(curves, **change), resnet, max_drop=0.9)


def spoiled(curves: Curves, **change: Any) -> str:
    return json.dumps({**curves.to_dict(), **change})


def test_a_file_that_is_no_curves_is_refused(curves: Curves, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    good = msgspec.structs.replace(curves, candidates=[])
    texts = ["", "\x00", "[]", "{}", spoiled(good, extra=1), spoiled(good, seed="a")]
    for text in [*texts, spoiled(good, metric="recall")]:
        path.write_text(text)
        with pytest.raises(FileError):
            read_curves(path)
    path.write_text(spoiled(good))
    assert read_curves(path) == good
    with pytest.raises(KpruneError, match="no such file"):
        read_curves(tmp_path / "nowhere.json")


def test_indices_of_the_curves_are_those_of_the_plan(curves: Curves, resnet: Analysis) -> None:
    chosen, _ = within(curves, Wanted(max_drop=0.2), resnet)
    assert all(indices.dtype == np.int64 for indices in chosen.values())
