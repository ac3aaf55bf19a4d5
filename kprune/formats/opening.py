"""Files opened for reading: by path, or spooled from a pipe. They are read, never mapped.

A mapped file that somebody truncates kills the process. A read that comes back short is an error
like any other.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kprune.errors import FileError
from kprune.faults import damaged, file_error, shown, temporary
from kprune.limits import PIPE_BYTES
from kprune.types import AnyPath

STANDARD_INPUT = "-"
_CHUNK = 1 << 20
_HEAD = 64


class OpenFile:
    """A file held open, and what it looked like when it was opened.

    Attributes:
        path: as the user named it; None if it came through a pipe.
        name: how messages call it.
        fd: the file descriptor.
        size: in bytes.
    """

    def __init__(self, fd: int, path: Path | None, name: str = "standard input") -> None:
        self.fd = fd
        self.path = path
        self.name = name if path is None else shown(path)
        self._seen = os.fstat(fd)
        self.size = self._seen.st_size

    def __str__(self) -> str:
        return self.name

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` (of bytes) from `offset` on. Raises: FileError if the file is shorter."""
        done = 0
        while done < view.nbytes:
            try:
                count = os.preadv(self.fd, [view[done:]], offset + done)
            except OSError as error:
                raise file_error(error, "read", self) from error
            if count == 0:
                raise FileError(f"{self} became shorter while kprune read it")
            done += count

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on. The caller has checked that the file is that long."""
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def window(self, start: int = 0, size: int | None = None) -> Window:
        """A part of the file as a file of its own."""
        return Window(self, start, self.size - start if size is None else size)

    def check_unchanged(self) -> None:
        """Refuse if somebody wrote to the file, or replaced it, since it was opened."""
        if self.path is None:
            return
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise file_error(error, "read", self) from error
        if _identity(now) != _identity(self._seen):
            raise FileError(
                f"{self} was changed by another program while kprune read it",
                why="what was read may be half old, half new, so nothing was written",
                do="run the command again once the other program is done",
            )

    def close(self) -> None:
        """Close the descriptor. Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Window(io.RawIOBase):
    """A part of an open file, with the interface of a Python file, read only.

    h5py and zipfile read through it. HDF5 takes no lock on such a file, and finds no folder in
    which it could look for other files.

    Attributes:
        file: the file behind it.
        start: where the window begins in the file.
        size: how many bytes it shows.
    """

    def __init__(self, file: OpenFile, start: int, size: int) -> None:
        super().__init__()
        self.file, self.start, self.size = file, start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = (0, self._position, self.size)[whence]
        if origin + offset < 0:
            raise ValueError(f"position {origin + offset} lies before the file")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(view.nbytes, self.size - self._position))
        self.file.read_into(view[:count], self.start + self._position)
        self._position += count
        return count


def open_file(path: AnyPath, starts: tuple[bytes, ...] = ()) -> OpenFile:
    """Open a file, or spool a pipe into an unnamed temporary file.

    Args:
        path: a regular file, a pipe such as bash's `<(...)`, or '-' for standard input.
        starts: see `spooled`.
    Raises: FileError if it is not there, not readable, or a device; LimitError for an endless pipe.
    """
    if os.fspath(path) == STANDARD_INPUT:
        return _standard_input(starts)
    name = Path(path)
    require_file(name)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise file_error(error, "read", shown(name)) from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return OpenFile(fd, name)
    with open(fd, "rb", buffering=0) as pipe:
        return spooled(pipe, shown(name), starts=starts)


def require_file(path: AnyPath) -> None:
    """Raises: FileError if there is no file or pipe at a path, but nothing, or a device."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise file_error(error, "read", shown(path)) from error
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise FileError(f"cannot read {shown(path)}", why="it is not a file")


def _standard_input(starts: tuple[bytes, ...]) -> OpenFile:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or stream.isatty():
        raise FileError(
            "no model comes in on standard input",
            why="it is a terminal or closed",
            do="redirect a file: kprune inspect - < model.keras",
        )
    try:
        fd = stream.fileno()
        if stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            return OpenFile(os.dup(fd), None)  # redirected from a file: no copy needed
    except (OSError, ValueError):
        pass  # not a real file, as in tests and notebooks
    return spooled(stream, "standard input", starts=starts)


def spooled(
    stream: BinaryIO | io.RawIOBase | Any,
    name: str,
    size: int | None = None,
    *,
    starts: tuple[bytes, ...] = (),
) -> OpenFile:
    """Copy a stream into an unnamed temporary file, which is gone when it is closed.

    Args:
        stream: anything with `read(n)`.
        name: how messages call it.
        size: how many bytes it must deliver, if that is known.
        starts: what it may start with. Of one that starts with something else only as much is
            copied as tells what it is: it may have no end.
    """
    with temporary(f"a temporary copy of {name}"), tempfile.TemporaryFile() as copy:
        chunks = _chunks(stream, name)
        head = b""
        while len(head) < _HEAD and (data := next(chunks, b"")):  # a pipe gives few at a time
            head += data
        copy.write(head)
        seen = len(head)
        most = PIPE_BYTES.value if size is None else size
        if starts and not head.startswith(starts):
            most = _CHUNK
        while seen <= most and (data := next(chunks, b"")):
            seen += len(data)
            copy.write(data)
        if size is None and seen > most > _CHUNK:
            raise PIPE_BYTES.exceeded(None, "it", name)
        if size is not None and seen != size:
            raise damaged(name, f"it does not hold the {size} bytes that it says")
        copy.flush()
        return OpenFile(os.dup(copy.fileno()), None, name)


def _chunks(stream: Any, name: str) -> Iterator[bytes]:
    """What a stream delivers. Raises: FileError if it fails."""
    while True:
        try:
            data = stream.read(_CHUNK)
        except OSError as error:
            raise file_error(error, "read", name) from error
        if not data:
            return
        yield data
