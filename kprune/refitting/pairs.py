"""Each kernel of a model, with the layer that has it in what is left of the model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.labels.map import Weight
from kprune.refitting.consumers import Consumer, Variable, WeightKey
from kprune.refitting.kernels import KernelKind, Layout, constant_of
from kprune.refitting.recurrent import is_recurrent


class Pair(Struct, frozen=True, eq=False):
    """A kernel in both models.

    Attributes:
        consumer: what is known of it in the original.
        left: the Keras layer of the pruned model.
        rows_gone, columns_gone: bool (G, D) and (G, M).
        scale: by what the outputs of what is left are larger, since what reads them divides by less.
    """

    consumer: Consumer
    left: Any
    rows_gone: np.ndarray
    columns_gone: np.ndarray
    scale: float = 1.0

    @property
    def parts(self) -> np.ndarray:
        """The parts that are left, int64."""
        return np.flatnonzero(~(self.rows_gone.all(axis=1) | self.columns_gone.all(axis=1)))

    def columns(self, z: np.ndarray) -> np.ndarray:
        """Of the original's columns, (G, R, M), those that are left."""
        parts = self.parts
        if not self.columns_gone[parts].any():
            return z if len(parts) == len(z) else z[parts]
        return np.stack([z[part][:, ~self.columns_gone[part]] for part in parts])

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Of the original's rows, (G, R, D), those inputs that are left."""
        parts = self.parts
        if not self.rows_gone[parts].any():
            return x if len(parts) == len(x) else x[parts]
        return np.stack([x[part][:, ~self.rows_gone[part]] for part in parts])

    @property
    def kind(self) -> KernelKind:
        """How the kernel is used; a recurrent layer's are not asked for."""
        assert self.consumer.kind is not None
        return self.consumer.kind

    @property
    def kernel(self) -> Any:
        """The kernel's variable in the pruned model."""
        return getattr(self.left, self.kind.kernel)

    def matrix(self) -> np.ndarray:
        """What is left of the kernel, float64 (G, D, M)."""
        return self.layout.matrix(np.asarray(self.kernel).astype(np.float64))

    def unchanged(self) -> bool:
        """Whether the columns that are left are what they are in the original, if no row is gone."""
        layer, left = self.consumer.layer, self.left
        if self.consumer.kind is None:
            weights = zip(layer.cell.weights, left.cell.weights, strict=True)
            return all(np.array_equal(one, other) for one, other in weights)
        kernel = np.asarray(getattr(layer, self.kind.kernel)).astype(np.float64)
        whole, own = self.consumer.layout.matrix(kernel), self.matrix()
        constants = [
            constant_of(one, (len(matrix), matrix.shape[2]))[:, None]
            for one, matrix in ((layer, whole), (left, own))
        ]
        return np.array_equal(self.columns(whole), own) and np.array_equal(
            self.columns(constants[0]), constants[1]
        )

    @property
    def layout(self) -> Layout:
        """How the pruned model's layer uses it."""
        return self.kind.layout(self.left, len(self.kernel.shape))


def pairs_of(
    consumers: Iterable[Consumer],
    before: Mapping[WeightKey, Variable],
    after: Mapping[WeightKey, Variable],
    pruned: Any,
    gone: np.ndarray,
) -> dict[int, Pair]:
    """The kernels that both models have, by the identity of the original's layer.

    Args:
        before, after: the weights of both models; pruned: the second of them.
        gone: bool (labels,), in terms of the original.
    """
    runs = {id(layer.cell): layer for layer in pruned._flatten_layers() if is_recurrent(layer)}
    keys = {id(place.weight): key for key, place in before.items()}
    found = {}
    for consumer in consumers:
        place = after.get(keys[id(consumer.weights[0])])
        if place is None:
            continue  # it went with its branch
        left = runs.get(id(place.owner), place.owner)
        rows, columns = consumer.rows_gone(gone), consumer.columns_gone(gone)
        scale = _scale(consumer.weights[0], place.weight)
        found[id(consumer.layer)] = Pair(consumer, left, rows, columns, scale)
    return found


def _scale(before: Weight, after: Weight) -> float:
    """By what the cut scaled a weight: the query of an attention that has fewer key dimensions."""
    if before.scaled is None:
        return 1.0
    sizes = [weight.axes[before.scaled].size for weight in (after, before)]
    return math.sqrt((sizes[0] or 1) / (sizes[1] or 1))
