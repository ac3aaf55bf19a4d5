"""The criteria that come with kprune: a score per unit, the lowest go first.

To add one, write its function here; help, plans and messages know it then. Light, since help lists
them: numpy is imported where it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kprune.criteria_table import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


class Units(Protocol):
    """The units of one layer, as a criterion sees them.

    Attributes:
        name: of the layer, as a user writes it: `conv_1`, `mha.heads`.
        seed: for a criterion that draws numbers.
    """

    @property
    def name(self) -> str: ...

    @property
    def seed(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, name: str) -> np.ndarray:
        """A statistic of each unit, by the names that `--where` knows: (units,); `w` with the units last.

        Raises: ExpressionError if these units do not have it, KeyError if there is no such name.
        """

    def gram(self) -> np.ndarray:
        """Inner products of the units' incoming weights, float64 (units, units)."""

    def activations(self) -> Iterator[np.ndarray]:
        """What the units give on the data, batch by batch: float64 (values, units).

        For a statistic that `--where` does not know. The model is run once for each layer that asks.
        Raises: ExpressionError if there are no data.
        """

    def places(self) -> np.ndarray:
        """The place of each unit in the order in which they go when what reads them is refitted.

        See `kprune.select.ranking.eliminated`. Raises: ExpressionError if they have none.
        """


BY_ORDER = frozenset({"obs"})
"""Criteria whose scores are places in one order of the groups of all layers; see `eliminated`."""


@BUILTIN.criterion(
    "l1",
    formula="Σ |w| over the unit's incoming weights",
    paper="Li et al. 2017, Pruning Filters for Efficient ConvNets",
)
def l1(units: Units) -> np.ndarray:
    """Sum of magnitudes of a unit's incoming weights (Li et al. 2017, "Pruning Filters for Efficient ConvNets").

    Returns: float64 (units,); the smallest go first, as with every criterion.
    """
    return units["l1"]


@BUILTIN.criterion("l2", formula="√ Σ w² over the unit's incoming weights")
def l2(units: Units) -> np.ndarray:
    """Euclidean norm of a unit's incoming weights."""
    return units["l2"]


@BUILTIN.criterion("mean", formula="mean of the unit's incoming weights, with its sign")
def mean(units: Units) -> np.ndarray:
    """Mean of a unit's incoming weights, with its sign."""
    return units["mean"]


@BUILTIN.criterion(
    "bn-scale",
    formula="|gamma| of the BatchNormalization behind the unit",
    paper="Liu et al. 2017, Network Slimming",
)
def bn_scale(units: Units) -> np.ndarray:
    """|gamma| of the BatchNormalization behind a unit (Liu et al. 2017, "Network Slimming")."""
    import numpy as np

    return np.abs(units["gamma"]).astype(np.float64)


@BUILTIN.criterion(
    "fpgm",
    formula="Σ over the layer's units j of ‖w − w_j‖",
    paper="He et al. 2019, Filter Pruning via Geometric Median",
)
def fpgm(units: Units) -> np.ndarray:
    """Sum of distances to the other units of the layer (He et al. 2019, "Filter Pruning via Geometric Median").

    score(i) = sum over j of ||w_i - w_j||: a unit near the geometric median is one that the others
    can stand in for.
    """
    import numpy as np

    gram = units.gram()
    squares = np.diag(gram)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)).sum(axis=1)


@BUILTIN.criterion(
    "lamp",
    formula="‖w‖² / Σ ‖w_j‖² over the layer's units j with ‖w_j‖ ≥ ‖w‖",
    paper="Lee et al. 2021, LAMP, by units",
)
def lamp(units: Units) -> np.ndarray:
    """Share of a unit's energy among the units at least as strong (Lee et al. 2021, "LAMP", by units).

    score(i) = ||w_i||^2 / sum of ||w_j||^2 over all j with ||w_j|| >= ||w_i||; comparable between layers.
    """
    import numpy as np

    energy = units["l2"] ** 2
    order = np.argsort(energy, kind="stable")
    tail = np.cumsum(energy[order][::-1])[::-1]
    # Equals share the sum that starts with the first of them.
    first = np.searchsorted(energy[order], energy[order], side="left")
    scores = np.empty(len(energy))
    scores[order] = energy[order] / np.maximum(tail[first], np.finfo(float).tiny)
    return scores


@BUILTIN.criterion(
    "random", formula="a number drawn from the seed and the layer's name: the baseline to beat"
)
def random(units: Units) -> np.ndarray:
    """Uniform numbers that depend on the seed and the layer's name alone: the baseline to beat."""
    import zlib

    import numpy as np

    return np.random.default_rng([units.seed, zlib.crc32(units.name.encode())]).random(len(units))


@BUILTIN.criterion(
    "apoz",
    data=True,
    formula="1 − share of activations that are 0",
    paper="Hu et al. 2016, Network Trimming",
)
def apoz(units: Units) -> np.ndarray:
    """Share of activations that are not 0: those that are mostly 0 go first (Hu et al. 2016, "Network Trimming")."""
    return 1.0 - units["apoz"]


@BUILTIN.criterion("activation-mean", data=True, formula="mean activation, with its sign")
def activation_mean(units: Units) -> np.ndarray:
    """Mean activation on the data, with its sign."""
    return units["activation_mean"]


@BUILTIN.criterion("activation-std", data=True, formula="standard deviation of the activation")
def activation_std(units: Units) -> np.ndarray:
    """Standard deviation of the activation: what hardly varies says little."""
    return units["activation_std"]


@BUILTIN.criterion("activation-absmax", data=True, formula="largest magnitude of the activation")
def activation_absmax(units: Units) -> np.ndarray:
    """Largest magnitude of the activation on the data."""
    return units["activation_absmax"]


@BUILTIN.criterion(
    "taylor",
    labels=True,
    formula="mean over samples of |Σ activation × gradient of the loss|",
    paper="Molchanov et al. 2017, Pruning CNNs for Resource Efficient Inference",
)
def taylor(units: Units) -> np.ndarray:
    """|sum of activation * gradient of the loss|, averaged over samples (Molchanov et al. 2017). Needs labels."""
    return units["taylor"]


@BUILTIN.criterion(
    "hessian",
    data=True,
    formula="½ × mean over samples of the squared derivative of the outputs by the unit",
    paper="LeCun et al. 1990, Optimal Brain Damage, Gauss-Newton form, by units",
)
def hessian(units: Units) -> np.ndarray:
    """Half the squared derivative of the outputs by the unit, averaged over samples; needs no labels.

    The Gauss-Newton form of the saliency of LeCun et al. 1990, "Optimal Brain Damage", by units.
    """
    return units["hessian"]


@BUILTIN.criterion(
    "obs",
    data=True,
    formula="place in the order in which units go when the weights that read them are refitted, cheapest first",
    paper="Hassibi & Stork 1993, Optimal Brain Surgeon, over all layers at once",
)
def obs(units: Units) -> np.ndarray:
    """The order in which units go when the weights that read them are refitted, cheapest per parameter first.

    Optimal Brain Surgeon (Hassibi & Stork 1993) over all layers at once; needs data, no labels. Here
    for one layer alone; the chooser orders all layers together.
    """
    return units.places()
