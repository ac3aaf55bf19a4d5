"""What ranks units when a share is asked for, not a list."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from kprune.errors import UsageError
from kprune.labels.trace import UnitAxis
from kprune.select.pointing import did_you_mean
from kprune.select.statistics import Statistics

Criterion = Callable[[Statistics, UnitAxis, int], np.ndarray]


def l1(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Sum of magnitudes of a unit's incoming weights (Li et al. 2017, "Pruning Filters for Efficient ConvNets").

    Returns: float64 (units,); the smallest go first, as with every criterion.
    """
    return statistics.env(axis, ["l1"])["l1"]


def l2(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Euclidean norm of a unit's incoming weights."""
    return statistics.env(axis, ["l2"])["l2"]


def mean(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Mean of a unit's incoming weights, with its sign."""
    return statistics.env(axis, ["mean"])["mean"]


def random(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Uniform numbers that depend on the seed and the layer's name alone: the baseline to beat."""
    return np.random.default_rng([seed, zlib.crc32(axis.address.encode())]).random(len(axis))


CRITERIA: dict[str, Criterion] = {"l1": l1, "l2": l2, "mean": mean, "random": random}


def criterion(name: str) -> Criterion:
    """The criterion of a name.

    Raises: UsageError with the names there are.
    """
    if name not in CRITERIA:
        hint = did_you_mean(name, CRITERIA)
        raise UsageError(
            f"there is no criterion '{name}'{'; ' + hint if hint else ''}",
            do=f"choose one of {', '.join(CRITERIA)}",
        )
    return CRITERIA[name]
