"""Rules from elsewhere: files given with `--rules`, and installed packages."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterable, MutableMapping
from types import ModuleType
from typing import Any

from msgspec.structs import replace

from kprune import criteria_table as criteria
from kprune.errors import FileError, UsageError
from kprune.faults import shown
from kprune.rules import ENTRY_POINTS, builtin
from kprune.text import clean
from kprune.tracing.registry import CUSTOM, Rules
from kprune.types import AnyPath

_loaded: dict[str, ModuleType] = {}


def load_rules(files: Iterable[AnyPath] = ()) -> Rules:
    """Every rule: kprune's own, those in some files, and those of installed packages where one is needed.

    A rules file is Python code, and is run. Model files never name one: only the user does.

    Args:
        files: paths of Python files that call `kprune.rule`, and `kprune.criterion`.
    Raises: FileError if a file cannot be read, UsageError if it fails.
    """
    rules = builtin()
    criteria.CUSTOM.ask_packages = load_packages
    for file in files:
        _load_file(os.fspath(file))
    return replace(rules, ask_packages=load_packages)


def loaded_modules() -> list[ModuleType]:
    """The files of rules that were run, as modules, in the order in which they were."""
    return list(_loaded.values())


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
    tables: list[MutableMapping[str, Any]] = [CUSTOM.rules, criteria.CUSTOM.criteria]
    before = [dict(table) for table in tables]
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises is the user's to see
        for table, old in zip(tables, before, strict=True):
            table.clear()
            table.update(old)
        line = error.lineno if isinstance(error, SyntaxError) else _line(error, place)
        raise UsageError(
            f"the rules file {shown(path)} fails",
            where=f"line {line}" if line else "",
            why=f"{type(error).__name__}: {clean(error, 400)}",
        ) from error
    _loaded[place] = module


def _line(error: BaseException, path: str) -> int | None:
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


@functools.cache
def load_packages() -> None:
    """Import what installed packages have registered as rules or criteria of theirs, once.

    Raises: UsageError if one of them fails.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # whatever it raises is the user's to see
            raise UsageError(
                f"the rules of the package entry point '{clean(point.name)}' fail",
                why=f"{type(error).__name__}: {clean(error, 400)}",
            ) from error
