"""Scores of whole groups: units that go together are ranked together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kprune.errors import ExpressionError, UsageError
from kprune.labels.groups import Groups, connected
from kprune.labels.map import UnitAxis
from kprune.select.ranking.criteria import BY_ORDER
from kprune.select.ranking.options import NORMALIZATIONS, REDUCTIONS, WEIGHTINGS
from kprune.select.ranking.scoring import LayerUnits, criterion, scores
from kprune.select.ranking.statistics import Statistics
from kprune.text import clean


@dataclass(frozen=True)
class Ranking:
    """How groups are scored.

    Attributes:
        criterion: what scores a unit.
        reduce: how the scores of a group's units become one.
        normalize: how a layer's scores are made comparable with other layers'.
        seed: for `random`.
        weighting: for `obs`, how much errors of outputs count.
    Raises: UsageError for an unknown word; of the criterion it is known later, once rules are loaded.
    """

    criterion: str
    reduce: str = "mean"
    normalize: str = "none"
    seed: int = 0
    weighting: str = "relmean"

    def __post_init__(self) -> None:
        for value, known, flag in (
            (self.weighting, WEIGHTINGS, "--weighting"),
            (self.reduce, REDUCTIONS, "--reduce"),
            (self.normalize, NORMALIZATIONS, "--normalize"),
        ):
            if value not in known:
                raise UsageError(
                    f"{flag} {value} is not known", do=f"choose one of {', '.join(known)}"
                )
        if self.weighting != "relmean" and self.criterion not in BY_ORDER:
            raise UsageError(
                f"--weighting {self.weighting} does not apply to the criterion '{clean(self.criterion)}'",
                do="leave it out, or use the criterion obs",
            )


@dataclass(frozen=True)
class Scores:
    """Scores of groups.

    Attributes:
        of: float64 (labels,), at a group's number its score; inf where nothing was scored.
        left_out: by address, why the criterion does not apply to a layer.
    """

    of: np.ndarray
    left_out: dict[str, str]


def score_groups(
    groups: Groups,
    statistics: Statistics,
    ranking: Ranking,
    axes: Iterable[UnitAxis],
    *,
    strict: bool,
) -> Scores:
    """Score every group that has units in the given axes.

    Args:
        axes: the layers that are asked; units of others in a group do not count.
        strict: whether a layer to which the criterion does not apply is an error.
    Raises: ExpressionError if it applies to none of them.
    """
    criterion(ranking.criterion)  # refuses an unknown name, whatever the axes
    count = groups.map.count
    figures: list[np.ndarray] = []
    places: list[np.ndarray] = []
    left_out: dict[str, str] = {}
    refused: ExpressionError | None = None
    for axis in axes:
        try:
            own = scores(ranking.criterion, LayerUnits(statistics, axis, ranking.seed))
        except ExpressionError as error:
            if strict:
                raise
            left_out[axis.address] = error.what
            refused = refused or error
            continue
        figures.append(_normalized(own, ranking.normalize))
        places.append(groups.of[axis.ids])
    if refused is not None and not figures:
        raise refused
    result = np.full(count, np.inf)
    if figures:
        at, single = np.concatenate(places), np.concatenate(figures)
        members = np.bincount(at, minlength=count)
        if ranking.reduce == "max":
            reduced = np.full(count, -np.inf)
            np.maximum.at(reduced, at, single)
        elif ranking.reduce == "l2":
            reduced = np.sqrt(np.bincount(at, single**2, minlength=count))
        else:
            reduced = np.bincount(at, single, minlength=count)
            if ranking.reduce == "mean":
                reduced = reduced / np.maximum(members, 1)
        result[members > 0] = reduced[members > 0]
    return Scores(result, left_out)


def _normalized(scores: np.ndarray, how: str) -> np.ndarray:
    tiny = np.finfo(float).tiny
    if how == "layer-mean":
        return scores / max(float(np.abs(scores).mean()), tiny)
    if how == "layer-max":
        return scores / max(float(np.abs(scores).max()), tiny)
    if how == "layer-gauss":
        return (scores - scores.mean()) / max(float(scores.std()), tiny)
    if how == "layer-rank":
        return ranks(scores)
    return scores


def ranks(scores: np.ndarray) -> np.ndarray:
    """How large a share of a layer's units scores less, float64 (units,), ties by index."""
    places = np.empty(len(scores))
    places[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return places / max(len(scores), 1)


def ranked_in_layers(groups: Groups, scores: np.ndarray, axes: Iterable[UnitAxis]) -> np.ndarray:
    """Scores of groups by their places in the layers that they have units in, float64 (labels,).

    Args:
        scores: float64 (labels,), at a group's number; inf where there is none.
    """
    total, members = np.zeros(groups.map.count), np.zeros(groups.map.count)
    for axis in axes:
        own = groups.of[axis.ids]
        np.add.at(total, own, ranks(scores[own]))
        np.add.at(members, own, 1)
    return np.where(np.isfinite(scores), total / np.maximum(members, 1), np.inf)


def blockwise(groups: Groups) -> Groups:
    """Groups in which units that stand along several axes at once go by whole rows.

    What is left of such a tensor must be a block. Of its axes the longest is taken, as its rows are
    the smallest portions.
    """
    ties = []
    seen: set[int] = set()
    for labels in groups.map.tensors.values():
        for factor in labels.factors:
            wide = [axis for axis, extent in enumerate(factor.shape) if extent > 1]
            if len(wide) < 2 or id(factor) in seen:
                continue
            seen.add(id(factor))
            rows = np.moveaxis(factor, max(wide, key=lambda axis: factor.shape[axis]), 0)
            rows = rows.reshape(len(rows), -1)
            ties.append((np.broadcast_to(rows[:, :1], rows.shape).ravel(), rows.ravel()))
    if not ties:
        return groups
    a, b = (np.concatenate(side) for side in zip(*ties, strict=True))
    every = np.arange(groups.map.count)
    return Groups(
        groups.map,
        connected(groups.map.count, np.concatenate([a, groups.of]), np.concatenate([b, every])),
    )
