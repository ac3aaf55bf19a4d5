"""Where layers sum over units: the contribution of each, and which bias could absorb a constant one.

A unit can be removed without any effect if its contribution is 0 (its output is 0, or every
remaining weight for it is 0), or if it is constant and a bias absorbs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from msgspec import Struct, field

from kprune.dtypes import as_float
from kprune.labels.labels import Axis
from kprune.labels.map import Blocks, Weight


class Reader:
    """Tensors of a source, with what an edit would fill in.

    Args:
        read: reads a tensor by its path.
        blocks: reads it piece by piece, as pairs (first position of axis 0, array).
        overlay: by path, what is done to an array that begins at a position of axis 0.
    """

    def __init__(
        self,
        read: Callable[[str], np.ndarray],
        blocks: Callable[[str], Iterator[tuple[int, np.ndarray]]],
        overlay: dict[str, Callable[[np.ndarray, int], np.ndarray]] | None = None,
    ) -> None:
        self._read, self._blocks, self._overlay = read, blocks, overlay or {}

    def __call__(self, path: str) -> np.ndarray:
        """A whole tensor, as floats."""
        return self._laid_over(path, as_float(self._read(path)), 0)

    def blocks(self, path: str) -> Iterator[tuple[int, np.ndarray]]:
        for start, array in self._blocks(path):
            yield start, self._laid_over(path, as_float(array), start)

    def _laid_over(self, path: str, array: np.ndarray, start: int) -> np.ndarray:
        change = self._overlay.get(path)
        return array if change is None else change(array, start)


class Kernel(Struct, frozen=True):
    """How a kernel's axes are used.

    Attributes:
        inputs: the axes that are summed over; outputs: those of what it makes; the rest: a window.
        grouped: for a grouped kernel, the runs of inputs and outputs; `inputs` then is one axis,
            whose positions mean another input in each run.
    """

    weight: Weight
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    grouped: Blocks | None = None

    @property
    def rows(self) -> int:
        if self.grouped is not None:
            return int(self.grouped.sides[0].size)
        return math.prod(self.weight.axes[axis].size or 0 for axis in self.inputs)

    @property
    def columns(self) -> int:
        return math.prod(self.weight.axes[axis].size or 0 for axis in self.outputs)

    def pieces(self, read: Reader) -> Iterator[tuple[int, np.ndarray]]:
        """The kernel as arrays (window, rows, columns), with the first row of each.

        It is read in blocks of its first axis, so that memory does not grow with it: each holds
        some of the rows, or some of the window at all of them.
        """
        whole = 0 in self.outputs or 0 in self.inputs[1:]
        blocks = [(0, read(self.weight.path))] if whole else read.blocks(self.weight.path)
        inner = math.prod(self.weight.axes[axis].size or 0 for axis in self.inputs[1:])
        for start, array in blocks:
            window = [
                axis for axis in range(array.ndim) if axis not in (*self.inputs, *self.outputs)
            ]
            array = array.transpose([*window, *self.inputs, *self.outputs])
            array = array.reshape(math.prod(array.shape[: len(window)]), -1, self.columns)
            if self.grouped is not None:
                array = _spread_groups(array, len(self.grouped.sides[0]))
            yield start * inner if 0 in self.inputs else 0, array


def _spread_groups(array: np.ndarray, groups: int) -> np.ndarray:
    """A grouped kernel (window, inputs of a run, columns) as if each input reached each column."""
    window, inputs, columns = array.shape
    wide = np.zeros((window, groups, inputs, groups, columns // groups), array.dtype)
    runs = array.reshape(window, inputs, groups, -1)
    for group in range(groups):
        wide[:, group, :, group] = runs[:, :, group]
    return wide.reshape(window, groups * inputs, columns)


class Scan(Struct):
    """What one reading of a kernel tells.

    Attributes:
        uses: packed bits (rows, columns): whether a column has a weight other than 0 for a row.
        varying: bool (columns,): whether anything that is not constant reaches a column.
        constant: float64 (columns,): what the constant rows add up to there.
    """

    uses: np.ndarray
    varying: np.ndarray
    constant: np.ndarray


def scan(kernel: Kernel, read: Reader, values: np.ndarray) -> Scan:
    """Read a kernel once.

    Args:
        values: float64 (rows,), what each input always gives; NaN if that is not known.
    """
    uses = np.zeros((len(values), -(-kernel.columns // 8)), np.uint8)
    varying, constant = np.zeros(kernel.columns, bool), np.zeros(kernel.columns)
    for start, piece in kernel.pieces(read):
        used = (piece != 0).any(axis=0)  # NaN counts: it is other than 0
        rows = slice(start, start + len(used))
        unknown = np.isnan(values[rows])
        varying |= used[unknown].any(axis=0)
        constant += _sum(piece, values[rows], ~unknown & (values[rows] != 0))
        uses[rows] |= np.packbits(used, axis=1)
    return Scan(uses, varying, constant)


def _sum(piece: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 (columns,): what some rows add, at every place of the window together."""
    if not rows.any():
        return np.zeros(piece.shape[2])
    taken = piece[:, rows].astype(np.float64).sum(axis=0)
    result: np.ndarray = values[rows] @ taken
    return result


