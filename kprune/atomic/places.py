"""Where an output may go: checked before long work begins, and again when it is written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from kprune.atomic.hidden import put_right
from kprune.errors import FileError, UsageError
from kprune.faults import file_error, shown
from kprune.types import AnyPath

STANDARD_OUTPUT = "-"
ELSEWHERE = "name another output with -o"
_ITS_PATHS = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def names_standard_output(output: AnyPath) -> bool:
    """Whether a path means standard output: `-`, or a path that the system has for it."""
    return os.fspath(output) in (STANDARD_OUTPUT, *_ITS_PATHS)


def taken(output: object, option: str = "-o") -> UsageError:
    """The refusal of a place where something stands."""
    do = f"name another file with {option}, or add --force"
    if option == "-o":
        do = f"{ELSEWHERE}, or add --force"
    return UsageError(f"{shown(str(output))} exists already", do=do)


def place(output: AnyPath) -> tuple[Path, os.stat_result | None]:
    """Where something will stand, and what stands there now; leftovers of killed writers are put right."""
    if os.fspath(output) in _ITS_PATHS:
        raise UsageError(f"{output} is standard output", do="write it as -: -o -")
    target = Path(os.path.realpath(output))
    put_right(target)
    try:
        return target, os.stat(target)
    except FileNotFoundError:
        return target, None
    except OSError as error:
        raise file_error(error, "write", shown(output)) from error


def check_output(output: AnyPath, *, force: bool) -> None:
    """Called before long work whose result, a model, is to go there.

    Raises: UsageError if something is there and may not be replaced; FileError if there is no place.
    """
    if os.fspath(output) == STANDARD_OUTPUT:
        check_standard_output()
        return
    target, _ = place(output)
    if not force and os.path.lexists(target):
        raise taken(output)
    _check_folder(target, output)


def _check_folder(target: Path, output: AnyPath) -> None:
    if not target.parent.is_dir():
        why = f"there is no folder {shown(target.parent)}"
        raise FileError(f"cannot write {shown(output)}", why=why)
    if not os.access(target.parent, os.W_OK):
        why = f"the folder {shown(target.parent)} cannot be written to"
        raise FileError(f"cannot write {shown(output)}", why=why)


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


def check_file(output: AnyPath, *, force: bool, option: str = "-o") -> None:
    """Called before the work whose result, a small file, is to go there.

    A device or a pipe (/dev/null, `>(...)`) is written to as it is, and replaces nothing.

    Args:
        option: what names the file.
    Raises: UsageError if it exists and may not be replaced, or is standard output; FileError if it
        cannot be written.
    """
    if names_standard_output(output):
        raise UsageError(
            f"{option} does not write to standard output",
            do="name a file; --json prints the report there",
        )
    if is_stream(output):
        return
    target, old = place(output)
    if old and stat.S_ISDIR(old.st_mode):
        raise FileError(f"cannot write {shown(output)}", why="it is a folder")
    if old and not force:
        raise taken(output, option)
    _check_folder(target, output)


def is_stream(path: AnyPath) -> bool:
    """Whether a path leads to a device or a pipe."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_apart(outputs: Mapping[str, AnyPath | None], inputs: Iterable[object]) -> None:
    """Refuse outputs that are inputs, or each other, by whatever name: `--force` does not mean these.

    Args:
        outputs: by the option that names it.
        inputs: what the work reads, as the user gave it; what is no path counts for nothing, nor do
            paths where there is nothing.
    Raises: UsageError.
    """
    given = [(option, path) for option, path in outputs.items() if path is not None]
    apart = [(option, path) for option, path in given if not is_stream(path)]
    read = [path for path in inputs if isinstance(path, (str, os.PathLike)) and _exists(path)]
    for number, (option, path) in enumerate(apart):
        for other in read:
            if _is_in(path, other):
                raise UsageError(
                    f"{option} {shown(path)} would write over an input",
                    where=shown(other),
                    do="name another file",
                )
        for before, other in apart[:number]:
            if _is_in(path, other) or _is_in(other, path):
                raise UsageError(
                    f"{before} and {option} name the same place",
                    where=shown(path),
                    do="name two files",
                )


def _exists(path: AnyPath) -> bool:
    try:
        return os.path.exists(path) and not is_stream(path)
    except ValueError:  # a null byte
        return False


def _is_in(path: AnyPath, other: AnyPath) -> bool:
    """Whether two paths lead to the same place, or the first into the second, a folder."""
    try:
        if os.path.samefile(path, other):
            return True
    except OSError:
        pass  # one of them is not there yet
    one, two = Path(os.path.realpath(path)), Path(os.path.realpath(other))
    return one == two or two in one.parents
