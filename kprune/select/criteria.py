"""What ranks units when a share is asked for, not a list: a score a unit, the lowest go first."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from kprune.errors import UsageError
from kprune.labels.map import UnitAxis
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


def bn_scale(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """|gamma| of the BatchNormalization behind a unit (Liu et al. 2017, "Network Slimming")."""
    return np.abs(statistics.env(axis, ["gamma"])["gamma"]).astype(np.float64)


def fpgm(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Sum of distances to the other units of the layer (He et al. 2019, "Filter Pruning via Geometric Median").

    score(i) = sum over j of ||w_i - w_j||: a unit near the geometric median is one that the others
    can stand in for.
    """
    gram = statistics.gram(axis)
    squares = np.diag(gram)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)).sum(axis=1)


def lamp(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Share of a unit's energy among the units at least as strong (Lee et al. 2021, "LAMP", by units).

    score(i) = ||w_i||^2 / sum of ||w_j||^2 over all j with ||w_j|| >= ||w_i||; comparable between layers.
    """
    energy = statistics.env(axis, ["l2"])["l2"] ** 2
    order = np.argsort(energy, kind="stable")
    tail = np.cumsum(energy[order][::-1])[::-1]
    # Equals share the sum that starts with the first of them.
    first = np.searchsorted(energy[order], energy[order], side="left")
    scores = np.empty(len(energy))
    scores[order] = energy[order] / np.maximum(tail[first], np.finfo(float).tiny)
    return scores


def apoz(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Share of activations that are not 0: those that are mostly 0 go first (Hu et al. 2016, "Network Trimming")."""
    return 1.0 - statistics.on_data(axis, "apoz")


def activation_mean(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Mean activation on the data, with its sign."""
    return statistics.on_data(axis, "activation_mean")


def activation_std(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Standard deviation of the activation: what hardly varies says little."""
    return statistics.on_data(axis, "activation_std")


def activation_absmax(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Largest magnitude of the activation on the data."""
    return statistics.on_data(axis, "activation_absmax")


def taylor(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """|sum of activation * gradient of the loss|, averaged over samples (Molchanov et al. 2017). Needs labels."""
    return statistics.on_data(axis, "taylor")


def hessian(statistics: Statistics, axis: UnitAxis, seed: int) -> np.ndarray:
    """Half the squared derivative of the outputs by the unit, averaged over samples; needs no labels.

    The Gauss-Newton form of the saliency of LeCun et al. 1990, "Optimal Brain Damage", by units.
    """
    return statistics.on_data(axis, "hessian")


CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "mean": mean,
    "bn-scale": bn_scale,
    "fpgm": fpgm,
    "lamp": lamp,
    "random": random,
    "apoz": apoz,
    "activation-mean": activation_mean,
    "activation-std": activation_std,
    "activation-absmax": activation_absmax,
    "taylor": taylor,
    "hessian": hessian,
}
NEED_DATA = frozenset(
    {"apoz", "activation-mean", "activation-std", "activation-absmax", "taylor", "hessian"}
)


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
