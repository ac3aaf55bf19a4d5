"""Hidden names beside a target, the locks of their writers, and what killed writers left.

A hidden name tells which target it is for. Its writer holds a lock on it (flock), which the system
takes away when the process ends, however it ends: what is not locked belongs to nobody. Where a
file system has no such locks, nothing is taken for a leftover.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kprune.errors import RestoredWarning
from kprune.faults import shown

HIDDEN = ".kprune-"
"""What every hidden name starts with."""

ASIDE = ".old"  # ends the hidden name of a folder that another one is about to replace


def hidden_name(target: Path) -> str:
    """A new hidden name for what is to become `target`."""
    return f"{_start(target)}{os.urandom(6).hex()}"


def _start(target: Path) -> str:
    import hashlib

    return f"{HIDDEN}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


def lock(fd: int, again: Callable[[], os.stat_result]) -> bool:
    """Lock something hidden that was just made.

    Args:
        fd: its descriptor.
        again: looks at its name.
    Returns: False if somebody took it for a leftover in the moment before; then make another one.
    """
    try:
        _take_lock(fd)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN)  # else it knows no locks
    try:
        return os.path.samestat(os.fstat(fd), again())
    except FileNotFoundError:
        return False


def _take_lock(fd: int) -> None:
    """Raises: OSError if another process has it, or where there are no such locks."""
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from error
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def new_hidden_folder(target: Path, *, private: bool) -> tuple[Path, int]:
    """A hidden folder beside a target; its path, and the descriptor that holds its lock.

    Args:
        private: whether nobody else may look into it; else as the umask says.
    Raises: OSError.
    """
    while True:
        path = target.parent / hidden_name(target)
        path.mkdir(0o700 if private else 0o777)
        fd = locked_folder(path)
        if fd is not None:
            return path, fd


def locked_folder(path: Path) -> int | None:
    """Lock a folder that was just made. None if somebody took it for a leftover in the moment before.

    Raises: OSError.
    """
    try:
        fd = open_folder(path)
    except FileNotFoundError:
        return None
    except OSError:
        path.rmdir()
        raise
    if lock(fd, path.stat):
        return fd
    os.close(fd)
    return None


def open_folder(path: Path) -> int:
    """A folder's descriptor. Raises: OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def remove(path: Path) -> None:
    """Remove something hidden; what cannot be removed now is a leftover for the next run."""
    shutil.rmtree(path, ignore_errors=True)


def put_right(target: Path) -> None:
    """Put right what killed writers of a target left.

    A folder that was set aside, with nothing in its place, goes back (a `RestoredWarning` says so);
    all else is removed. What a living process holds is left alone.
    """
    start = _start(target)
    with suppress(OSError):
        # The one that was set aside first: it may be all that there is.
        names = [name for name in os.listdir(target.parent) if name.startswith(start)]
        for name in sorted(names, key=lambda name: not name.endswith(ASIDE)):
            _settle(target.parent / name, target)


def put_back(target: Path) -> bool:
    """Put back what a killed writer had set aside, if nothing stands there. Whether something does now."""
    if not os.path.lexists(target):
        put_right(Path(os.path.realpath(target)))
    return os.path.lexists(target)


def _settle(leftover: Path, target: Path) -> None:
    with _held(leftover) as held:
        if not held:
            return
        if leftover.name.endswith(ASIDE) and not os.path.lexists(target):
            os.rename(leftover, target)
            text = f"{shown(target)} is back: a run that was killed had set it aside"
            warnings.warn(text, RestoredWarning, stacklevel=2)
        elif leftover.is_dir():
            remove(leftover)
        else:
            leftover.unlink()


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold a leftover of this user's. False if it is somebody else's, or its writer lives."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError:
        yield False
        return
    try:
        yield _is_abandoned(fd)
    finally:
        os.close(fd)


def _is_abandoned(fd: int) -> bool:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or not (
        stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    ):
        return False
    try:
        _take_lock(fd)
    except OSError:
        return False
    return True


def remove_abandoned(folder: Path, start: str) -> None:
    """Remove folders of this user's that killed processes left.

    Args:
        folder: where they are.
        start: what their names start with; those who make them hold a lock.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(start):
                with _held(folder / name) as held:
                    if held:
                        remove(folder / name)
