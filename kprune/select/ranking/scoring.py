"""The units of a layer, as criteria see them, and their scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import kprune.select.ranking.criteria  # noqa: F401  # registers those that come with kprune
from kprune.criteria_table import BUILTIN, CUSTOM, Criterion
from kprune.errors import ExpressionError, KpruneError, UsageError
from kprune.faults import shown
from kprune.labels.map import UnitAxis
from kprune.pointing import did_you_mean
from kprune.select.naming.statistic_names import ALL_NAMES
from kprune.select.ranking.eliminated import Wanted, eliminated
from kprune.select.ranking.statistics import Statistics
from kprune.text import clean


@dataclass(frozen=True, eq=False)
class LayerUnits:
    """The units of one layer; see `kprune.select.ranking.criteria.Units`."""

    statistics: Statistics
    axis: UnitAxis
    seed: int = 0

    @property
    def name(self) -> str:
        return self.axis.address

    def __len__(self) -> int:
        return len(self.axis)

    def __getitem__(self, name: str) -> np.ndarray:
        if name in ALL_NAMES:
            return self.statistics.env(self.axis, [name])[name]
        if name in ON_DATA:
            return self.statistics.on_data(self.axis, name)
        raise KeyError(name)

    def gram(self) -> np.ndarray:
        return self.statistics.gram(self.axis)

    def activations(self) -> Iterator[np.ndarray]:
        return self.statistics.outputs(self.axis)

    def places(self) -> np.ndarray:
        groups = self.statistics.analysis.groups
        least = np.zeros(len(groups.map.axes), np.int64)
        found = eliminated(groups, self.statistics, [self.axis], groups.frozen(), least, Wanted())
        if found.left_out:
            raise ExpressionError(found.left_out[self.name], do="leave the layer out (--exclude)")
        return found.position[groups.of[self.axis.ids]]


ON_DATA = frozenset({"taylor", "hessian"})


def criterion(name: str) -> Criterion:
    """The criterion of a name.

    Raises: UsageError with the names there are.
    """
    found = BUILTIN.criteria.get(name) or CUSTOM.criteria.get(name)
    if found is None:
        CUSTOM.ask_packages()  # one of them may bring it
        found = CUSTOM.criteria.get(name)
    if found is None:
        known = {**BUILTIN.criteria, **CUSTOM.criteria}
        hint = did_you_mean(name, known)
        raise UsageError(
            f"there is no criterion '{clean(name)}'{'; ' + hint if hint else ''}",
            do=f"choose one of {', '.join(known)}",
        )
    return found


def scores(name: str, units: LayerUnits) -> np.ndarray:
    """The scores of a layer's units, float64 (units,).

    Raises: UsageError if there is no such criterion, or if a user's own fails; ExpressionError if
        it does not apply to these units.
    """
    found = criterion(name)
    if found.builtin:
        return np.asarray(found.score(units), np.float64)
    what = f"the criterion '{clean(name)}' fails for layer '{clean(units.name)}'"
    try:
        own = np.asarray(found.score(units), np.float64)
    except KpruneError:
        raise
    except Exception as error:  # whatever the user's code raises is the user's to see
        why = f"{type(error).__name__}: {clean(error, 400)}"
        raise UsageError(what, where=shown(found.source), why=why) from error
    if own.shape != (len(units),) or np.isnan(own).any():
        gave = f"an array of shape {own.shape}" if own.shape != (len(units),) else "not a number"
        raise UsageError(
            what,
            where=shown(found.source),
            why=f"it gave {gave}",
            do=f"give {len(units)} numbers, one for each unit",
        )
    return own
