"""What can go wrong with a file, as sentences: nothing else that a parser raises gets out."""

from __future__ import annotations

import errno
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from kprune.errors import DamagedFileError, FileError, KpruneError
from kprune.text import clean
from kprune.types import AnyPath

# All that zipfile, json and h5py were seen to raise on damaged input, 40 000 mutations long.
PARSER_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    json.JSONDecodeError,
    UnicodeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    MemoryError,
    OSError,
)

_LONGEST_PATH = 160
_TEMPORARY = "free some space there, or set TMPDIR to another folder"
FULL = (errno.ENOSPC, errno.EDQUOT)

_PLAIN = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of its path is not a folder",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "the system does not permit it",
    errno.EROFS: "the disk is mounted read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EMFILE: "too many files are open",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EIO: "the disk reports an input/output error",
    errno.EPIPE: "its reader has closed it",
}


class Temporary(str):
    """How messages call a file in the system's temporary folder."""


def file_error(error: OSError, doing: str, path: object) -> FileError:
    """The refusal for something the operating system refused.

    Args:
        doing: "read" or "write".
        path: the file, as the user named it; or a `Temporary` one.
    """
    if isinstance(path, Temporary):
        return _temporary_error(error, doing, path)
    why = _PLAIN.get(error.errno or 0) or clean(error.strerror or error)
    return FileError(f"cannot {doing} {shown(str(path))}", why=why)


def _temporary_error(error: OSError, doing: str, what: str) -> FileError:
    import tempfile

    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:  # it has tried several, and none took a file
        return FileError(
            f"cannot {doing} {what}", why="there is no usable temporary folder", do=_TEMPORARY
        )
    why = _PLAIN.get(error.errno or 0) or clean(error.strerror or error)
    if error.errno in FULL:
        why = f"{why}: that of the temporary folder"
    return FileError(f"cannot {doing} {what}", where=shown(folder), why=why, do=_TEMPORARY)


def damaged(path: object, why: str, *, where: str = "") -> DamagedFileError:
    """The refusal for a file that contradicts itself.

    Args:
        path: the file, as the user named it.
        why: a clause on what is wrong with it.
        where: the part of the file that is wrong.
    """
    return DamagedFileError(
        f"{shown(str(path))} is damaged",
        where=where,
        why=why,
        do="get a whole copy of the file, or load and save it in Keras if Keras still can",
    )


@contextmanager
def parsing(path: object, where: str) -> Iterator[None]:
    """Turn every fault of a parser into a refusal that names the file and the part of it.

    Args:
        path: the file, as the user named it.
        where: the part being read, such as "config.json".
    Raises: DamagedFileError, or FileError if the system could not read.
    """
    try:
        yield
    except KpruneError:
        raise
    except OSError as error:
        # HDF5 says OSError for whatever it does not understand; only the system's own have a number
        # that the system knows.
        if error.errno in _PLAIN:
            raise file_error(error, "read", path) from error
        raise damaged(path, _reason(error), where=where) from error
    except PARSER_FAULTS as error:
        raise damaged(path, _reason(error), where=where) from error


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Turn what the system refuses while writing into a FileError."""
    try:
        yield
    except OSError as error:
        raise file_error(error, "write", path) from error


@contextmanager
def temporary(what: str) -> Iterator[None]:
    """Turn what the system refuses of temporary files into a FileError that names their folder.

    Args:
        what: such as "a temporary folder".
    """
    with writing(Temporary(what)):
        yield


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    # A KeyError as text is the key's repr.
    text = clean(error.args[0] if isinstance(error, KeyError) and error.args else error, 160)
    return text or type(error).__name__


def shown(path: AnyPath) -> str:
    """How messages call a file: by its path, fit to be printed; of a long one the end."""
    text = clean(os.fspath(path), 10_000)
    return text if len(text) <= _LONGEST_PATH else "…" + text[1 - _LONGEST_PATH :]
