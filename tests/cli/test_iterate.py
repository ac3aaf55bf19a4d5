"""`kprune iterate` as a user sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Kprune, fits

pytestmark = pytest.mark.oracle

PLAN = """\
version: 1
choose: {criterion: l1, layers: [hidden], min_units: 24}
target: {parameters: 80%}
schedule: {rounds: 1}
tune: {epochs: 1, learning_rate: 1e-4}
"""


def test_the_rounds_stand_in_a_table_and_progress_on_standard_error(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    Path("rounds.yaml").write_text(PLAN)
    ran = kprune("iterate", model, "rounds.yaml", "--data", samples / "digits_test.npz")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == [
        "round", "units", "parameters", "FLOPs", "accuracy:", "cut", "tuned", "loss",
    ]  # fmt: skip
    assert lines[2].split()[:3] == ["0", "146", "44,354"]
    assert lines[3].split()[0] == "1" and lines[3].endswith("written")
    assert lines[-2].startswith("round 1 is written: 35,")
    assert lines[-2].endswith(" parameters meet the target of 35,483")
    assert lines[-1] == "wrote model.pruned.keras"
    assert max(map(len, lines)) <= 80
    told = ran.err.splitlines()
    assert told[0].startswith("round 1: ")
    assert [line[:10] for line in told[1:]] == ["  before  ", "  epoch 1 "]
    assert sorted(path.name for path in Path().iterdir()) == [
        "model.keras", "model.pruned.keras", "rounds.yaml",
    ]  # fmt: skip


def test_a_target_that_the_rounds_do_not_reach_is_5_and_the_last_is_written(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    # What each round may take is bounded, so that the end cannot be known before.
    plan = PLAN.replace("min_units: 24", "min_units: 38, max_ratio: 0.9").replace("80%", "50%")
    Path("rounds.yaml").write_text(plan.replace("rounds: 1", "rounds: 2"))
    ran = kprune("iterate", model, "rounds.yaml", "--data", samples / "digits_test.npz", "--json")
    assert ran.code == 5 and fits(ran.json, "iterate")
    assert (ran.json["stopped"], ran.json["written"], ran.json["target"]) == ("exhausted", 1, 22177)
    assert ran.json["notes"][-1]["text"].startswith("22177 parameters cannot be reached: ")
    assert Path("model.pruned.keras").exists()
    assert not Path("model.pruned.keras.rounds").exists()


def test_a_wrong_plan_or_place_is_refused_at_once(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    data = samples / "digits_test.npz"
    Path("rounds.yaml").write_text(PLAN.replace("rounds: 1", "round: 1"))
    ran = kprune("iterate", model, "rounds.yaml", "--data", data)
    assert ran.code == 2
    assert "rounds.yaml, line 4; did you mean 'rounds'?" in ran.err
    assert kprune("iterate", model, "nowhere.yaml", "--data", data).code == 4
    Path("rounds.yaml").write_text(PLAN)
    ran = kprune("iterate", model, "rounds.yaml", "--data", data, "-o", model)
    assert (ran.code, ran.out) == (2, "")
    ran = kprune("iterate", model, "rounds.yaml", "--data", data, "--plot", "curve.txt")
    assert (ran.code, ran.out) == (2, "")


def test_the_schema_can_be_had(kprune: Kprune) -> None:
    assert kprune("schema", "iterate-plan").json["title"] == "kprune iteration plan"


def test_a_table_of_rounds_that_refit_and_train_has_room(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    Path("rounds.yaml").write_text(PLAN + "repair: bias\n")
    ran = kprune("iterate", model, "rounds.yaml", "--data", samples / "digits_test.npz")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split()[4:] == ["accuracy:", "cut", "repaired", "tuned"]
    assert len(lines[3].split()) == 8 and lines[3].endswith("written")
    assert max(map(len, lines)) <= 80
