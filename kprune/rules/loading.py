"""Rules from elsewhere: files given with `--rules`, and installed packages."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kprune.errors import FileError, UsageError
from kprune.formats.faults import shown
from kprune.rules import ENTRY_POINTS, builtin
from kprune.rules.registry import CUSTOM, Rules
from kprune.select import registered as criteria
from kprune.text import clean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_loaded: set[str] = set()


def load_rules(files: Iterable[str | os.PathLike[str]] = ()) -> Rules:
    """Every rule: kprune's own, those of installed packages, and those in some files.

    A rules file is Python code, and is run. Model files never name one: only the user does.

    Args:
        files: paths of Python files that call `kprune.rule`, and `kprune.criterion`.
    Raises: FileError if a file cannot be read, UsageError if it fails or a package's rules do.
    """
    rules = builtin()
    for file in files:
        _load_file(os.fspath(file))
    _load_packages()
    return rules


def _load_file(path: str) -> None:
    place = os.path.abspath(path)
    if place in _loaded:
        return
    if not os.path.isfile(place):
        raise FileError(f"cannot read the rules file {shown(path)}", why="there is no such file")
    spec = importlib.util.spec_from_file_location(f"kprune_rules_{len(_loaded)}", place)
    if spec is None or spec.loader is None:
        raise UsageError(f"{shown(path)} is not a Python file", do="rules are Python: my_layers.py")
    module = importlib.util.module_from_spec(spec)
    tables: list[dict[str, Any]] = [CUSTOM.rules, criteria.CUSTOM.criteria]
    before = [dict(table) for table in tables]
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises is the user's to see
        for table, old in zip(tables, before, strict=True):
            table.clear()
            table.update(old)
        line = error.lineno if isinstance(error, SyntaxError) else _line(error, place)
        raise UsageError(
            f"the rules file {shown(path)} fails",
            where=f"line {line}" if line else "",
            why=f"{type(error).__name__}: {clean(error, 400)}",
        ) from error
    _loaded.add(place)


def _line(error: BaseException, path: str) -> int | None:
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _load_packages() -> None:
    if "" in _loaded:
        return
    for point in _entry_points():
        try:
            point.load()
        except Exception as error:
            raise UsageError(
                f"the rules of the package entry '{clean(point.name)}' fail",
                why=f"{type(error).__name__}: {clean(error, 400)}",
            ) from error
    _loaded.add("")


def _entry_points() -> Iterable[EntryPoint]:
    """What installed packages offer.

    To import importlib.metadata and have it look takes longer than to start Python, so that is done
    only where some package names the group.
    """
    if not any(map(_names_the_group, sys.path)):
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def _names_the_group(place: str) -> bool:
    """Whether any package in a folder of `sys.path` has the group among its entry points."""
    try:
        names = os.listdir(place or os.curdir)
    except NotADirectoryError:
        return True  # an archive: let Python look into it
    except OSError:
        return False
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                with open(os.path.join(place, name, "entry_points.txt"), "rb") as file:
                    if ENTRY_POINTS.encode() in file.read():
                        return True
            except OSError:
                continue
    return False
