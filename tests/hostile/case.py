"""What a case of the corpus is, and how one is added to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

Maker = Callable[..., Any]
NAME = "bad.keras"


class Run(Struct, frozen=True):
    """One command line, and how it must end.

    Attributes:
        arguments: of kprune.
        code: its exit code.
        says: what its message holds.
    """

    arguments: tuple[str, ...]
    code: int
    says: tuple[str, ...] = ()


class Case(Struct, frozen=True):
    """A bad file.

    Attributes:
        name: its group and what is wrong with it.
        make: makes it in a folder.
        runs: what is tried on it; last what writes.
        tensorflow: whether TensorFlow is needed for that.
        beside: good files that are made beside it.
    """

    name: str
    make: Callable[[Path], object]
    runs: tuple[Run, ...]
    tensorflow: bool = False
    beside: tuple[str, ...] = ()


CASES: dict[str, Case] = {}
"""The corpus, by name."""

OUTPUT = "out"
"""Where every command that writes is to write; something stands there already, and must stay."""


def writes(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of one that writes: its output's suffix is the model's."""
    return (*arguments, "-o", OUTPUT + Path(name).suffix, "--force")


def model_runs(
    name: str, code: int, says: tuple[str, ...], inspect: int | None = None
) -> tuple[Run, ...]:
    """What is tried on a model: `inspect`, `remove`, and what compares it.

    Args:
        code: of the commands that write.
        inspect: of `inspect`, where that is another: what is seen only when units are to go.
    """
    words = says if inspect in (None, code) else ()
    first = code if inspect is None else inspect
    runs = [Run(("inspect", name), first, words)]
    if first == code != 0:
        runs.append(Run(("diff", "good.keras", name), code, says))
    return (*runs, Run(writes(name, "remove", name, "a:1"), code, says))


def add(
    name: str,
    make: Maker,
    *says: str,
    code: int = 4,
    inspect_code: int | None = None,
    file: str = NAME,
    runs: tuple[Run, ...] | None = None,
    tensorflow: bool = False,
    beside: tuple[str, ...] = ("good.keras",),
) -> None:
    """Add a case.

    Args:
        make: gives the bytes of the file; or makes it, if it takes a folder.
        says: what the message holds beside the file's name.
        file: its name.
        runs: what is tried; by default what a model is for.
    """
    assert name not in CASES, name
    words = (file, *says) if code == 4 else says

    def made(folder: Path) -> object:
        if inspect.signature(make).parameters:
            return make(folder)
        return (folder / file).write_bytes(make())

    if runs is None:
        runs = model_runs(file, code, words, inspect_code)
    CASES[name] = Case(name, made, runs, tensorflow, beside)


def bad(group: str, *says: str, **options: Any) -> Callable[[Maker], Maker]:
    """Add a case that is called like the function that makes it."""

    def decorated(make: Maker) -> Maker:
        add(f"{group}/{make.__name__.replace('_', ' ').strip()}", make, *says, **options)
        return make

    return decorated


def add_all(group: str, makers: Mapping[str, tuple[Any, ...]], **options: Any) -> None:
    """Add cases of a table: by name what makes each, and what the message holds."""
    for name, (make, *says) in makers.items():
        add(f"{group}/{name}", make, *says, **options)
