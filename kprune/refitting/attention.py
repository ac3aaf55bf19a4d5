"""Attention that has fewer key dimensions: queries make up for what the scores lack.

A score is the product of a query and a key, summed over their dimensions. For each head the
dimensions that are gone are expressed by those that are left, K = K' M + a constant, and a query Q is
replaced by Q' = Q Mᵀ: then Q' K'ᵀ comes as near to Q Kᵀ as any Q' can. The constant adds the same to
all scores of a query, and the softmax takes it away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct

from kprune.refitting.moments import Moments
from kprune.refitting.pairs import Pair


def key_layer(query: Any, layers: list[Any]) -> Any:
    """The layer that makes the keys for a layer that makes queries; None if it makes none. layers: all of a call."""
    for attention in layers:
        if getattr(attention, "_query_dense", None) is query:
            return getattr(attention, "_key_dense", None)
    return None


class Heads(Struct, frozen=True, eq=False):
    """Which heads and dimensions of a query or key kernel are left: bool (heads,) and (dims,)."""

    heads: np.ndarray
    dims: np.ndarray

    @classmethod
    def of(cls, pair: Pair) -> Heads:
        kept = ~pair.columns_gone.reshape(pair.consumer.layer.kernel.shape[1:])
        return cls(np.asarray(kept.any(axis=1)), np.asarray(kept.any(axis=0)))


class KeySums:
    """The least squares by which the keys that are left express all.

    Args:
        keys: the kernel that makes them, in both models.
    """

    def __init__(self, keys: Pair) -> None:
        self.heads = Heads.of(keys)
        dims = self.heads.dims
        self._selected = np.eye(len(dims))[dims]
        self._sums = Moments((int(self.heads.heads.sum()), int(dims.sum()), len(dims)))

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Count keys in, of the original and of what is left: float32 (…, heads, dims)."""
        whole = before[..., self.heads.heads, :]
        rows = [np.moveaxis(x.reshape(-1, *x.shape[-2:]), 1, 0) for x in (after, whole)]
        self._sums.add(*rows)

    def maps(self, ridge: float) -> np.ndarray:
        """M, float64 (heads that are left, dimensions that are left, dimensions)."""
        prior = np.broadcast_to(self._selected, (len(self._sums.x), *self._selected.shape))
        shift = np.zeros((len(prior), prior.shape[2]))
        return self._sums.fit(prior, shift, ridge=ridge, free=True).matrix


def queries_for(pair: Pair, keys: KeySums, maps: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What is wanted of the queries that are left, for what the original makes of all: both (1, R, columns)."""
    own = Heads.of(pair)
    heads = np.flatnonzero(own.heads)
    # Query heads share key heads in runs; heads that are left share those that are left.
    runs = len(own.heads) // len(keys.heads.heads)
    shared = np.cumsum(keys.heads.heads)[heads // runs] - 1
    whole = z.reshape(z.shape[1], len(own.heads), -1)[:, heads]
    made = np.einsum("rhd,hed->rhe", whole, maps[shared].astype(np.float32))
    return made.reshape(1, len(made), -1)
