"""A choice in the words of its options: those of a command line, or keywords in Python.

Light: most commands give none of them, and have nothing imported for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kprune.errors import UsageError
from kprune.select.ranking.options import BUDGETS, RankOptions
from kprune.text import share

if TYPE_CHECKING:
    from kprune.select.ranking.choice import Choice

WORDS = (
    "ratio", "count", "threshold", "together", "per_layer", *BUDGETS, *RankOptions.__struct_fields__
)  # fmt: skip
"""What says how many units go; `criterion` says which."""

_FOR_ONE = {"weighting": "obs"}
"""Options that mean something to one criterion alone."""


def choice_of(
    words: Mapping[str, Any], spelled: Callable[[str], str] = lambda name: name
) -> Choice | None:
    """The choice that some options make together.

    Args:
        words: `criterion` and those of `WORDS`; None, or False for `together`, for one that is not given.
            Others are passed over.
        spelled: how the user writes an option.
    Returns: None if no criterion is given.
    Raises: UsageError if options are given without a criterion, or contradict each other.
    """
    named = {name: words.get(name) for name in WORDS}
    given = {
        name: value for name, value in named.items() if value is not None and value is not False
    }
    criterion = words.get("criterion")
    if criterion is None:
        for name, value in given.items():
            option, by = spelled(name), _FOR_ONE.get(name, "l1")
            shown = "" if value is True else f" {_first(value)}"
            raise UsageError(
                f"{option} needs a criterion",
                do=f"say what ranks the units: {spelled('criterion')} {by} {option}{shown}",
            )
        return None
    from kprune.select.ranking.budget import Budget
    from kprune.select.ranking.choice import Choice

    budgets = [
        Budget(kind, str(given.pop(name))) for name, kind in BUDGETS.items() if name in given
    ]
    if len(budgets) > 1:
        raise UsageError(
            f"budgets of {budgets[0].kind} and of {budgets[1].kind} cannot be combined",
            do="give one of them",
        )
    for name in ("ratio", "max_ratio"):
        if name in given:
            given[name] = _number(spelled(name), given[name])
    return Choice(criterion, target=next(iter(budgets), None), **given)


def _first(value: Any) -> str:
    """A value as the user may have written it; of several layers' ratios the first."""
    if isinstance(value, Mapping):
        return next((f"{layer}={ratio:g}" for layer, ratio in value.items()), "")
    return str(value)


def _number(option: str, value: float | str) -> float:
    try:
        return share(value)
    except ValueError:
        raise UsageError(f"{option} takes a number", do="write 0.3 or 30%") from None
