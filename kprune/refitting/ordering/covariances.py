"""What went into each consumer on data.

A consumer is a linear map that reads units: the kernel of a Dense or a convolution, the gates of an
LSTM, the output projection of an attention. It consists of independent parts (the groups of a grouped
convolution, the channels of a depthwise one); nearly always there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from msgspec import Struct

Read = Callable[[str], np.ndarray]
"""Gives a tensor of the model file by its path."""


class Consumer(Protocol):
    """A batched linear map: G parts, each from D rows (inputs x window, in the kernel's order) to M columns.

    Attributes:
        name: for messages; paths: of its weights in the file.
        shape: (G, D, M).
        row_labels: int64 arrays (k, G, D), as `kprune.labels.labels.Axis.factors` has them: a row is gone
            as soon as for any of these arrays all its k labels are.
        column_labels: the same for the columns, (k, G, M).
    """

    @property
    def name(self) -> str: ...

    @property
    def paths(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def row_labels(self) -> tuple[np.ndarray, ...]: ...

    @property
    def column_labels(self) -> tuple[np.ndarray, ...]: ...

    def matrix(self, read: Read) -> np.ndarray:
        """The map itself, float64 (G, D, M)."""
        ...


class Covariance(Struct, frozen=True, eq=False):
    """The covariance of a consumer's rows on data, whole or by channels.

    A Dense behind a Flatten may have so many rows that D x D numbers fit nowhere. By channels, the
    same covariance stands for every place, and places count as independent of each other.

    Attributes:
        blocks: float64 (G, C, C), sums divided by the number of rows that were seen.
        places: D / C, how often a block stands on the diagonal: 1 where it is the whole matrix. Row
            p * C + c is channel c at place p.
    """

    blocks: np.ndarray
    places: int = 1

    @property
    def matrix(self) -> np.ndarray:
        """The whole of it, float64 (G, D, D)."""
        if self.places == 1:
            return self.blocks
        return np.stack([np.kron(np.eye(self.places), block) for block in self.blocks])


class Observation(Struct, frozen=True, eq=False):
    """A consumer, and what went into it on data.

    Attributes:
        covariance: centred where a constant does no harm behind the consumer (it has a bias, or a
            BatchNormalization follows), else the second moments.
        weights: float64 (G, M), how much an error of each output counts; None for shares of its
            variance, each divided by the root of G M.
        importance: what such relative errors are multiplied by.
    """

    consumer: Consumer
    covariance: Covariance
    weights: np.ndarray | None = None
    importance: float = 1.0
