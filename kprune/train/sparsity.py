"""Training that makes units small which the model can do without: a penalty on the norms of whole groups.

To the loss comes, for every group of units that can go,

    strength * (sqrt(m) * ||scales|| + sqrt(n) * ||rest||)

`scales` are the m gammas of the BatchNormalizations that the group passes (one gamma: the L1 of network
slimming, Liu et al. 2017); `rest` are the n other trainable numbers that go with the group: what makes its
units and what its consumers hold for them (group lasso, Yuan and Lin 2006: unlike the square, the norm pulls
a group to zero as a whole, and the root of its size makes the pull on each number the same).

Both sides count because a ReLU lets a factor move from one to the other: were the way in alone penalised,
it would shrink and the way out grow, and nothing would be gained. What a BatchNormalization normalises is
left out for the same reason: its scale has no effect, and gamma speaks for it.

The penalty's gradient goes through the optimizer like any other. A proximal step after each step would have
to be as small as the learning rate makes it: at Adam's 1e-3 and a strength of 1e-4 it moves a weight by 1e-7.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError
from kprune.labels.groups import Groups
from kprune.labels.map import Weight
from kprune.runtime.keras_import import import_keras
from kprune.train.checkpoint import Epoch
from kprune.train.variables import labels_along, trainable_variables

PENALTY, NEAR_ZERO = "penalty", "near_zero"
NEAR = 0.05  # of the largest group of the same layer; the steps of an optimizer leave some of any
_LEAST = 1e-12  # under the root, whose slope at 0 is infinite


class Share(Struct, frozen=True, eq=False):
    """What one variable adds to the squares of norms.

    Attributes:
        axis: moved to the end before the rest is summed.
        norms: int32 (positions,), which norm each position counts for; the last one is nobody's.
    """

    variable: Any
    axis: int
    norms: np.ndarray


class Sparsity:
    """The penalty of a model, and what it has come to.

    Args:
        live: the model, as Keras loaded it from the file, or from what became of it since.
        analysis: of the file.
        strength: of the penalty.
    Attributes:
        groups: how many are penalised.
    Raises: CannotPruneError if it cannot be told which variable is whose, or no unit can go.
    """

    def __init__(self, live: Any, analysis: Analysis, strength: float) -> None:
        variables = trainable_variables(
            live, analysis, what="units cannot be made sparse", option="--sparsify"
        )
        self._strength = strength
        numbers, self.groups = _numbered(analysis.groups)
        if not self.groups:
            raise CannotPruneError(
                "there is no unit to make sparse",
                why="none of the model's units can be removed",
                do="leave out --sparsify ('kprune inspect' shows what freezes them)",
            )
        self._shares = _shares(analysis.weights, variables, numbers, self.groups)
        if not self._shares:
            raise CannotPruneError(
                "there is no unit to make sparse",
                why="no weight of units that can be removed is trainable",
                do="leave out --sparsify, or set trainable in Keras and save that",
            )
        self._sizes = self._sizes_of_norms()
        self._owner = _owners(analysis.groups, numbers, self.groups)

    def join(self, trainer: Any) -> None:
        """Have a trainer's loss count the penalty, while it trains and not while it judges."""
        own: Callable[..., Any] = trainer.compute_loss

        @functools.wraps(own)
        def compute_loss(*arguments: Any, **named: Any) -> Any:
            loss = own(*arguments, **named)
            return loss + self._penalty() if named.get("training", True) else loss

        trainer.compute_loss = compute_loss

    def figures(self) -> Epoch:
        """The penalty as it is, and the share of groups that are near zero beside the largest of their layer."""
        norms = np.sqrt(np.asarray(self._squares(), np.float64)[:-1])
        scales, rest = norms.reshape(2, -1)
        many, more = self._sizes.reshape(2, -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            typical = np.where(many > 0, scales / np.sqrt(many), rest / np.sqrt(more))
        largest = np.zeros(int(self._owner.max()) + 1)
        np.maximum.at(largest, self._owner, typical)
        return {
            PENALTY: self._strength * float(np.sqrt(self._sizes) @ norms),
            NEAR_ZERO: float((typical <= NEAR * largest[self._owner]).mean()),
        }

    def _squares(self) -> Any:
        """The square of every norm (2 * groups + 1,): scales, the rest, and what is nobody's."""
        ops = import_keras().ops
        total = ops.zeros(2 * self.groups + 1)
        for share in self._shares:
            square = ops.square(ops.cast(ops.convert_to_tensor(share.variable), "float32"))
            moved = ops.reshape(ops.moveaxis(square, share.axis, -1), (-1, len(share.norms)))
            total += ops.segment_sum(ops.sum(moved, axis=0), share.norms, 2 * self.groups + 1)
        return total

    def _penalty(self) -> Any:
        ops = import_keras().ops
        norms = ops.sqrt(self._squares()[:-1] + _LEAST)
        return self._strength * ops.sum(ops.convert_to_tensor(np.sqrt(self._sizes)) * norms)

    def _sizes_of_norms(self) -> np.ndarray:
        """float32 (2 * groups,): how many numbers each norm has."""
        sizes = np.zeros(2 * self.groups + 1)
        for share in self._shares:
            each = np.prod(share.variable.shape) / len(share.norms)
            sizes += each * np.bincount(share.norms, minlength=len(sizes))
        return sizes[:-1].astype(np.float32)


def _numbered(groups: Groups) -> tuple[np.ndarray, int]:
    """For each label the number of its group, int64 (labels,), -1 for one that cannot go; and how many there are."""
    free = (groups.sizes > 0) & ~groups.frozen()
    free[0] = False
    roots = np.unique(groups.of[free])
    numbers = np.full(len(groups.of), -1, np.int64)
    numbers[free] = np.searchsorted(roots, groups.of[free])
    return numbers, len(roots)


def _owners(groups: Groups, numbers: np.ndarray, count: int) -> np.ndarray:
    """int64 (groups,): the first axis of units that each group has members of."""
    named = (numbers >= 0) & (groups.owner >= 0)
    owners = np.full(count, len(groups.map.axes), np.int64)
    np.minimum.at(owners, numbers[named], groups.owner[named])
    return owners


def _shares(
    weights: list[Weight], variables: dict[str, Any], numbers: np.ndarray, count: int
) -> list[Share]:
    """What each variable adds, along each of its axes that has units."""
    trained = [weight for weight in weights if weight.path in variables]
    scaled = np.zeros(count + 1, bool)
    for weight in filter(_is_scale, trained):
        scaled[numbers[labels_along(weight, 0)]] = True
    scaled[-1] = False
    found = []
    for weight in trained:
        for axis, along in enumerate(weight.axes):
            # A grouped kernel's input positions mean other inputs in each group: what makes them counts.
            if not along.factors or (weight.grouped is not None and axis == (weight.out or 0) - 1):
                continue
            of = numbers[labels_along(weight, axis)]
            if weight.makes(along.all_ids()) == axis and weight.name in ("kernel", "bias"):
                of = np.where(scaled[of], -1, of)
            norms = np.where(of < 0, 2 * count, of + (0 if _is_scale(weight) else count))
            if (of >= 0).any():
                found.append(Share(variables[weight.path], axis, norms.astype(np.int32)))
    return found


def _is_scale(weight: Weight) -> bool:
    return weight.name == "gamma" and weight.layer.kind.endswith("BatchNormalization")
