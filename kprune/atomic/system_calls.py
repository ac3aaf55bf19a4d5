"""Calls that Python does not offer, or that not every system knows."""

from __future__ import annotations

import ctypes
import errno
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from kprune.errors import UnsyncedWarning
from kprune.types import AnyPath

_NO_REPLACE, _EXCHANGE = 1, 2  # for renameat2: refuse a name that is taken; change places
_WRITE = ctypes.c_uint(2)  # for sync_file_range: begin, and do not wait
_WORKING_FOLDER = -100  # for renameat2: relative paths start here
# What a system or a file system says of a call that it does not know.
UNKNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY})


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step. False where the system has no such call.

    Raises: OSError if it refuses.
    """
    return _renamed(one, other, _EXCHANGE)


def rename_to_free_name(one: Path, other: Path) -> None:
    """Rename a file or folder. Raises: FileExistsError if the name is taken, OSError."""
    if _renamed(one, other, _NO_REPLACE):
        return
    if os.path.lexists(other):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    try:
        os.rename(one, other)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        raise


def _renamed(one: Path, other: Path, flag: int) -> bool:
    call = _system_call("renameat2")
    if call is None:
        return False
    here = ctypes.c_int(_WORKING_FOLDER)
    if not call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(flag)):
        return True
    number = ctypes.get_errno()
    if number in UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(other))


def write_all(fd: int, data: bytes) -> None:
    """Write to the last byte, however little the system takes at a time. Raises: OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def start_writeback(fd: int, offset: int, size: int) -> None:
    """Let the disk begin with what was just written, so that less is left to wait for at the end.

    Linux's sync_file_range promises nothing, and nothing is lost where it is missing or refuses.
    """
    call = _system_call("sync_file_range")
    if call is not None:
        call(ctypes.c_int(fd), ctypes.c_int64(offset), ctypes.c_int64(size), _WRITE)


@cache
def _system_call(name: str) -> Callable[..., int] | None:
    """A function of the C library; None if it has none of that name."""
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)


def sync_folder(fd: int, name: str) -> None:
    """Put on the disk that something in a folder has its name now.

    Too late to undo it: where it fails, that is said by an `UnsyncedWarning`. Some file systems
    know no such call, and have nothing to tell.

    Args:
        fd: of the folder.
        name: how messages call what was written.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in UNKNOWN and error.errno != errno.EBADF:
            why = error.strerror or str(error)
            text = f"{name} is written, but the system does not confirm that its name is on the disk: {why}"
            warnings.warn(text, UnsyncedWarning, stacklevel=2)


def inherit(new: int | Path, path: AnyPath, old: os.stat_result) -> None:
    """Give something new the owner, mode, access list and attributes of what it replaces.

    Args:
        new: its descriptor or path.
        path, old: of what it replaces.
    """
    for owner in ((old.st_uid, old.st_gid), (-1, old.st_gid)):  # only root may give files away
        try:
            os.chown(new, *owner)
            break
        except OSError:
            continue
    os.chmod(new, old.st_mode & 0o777)
    with suppress(OSError, AttributeError):  # not every system has such attributes
        for name in os.listxattr(path):
            if name.startswith("user.") or name == "system.posix_acl_access":
                with suppress(OSError):
                    os.setxattr(new, name, os.getxattr(path, name))
