"""The folder beside an output: what a killed run left in it stands in nobody's way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kprune.atomic import HIDDEN
from kprune.errors import UsageError
from kprune.train.work_folder import WorkFolder


class Folder(WorkFolder):
    work = "work"
    ours = re.compile(r"state\.json|part")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "model.work", {})
    made.folder.mkdir()
    (made.folder / "part").touch()
    return made


def test_what_was_being_written_when_a_run_was_killed_is_its_own(folder: Folder) -> None:
    (folder.folder / f"{HIDDEN}0123-4567").mkdir()
    folder.refuse_if_there(force=False)
    assert not folder.folder.exists()


def test_what_somebody_else_put_there_is_kept(folder: Folder) -> None:
    (folder.folder / "notes.txt").touch()
    with pytest.raises(UsageError, match="is in the way"):
        folder.refuse_if_there(force=True)
    folder.remove()
    assert [path.name for path in folder.folder.iterdir()] == ["notes.txt"]
