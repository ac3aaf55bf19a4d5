"""Groups in the order in which they go when what is left is refitted: the criterion `obs`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from kprune.errors import UsageError
from kprune.labels.groups import Groups
from kprune.labels.map import UnitAxis
from kprune.refitting.ordering.candidates import Candidates
from kprune.refitting.ordering.covariances import Observation
from kprune.refitting.ordering.elimination import Limits, eliminate, ridge_for
from kprune.refitting.ordering.readers import Reader, read_elsewhere
from kprune.refitting.ordering.savings import Savings
from kprune.select.ranking.statistics import Observing, Statistics
from kprune.text import clean


class Wanted(Struct, frozen=True):
    """What a choice makes of the order.

    Attributes:
        currency: what groups are to save: `parameters`, `flops` or `bytes`.
        weighting: how much errors of outputs count: `relmean` or `fisher`.
        enough: the savings from which on the order hardly matters.
    """

    currency: str = "parameters"
    weighting: str = "relmean"
    enough: float = np.inf


class Eliminated(Struct, frozen=True):
    """An order of groups.

    Attributes:
        position: float64 (labels,), at a group's number its place, from 0; inf where it has none.
        unknown: bool (labels,), units whose cost is unknown.
        left_out: by address, why a whole layer is unknown.
    """

    position: np.ndarray
    unknown: np.ndarray
    left_out: dict[str, str]


def eliminated(
    groups: Groups,
    statistics: Statistics,
    axes: Iterable[UnitAxis],
    frozen: np.ndarray,
    least: np.ndarray,
    wanted: Wanted,
) -> Eliminated:
    """Order the groups that have units in some axes.

    Args:
        frozen: bool (labels,), what cannot go.
        least: int64, for each axis of the model how many units must stay.
    Raises: UsageError if there are no data.
    """
    axes = list(axes)
    observed = _observed(statistics)
    observations = observed.observations(wanted.weighting)
    readers = list(_unknown(groups, statistics, observations, axes))
    unknown = np.zeros(groups.map.count, bool)
    for reader in readers:
        unknown |= groups.spread(reader.ids)
    free = [axis.ids[~(frozen | unknown)[axis.ids]] for axis in axes]
    candidates = Candidates.among(groups, np.concatenate([np.zeros(0, np.int64), *free]))
    sizes = np.array([len(axis) for axis in groups.map.axes.values()], np.int64)
    order = eliminate(
        observations,
        statistics.source.read,
        candidates,
        Savings(statistics.analysis, candidates, wanted.currency),
        Limits(groups.owner, sizes, least, wanted.enough),
        ridge=ridge_for(observed.samples),
    )
    position = np.full(groups.map.count, np.inf)
    position[candidates.heads] = order.position
    return Eliminated(position, unknown, _left_out(groups, axes, frozen, unknown, readers))


def _observed(statistics: Statistics) -> Observing:
    if statistics.observed is None:
        raise UsageError(
            "the criterion obs needs data",
            why="it measures how well the remaining units make up for the others",
            do="give --data FILE.npz with x; targets are not needed",
        )
    return statistics.observed


def _unknown(
    groups: Groups,
    statistics: Statistics,
    observations: Sequence[Observation],
    axes: Iterable[UnitAxis],
) -> Iterable[Reader]:
    """What reads units and is never refitted; and the units that no weight reads."""
    known = {path for one in observations for path in one.consumer.paths}
    yield from read_elsewhere(statistics.analysis, known)
    read = [factor.ravel() for one in observations for factor in one.consumer.row_labels]
    has_rows = np.zeros(groups.map.count, bool)
    has_rows[groups.of[np.concatenate([np.zeros(0, np.int64), *read])]] = True
    for axis in axes:
        ids = axis.ids[~has_rows[groups.of[axis.ids]]]
        if ids.size:
            yield Reader(ids, "are read by no weights that could be refitted")


def _left_out(
    groups: Groups,
    axes: Iterable[UnitAxis],
    frozen: np.ndarray,
    unknown: np.ndarray,
    readers: Sequence[Reader],
) -> dict[str, str]:
    found = {}
    for axis in axes:
        free = axis.ids[~frozen[axis.ids]]
        if free.size and unknown[free].all():
            tied = groups.spread(free)
            reader = next(reader for reader in readers if tied[reader.ids].any())
            found[axis.address] = f"the units of '{clean(axis.address)}' {reader.why}"
    return found
