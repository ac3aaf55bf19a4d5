"""A folder being written: whole under a hidden name, then renamed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kprune.atomic import hidden
from kprune.atomic.places import ELSEWHERE, STANDARD_OUTPUT, place, taken
from kprune.atomic.system_calls import (
    exchange,
    inherit,
    rename_to_free_name,
    sync_folder,
    write_all,
)
from kprune.errors import FileError, UsageError
from kprune.faults import shown, writing
from kprune.interruption import end_if_asked, note_written, terminable, undisturbed
from kprune.types import AnyPath


class NewFolder:
    """A folder being written.

    Attributes:
        path: write here; hidden beside the target.
        name: how messages call the target.
    """

    def __init__(self, path: Path, place: _Place) -> None:
        self.path, self.name, self._place = path, place.name, place

    def commit(self, check: Callable[[], None]) -> None:
        """Make it the folder that was asked for; see `NewFile.commit`."""
        target, old = self._place.target, self._place.old
        with writing(self.name):
            if old:
                inherit(self.path, target, old)
            _sync_tree(self.path)
            parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            check()
            with undisturbed():
                with writing(self.name):
                    self._publish(target)
                note_written(target)
            sync_folder(parent, self.name)
        finally:
            os.close(parent)

    def _publish(self, target: Path) -> None:
        while True:
            if not os.path.lexists(target):
                with suppress(FileExistsError):
                    rename_to_free_name(self.path, target)
                    return
            # Something may have come up meanwhile.
            self._place.check(os.lstat(target))
            try:
                if not exchange(self.path, target):
                    _swap(self.path, target)
                return
            except FileNotFoundError:
                if not self.path.exists():  # else the target has gone meanwhile
                    raise


class _Place:
    """Where a folder goes, and what may be replaced there."""

    def __init__(self, output: AnyPath, force: bool, replaceable: Callable[[Path], bool]) -> None:
        self.name, self._force, self._replaceable = shown(output), force, replaceable
        if os.fspath(output) == STANDARD_OUTPUT:
            raise UsageError("a model folder cannot go to standard output", do=ELSEWHERE)
        self.target, self.old = place(output)
        if self.old:
            self.check(self.old)

    def check(self, found: os.stat_result) -> None:
        """Raises: UsageError if what stands there may not be replaced."""
        if not stat.S_ISDIR(found.st_mode):
            why = "it is a file, and the input is a folder, so the output is one too"
            raise UsageError(f"cannot write {self.name}", why=why, do=ELSEWHERE)
        if not self._force:
            raise taken(self.name)
        if not self._replaceable(self.target):
            why = "the folder holds something other than a model"
            raise UsageError(f"cannot replace {self.name}", why=why, do=ELSEWHERE)


@contextmanager
def new_folder(
    output: AnyPath, *, force: bool, replaceable: Callable[[Path], bool]
) -> Iterator[NewFolder]:
    """Begin a folder; only `commit` makes it stay.

    Args:
        output: its path.
        force: whether an existing folder may be replaced, with all that is in it.
        replaceable: tells whether an existing folder is of the kind that `force` is meant for.
    Raises: UsageError if the path is taken, or no place for a folder; FileError if the system
        refuses.
    """
    end_if_asked()
    where = _Place(output, force, replaceable)
    with terminable():
        with writing(where.name):
            path, fd = hidden.new_hidden_folder(where.target, private=where.old is not None)
        try:
            yield NewFolder(path, where)
        finally:
            hidden.remove(path)  # the new one if it failed, else the old one
            os.close(fd)


def _sync_tree(folder: Path) -> None:
    for place_, _, files in os.walk(folder):
        for item in (*(os.path.join(place_, file) for file in files), place_):
            if not os.path.islink(item):
                _sync_path(item)


def _sync_path(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _swap(new: Path, target: Path) -> None:
    """The same in two steps; what is killed in between is put right by the next run."""
    aside = target.parent / f"{hidden.hidden_name(target)}{hidden.ASIDE}"
    fd = hidden.open_folder(target)  # held, so that nobody takes it for a leftover
    try:
        hidden.lock(fd, target.stat)
        os.rename(target, aside)
        os.rename(new, target)
        hidden.remove(aside)
    finally:
        if not os.path.lexists(target):
            with suppress(FileNotFoundError):
                os.rename(aside, target)
        os.close(fd)


def put_file(path: Path, data: bytes) -> None:
    """Write a file in a new folder. Raises: OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def copy_file(source: AnyPath, target: AnyPath) -> None:
    """Copy a file with its mode into a new folder. Raises: OSError; FileError if less arrived than was there."""
    shutil.copy(source, target)
    if os.path.getsize(source) != os.path.getsize(target):
        raise FileError(f"{shown(source)} was not copied whole", do="run the command again")
