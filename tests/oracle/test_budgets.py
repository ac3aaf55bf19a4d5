"""Budgets on the architectures of keras.applications: met, and not by more than one group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kprune
from kprune.errors import CheckError
from kprune.labels.closure import close
from kprune.opened import analyse, open_model
from kprune.pruning.amounts import measure_of
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choose import prunable_axes
from kprune.select.ranking.ranks import Ranking, score_groups
from kprune.select.ranking.statistics import Statistics

pytestmark = pytest.mark.oracle

QUICK = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}}
NIGHTLY = (
    "DenseNet121", "EfficientNetB0", "InceptionV3", "MobileNetV3Small", "NASNetMobile", "ResNet50",
    "ResNet50V2", "VGG16", "Xception", "EfficientNetV2B0",
)  # fmt: skip
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.nightly) for name in NIGHTLY)]
BUDGETS = (("parameters", "60%"), ("flops", "45%"), ("bytes", "70%"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("budgets")


def saved(name: str, place: Path) -> Path:
    path = place / f"{name}.keras"
    if not path.exists():
        make = getattr(keras.applications, name)
        size = 96 if name in ("InceptionV3", "Xception") else 64
        options = {} if name.startswith("NASNet") else {"input_shape": (size, size, 3)}
        make(weights=None, classes=10, **options, **QUICK.get(name, {})).save(path)
    return path


def slack_of_one_group(path: Path, report: Any, kind: str, goal: float) -> bool:
    """Whether some group could not be given back: the budget would be missed."""
    with open_model(path) as source:
        analysis = analyse(source)
        measure = measure_of(kind, analysis, source)
        units = {key: np.array(indices) for key, indices in report.changed.items()}
        gone = close(analysis.groups, units).gone
        assert measure(gone) == getattr(report.output, kind)
        heads = np.unique(analysis.groups.of[gone & (analysis.groups.owner >= 0)])
        # The last that went has the highest score. Where it is not enough, any other will do.
        ranking, axes = Ranking("l1", normalize="layer-mean"), prunable_axes(analysis)
        statistics = Statistics(analysis, source)
        score = score_groups(analysis.groups, statistics, ranking, axes, strict=False).of
        for head in heads[np.argsort(-score[heads], kind="stable")]:
            less = gone.copy()
            less[analysis.groups.members(int(head))] = False
            if measure(less) > goal:
                return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_is_met_within_one_group(name: str, place: Path) -> None:
    path = saved(name, place)
    for kind, amount in BUDGETS:
        choice = kprune.Choice("l1", target=Budget(kind, amount), normalize="layer-mean")
        output = place / "out.keras"
        report = kprune.remove(path, choice=choice, output=output, force=True)
        goal = float(amount[:-1]) / 100 * getattr(report.input, kind)
        assert getattr(report.output, kind) <= goal
        assert report.output.bytes == output.stat().st_size
        assert slack_of_one_group(path, report, kind, goal)


def test_what_is_named_as_the_closest_can_be_asked_for(place: Path) -> None:
    path = saved("MobileNetV2", place)

    def asked(amount: str) -> int:
        choice = kprune.Choice("l1", target=Budget("parameters", amount), max_ratio=0.5)
        found: int = kprune.remove(path, choice=choice, dry_run=True).output.parameters
        return found

    with pytest.raises(CheckError, match="5% parameters cannot be reached") as caught:
        asked("5%")
    closest = caught.value.why.split("may go, ")[1].split(" of ")[0].replace(",", "")
    assert asked(closest) == int(closest)
    with pytest.raises(CheckError):
        asked(str(int(closest) - 1))
