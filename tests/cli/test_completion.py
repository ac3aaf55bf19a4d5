"""The shell's completion: options, commands, and layer names from the model on the line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Kprune


@pytest.fixture
def complete(kprune: Kprune, monkeypatch: pytest.MonkeyPatch):
    """What bash would be offered for the last word of a line."""

    def words(line: str) -> list[str]:
        monkeypatch.setenv("_KPRUNE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        ran = kprune()
        assert (ran.code, ran.err) == (0, "")
        return ran.out.split()

    return words


def test_commands_and_options_are_completed(complete) -> None:
    assert complete("kprune ins") == ["inspect"]
    assert complete("kprune remove model.keras --allow") == ["--allow-output-change"]


def test_an_empty_request_is_none(kprune: Kprune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_KPRUNE_COMPLETE", "")
    assert kprune("--version").out.startswith("kprune ")


def test_layer_names_come_from_the_model_on_the_line(complete, model: Path) -> None:
    layers = ["conv_1", "conv_2", "conv_3", "hidden", "classes"]
    assert complete("kprune remove model.keras --layer ") == layers
    assert complete("kprune remove model.keras --layer conv") == layers[:3]
    assert complete("kprune zero model.keras --exclude h") == ["hidden"]
    assert complete("kprune remove --layer c model.keras") == []  # the model is not known yet


def test_a_spec_is_completed_to_its_colon(complete, model: Path) -> None:
    assert complete("kprune remove model.keras hid") == ["hidden:"]
    assert complete("kprune explain model.keras conv") == ["conv_1:", "conv_2:", "conv_3:"]
    assert complete("kprune mask model.keras conv_1:0 hid") == ["hidden:"]


@pytest.mark.parametrize("name", ["nowhere.keras", "text.keras", "-", "."])
def test_an_error_while_completing_is_silent(complete, model: Path, name: str) -> None:
    Path("text.keras").write_text("hello")
    assert complete(f"kprune remove {name} --layer c") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_can_be_shown(shell: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "kprune"],
        env={**os.environ, "_KPRUNE_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0
    assert "_KPRUNE_COMPLETE" in ran.stdout


def test_limits_are_completed_to_their_sign(complete) -> None:
    assert complete("kprune inspect model.keras --limit json-i") == ["json-items="]
