"""Which criteria and statistics there are, what each is and needs: as data and as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct

import kprune.select.ranking.criteria  # noqa: F401  # registers those that come with kprune
from kprune.criteria_table import BUILTIN, CUSTOM, Criterion
from kprune.page.page import Page
from kprune.select.naming.statistic_names import NEEDS
from kprune.text import clean
from kprune.types import AnyPath


class KnownCriterion(Struct, frozen=True):
    """One criterion."""

    name: str
    needs: Annotated[str, Meta(description="weights, data, or data and labels")]
    score: Annotated[str, Meta(description="of a unit; the lowest go first")]
    source: Annotated[str, Meta(description="a paper; for a custom one, the file that holds it")]


class KnownStatistic(Struct, frozen=True):
    """One name that expressions know."""

    name: str
    of: str
    value: str


class Known(Struct, frozen=True):
    """What units can be chosen by."""

    criteria: list[KnownCriterion]
    statistics: list[KnownStatistic]

    def show(self, on: Page) -> None:
        """Show all of it, a table each."""
        on.print("Criteria (--criterion): the units with the lowest scores go", style="bold")
        rows = [(item.name, item.needs, item.score, item.source) for item in self.criteria]
        on.table(["~criterion", "needs", "~score of a unit", "~source"], rows)
        on.print()
        on.print("Statistics (--where, and where(…) in a spec)", style="bold")
        listed = [(item.name, item.of, item.value) for item in self.statistics]
        on.table(["~name", "of", "~value"], listed)


def known_criteria(files: Iterable[AnyPath] = ()) -> Known:
    """Every criterion, in the order in which they were registered, and every statistic.

    Args:
        files: Python files with further criteria.
    Raises: FileError or UsageError if one cannot be read.
    """
    from kprune.analysis.user_rules import load_packages, load_rules

    load_rules(files)
    load_packages()
    found = {**BUILTIN.criteria, **CUSTOM.criteria}
    return Known(
        [_known(item) for item in found.values()],
        [KnownStatistic(name, of, value) for of, table in NEEDS for name, value in table.items()],
    )


def _known(item: Criterion) -> KnownCriterion:
    needs = "data and labels" if item.labels else "data" if item.data else "weights"
    said = item.formula or next(iter((item.score.__doc__ or "").strip().splitlines()), "")
    source = item.paper if item.builtin else item.paper or item.source
    return KnownCriterion(clean(item.name), needs, clean(said, 300), clean(source, 300))
