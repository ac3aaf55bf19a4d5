"""Folders that take the place of others, in one step or in two."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from kprune import atomic
from kprune.atomic import NewFolder, copy_file, folders, put_file
from kprune.errors import FileError, UsageError
from tests.formats.making import left_in


def test_folders_change_names_in_one_step_or_in_two(
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


def begun(target: Path, *, force: bool) -> AbstractContextManager[NewFolder]:
    return atomic.new_folder(
        target, force=force, replaceable=lambda folder: not (folder / "mine").exists()
    )


@pytest.mark.parametrize("in_one", [True, False], ids=["exchanged", "swapped"])
def test_of_two_at_a_time_the_last_one_with_force_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_one: bool
) -> None:
    if not in_one:
        monkeypatch.setattr(folders, "exchange", lambda *_: False)
    target = tmp_path / "model"
    with begun(target, force=True) as one, begun(target, force=True) as two:
        for new, name in ((one, "one"), (two, "two")):
            (new.path / name).touch()
            new.commit(lambda: None)
    assert left_in(tmp_path) == {"model"} and left_in(target) == {"two"}


def test_of_two_at_a_time_the_first_one_without_force_stands(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with begun(target, force=False) as one, begun(target, force=False) as two:
        (one.path / "one").touch()
        one.commit(lambda: None)
        with pytest.raises(UsageError, match="exists already"):
            two.commit(lambda: None)
    assert left_in(tmp_path) == {"model"} and left_in(target) == {"one"}


def test_a_folder_of_another_kind_that_comes_up_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with begun(target, force=True) as new:
        target.mkdir()
        (target / "mine").touch()
        with pytest.raises(UsageError, match="something other than a model"):
            new.commit(lambda: None)
    assert left_in(tmp_path) == {"model"} and left_in(target) == {"mine"}


def test_a_file_that_comes_up_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with begun(target, force=True) as new:
        target.write_text("mine")
        with pytest.raises(UsageError, match="it is a file"):
            new.commit(lambda: None)
    assert left_in(tmp_path) == {"model"} and target.read_text() == "mine"


@pytest.mark.parametrize("at", [1, 2])
def test_a_signal_between_two_renames_leaves_a_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(folders, "exchange", lambda *_: False)
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename, calls = os.rename, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        rename(*arguments)
        if calls == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), begun(target, force=True) as new:
        (new.path / "new").touch()
        new.commit(lambda: None)
    assert left_in(target) == {"old" if at == 1 else "new"}
    with begun(target, force=True):
        pass
    assert left_in(tmp_path) == {"model"}


def test_a_folder_passes_its_mode_on_and_files_get_what_the_umask_leaves(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    target.chmod(0o750)
    before = os.umask(0o027)
    try:
        with begun(target, force=True) as new:
            put_file(new.path / "file", b"")
            new.commit(lambda: None)
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o7777 == 0o750
    assert (target / "file").stat().st_mode & 0o7777 == 0o640


def test_a_copy_that_ends_early_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_bytes(bytes(1000))
    monkeypatch.setattr(shutil, "copy", lambda one, two: two.write_bytes(bytes(999)))
    with pytest.raises(FileError, match="was not copied whole"):
        copy_file(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("stands", [True, False])
def test_a_hidden_folder_that_somebody_has_removed_is_an_error(
    tmp_path: Path, stands: bool
) -> None:
    target = tmp_path / "model"
    with begun(target, force=True) as new:
        if stands:
            target.mkdir()

        def removed() -> None:
            new.path.rmdir()

        with pytest.raises(FileError, match="there is no such file"):
            new.commit(removed)
    assert left_in(tmp_path) == ({"model"} if stands else set())
