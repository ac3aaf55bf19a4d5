"""The arguments that the commands have in common, described once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from kprune.pruning.carrying import Progress, Target
from kprune.pruning.selection import Selection

if TYPE_CHECKING:
    from kprune.select.ranking.choice import Choice

Path = str | os.PathLike[str]


class Analysing(TypedDict, total=False):
    """How the model is read.

    rules: files with rules for layers that kprune does not know, and with criteria.
    trust: whether code that is not Keras's own may be run: of packages that the file names, or in it.
    """

    rules: Iterable[str]
    trust: bool


class Writing(Analysing, total=False):
    """Where the result goes; see `Target`."""

    output: Path | None
    in_place: bool
    force: bool
    dry_run: bool
    limits: Mapping[str, float]
    progress: Progress | None


class Selecting(Analysing, total=False):
    """Which units; see `Selection`.

    data: an .npz file with `x` (and `y`), for criteria and expressions on activations.
    """

    layers: Sequence[str] | None
    where: str | None
    choice: Choice | None
    classes: str | Sequence[str] | None
    class_names: Path | Sequence[str] | None
    exclude: Sequence[str]
    data: Path | None


class Changing(Selecting, Writing, total=False):
    """Which units, and where the result goes."""


def selection_of(units: Any, arguments: Mapping[str, Any]) -> Selection:
    """What `units` and the arguments of `Selecting` choose."""
    return Selection(units, **_of(Selecting, arguments, but=("rules", "trust", "data")))


def target_of(arguments: Mapping[str, Any]) -> Target:
    """Where the arguments of `Writing` let the result go."""
    return Target(**_of(Writing, arguments, but=("rules", "trust")))


def trusts(arguments: Mapping[str, Any]) -> bool:
    """Whether code that is not Keras's own may be run; see `Analysing`."""
    return bool(arguments.get("trust", False))


def _of(kind: Any, arguments: Mapping[str, Any], but: Iterable[str]) -> dict[str, Any]:
    known = kind.__annotations__.keys()
    return {name: value for name, value in arguments.items() if name in known and name not in but}


def refuse_others(function: str, kind: Any, arguments: Mapping[str, Any]) -> None:
    """Raises: TypeError for an argument that a function does not have, as Python would."""
    for name in arguments:
        if name not in kind.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument '{name}'")
