"""The page "Repair": its session, its Python and its plan, run as they stand.

`KPRUNE_UPDATE=1 pytest tests/guide/test_repair.py` writes the outputs anew.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import kprune
from tests.sessions import ROOT, check_sessions

PAGE = ROOT / "kprune" / "guide" / "repair.md"


def block(kind: str) -> str:
    """The one block of a kind."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page was read up to its Python."""
    folder = tmp_path_factory.mktemp("repair")
    shutil.copytree(ROOT / "sample_models", folder / "sample_models")
    check_sessions(PAGE, folder)
    return folder


def test_every_command_prints_what_the_page_shows(place: Path) -> None:
    assert {"half.keras", "cut.keras", "repaired.keras"} <= {path.name for path in place.iterdir()}


def test_the_python_of_the_page_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile(block("python"), str(PAGE), "exec"), {})
    assert (place / "again.keras").exists()


def test_the_plan_of_the_page_repairs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    plan = place / "page.yaml"
    plan.write_text(block("yaml"))
    report = kprune.apply(
        "sample_models/digits_cnn.keras", plan, output="by_plan.keras", force=True
    )
    assert report.repaired is not None and report.repaired.way == "noise"
