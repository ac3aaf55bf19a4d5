"""Folders that take the place of others, in one step or in three."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from kprune import atomic
from kprune.atomic import folders
from kprune.errors import FileError
from tests.formats.making import left_in


def test_folders_change_names_in_one_step_or_in_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for in_one in (True, False):
        if not in_one:
            monkeypatch.setattr(folders, "exchange", lambda *_: False)
        base = tmp_path / str(in_one)
        target = base / "model"
        target.mkdir(parents=True)
        (target / "old").touch()
        with atomic.new_folder(target, force=True, replaceable=lambda _: True) as new:
            (new.path / "new").touch()
            new.commit(lambda: None)
        assert left_in(base) == {"model"} and left_in(target) == {"new"}


def test_a_failed_swap_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "exchange", lambda *_: False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    rename, calls = os.rename, 0

    def failing(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EIO, "no")
        rename(*args)

    monkeypatch.setattr(os, "rename", failing)
    with (
        pytest.raises(FileError, match="input/output error"),
        atomic.new_folder(tmp_path / "model", force=True, replaceable=lambda _: True) as new,
    ):
        new.commit(lambda: None)
    assert left_in(tmp_path) == {"model"} and left_in(tmp_path / "model") == {"old"}
