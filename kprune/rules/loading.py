"""Rules from elsewhere: files given with `--rules`, and installed packages."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable

from kprune.errors import FileError, UsageError
from kprune.rules import ENTRY_POINTS, builtin
from kprune.rules.registry import CUSTOM, Rules
from kprune.text import clean

_loaded: set[str] = set()


def load_rules(files: Iterable[str | os.PathLike[str]] = ()) -> Rules:
    """Every rule: kprune's own, those of installed packages, and those in some files.

    A rules file is Python code, and is run. Model files never name one: only the user does.

    Args:
        files: paths of Python files that call `kprune.rule`.
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
        raise FileError(f"cannot read the rules file {clean(path)}", why="there is no such file")
    spec = importlib.util.spec_from_file_location(f"kprune_rules_{len(_loaded)}", place)
    if spec is None or spec.loader is None:
        raise UsageError(f"{clean(path)} is not a Python file", do="rules are Python: my_layers.py")
    module = importlib.util.module_from_spec(spec)
    before = dict(CUSTOM.rules)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises is the user's to see
        CUSTOM.rules.clear()
        CUSTOM.rules.update(before)
        line = error.lineno if isinstance(error, SyntaxError) else _line(error, place)
        raise UsageError(
            f"the rules file {clean(path)} fails",
            where=f"line {line}" if line else "",
            why=f"{type(error).__name__}: {clean(error, 200)}",
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
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise UsageError(
                f"the rules of the package entry '{clean(point.name)}' fail",
                why=f"{type(error).__name__}: {clean(error, 200)}",
            ) from error
    _loaded.add("")
