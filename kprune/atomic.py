"""Files and folders that come into being whole, or not at all.

What is written goes into the target's folder without a name (or, where the system cannot do that,
under a hidden one), is synced to the disk, and only then takes the target's name, in one step.
Until then an old file of that name stands untouched: whatever happens, a power cut included, leaves
either the old one or the new one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kprune.errors import FileError, UsageError
from kprune.faults import file_error, shown, writing
from kprune.types import AnyPath

STANDARD_OUTPUT = "-"
_CHUNK = 1 << 20
_EXCHANGE = 2  # for renameat2: the two names change places
_WRITE = ctypes.c_uint(2)  # for sync_file_range: begin, and do not wait
_WORKING_FOLDER = -100  # for renameat2: relative paths start here


class NewFile(ABC):
    """A file being written.

    Attributes:
        fd: write here, in any order.
        name: how messages call the file.
    """

    fd: int
    name: str

    @abstractmethod
    def commit(self, check: Callable[[], None]) -> None:
        """Make it the file that was asked for.

        Args:
            check: called when all is on the disk, right before the file gets its name; it may
            raise.
        """

    @abstractmethod
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
    file: NewFile
    if os.fspath(output) == STANDARD_OUTPUT:
        file = _Streamed()
    else:
        target, old = _place(output)
        if old and not stat.S_ISREG(old.st_mode):
            kind = "a folder" if stat.S_ISDIR(old.st_mode) else "a device or a pipe"
            raise UsageError(f"cannot write {shown(output)}", why=f"it is {kind}", do=_ELSEWHERE)
        if old and not force:
            raise _exists(output)
        with writing(shown(output)):
            file = _Sibling(target, shown(output), old, force)
    try:
        with _terminable():
            yield file
    finally:
        file.discard()


_ELSEWHERE = "name another output with -o"


def _exists(output: object) -> UsageError:
    return UsageError(f"{shown(str(output))} exists already", do=f"{_ELSEWHERE}, or add --force")


def _place(output: AnyPath) -> tuple[Path, os.stat_result | None]:
    """Where something will stand, and what stands there now."""
    target = Path(os.path.realpath(output))
    try:
        return target, os.stat(target)
    except FileNotFoundError:
        return target, None
    except OSError as error:
        raise file_error(error, "write", shown(output)) from error


def check_output(output: AnyPath, *, force: bool) -> None:
    """Called before long work whose result is to go there.

    Raises: UsageError if something is there and may not be replaced; FileError if there is no place.
    """
    if os.fspath(output) == STANDARD_OUTPUT:
        check_standard_output()
        return
    if not force and os.path.lexists(output):
        raise _exists(output)
    folder = Path(os.path.realpath(output)).parent
    if not folder.is_dir():
        raise FileError(f"cannot write {shown(output)}", why=f"there is no folder {shown(folder)}")


def check_standard_output() -> None:
    """Raises: UsageError, FileError if standard output does not take a model file."""
    if sys.stdout is None:
        raise FileError("standard output is closed")
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        raise UsageError(
            "standard output does not take a model file",
            why="it is a terminal or a notebook",
            do="redirect it (kprune ... -o - > small.keras) or name a file with -o",
        )


def write_bytes(output: AnyPath, data: bytes, *, force: bool) -> None:
    """Write a file of these bytes; see `new_file`."""
    with new_file(output, force=force) as file:
        put(file, data)
        file.commit(lambda: None)


def put(file: NewFile, data: bytes) -> None:
    """Write all of a new file's content."""
    with writing(file.name):
        view = memoryview(data)
        while view:
            view = view[os.write(file.fd, view) :]


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
                return
        self.fd = self._open_hidden()

    def _open_hidden(self) -> int:
        name = _hidden_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o666, dir_fd=self._folder)
        self._hidden = name
        return fd

    def commit(self, check: Callable[[], None]) -> None:
        with writing(self.name):
            if self.old:
                _inherit(self.fd, self.old)
            os.fsync(self.fd)
        check()
        with writing(self.name):
            self._publish()
            _sync_folder(self._folder)

    def _publish(self) -> None:
        if self._hidden is None:
            self._name_it(_hidden_name() if self.force else self.target.name)
        if self._hidden is None:
            return
        if not self.force:
            try:
                # Unlike a rename, a link refuses to replace a file that came up meanwhile.
                self._link(self._hidden, self.target.name)
                return  # `discard` takes the hidden name away
            except FileExistsError:
                raise _exists(self.name) from None
            except OSError:
                pass  # a file system without hard links
        os.rename(self._hidden, self.target.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._hidden = None

    def _name_it(self, name: str) -> None:
        """Give the unnamed file a name: the target's, or a hidden one."""
        try:
            self._link(f"/proc/self/fd/{self.fd}", name)
        except FileExistsError:
            raise _exists(self.name) from None
        except OSError:  # some layered file systems have unnamed files and then cannot name them
            self._copy_to_hidden()
        else:
            self._hidden = name if name != self.target.name else None

    def _link(self, source: str, name: str) -> None:
        # With a folder's descriptor Python calls linkat, which follows the link that /proc shows.
        os.link(source, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _copy_to_hidden(self) -> None:
        unnamed, self.fd = self.fd, self._open_hidden()
        try:
            os.fchmod(self.fd, stat.S_IMODE(os.fstat(unnamed).st_mode))
            for offset in range(0, os.fstat(unnamed).st_size, _CHUNK):
                os.pwrite(self.fd, os.pread(unnamed, _CHUNK, offset), offset)
            os.fsync(self.fd)
        finally:
            os.close(unnamed)

    def discard(self) -> None:
        if self._hidden is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._hidden, dir_fd=self._folder)
            self._hidden = None
        for fd in (self.fd, self._folder):
            if fd >= 0:
                os.close(fd)
        self.fd = self._folder = -1


def _inherit(fd: int, old: os.stat_result) -> None:
    with suppress(OSError):  # only root may give files away
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o777)


