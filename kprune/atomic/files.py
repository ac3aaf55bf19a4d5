"""A file being written: without a name, or under a hidden one, until it is whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from kprune.atomic.hidden import hidden_name, lock
from kprune.atomic.places import ELSEWHERE, STANDARD_OUTPUT, is_stream, place, taken
from kprune.atomic.standard_output import Streamed
from kprune.atomic.system_calls import inherit, rename_to_free_name, sync_folder, write_all
from kprune.errors import FileError, UsageError
from kprune.faults import shown, writing
from kprune.interruption import end_if_asked, note_written, terminable, undisturbed
from kprune.types import AnyPath

_CHUNK = 1 << 20


class NewFile(Protocol):
    """A file being written.

    Attributes:
        fd: write here, in any order.
        name: how messages call the file.
    """

    fd: int
    name: str

    def commit(self, check: Callable[[], None]) -> None:
        """Make it the file that was asked for.

        Args:
            check: called when all is on the disk, right before the file gets its name; it may
                raise.
        """

    def discard(self) -> None:
        """Leave nothing behind, unless it was committed."""


@contextmanager
def new_file(output: AnyPath, *, force: bool) -> Iterator[NewFile]:
    """Begin a file; only `commit` makes it stay.

    Args:
        output: its path; a symbolic link stands for what it points to; '-' is standard output.
        force: whether an existing file may be replaced. It passes its mode on.
    Raises: UsageError if the path is taken, or no place for a file; FileError if the system
        refuses.
    """
    end_if_asked()
    with terminable():
        file = _begun(output, force)
        try:
            yield file
        finally:
            file.discard()


def _begun(output: AnyPath, force: bool) -> NewFile:
    if os.fspath(output) == STANDARD_OUTPUT:
        return Streamed()
    target, old = place(output)
    if old and not stat.S_ISREG(old.st_mode):
        kind = "a folder" if stat.S_ISDIR(old.st_mode) else "a device or a pipe"
        raise UsageError(f"cannot write {shown(output)}", why=f"it is {kind}", do=ELSEWHERE)
    if old and not force:
        raise taken(output)
    with writing(shown(output)):
        return _Sibling(target, shown(output), old, force)


def write_bytes(output: AnyPath, data: bytes, *, force: bool) -> None:
    """Write a file of these bytes, whole or not at all; a device or a pipe gets them as it is."""
    if is_stream(output):
        with writing(shown(output)):
            fd = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
        return
    with new_file(output, force=force) as file:
        put(file, data)
        file.commit(lambda: None)


def put(file: NewFile, data: bytes) -> None:
    """Write all of a new file's content."""
    with writing(file.name):
        write_all(file.fd, data)


class _Sibling(NewFile):
    """A file without a name in the target's folder, or with a hidden one where it needs one."""

    def __init__(self, target: Path, name: str, old: os.stat_result | None, force: bool) -> None:
        self.target, self.name, self.old, self.force = target, name, old, force
        self._hidden: str | None = None
        self._folder = self.fd = -1
        try:
            self._folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            why = f"there is no folder {shown(target.parent)}"
            raise FileError(f"cannot write {name}", why=why) from None
        try:
            self._open()
        except BaseException:
            self.discard()
            raise

    def _open(self) -> None:
        if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
            with suppress(OSError):  # few network file systems have unnamed files
                flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
                self.fd = os.open(".", flags, 0o666, dir_fd=self._folder)
                lock(self.fd, lambda: os.fstat(self.fd))  # it may need a hidden name later on
                return
        self.fd = self._open_hidden()

    def _open_hidden(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            self._hidden = name = hidden_name(self.target)
            mode = 0o600 if self.old else 0o666  # it gets the old one's in the end
            fd = os.open(name, flags, mode, dir_fd=self._folder)
            if lock(fd, lambda name=name: os.stat(name, dir_fd=self._folder)):  # type: ignore[misc]
                return fd
            os.close(fd)

    def commit(self, check: Callable[[], None]) -> None:
        with writing(self.name):
            if self.old:
                inherit(self.fd, self.target, self.old)
            os.fsync(self.fd)
        check()
        with undisturbed():
            with writing(self.name):
                self._publish()
            note_written(self.target)
        sync_folder(self._folder, self.name)

    def _publish(self) -> None:
        if self._hidden is None and self._name_it():
            return
        assert self._hidden is not None
        if not self.force:
            self._take_free_name(self._hidden)
            return
        os.rename(self._hidden, self.target.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _name_it(self) -> bool:
        """Give the unnamed file the target's name if that is free, else a hidden one: False."""
        self._hidden = hidden_name(self.target) if self.force else None
        try:
            self._link(f"/proc/self/fd/{self.fd}", self._hidden or self.target.name)
            return not self.force
        except FileExistsError:
            raise taken(self.name) from None
        except OSError:  # some layered file systems have unnamed files and then cannot name them
            self._copy_to_hidden()
            return False

    def _take_free_name(self, hidden: str) -> None:
        """Unlike a plain rename, this refuses to replace a file that came up meanwhile."""
        try:
            self._link(hidden, self.target.name)  # `discard` takes the hidden name away
        except FileExistsError:
            raise taken(self.name) from None
        except OSError:  # a file system without hard links
            try:
                rename_to_free_name(self.target.with_name(hidden), self.target)
            except FileExistsError:
                raise taken(self.name) from None

    def _link(self, source: str, name: str) -> None:
        # With a folder's descriptor Python calls linkat, which follows the link that /proc shows.
        os.link(source, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _copy_to_hidden(self) -> None:
        unnamed, self.fd = self.fd, self._open_hidden()
        try:
            if self.old:
                inherit(self.fd, self.target, self.old)
            os.lseek(unnamed, 0, os.SEEK_SET)
            while data := os.read(unnamed, _CHUNK):
                write_all(self.fd, data)
            os.fsync(self.fd)
        finally:
            os.close(unnamed)

    def discard(self) -> None:
        if self._hidden is not None:
            with suppress(OSError):  # gone already; or a leftover, which the next run removes
                os.unlink(self._hidden, dir_fd=self._folder)
            self._hidden = None
        for fd in (self.fd, self._folder):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self.fd = self._folder = -1
