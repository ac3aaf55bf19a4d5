"""What killed writers leave is put right by the next one; what a living one holds is left alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kprune.atomic import hidden, new_file, new_folder, put, put_back, work_folder
from kprune.atomic.hidden import ASIDE, hidden_name, lock, new_hidden_folder, open_folder
from kprune.errors import RestoredWarning
from tests.formats.making import left_in


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model"


def abandoned(target: Path, *, aside: bool = False, folder: bool = True) -> Path:
    """Something hidden whose writer was killed."""
    path = target.parent / f"{hidden_name(target)}{ASIDE if aside else ''}"
    if folder:
        path.mkdir()
        (path / "part").write_text("part")
    else:
        path.write_text("part")
    return path


def write_folder(target: Path) -> None:
    with new_folder(target, force=True, replaceable=lambda _: True) as new:
        (new.path / "new").touch()
        new.commit(lambda: None)


def write_file(target: Path) -> None:
    with new_file(target, force=True) as new:
        put(new, b"new")
        new.commit(lambda: None)


@pytest.mark.parametrize("write", [write_folder, write_file])
@pytest.mark.parametrize("folder", [True, False])
def test_the_next_writer_of_a_target_removes_what_was_left(
    target: Path, write: object, folder: bool
) -> None:
    assert callable(write)
    abandoned(target, folder=folder)
    abandoned(target, folder=folder)
    write(target)
    assert left_in(target.parent) == {"model"}


def test_what_was_left_of_another_target_is_no_concern(target: Path) -> None:
    other = abandoned(target.with_name("other"))
    write_file(target)
    assert left_in(target.parent) == {"model", other.name}


@pytest.mark.parametrize("stands", [True, False], ids=["replaced", "missing"])
def test_a_folder_that_was_set_aside_goes_back_if_nothing_stands_there(
    target: Path, stands: bool
) -> None:
    abandoned(target, aside=True)
    if stands:
        target.mkdir()
        assert put_back(target)
        write_folder(target)
    else:
        with pytest.warns(RestoredWarning, match="model is back"):
            assert put_back(target)
        assert left_in(target) == {"part"}
    assert stands or left_in(target.parent) == {"model"}


def test_a_folder_that_was_set_aside_is_not_taken_for_a_free_name(target: Path) -> None:
    abandoned(target, aside=True)
    refused = pytest.raises(Exception, match="exists already")
    with (
        pytest.warns(RestoredWarning),
        refused,
        new_folder(target, force=False, replaceable=lambda _: True),
    ):
        pass
    assert left_in(target) == {"part"}


LIVING = """
    import sys
    from pathlib import Path
    from kprune.atomic import new_file, new_folder, work_folder
    target = Path(sys.argv[1])
    import os
    if sys.argv[2] == "hidden":
        del os.O_TMPFILE
    making = {
        "folder": lambda: new_folder(target, force=True, replaceable=lambda _: True),
        "hidden": lambda: new_file(target, force=True),
        "work": lambda: work_folder(target),
    }
    with making[sys.argv[2]]() as new:
        print("there", flush=True)
        sys.stdin.read()
        if sys.argv[2] != "work":
            new.commit(lambda: None)
"""


@pytest.mark.parametrize("kind", ["folder", "hidden", "work"])
def test_what_a_living_process_holds_is_left_alone(target: Path, kind: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(LIVING), str(target), kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "there\n"
        before = left_in(target.parent)
        assert len(before) == 1
        (write_folder if kind == "folder" else write_file)(target)
        assert left_in(target.parent) == before | {"model"}
        process.stdin.close()
        assert process.wait(30) == 0
    assert left_in(target.parent) == {"model"}


def test_what_belongs_to_another_user_is_left_alone(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = abandoned(target)
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    write_file(target)
    assert left_in(target.parent) == {"model", left.name}


def test_a_link_that_looks_like_a_leftover_is_not_followed(target: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").touch()
    (target.parent / hidden_name(target)).symlink_to(mine)
    write_file(target)
    assert left_in(mine) == {"file"}


@pytest.mark.parametrize("before", ["it is opened", "it is locked"])
def test_a_folder_that_was_taken_for_a_leftover_is_made_anew(
    target: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Between the making of a folder and its lock another writer may come by."""
    real, made = {"it is opened": open_folder, "it is locked": lock}[before], []

    def late(what: Any, *more: Any) -> Any:
        made.append(left_in(target.parent))
        if len(made) == 1:
            (target.parent / made[0].pop()).rmdir()
        return real(what, *more)

    monkeypatch.setattr(hidden, real.__name__, late)
    path, fd = new_hidden_folder(target, private=True)
    os.close(fd)
    assert len(made) == 2 and left_in(target.parent) == made[1] == {path.name}


def test_a_work_folder_is_gone_afterwards_with_all_that_is_in_it(target: Path) -> None:
    with work_folder(target) as folder:
        assert stat.S_ISDIR(folder.stat().st_mode) and folder.parent == target.parent
        (folder / "file").touch()
    assert left_in(target.parent) == set()
