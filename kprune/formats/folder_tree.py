"""What stands in the folder of a model: files and folders, and links that stay inside.

A link may lead to any file of the reader's, and a copy of the model would then hold that file. A
pipe or a device never ends, or does something when it is opened. Both are found by looking at the
names alone: nothing in the folder is opened here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kprune.errors import CannotPruneError, FileError, KpruneError
from kprune.faults import file_error, shown
from kprune.text import clean


def check_tree(folder: Path, *, trust: bool) -> None:
    """Refuse a folder that holds something else than its own files.

    Args:
        folder: it may be named by a link itself: that is the user's.
        trust: whether links to files elsewhere are followed.
    Raises: CannotPruneError for a link that leaves the folder, FileError for a link to a folder or
        to nothing, and for what is neither a file nor a folder.
    """
    root = os.path.realpath(folder)
    for path in _entries(folder):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            _check_link(folder, root, path, trust)
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _special(folder, path)


def _entries(folder: Path) -> Iterator[Path]:
    """Everything in a folder, in an order that is always the same; links are not followed."""
    stack = [folder]
    while stack:
        place = stack.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise file_error(error, "read", shown(place)) from error
        for entry in entries:
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                stack.append(Path(entry.path))


def _check_link(folder: Path, root: str, path: Path, trust: bool) -> None:
    try:
        target = os.path.realpath(path, strict=True)
        mode = os.stat(target).st_mode
    except OSError as error:
        raise _refused_link(folder, path, f"{file_error(error, 'read', path).why}") from error
    if os.path.commonpath((root, target)) != root and not trust:
        raise CannotPruneError(
            f"cannot read {shown(folder)}",
            where=_inside(folder, path),
            why="it is a link that leaves the folder, and a copy of the model would hold what it leads to",
            do="pass --trust if you trust this folder, or put the file itself in the link's place",
        )
    if stat.S_ISDIR(mode):
        raise _refused_link(folder, path, "it leads to a folder")
    if not stat.S_ISREG(mode):
        raise _special(folder, path)


def _refused_link(folder: Path, path: Path, why: str) -> KpruneError:
    return FileError(
        f"cannot read {shown(folder)}",
        where=_inside(folder, path),
        why=f"it is a link, and {why}",
        do="put in its place what it should lead to",
    )


def _special(folder: Path, path: Path) -> KpruneError:
    return FileError(
        f"cannot read {shown(folder)}",
        where=_inside(folder, path),
        why="it is neither a file nor a folder",
        do="take it out of the folder",
    )


def _inside(folder: Path, path: Path) -> str:
    return clean(os.path.relpath(path, folder), 160)
