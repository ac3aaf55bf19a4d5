"""Limits for a pruned model: `verify` fails if one of them is exceeded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated

from msgspec import Meta, Struct

from kprune.errors import UsageError
from kprune.running.divergence import Divergence
from kprune.running.metrics import decisive
from kprune.text import clean

AGREEMENT = "agreement"
ROUNDING = 1e-9
"""0.99 - 0.97 is a little more than 0.02."""
OPTIONS = {"min": "--min", "max": "--max", "max_drop": "--max-drop", "min_agreement": "--min-agreement"}  # fmt: skip
NO_LIMITS: Mapping[str, float] = MappingProxyType({})
Metrics = Mapping[str, Mapping[str, float]]


class Gate(Struct, frozen=True):
    """One limit, and whether it is met."""

    gate: Annotated[str, Meta(description="min, max, max_drop or min_agreement")]
    metric: str
    limit: float
    value: Annotated[float, Meta(description="of the pruned model; for max_drop, how far it fell")]
    passed: bool

    @property
    def text(self) -> str:
        """Whether it is met, and why not, in one line."""
        name, option = clean(self.metric), OPTIONS[self.gate]
        what = f"{name} got worse by" if self.gate == "max_drop" else f"{name} is"
        upper = self.gate in ("max", "max_drop")
        than = ("more" if upper else "less") if not self.passed else "within"
        return f"{what} {self.value:.4g}, {than}{'' if self.passed else ' than'} {self.limit:g} ({option})"


class Gates(Struct, frozen=True):
    """The limits that were requested.

    Attributes:
        max_drop: how much worse the metric may be than the original's.
        min_agreement: the share of samples for which it gives the original's class.
        min, max: by the name of a metric, the least or the most that it may be.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    min: Mapping[str, float] = NO_LIMITS
    max: Mapping[str, float] = NO_LIMITS

    def __bool__(self) -> bool:
        return self.needs_metrics or self.min_agreement is not None

    @property
    def needs_metrics(self) -> bool:
        """Whether targets are needed."""
        return self.max_drop is not None or bool(self.min) or bool(self.max)

    def check(self, *, data: bool) -> None:
        """Raises: UsageError for limits that make no sense, or that need data which were not given."""
        if self and not data:
            raise UsageError(
                "limits need data",
                why="outputs for random inputs do not show how good a model is",
                do="add --data FILE.npz with inputs x"
                + (" and targets y" if self.needs_metrics else ""),
            )
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise UsageError(
                f"an agreement lies between 0 and 1, got {self.min_agreement:g}",
                do="write 98 % as --min-agreement 0.98",
            )
        if self.max_drop is not None and not self.max_drop >= 0:
            raise UsageError(f"--max-drop must be at least 0, got {self.max_drop:g}")

    def judged(
        self,
        metrics: Metrics | None,
        directions: Mapping[str, bool | None],
        divergence: Divergence,
    ) -> list[Gate]:
        """Each limit, compared with the measured value.

        Args:
            metrics: `before` and `after`, by name; None without targets.
            directions: for each of them whether more is better; None if that is not known.
        Raises: UsageError for an unknown metric.
        """
        return list(self._judged(metrics or {}, directions, divergence))

    def _judged(
        self,
        metrics: Metrics,
        directions: Mapping[str, bool | None],
        divergence: Divergence,
    ) -> Iterator[Gate]:
        after = metrics.get("after", {})
        if self.max_drop is not None:
            name = decisive(directions)
            fell = metrics["before"][name] - after[name]
            drop = fell if directions[name] else -fell
            yield _gate("max_drop", name, self.max_drop, drop, drop <= self.max_drop + ROUNDING)
        for name, limit in self.min.items():
            value = _value(after, name)
            yield _gate("min", name, limit, value, value >= limit)
        for name, limit in self.max.items():
            value = _value(after, name)
            yield _gate("max", name, limit, value, value <= limit)
        if self.min_agreement is not None:
            least, share = self.min_agreement, divergence.agreement
            if share is None:
                raise UsageError(
                    "the outputs have no classes to compare",
                    do="limit a metric (--max-drop, --min, --max) instead of --min-agreement",
                )
            yield _gate("min_agreement", AGREEMENT, least, share, share >= least)


def _gate(kind: str, metric: str, limit: float, value: float, passed: bool) -> Gate:
    # NaN, such as a diverged loss, fails every limit.
    return Gate(kind, metric, float(limit), float(value), bool(passed) and not math.isnan(value))


def _value(after: Mapping[str, float], name: str) -> float:
    if name not in after:
        raise UsageError(
            f"the model has no metric '{clean(name)}'",
            do=f"choose one of {', '.join(map(clean, after))}, or add it with --metric",
        )
    return after[name]
