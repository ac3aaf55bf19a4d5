"""Temporary folders: those of killed processes go, those of living ones stay."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from kprune.atomic import TemporaryFolder
from kprune.atomic.temporary import START
from kprune.errors import FileError
from tests.formats.making import left_in


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_killed_processes_left_is_removed_with_the_next_one(place: Path) -> None:
    for name in (f"{START}dead", "kprune-of-the-users-own", "other"):
        (place / name).mkdir()
        (place / name / "file").touch()
    with TemporaryFolder() as first, TemporaryFolder() as second:
        assert left_in(place) == {
            "kprune-of-the-users-own",
            "other",
            Path(first).name,
            Path(second).name,
        }
    assert left_in(place) == {"kprune-of-the-users-own", "other"}


def test_a_temporary_folder_that_cannot_be_made_is_a_plain_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "none"))
    with pytest.raises(FileError, match="cannot write a temporary folder") as refused:
        TemporaryFolder()
    assert refused.value.where == str(place / "none")
