"""The bar: on a terminal, after a while, and gone in the end."""

from __future__ import annotations

import io

import pytest

from kprune.cli import progress
from kprune.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, patience: float) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress, "PATIENCE", patience)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("writing") as bar:
        for done in range(0, 101, 10):
            bar(done * 1000, 100_000)
    return stream.getvalue()


def test_long_work_on_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "writing" in shown(monkeypatch, Terminal(), patience=0)


def test_short_work_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal(), patience=60) == ""


def test_there_is_none_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), patience=0) == ""
