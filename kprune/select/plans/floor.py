"""Floors of an iteration: what a metric must not fall below, or a loss must not rise above."""

from __future__ import annotations

import operator
import re

from msgspec import Struct

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
PATTERN = rf"\s*([^\s<>=]+)\s*(>=|<=)\s*(?:({_NUMBER})|original(?:\s*([-+])\s*({_NUMBER}))?)\s*"
"""What a floor looks like as text."""

_FLOOR = re.compile(PATTERN)
_HOLDS = {">=": operator.ge, "<=": operator.le}
_WORSE = {">=": "-", "<=": "+"}
# Keras gives its metrics in single precision: 0.97 may come as 0.9700000286.
_ROUNDING = 1e-6


class Floor(Struct, frozen=True):
    """`accuracy >= 0.97`, `loss <= 0.2`, or, counted from the original, `accuracy >= original - 0.01`.

    Attributes:
        metric: what it is about.
        sign: `>=` or `<=`.
        amount: the bound itself; of a relative floor what the original's metric is changed by.
        relative: whether it counts from the original's metric.
    """

    metric: str
    sign: str
    amount: float
    relative: bool = False

    @property
    def allows(self) -> float:
        """How much worse than the original's a relative one lets the metric become."""
        return -self.amount if self.sign == ">=" else self.amount

    @property
    def turned(self) -> str:
        """The same amount in the other direction, as text."""
        return f"{self.metric} {self.sign} original {_WORSE[self.sign]} {abs(self.amount):g}"

    def bound(self, original: float) -> float:
        """The figure to compare with.

        Args:
            original: the metric of the model as it was.
        """
        return original + self.amount if self.relative else self.amount

    def holds(self, value: float, original: float) -> bool:
        """Whether a value of the metric is good enough; one that is no number is not."""
        slack = _ROUNDING if self.relative else 0.0
        bound = self.bound(original) + (-slack if self.sign == ">=" else slack)
        return bool(_HOLDS[self.sign](value, bound))


def parse_floor(text: str) -> Floor | None:
    """A floor from its text; None if the text is not one."""
    found = _FLOOR.fullmatch(text)
    if found is None:
        return None
    metric, sign, amount, direction, change = found.groups()
    if amount is not None:
        return Floor(metric, sign, float(amount))
    return Floor(metric, sign, float(f"{direction or '+'}{change or 0}"), relative=True)
