"""`kprune sensitivity` and the plan that is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Kprune, fits
from tests.cli.test_light import imported_by

pytestmark = pytest.mark.oracle


def test_curves_are_shown_written_and_drawn_and_make_a_plan(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    data = ("--data", samples / "digits_test.npz")
    ran = kprune(
        "sensitivity", model, *data, "--ratios", "0.1,0.05,0.75", "--layer", "hidden", "classes",
        "-o", "curves.json", "--plot", "curves.svg",
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("accuracy when one layer is cut and the others stay whole")
    assert lines[3].split() == ["layer", "units", "-5%", "-10%", "-75%"]
    assert lines[5].startswith("hidden     64  0.9")
    assert any(line.startswith("classes  not cut") for line in lines)
    assert lines[-2:] == ["wrote curves.json", "wrote curves.svg"]
    written = json.loads(Path("curves.json").read_text())
    assert list(written)[:4] == ["kprune", "schema", "command", "model"]
    assert fits(written, "sensitivity")
    assert "hidden" in Path("curves.svg").read_text()

    line = "plan model.keras --sensitivity curves.json --max-drop 0.01"
    assert imported_by(line) == "[]"
    planned = kprune(*line.split(), "-o", "plan.yaml")
    assert planned.code == 0
    assert "note: hidden loses " in planned.err
    assert kprune("apply", model, "plan.yaml", "-o", "small.keras").code == 0


def test_mistakes_are_told_before_anything_is_measured(kprune: Kprune, model: Path) -> None:
    Path("there.json").write_text("")
    for options, code, words in (
        (["--ratios", "a,b"], 2, "--ratios is given 'a,b'"),
        (["-o", "there.json"], 2, "there.json exists"),
        (["-o", "nowhere/file.json"], 4, "there is no folder"),
        (["--plot", "curves.pdf"], 2, "curves.pdf"),
        (["--jobs", "x"], 2, "--jobs takes a whole number"),
    ):
        ran = kprune("sensitivity", model, "--data", "nowhere.npz", *options)
        assert (ran.code, ran.out) == (code, "")
        assert words in ran.err
    Path("d.npz").write_bytes(b"")
    assert kprune("sensitivity", "-", "--data", "d.npz", stdin=model.read_bytes()).code == 2


def test_the_schema_describes_what_is_written(kprune: Kprune) -> None:
    schema = kprune("schema", "sensitivity").json
    assert schema["title"] == "kprune sensitivity"
    assert {"metric", "baseline", "candidates"} <= set(schema["required"])


def test_layer_names_are_completed(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (
        "kprune sensitivity model.keras conv",
        "kprune sensitivity model.keras --exclude conv",
    ):
        monkeypatch.setenv("_KPRUNE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        assert kprune().out.split() == ["conv_1", "conv_2", "conv_3"]
