"""Which unit stands where in a tensor.

Every unit of a model has a number, its label; 0 means that no unit stands there. A tensor's labels
are one or more integer arrays of the tensor's rank, each with extent 1 along every axis on which it
does not vary. A Conv2D(32) on (None, 28, 28, 3) gives (None, 26, 26, 32) with labels of shape
(1, 1, 1, 32). One array is enough nearly everywhere; there are two where one layer's units stand
along one axis and another layer's along another (a Dense after a Permute): a position is gone as
soon as any of its labels is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.limits import POSITIONS

Shape = tuple[int | None, ...]
Factors = tuple[np.ndarray, ...]


def merged(inferred: Shape | None, recorded: Shape) -> Shape | None:
    """The more precise of two shapes of one tensor; None if they contradict each other."""
    if inferred is None:
        return recorded
    if len(inferred) != len(recorded):
        return None
    sizes: list[int | None] = []
    for a, b in zip(inferred, recorded, strict=True):
        if a is not None and b is not None and a != b:
            return None
        sizes.append(b if a is None else a)
    return tuple(sizes)


def require_room(*extents: int) -> None:
    """Called with the extents of an array that numbers of a config ask for, before it is made.

    Raises: LimitError if it would be larger than a model has a use for.
    """
    POSITIONS.check(math.prod(extents), "one of its tensors", "the model")


class Axis(Struct, frozen=True, eq=False):
    """The labels along one axis.

    Attributes:
        size: how many positions there are; None if unknown.
        factors: int64 arrays (m, size). All m labels of a column stand at that position, in
            different slices of the tensor: the position is gone when all of them are.
    """

    size: int | None
    factors: Factors = ()

    @classmethod
    def of(cls, ids: np.ndarray) -> Axis:
        """An axis with one label per position."""
        return cls(len(ids), (ids[None, :],))

    @property
    def ids(self) -> np.ndarray:
        """One label per position, int64 (size,); 0 where there is none or where there are several."""
        if len(self.factors) == 1 and len(self.factors[0]) == 1:
            return self.factors[0][0]
        require_room(self.size or 0)
        return np.zeros(self.size or 0, np.int64)

    @property
    def plain(self) -> bool:
        """Whether at most one label stands at each position."""
        return not self.factors or (len(self.factors) == 1 and len(self.factors[0]) == 1)

    def all_ids(self) -> np.ndarray:
        """Every label on the axis, int64 (n,), 0 among them perhaps."""
        return _flat(self.factors)

    def dead(self, gone: np.ndarray) -> np.ndarray:
        """Which positions are gone.

        Args:
            gone: bool (labels,), False at 0.
        Returns: bool (size,).
        """
        if self.factors and self.plain:  # nearly every axis, and every command asks this of each
            return gone[self.factors[0][0]]
        require_room(self.size or 0)
        dead = np.zeros(self.size or 0, bool)
        for factor in self.factors:
            dead |= gone[factor].all(axis=0)
        return dead

    def take(self, positions: Sequence[int] | np.ndarray) -> Axis:
        """Some of the positions, in this order."""
        return Axis(len(positions), tuple(factor[:, positions] for factor in self.factors))

    def repeat(self, times: int) -> Axis:
        """Each position `times` times in a row."""
        return self._spread(lambda factor: np.repeat(factor, times, axis=1), times)

    def tile(self, times: int) -> Axis:
        """The whole axis `times` times over: the gates of an LSTM."""
        return self._spread(lambda factor: np.tile(factor, (1, times)), times)

    def _spread(self, function: Callable[[np.ndarray], np.ndarray], times: int) -> Axis:
        size = None if self.size is None else self.size * times
        require_room(sum(factor.size for factor in self.factors), times)
        return Axis(size, tuple(function(factor) for factor in self.factors))


class Labels(Struct, frozen=True, eq=False):
    """The labels of one tensor.

    Attributes:
        shape: the tensor's own, batch first; None if it is not known.
        factors: int64 arrays of the tensor's rank, extent 1 where they do not vary.
        keeps_zero: whether a unit all of whose weights are 0 gives 0 here, so that removing it changes
            no sum over the units. After a sigmoid it gives 0.5, and the sum changes.
        numbers: for a tensor of sizes, what is known of each: an object array of `Number`.
    """

    shape: Shape | None
    factors: Factors = ()
    keeps_zero: bool = True
    numbers: Any = None

    @property
    def rank(self) -> int:
        return len(self.shape or ())

    @property
    def last(self) -> Axis:
        return self.axis(-1)

    def all_ids(self) -> np.ndarray:
        """Every label in the tensor, int64 (n,)."""
        return _flat(self.factors)

    def axis(self, axis: int) -> Axis:
        """The labels along one axis.

        Raises: IndexError if the tensor has no such axis.
        """
        if self.shape is None:
            return Axis(None)
        size = self.shape[axis]
        if size is None:
            return Axis(None)
        factors = []
        for factor in self.factors:
            if factor.shape[axis] == size and (size > 1 or _scalar_stands_on(self, factor, axis)):
                if factor.size != size:  # else it is one row, wherever its axis stands
                    factor = np.moveaxis(factor, axis, -1)
                factors.append(factor.reshape(-1, size))
        return Axis(size, tuple(factors))

    def varies(self, axis: int) -> bool:
        """Whether any unit stands along the axis."""
        return bool(self.axis(axis).factors)

    def with_axis(self, axis: int, new: Axis | np.ndarray, shape: Shape | None = None) -> Labels:
        """The same tensor with other labels along one axis: what a Dense or a Conv makes of it.

        Args:
            axis: the axis that is replaced. What varied along it is dropped.
            new: labels for it: an Axis, or int64 (size,).
            shape: the new shape; by default the old one with the new size.
        """
        if isinstance(new, np.ndarray):
            new = Axis.of(new)
        old = self.shape
        if shape is None and old is not None:
            axis %= len(old)
            shape = (*old[:axis], new.size, *old[axis + 1 :])
        if shape is None:
            return Labels(None)
        axis %= len(shape)
        # A unit on another axis now gives what the layer makes of its zeros: a bias, for one.
        kept = () if old is None else self.without(axis).factors
        own = []
        for factor in new.factors:
            if len(factor) == 1:
                extents = [1] * len(shape)
                extents[axis] = factor.shape[1]
                own.append(factor.reshape(extents))
        return Labels(shape, (*own, *kept), keeps_zero=not kept)

    def with_last(self, new: Axis | np.ndarray, shape: Shape | None = None) -> Labels:
        return self.with_axis(-1, new, shape)

    def without(self, *axes: int) -> Labels:
        """The same tensor with no labels along the axes given."""
        axes = tuple(axis % self.rank for axis in axes)
        return Labels(
            self.shape,
            tuple(
                factor
                for factor in self.factors
                if not any(axis in self.support(factor) for axis in axes)
            ),
            self.keeps_zero,
        )

    def support(self, factor: np.ndarray) -> tuple[int, ...]:
        """The axes along which a factor varies; for a single unit, the axis of extent 1 it stands on."""
        axes = tuple(axis for axis, extent in enumerate(factor.shape) if extent > 1)
        if not axes and self.shape is not None:
            ones = [axis for axis, size in enumerate(self.shape) if size == 1 and axis > 0]
            return tuple(ones[-1:])
        return axes

    def cut_axes(self, gone: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The axes that lose positions, counted from the end; bool (size,) for the positions left.

        Args:
            gone: bool (labels,).
        """
        if self.shape is None:
            return
        for axis in range(1 - self.rank, 0):
            dead = self.axis(self.rank + axis).dead(gone)
            if dead.any():
                yield axis, ~dead

    def cut(self, values: np.ndarray, gone: np.ndarray) -> np.ndarray:
        """A tensor's values at the positions that are left.

        Args:
            values: (samples, …), of this tensor's shape.
            gone: bool (labels,).
        """
        for axis, left in self.cut_axes(gone):
            values = values.compress(left, axis)
        return values

    def move(
        self, function: Callable[[np.ndarray], np.ndarray], shape: Shape, *, spread: bool = False
    ) -> Labels:
        """What a layer that only moves data makes of the labels: the same operation on each factor.

        Args:
            function: the numpy operation, taking and giving arrays with a batch axis of 1.
            shape: the shape of the tensor that comes out.
            spread: whether the operation needs the factors at the tensor's full shape.
        """
        moved = (function(self.spread(f) if spread else f) for f in self.factors)
        return Labels(shape, tuple(fold(factor) for factor in moved), self.keeps_zero)

    def spread(self, factor: np.ndarray) -> np.ndarray:
        """A factor broadcast to the tensor's full shape (batch 1).

        Raises: ValueError if a size other than the batch is unknown.
        """
        if self.shape is None or any(size is None for size in self.shape[1:]):
            raise ValueError("unknown sizes")
        sizes = [size or 1 for size in self.shape[1:]]
        require_room(*sizes)
        return np.broadcast_to(factor, (1, *sizes))

    def with_shape(self, shape: Shape | None) -> Labels:
        return Labels(shape, self.factors, self.keeps_zero, self.numbers)

    def with_keeps_zero(self, keeps_zero: bool) -> Labels:
        """The same labels, of values at which a unit without weights gives 0, or need not."""
        return Labels(self.shape, self.factors, keeps_zero)

    @property
    def size(self) -> int:
        """How many elements one sample has; unknown sizes count as 1."""
        return math.prod(size or 1 for size in (self.shape or ())[1:])


def _scalar_stands_on(labels: Labels, factor: np.ndarray, axis: int) -> bool:
    return axis % labels.rank in labels.support(factor)


def _flat(factors: Sequence[np.ndarray]) -> np.ndarray:
    if not factors:
        return np.zeros(0, np.int64)
    return np.concatenate([factor.ravel() for factor in factors])


def fold(factor: np.ndarray) -> np.ndarray:
    """The same labels with extent 1 along every axis on which they turn out not to vary."""
    for axis, extent in enumerate(factor.shape):
        if extent > 1:
            first = factor[(slice(None),) * axis + (slice(0, 1),)]
            if (factor == first).all():
                factor = first
    return factor
