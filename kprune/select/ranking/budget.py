"""Budgets: how large the model may be, in parameters, operations or bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kprune.errors import CheckError, UsageError

_AMOUNT = re.compile(
    r"\s*([0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?)\s*(%|k|m|g|b|t)?(?:b|params?|flops)?\s*", re.IGNORECASE
)
_FACTORS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
KINDS = ("parameters", "flops", "bytes")


class Measure(Protocol):
    """What a model costs without some labels."""

    def __call__(self, gone: np.ndarray) -> float: ...

    @property
    def whole(self) -> float:
        """What it costs as it is."""
        ...

    @property
    def counts(self) -> str:
        """What is counted, in words."""
        ...


@dataclass(frozen=True)
class Budget:
    """What may be left of a model.

    Attributes:
        kind: `parameters`, `flops` or `bytes`.
        amount: as the user wrote it: `40%` of what there is, `1.2M`, `500000`.
    Raises: UsageError for an invalid amount.
    """

    kind: str
    amount: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(
                f"there is no budget of {self.kind}", do=f"choose one of {', '.join(KINDS)}"
            )
        self._parsed()

    def _parsed(self) -> tuple[float, bool]:
        match = _AMOUNT.fullmatch(str(self.amount))
        if match is None:
            raise UsageError(
                f"'{self.amount}' is not a valid budget of {self.kind}",
                do="write 40%, 1.2M or 500000",
            )
        number, unit = float(match.group(1)), (match.group(2) or "").lower()
        if unit == "%":
            if not 0 < number < 100:
                raise UsageError(
                    f"the budget must lie between 0 % and 100 %, both excluded, got {number:g} %"
                )
            return number / 100, True
        return number * _FACTORS.get(unit, 1), False

    def goal(self, whole: float) -> float:
        """The most that may be left of a model that costs `whole`."""
        number, share = self._parsed()
        return number * whole if share else number

    def out_of_reach(self, least: float, measure: Measure) -> CheckError:
        """The refusal of a budget that cannot be met."""
        return CheckError(
            f"{self.amount} {self.kind} cannot be reached",
            why=f"with every unit that may go, {least:,.0f} of {measure.whole:,.0f} {self.kind} are left "
            f"({100 * least / measure.whole:.1f} %); the budget is {self.goal(measure.whole):,.0f}",
            do="ask for less, or allow more to be removed (--min-units, --max-ratio, --exclude)",
        )
