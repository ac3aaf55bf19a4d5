"""What a command line writes: checked before the work, and told of when a signal ends it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kprune.errors import KpruneError
from kprune.interruption import signal_behind, written

SMALL = {"report": "--report", "plot": "--plot", "file": "-o"}
"""The parameters that name a file beside the model, or instead of one, and their options."""

MODEL = "output"
"""The parameter that names the model to be written."""

READ = frozenset(
    """model original pruned teacher rules data validation class_names keep_tokens plan
    sensitivity""".split()
)
"""The parameters that name what is read."""

_CHANGED = ("model", "pruned")
"""The parameters that name the model that is changed, which may replace itself."""


class Stopped(BaseException):
    """A signal ended a command that writes.

    Args:
        line: what became of its outputs.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


@contextmanager
def watched(values: dict[str, Any]) -> Iterator[None]:
    """Around a command.

    Args:
        values: of its parameters, by name; a path that means standard output becomes `-`.
    Raises: UsageError, FileError before the work if an output may not be written where it is to go;
        Stopped, caused by the KeyboardInterrupt or Terminated that came.
    """
    if not _writes(values):
        yield
        return
    _check(values)
    given = dict(values)  # the command takes its own out
    try:
        yield
    except BaseException as error:
        stopped = signal_behind(error)
        if stopped is None:
            raise
        raise Stopped(_outcome(given)) from stopped


def _writes(values: Mapping[str, Any]) -> bool:
    if MODEL in values:
        return not values.get("dry_run") or any(values.get(name) for name in SMALL)
    return any(values.get(name) is not None for name in SMALL)


def _check(values: dict[str, Any]) -> None:
    if all(values.get(name) is None for name in (MODEL, *SMALL)):
        return
    from kprune.atomic import STANDARD_OUTPUT, check_apart, check_file, check_output

    _name_standard_output(values)
    small = {option: values[name] for name, option in SMALL.items() if values.get(name)}
    if small.get("-o") == STANDARD_OUTPUT:
        del small["-o"]
    check_apart(small, _inputs(values))
    output = values.get(MODEL)
    if output is None:
        for name in _default_outputs(values):
            check_apart({"the output": name, **small}, ())
    elif output != STANDARD_OUTPUT:
        check_apart({"-o": output}, _inputs(values, but=_CHANGED))
        check_apart({"-o": output, **small}, ())
    for option, path in small.items():
        check_file(path, force=values["force"], option=option)
    if output is not None and not values.get("dry_run") and not values.get("in_place"):
        check_output(output, force=values["force"])


def _name_standard_output(values: dict[str, Any]) -> None:
    """Call it `-` where a path means it, as far as a command writes to it."""
    from kprune.atomic import STANDARD_OUTPUT, names_standard_output

    for name in (MODEL, "file"):
        if values.get(name) is not None and names_standard_output(values[name]):
            values[name] = STANDARD_OUTPUT


def _inputs(values: Mapping[str, Any], but: tuple[str, ...] = ()) -> Iterator[str]:
    """What a command reads: files of units (`conv:@FILE`) included, and those that a plan names."""
    plan = values.get("plan")
    if isinstance(plan, str) and "drop_branches" in values:  # 'apply'; plans of 'iterate' name none
        yield from _named_in(plan)
    for name, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and name in READ.difference(but):
                yield text
            elif isinstance(text, str) and name in ("specs", "units"):
                yield text.partition("@")[2]


def _named_in(path: str) -> Iterator[str]:
    from kprune.select.plans.plan import files_named_in
    from kprune.verbs.apply import load_plan

    try:
        plan, folder = load_plan(path)
    except KpruneError:
        return  # the command itself says what is wrong with it
    for name in files_named_in(plan):
        yield os.path.join(folder or "", name)


def _default_outputs(values: Mapping[str, Any]) -> Iterator[str]:
    """The names that an output may get from its input: one for each kind of command."""
    if MODEL not in values or _changed(values) == "-":
        return
    stem, suffix = os.path.splitext(_changed(values))
    for word in ("pruned", "tuned", "flat"):
        yield f"{stem}.{word}{suffix}"


def _outcome(values: Mapping[str, Any]) -> str:
    """What became of the outputs, as far as the command line names them."""
    done = set(written())
    named = [values[name] for name in SMALL if values.get(name)]
    if MODEL in values and not values.get("dry_run"):
        if values[MODEL] == "-":
            return "standard output did not get the whole model"
        place = values[MODEL] or (values.get("in_place") and _changed(values))
        if not place and not named:
            return (
                "the output was written" if _default_is_in(done, values) else "nothing was written"
            )
        named = [place, *named] if place else named
    left = [path for path in named if os.path.realpath(path) not in done]
    if not left:
        return f"{_listed(named)} written"
    stands = any(os.path.lexists(path) for path in left)
    return f"{_listed(left, no=True)} written{'; the old one is unchanged' if stands else ''}"


def _default_is_in(done: set[str], values: Mapping[str, Any]) -> bool:
    """Whether the output that has its name from the input is among what was written."""
    folder = os.path.dirname(os.path.realpath(_changed(values)))
    return any(os.path.dirname(path) == folder for path in done)


def _changed(values: Mapping[str, Any]) -> str:
    """The model that is changed, as it was named."""
    return next(str(values[name]) for name in _CHANGED if name in values)


def _listed(paths: list[str], *, no: bool = False) -> str:
    from kprune.faults import shown

    names = " and ".join(shown(path) for path in paths)
    return f"{names} {'was' if len(paths) == 1 else 'were'}{' not' if no else ''}"
