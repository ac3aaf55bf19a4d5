"""How the public functions take their arguments, and the arguments that several have in common.

The rule for all of them: what the function works on comes first (`model`, `units`, a plan); every
option is a keyword, written out where the function is defined. Two long lists that many functions
share are written once, as TypedDicts that a type checker sees through `Unpack`: which units
(`Selecting`), and where the result goes (`Writing`). Both include how the model is read. The settings of
a training are a third (`kprune.train.settings.TrainingOptions`). An unknown keyword is a TypeError,
as in plain Python.

A function that changes a model takes a path and returns a Report, or takes a live model and returns
a new one; the decorator `changes` implements this for all of them. No public function returns
`Any`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    cast,
    overload,
)

from kprune.errors import UsageError
from kprune.opened import LiveModel
from kprune.pointing import refuse_unknown
from kprune.pruning.selection import Selection
from kprune.pruning.writing import Target
from kprune.report.report import Report
from kprune.select.ranking.options import Choosing
from kprune.types import AnyPath, Progress

if TYPE_CHECKING:
    from kprune.running.sources import DataSource
    from kprune.select.ranking.choice import Choice

P = ParamSpec("P")
Model = TypeVar("Model", bound=LiveModel)


class Analysing(TypedDict, total=False):
    """How the model is read.

    rules: files with rules for layers that kprune does not know, and with criteria.
    trust: whether code that is not Keras's own may be run: of packages that the file names, or in it.
    """

    rules: Iterable[str]
    trust: bool


class Opening(Analysing, total=False):
    """How a model is read that is to be changed.

    drop_optimizer: whether the result leaves the state of the optimizer behind.
    """

    drop_optimizer: bool


class Writing(Opening, total=False):
    """Where the result goes; see `Target`."""

    output: AnyPath | None
    in_place: bool
    force: bool
    dry_run: bool
    limits: Mapping[str, float]
    progress: Progress | None


class Selecting(Analysing, Choosing, total=False):
    """Which units; see `Selection`. A single name may stand for a list of one.

    choice: instead of the options of `Choosing` an object that holds them.
    data: inputs (and targets), for criteria and expressions on activations; see `DataSource`.
    memory: bytes that the criterion obs may keep at once.
    """

    layers: Sequence[str] | str | None
    where: str | None
    choice: Choice | None
    classes: str | Sequence[str] | None
    class_names: AnyPath | Sequence[str] | None
    exclude: Sequence[str] | str
    data: DataSource | None
    memory: int | None


class Changing(Selecting, Writing, total=False):
    """Which units, and where the result goes."""


class Changes(Protocol[P]):
    """A function that changes a model: a file into a file, or a live model into another one.

    The new model has the class of the old one. A model of a custom class, which is read as a graph
    (`trust`), becomes a Functional model.
    """

    @overload
    def __call__(self, model: AnyPath, *args: P.args, **kwargs: P.kwargs) -> Report: ...

    @overload
    def __call__(self, model: Model, *args: P.args, **kwargs: P.kwargs) -> Model: ...


def changes(
    kind: type,
) -> Callable[
    [Callable[Concatenate[AnyPath | LiveModel, P], Report | LiveModel]],
    Changes[P],
]:
    """Decorator for a function that changes a model.

    Args:
        kind: the TypedDict that its further keywords are of; others are refused.
    """

    def decorator(
        function: Callable[Concatenate[AnyPath | LiveModel, P], Report | LiveModel],
    ) -> Changes[P]:
        @functools.wraps(function)
        def checked(
            model: AnyPath | LiveModel, *args: P.args, **kwargs: P.kwargs
        ) -> Report | LiveModel:
            refuse_unknown(function, kwargs, kind)
            if isinstance(model, LiveModel):
                _refuse_places(kwargs)
            return function(model, *args, **kwargs)

        return cast("Changes[P]", checked)

    return decorator


def _refuse_places(arguments: Mapping[str, Any]) -> None:
    """Raises: UsageError for places where the result for a live model cannot be written."""
    if arguments.get("output") is not None or any(map(arguments.get, ("in_place", "dry_run"))):
        raise UsageError(
            "output, in_place and dry_run need a model file", do="save the model first"
        )


def reading_of(arguments: Analysing | Mapping[str, Any]) -> Analysing:
    """How the arguments say that a model is read."""
    return {"rules": arguments.get("rules", ()), "trust": bool(arguments.get("trust", False))}


def opening_of(arguments: Opening | Mapping[str, Any]) -> Opening:
    """The same for a model that is changed."""
    drop = bool(arguments.get("drop_optimizer", False))
    return {**reading_of(arguments), "drop_optimizer": drop}


def selection_of(units: Any, arguments: Mapping[str, Any]) -> Selection:
    """What `units` and the arguments of `Selecting` choose."""
    from kprune.select.ranking.wording import choice_of

    left_out = ("rules", "trust", "data", "memory", *Choosing.__annotations__)
    given = _of(Selecting, arguments, but=left_out)
    given |= {name: names_in(given[name]) for name in ("layers", "exclude") if name in given}
    choice = choice_of(arguments)
    if choice is not None and given.get("choice") is not None:
        raise UsageError("choice and criterion cannot be combined", do="give one of them")
    return Selection(units, **given if choice is None else {**given, "choice": choice})


def names_in(value: Sequence[str] | str | None) -> Sequence[str] | None:
    """Names of layers, of which a single one may stand alone."""
    return [value] if isinstance(value, str) else value


def target_of(arguments: Mapping[str, Any]) -> Target:
    """Where the arguments of `Writing` put the result."""
    return Target(**_of(Writing, arguments, but=Opening.__annotations__))


def _of(kind: type, arguments: Mapping[str, Any], but: Iterable[str]) -> dict[str, Any]:
    known = kind.__annotations__.keys()
    return {name: value for name, value in arguments.items() if name in known and name not in but}
