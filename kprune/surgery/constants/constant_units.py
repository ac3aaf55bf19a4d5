"""What is known of a tensor's values: the units that are constant, whatever the input."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from kprune.labels.labels import Labels


class ConstantUnits(Struct, frozen=True, eq=False):
    """The units of one tensor that are constant.

    Attributes:
        ids: sorted int64 (n,), labels: at every position where one stands, the tensor has …
        values: float64 (n,), … this value.
    """

    ids: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, values: np.ndarray) -> ConstantUnits:
        """What a tensor's positions say of its units.

        Args:
            ids: labels, 0 where there is none.
            values: of the same number; NaN where a value is not known. A unit that has another
                value at another position, or an unknown one at any, is not known.
        """
        flat, given = ids.ravel(), np.asarray(values, np.float64).ravel()
        standing = flat != 0
        flat, given = flat[standing], given[standing]
        given = np.where(np.isfinite(given), given, np.nan)  # an infinity cannot be folded
        if not len(flat) or np.isnan(given).all():
            return NOTHING
        order = np.argsort(flat, kind="stable")
        flat, given = flat[order], given[order]
        starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
        low, high = np.minimum.reduceat(given, starts), np.maximum.reduceat(given, starts)
        same = low == high  # False where either is NaN
        return cls(flat[starts][same], low[same])

    def at(self, ids: np.ndarray) -> np.ndarray:
        """The values where these labels stand, shaped like `ids`; NaN where none is known."""
        if not len(self.ids):
            return np.full(ids.shape, np.nan)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, self.values[place], np.nan)

    def only(self, keep: np.ndarray) -> ConstantUnits:
        """Those for which a bool (n,) is True."""
        return self if keep.all() else ConstantUnits(self.ids[keep], self.values[keep])

    def over(self, labels: Labels) -> np.ndarray:
        """The values over a tensor: of its rank, extent 1 where they do not vary."""
        result = np.full((1,) * labels.rank, np.nan)
        for factor in labels.factors:
            here = self.at(factor)
            result = np.where(np.isnan(result), here, result)
        return result


NOTHING = ConstantUnits(np.zeros(0, np.int64), np.zeros(0))


def joined(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> ConstantUnits:
    """What several runs of positions say together, as (labels, values) pairs."""
    ids, values = [np.zeros(0, np.int64)], [np.zeros(0)]
    for some, given in parts:
        ids.append(some.ravel())
        values.append(np.asarray(given, np.float64).ravel())
    return ConstantUnits.of(np.concatenate(ids), np.concatenate(values))


def read_off(labels: Labels, values: np.ndarray) -> ConstantUnits:
    """The units of a tensor that are constant, from its values (NaN where unknown)."""
    parts = []
    for factor in labels.factors:
        try:
            shape = np.broadcast_shapes(factor.shape, values.shape)
        except ValueError:
            return NOTHING
        parts.append((np.broadcast_to(factor, shape), np.broadcast_to(values, shape)))
    return joined(parts)
