"""The table of criteria: kprune's own, and those that users register.

Light, so that rules files can be loaded and undone without numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct, field

Score = Callable[[Any], Any]
"""Takes the units of a layer (`kprune.select.ranking.criteria.Units`), gives a number for each."""


class Criterion(Struct, frozen=True):
    """What ranks units.

    Attributes:
        name: as `--criterion` takes it.
        score: from the units of a layer, a number each; those with the lowest go first.
        builtin: whether it came with kprune.
        source: file that holds it.
        data: whether it needs data.
        labels: whether the data need targets as well.
        formula: what the score of a unit is.
        paper: where the method is described.
    """

    name: str
    score: Score
    builtin: bool
    source: str
    data: bool = False
    labels: bool = False
    formula: str = ""
    paper: str = ""


class Table(Struct):
    """Criteria by name.

    Attributes:
        builtin: whether they come with kprune.
        taken: another table, whose names are not to be had here.
        ask_packages: has installed packages register theirs; set by the code that loads rules.
    """

    builtin: bool
    taken: Table | None = None
    criteria: dict[str, Criterion] = field(default_factory=dict)
    ask_packages: Callable[[], None] = lambda: None

    def criterion(
        self,
        name: str,
        *,
        data: bool = False,
        labels: bool = False,
        formula: str = "",
        paper: str = "",
    ) -> Callable[[Score], Score]:
        """Decorator: the function ranks units where `--criterion NAME` is given.

        It takes the units of one layer (`kprune.select.ranking.criteria.Units`) and returns a number
        for each; those with the lowest go first.

            @kprune.criterion("spread")
            def spread(units):
                return units["max"] - units["min"]

        Args:
            data: whether it needs data (`--data`).
            labels: whether the data need targets as well.
            formula: what the score is, and `paper`: where it is described; for 'kprune criteria'.
        Raises: ValueError if there is a criterion of that name already.
        """

        def register(score: Score) -> Score:
            known = self.criteria.get(name) or (self.taken and self.taken.criteria.get(name))
            if known and known.score.__code__ is not score.__code__:
                raise ValueError(f"there is a criterion {name!r} already, in {known.source}")
            source = score.__code__.co_filename
            self.criteria[name] = Criterion(
                name, score, self.builtin, source, data or labels, labels, formula, paper
            )
            return score

        return register


BUILTIN = Table(builtin=True)
CUSTOM = Table(builtin=False, taken=BUILTIN)
