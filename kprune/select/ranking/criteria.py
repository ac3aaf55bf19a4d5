"""What ranks units when a share is asked for, not a list: a score a unit, the lowest go first."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from kprune.criteria_table import BUILTIN, CUSTOM, Criterion
from kprune.errors import ExpressionError, KpruneError, UsageError
from kprune.faults import shown
from kprune.labels.map import UnitAxis
from kprune.pointing import did_you_mean
from kprune.select.naming.names import ALL_NAMES
from kprune.select.ranking.eliminated import Wanted, eliminated
from kprune.select.ranking.statistics import Statistics
from kprune.text import clean

__all__ = ["CUSTOM", "LayerUnits", "criterion", "scores"]


@dataclass(frozen=True, eq=False)
class LayerUnits:
    """The units of one layer, as a criterion sees them.

    Attributes:
        name: of the layer, as a user writes it: `conv_1`, `mha.heads`.
        seed: for a criterion that draws numbers.
    """

    statistics: Statistics
    axis: UnitAxis
    seed: int = 0

    @property
    def name(self) -> str:
        return self.axis.address

    def __len__(self) -> int:
        return len(self.axis)

    def __getitem__(self, name: str) -> np.ndarray:
        """A statistic of each unit, by the names that `--where` knows: (units,); `w` with the units last.

        Raises: ExpressionError if these units do not have it, KeyError if there is no such name.
        """
        if name in ALL_NAMES:
            return self.statistics.env(self.axis, [name])[name]
        if name in ON_DATA:
            return self.statistics.on_data(self.axis, name)
        raise KeyError(name)

    def gram(self) -> np.ndarray:
        """Inner products of the units' incoming weights, float64 (units, units)."""
        return self.statistics.gram(self.axis)


ON_DATA = frozenset({"taylor", "hessian"})
BY_ORDER = frozenset({"obs"})
"""Criteria whose scores are places in one order of the groups of all layers; see `eliminated`."""


@BUILTIN.criterion("l1")
def l1(units: LayerUnits) -> np.ndarray:
    """Sum of magnitudes of a unit's incoming weights (Li et al. 2017, "Pruning Filters for Efficient ConvNets").

    Returns: float64 (units,); the smallest go first, as with every criterion.
    """
    return units["l1"]


@BUILTIN.criterion("l2")
def l2(units: LayerUnits) -> np.ndarray:
    """Euclidean norm of a unit's incoming weights."""
    return units["l2"]


@BUILTIN.criterion("mean")
def mean(units: LayerUnits) -> np.ndarray:
    """Mean of a unit's incoming weights, with its sign."""
    return units["mean"]


@BUILTIN.criterion("random")
def random(units: LayerUnits) -> np.ndarray:
    """Uniform numbers that depend on the seed and the layer's name alone: the baseline to beat."""
    return np.random.default_rng([units.seed, zlib.crc32(units.name.encode())]).random(len(units))


@BUILTIN.criterion("bn-scale")
def bn_scale(units: LayerUnits) -> np.ndarray:
    """|gamma| of the BatchNormalization behind a unit (Liu et al. 2017, "Network Slimming")."""
    return np.abs(units["gamma"]).astype(np.float64)


@BUILTIN.criterion("fpgm")
def fpgm(units: LayerUnits) -> np.ndarray:
    """Sum of distances to the other units of the layer (He et al. 2019, "Filter Pruning via Geometric Median").

    score(i) = sum over j of ||w_i - w_j||: a unit near the geometric median is one that the others
    can stand in for.
    """
    gram = units.gram()
    squares = np.diag(gram)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)).sum(axis=1)


@BUILTIN.criterion("lamp")
def lamp(units: LayerUnits) -> np.ndarray:
    """Share of a unit's energy among the units at least as strong (Lee et al. 2021, "LAMP", by units).

    score(i) = ||w_i||^2 / sum of ||w_j||^2 over all j with ||w_j|| >= ||w_i||; comparable between layers.
    """
    energy = units["l2"] ** 2
    order = np.argsort(energy, kind="stable")
    tail = np.cumsum(energy[order][::-1])[::-1]
    # Equals share the sum that starts with the first of them.
    first = np.searchsorted(energy[order], energy[order], side="left")
    scores = np.empty(len(energy))
    scores[order] = energy[order] / np.maximum(tail[first], np.finfo(float).tiny)
    return scores


@BUILTIN.criterion("apoz")
def apoz(units: LayerUnits) -> np.ndarray:
    """Share of activations that are not 0: those that are mostly 0 go first (Hu et al. 2016, "Network Trimming")."""
    return 1.0 - units["apoz"]


@BUILTIN.criterion("activation-mean")
def activation_mean(units: LayerUnits) -> np.ndarray:
    """Mean activation on the data, with its sign."""
    return units["activation_mean"]


@BUILTIN.criterion("activation-std")
def activation_std(units: LayerUnits) -> np.ndarray:
    """Standard deviation of the activation: what hardly varies says little."""
    return units["activation_std"]


@BUILTIN.criterion("activation-absmax")
def activation_absmax(units: LayerUnits) -> np.ndarray:
    """Largest magnitude of the activation on the data."""
    return units["activation_absmax"]


@BUILTIN.criterion("taylor")
def taylor(units: LayerUnits) -> np.ndarray:
    """|sum of activation * gradient of the loss|, averaged over samples (Molchanov et al. 2017). Needs labels."""
    return units["taylor"]


@BUILTIN.criterion("hessian")
def hessian(units: LayerUnits) -> np.ndarray:
    """Half the squared derivative of the outputs by the unit, averaged over samples; needs no labels.

    The Gauss-Newton form of the saliency of LeCun et al. 1990, "Optimal Brain Damage", by units.
    """
    return units["hessian"]


@BUILTIN.criterion("obs")
def obs(units: LayerUnits) -> np.ndarray:
    """The order in which units go when the weights that read them are refitted, cheapest per parameter first.

    Optimal Brain Surgeon (Hassibi & Stork 1993) over all layers at once; needs data, no labels. Here
    for one layer alone; whoever chooses has all layers ordered together.
    """
    groups = units.statistics.analysis.groups
    least = np.zeros(len(groups.map.axes), np.int64)
    found = eliminated(groups, units.statistics, [units.axis], groups.frozen(), least, Wanted())
    if found.left_out:
        raise ExpressionError(found.left_out[units.name], do="leave the layer out (--exclude)")
    return found.position[groups.of[units.axis.ids]]


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
