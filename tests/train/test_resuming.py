"""A training that is interrupted and resumed ends as one that was not: figures, weights, slots of the optimizer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kprune
from tests.running.making import small_problem, state

pytestmark = pytest.mark.oracle

HOW: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "seed": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_problem(tmp_path_factory.mktemp("resuming"))


def interrupted_after(epoch: int) -> Any:
    def stop(done: int, of: int, figures: dict[str, float]) -> None:
        if done == epoch:
            raise KeyboardInterrupt

    return stop


def tune(place: Path, output: Path, **how: Any) -> Any:
    return kprune.tune(
        place / "model.keras", data=place / "data.npz", output=output, **{**HOW, **how}
    )


@pytest.fixture(scope="module")
def straight(place: Path) -> Any:
    """What comes of it without an interruption."""
    return tune(place, place / "straight.keras"), state(place / "straight.keras")


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(
    epoch: int, place: Path, straight: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    with pytest.raises(KeyboardInterrupt) as stopped:
        tune(place, out, on_epoch=interrupted_after(epoch))
    assert not out.exists()
    assert stopped.value.__notes__ == [
        f"epochs up to {epoch} are kept in {out}.checkpoint; the same command with --resume goes on"
    ]
    seen: list[int] = []
    found = tune(place, out, resume=True, on_epoch=lambda done, *_: seen.append(done))
    expected, arrays = straight
    assert seen == list(range(epoch + 1, 5))
    assert found.resumed == epoch
    assert (found.epochs, found.learned) == (expected.epochs, expected.learned)
    assert all((a == b).all() for a, b in zip(state(out), arrays, strict=True))
    assert sorted(tmp_path.iterdir()) == [out]


def test_another_seed_gives_another_model(place: Path, straight: Any, tmp_path: Path) -> None:
    """Or the test above could not fail."""
    tune(place, tmp_path / "out.keras", seed=4)
    assert any((a != b).any() for a, b in zip(state(tmp_path / "out.keras"), straight[1]))  # noqa: B905


def test_a_signal_in_the_middle_of_an_epoch_leaves_the_epochs_before_it(
    place: Path, straight: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in HOW.items()]
    options[0] = "--epochs=500"
    run = subprocess.Popen(
        [sys.executable, "-m", "kprune", "tune", place / "model.keras", "--data", place / "data.npz",
         "-o", out, *options],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stderr is not None
    shown = ""
    for line in run.stderr:
        shown += line
        if line.startswith("epoch 2"):
            run.send_signal(signal.SIGTERM)
            break
    rest_out, rest = run.communicate(timeout=60)
    shown += rest
    assert (run.returncode, rest_out) == (143, "")
    assert "Traceback" not in shown
    assert shown.splitlines()[-1].startswith("note: epochs up to ")
    assert [path.name for path in tmp_path.iterdir()] == ["out.keras.checkpoint"]
    kept = json.loads((tmp_path / "out.keras.checkpoint" / "state.json").read_text())
    # It may have come further until the signal was there.
    assert kept["judged"][:3] == straight[0].epochs[:3]
    assert len(kept["judged"]) == len(kept["learned"]) < 500


def test_what_was_interrupted_is_neither_lost_nor_mistaken_for_another(
    place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    with pytest.raises(KeyboardInterrupt):
        tune(place, out, on_epoch=interrupted_after(1))
    kept = {path: path.read_bytes() for path in (tmp_path / "out.keras.checkpoint").iterdir()}
    with pytest.raises(kprune.UsageError, match="an interrupted training left") as refused:
        tune(place, out)
    assert "--resume" in refused.value.do
    with pytest.raises(kprune.UsageError, match="had another learning rate") as refused:
        tune(place, out, resume=True, learning_rate=0.02)
    assert refused.value.where == "0.01 then, 0.02 now"
    assert {path: path.read_bytes() for path in kept} == kept
    (tmp_path / "out.keras.checkpoint" / "epoch-1.keras").unlink()
    with pytest.raises(kprune.DamagedFileError, match="does not hold an interrupted training"):
        tune(place, out, resume=True)
    assert tune(place, out, force=True, epochs=1).resumed == 0
    assert sorted(tmp_path.iterdir()) == [out]


def test_a_folder_of_somebody_else_is_left_alone(place: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "out.keras.checkpoint" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    for resume in (False, True):
        with pytest.raises(kprune.UsageError, match="is in the way"):
            tune(place, tmp_path / "out.keras", force=True, resume=resume)
    assert theirs.read_text() == "years of work"


def test_without_anything_to_resume_it_begins_anew_and_says_so(place: Path, tmp_path: Path) -> None:
    found = tune(place, tmp_path / "out.keras", resume=True, epochs=1)
    assert "resume" in [note.kind for note in found.notes]


def test_an_output_that_exists_is_refused_before_the_work(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"
    out.write_text("something")
    seen: list[int] = []
    with pytest.raises(kprune.UsageError, match="exists already"):
        tune(place, out, on_epoch=lambda done, *_: seen.append(done))
    with pytest.raises(kprune.FileError, match="cannot write"):
        tune(place, tmp_path / "nowhere" / "out.keras", on_epoch=lambda done, *_: seen.append(done))
    assert (seen, out.read_text()) == ([], "something")
