"""The table of rules for TensorFlow operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kprune.tracing.registry import ANSWERS


@dataclass(frozen=True)
class OpRule:
    """What an operation does to labels.

    Attributes:
        function: takes an OpCall; gives a Value or Labels, or a list of them, one for each output.
        does: one of the five words of `kprune.tracing.registry`.
        note: one line for readers.
        numbers: whether the rule itself sees to integers that say sizes; else those that come in
            have to stay what they are.
    """

    function: Callable[[Any], Any]
    does: str
    note: str
    numbers: bool
    source: str = "kprune"
    builtin: bool = True


OPS: dict[str, OpRule] = {}


def op(
    *names: str, does: str, note: str = "", numbers: bool = False
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Decorator: the function answers for these operations.

    Raises: ValueError if one of them has a rule already.
    """
    if does not in ANSWERS:
        raise ValueError(f"does={does!r} is not one of {', '.join(ANSWERS)}")

    def register(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        for name in names:
            if name in OPS:
                raise ValueError(f"{name} has a rule already")
            summary = note or (function.__doc__ or "").strip().partition("\n")[0]
            OPS[name] = OpRule(function, does, summary, numbers)
        return function

    return register