class BiasTarget(Struct):
    """Where a constant share can go.

    Attributes:
        targets: pairs (path of a vector, function that turns float64 (columns,) into what is added
            to it, in its shape).
        why: why there is none.
    """

    targets: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = field(default_factory=list)
    why: str = ""


class SummingKernel(Struct):
    """One kernel, at all its calls.

    Attributes:
        at: path of the layer, as messages name it.
        axes: the labels along each of the kernel's input axes.
        values: float64 (rows,), what each input gives at every call; NaN if that is not known or
            not the same, or not the same everywhere the kernel looks.
        padded: bool (rows,): constants that meet zeros at the border.
        made: the labels along each output axis.
        room: where a constant share can go.
    """

    at: str
    kernel: Kernel
    axes: tuple[Axis, ...]
    values: np.ndarray
    padded: np.ndarray
    made: tuple[Axis, ...]
    uses: np.ndarray
    room: BiasTarget

    def dead_rows(self, gone: np.ndarray) -> np.ndarray:
        """bool (rows,): the rows that go."""
        if self.kernel.grouped is not None:
            return gone[self.kernel.grouped.sides[0]].ravel()
        return _any_along([axis.dead(gone) for axis in self.axes])

    def live_columns(self, gone: np.ndarray) -> np.ndarray:
        """bool (columns,): the columns that stay."""
        return ~_any_along([axis.dead(gone) for axis in self.made])

    def in_the_way(self, gone: np.ndarray) -> np.ndarray:
        """int64: rows that go and that would be missed."""
        dead = self.dead_rows(gone) & (self.values != 0)  # NaN is other than 0
        if not self.room.why:
            dead &= np.isnan(self.values)
        rows = np.flatnonzero(dead)
        if not rows.size:
            return rows
        live = np.packbits(self.live_columns(gone))
        return rows[(self.uses[rows] & live).any(axis=1)]

    def labels_at(self, rows: np.ndarray) -> np.ndarray:
        """The labels that stand at some rows, each perhaps more than once."""
        if self.kernel.grouped is not None:
            return self.kernel.grouped.sides[0].ravel()[rows]
        places = np.unravel_index(rows, [axis.size or 1 for axis in self.axes])
        found = [
            factor[:, place].ravel()
            for axis, place in zip(self.axes, places, strict=True)
            for factor in axis.factors
        ]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def share(self, read: Reader, gone: np.ndarray) -> np.ndarray | None:
        """float64 (columns,): what the rows that go always add; None if that is nothing."""
        rows = self.dead_rows(gone) & (self.values != 0) & ~np.isnan(self.values)
        if not rows.any() or self.room.why:
            return None
        total = np.zeros(self.kernel.columns)
        for start, piece in self.kernel.pieces(read):
            total += _sum(
                piece,
                self.values[start : start + piece.shape[1]],
                rows[start : start + piece.shape[1]],
            )
        return total if total.any() else None


def _any_along(masks: list[np.ndarray]) -> np.ndarray:
    """For masks along several axes, whether any holds at each combination; flat."""
    result = np.zeros((1,) * len(masks), bool)
    for axis, mask in enumerate(masks):
        extents = [1] * len(masks)
        extents[axis] = len(mask)
        result = result | mask.reshape(extents)
    return result.ravel()