def _hidden_name() -> str:
    return f".kprune-{os.urandom(6).hex()}"


def _sync_folder(fd: int) -> None:
    with suppress(OSError):  # some network file systems know no fsync of a folder
        os.fsync(fd)


class _Streamed(NewFile):
    """An unnamed temporary file that is copied to standard output once it is whole."""

    name = "standard output"

    def __init__(self) -> None:
        check_standard_output()
        with writing("a temporary file"):
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - discard closes it
        self.fd = self._file.fileno()

    def commit(self, check: Callable[[], None]) -> None:
        check()
        with writing(self.name):
            sys.stdout.flush()
            for offset in range(0, os.fstat(self.fd).st_size, _CHUNK):
                _to_standard_output(os.pread(self.fd, _CHUNK, offset))

    def discard(self) -> None:
        self._file.close()


def _to_standard_output(data: bytes) -> None:
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by something in memory
        sys.stdout.buffer.write(data)
        return
    # Past Python's buffer: what a broken pipe leaves in there would be tried again at exit.
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class NewFolder:
    """A folder being written.

    Attributes:
        path: write here; hidden beside the target.
        name: how messages call the target.
    """

    def __init__(self, path: Path, target: Path, name: str, old: os.stat_result | None) -> None:
        self.path, self.target, self.name, self.old = path, target, name, old

    def commit(self, check: Callable[[], None]) -> None:
        """Make it the folder that was asked for; see `NewFile.commit`."""
        with writing(self.name):
            if self.old:
                os.chmod(self.path, self.old.st_mode & 0o777)
            for folder, _, files in os.walk(self.path):
                for item in (*(os.path.join(folder, file) for file in files), folder):
                    _sync_path(item)
        check()
        with writing(self.name):
            if self.old is None:
                os.rename(self.path, self.target)
            elif not _exchange(self.path, self.target):
                _swap(self.path, self.target)
            _sync_path(self.target.parent)


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
    name = shown(output)
    if os.fspath(output) == STANDARD_OUTPUT:
        raise UsageError("a model folder cannot go to standard output", do=_ELSEWHERE)
    target, old = _place(output)
    if old and not stat.S_ISDIR(old.st_mode):
        raise UsageError(
            f"cannot write {name}",
            why="it is a file, and the input is a folder, so the output is one too",
            do=_ELSEWHERE,
        )
    if old and not force:
        raise _exists(output)
    if old and not replaceable(target):
        raise UsageError(
            f"cannot replace {name}",
            why="the folder holds something other than a model",
            do=_ELSEWHERE,
        )
    hidden = target.parent / _hidden_name()
    try:
        with _terminable():
            with writing(name):
                hidden.mkdir()
            yield NewFolder(hidden, target, name, old)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)  # the new one if it failed, else the old one


def _sync_path(path: str | Path) -> None:
    if os.path.islink(path):
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step. False where the system has no such call."""
    call = _system_call("renameat2")
    here = ctypes.c_int(_WORKING_FOLDER)
    names = os.fsencode(one), os.fsencode(other)
    return call is not None and not call(here, names[0], here, names[1], ctypes.c_uint(_EXCHANGE))


def start_writeback(fd: int, offset: int, size: int) -> None:
    """Let the disk begin with what was just written, so that less is left to wait for at the end.

    Linux's sync_file_range promises nothing, and nothing is lost where it is missing or refuses.
    """
    call = _system_call("sync_file_range")
    if call is not None:
        call(ctypes.c_int(fd), ctypes.c_int64(offset), ctypes.c_int64(size), _WRITE)


@cache
def _system_call(name: str) -> Callable[..., int] | None:
    """A function of the C library that Python's os module does not offer; None if it has none."""
    return getattr(ctypes.CDLL(None), name, None)


def _swap(new: Path, target: Path) -> None:
    """The same in three steps; a power cut in between leaves the old folder under a hidden name."""
    aside = target.parent / _hidden_name()
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(aside, target)
        raise
    os.rename(aside, new)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise, so that what is hidden is removed; not if the program has a handler."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
