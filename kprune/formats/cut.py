"""How one tensor is cut, block by block: which bytes of the input make which bytes of the output.

A block is a run of positions along one axis (the *running* axis), for one position of each axis
before it, and everything of the axes behind it. The running axis is the first whose single
positions fit into the limit, so a block never exceeds the limit, whatever the tensor's shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.dtypes import BFLOAT16, from_float, scaled
from kprune.edit import TensorEdit

Scratch = Callable[[int], np.ndarray]
"""Called with a number of bytes; returns room for them as uint8."""

Make = Callable[[memoryview, Scratch], "memoryview | np.ndarray"]
"""Turns a block's bytes, which it may overwrite, into the bytes of the output."""

Select = tuple["int | slice", ...]


class Block(Struct):
    """Bytes of the input that become bytes of the output.

    Attributes:
        start: where they begin, counted from the tensor's first byte.
        nbytes: how many are read.
        at: where the result begins, counted from the output tensor's first byte.
        size: how many bytes the result has.
        select: the same block as an index into the input tensor.
        make: what is done to them; None if they stay as they are.
    """

    start: int
    nbytes: int
    at: int
    size: int
    select: Select
    make: Make | None = None


def blocks(
    edit: TensorEdit | None, shape: tuple[int, ...], dtype: np.dtype, limit: int
) -> Iterator[Block]:
    """The blocks of one tensor that leave something in the output, in input order.

    Args:
        edit: an edit with a source and without a value; None for a tensor that stays as it is.
        shape: of the input tensor.
        limit: the most bytes of a block (a grouped kernel's last two axes stay together anyway).
    """
    if math.prod(shape):
        yield from _Cutter(edit, shape, dtype, limit).blocks()


class _Cutter:
    """The geometry of one tensor, worked out once for all its blocks.

    Attributes:
        whole: the input tensor's shape, with an axis of 1 put in front where blocks need one to run
            along: of a scalar, and of a grouped kernel of rank 2.
        shape: the same, with the last two axes of a grouped kernel taken as one.
        keep: positions that stay, for each axis of `shape`.
        axis: the running axis.
    """

    def __init__(
        self, edit: TensorEdit | None, shape: tuple[int, ...], dtype: np.dtype, limit: int
    ) -> None:
        grouped = edit is not None and edit.blocks is not None
        keep = (edit.keep if edit else ()) or (None,) * len(shape)
        self.added = 1 if not shape or (grouped and len(shape) == 2) else 0
        self.whole = (1,) * self.added + shape
        self.shape, self.keep = self.whole, (None,) * self.added + keep
        if edit is not None and edit.blocks is not None:
            self.shape = (*self.whole[:-2], shape[-2] * shape[-1])
            self.keep = (*self.keep[:-2], _gathered(edit, shape))
        self.dtype = dtype
        # Bits are moved, not numbers: numpy's integers of the same width do that for any type.
        self.item = dtype.itemsize
        self.carrier = np.dtype(f"u{self.item}" if self.item in (1, 2, 4, 8) else f"V{self.item}")
        self.axis = self._running_axis(len(self.shape) - (2 if grouped else 1), limit)
        self.inner = self.shape[self.axis + 1 :]
        self.step = max(1, limit // (math.prod(self.inner) * self.item))
        self.fills = edit.fills if edit else ()
        self.scale = edit.scale if edit else 1.0
        if self.scale != 1.0 and not (dtype == BFLOAT16 or dtype.kind == "f"):
            raise ValueError(f"a tensor of type {dtype} cannot be multiplied by {self.scale}")

    def _running_axis(self, last: int, limit: int) -> int:
        for axis in range(last):
            if math.prod(self.shape[axis + 1 :]) * self.item <= limit:
                return axis
        return last

    def blocks(self) -> Iterator[Block]:
        kept = [n if k is None else len(k) for n, k in zip(self.shape, self.keep, strict=True)]
        row_bytes = math.prod(self.inner) * self.item
        row_size = math.prod(kept[self.axis + 1 :]) * self.item
        extent, rows = self.shape[self.axis], self.keep[self.axis]
        for number, outer in enumerate(np.ndindex(*self.shape[: self.axis])):
            place = self._place(outer, kept)
            if place is None or row_size == 0:
                continue
            for first in range(0, extent, self.step):
                end = min(first + self.step, extent)
                low, high = (first, end) if rows is None else np.searchsorted(rows, (first, end))
                if low == high:
                    continue
                yield Block(
                    start=(number * extent + first) * row_bytes,
                    nbytes=(end - first) * row_bytes,
                    at=(place * kept[self.axis] + int(low)) * row_size,
                    size=int(high - low) * row_size,
                    select=(*outer, slice(first, end))[self.added :],
                    make=self._make(outer, first, end, None if rows is None else rows[low:high]),
                )

    def _place(self, outer: tuple[int, ...], kept: list[int]) -> int | None:
        """The row-major number of `outer` among the kept ones; None if it is cut away."""
        place = 0
        for axis, position in enumerate(outer):
            rows = self.keep[axis]
            if rows is not None:
                found = int(np.searchsorted(rows, position))
                if found == len(rows) or rows[found] != position:
                    return None
                position = found
            place = place * kept[axis] + position
        return place

    def _make(
        self, outer: tuple[int, ...], first: int, end: int, rows: np.ndarray | None
    ) -> Make | None:
        cuts = [(axis, k) for axis, k in enumerate(self.keep[self.axis + 1 :], 1) if k is not None]
        if rows is not None and len(rows) < end - first:
            cuts.insert(0, (0, rows - first))
        fills = list(self._fills_of(outer, first, end))
        if not cuts and not fills and self.scale == 1.0:
            return None
        shape = (end - first, *self.inner)
        whole = ((1,) * len(outer) + (end - first, *self.whole[self.axis + 1 :]))[self.added :]

        def make(view: memoryview, scratch: Scratch) -> memoryview | np.ndarray:
            array = np.frombuffer(view, self.carrier)
            for index, bits in fills:
                array.reshape(whole)[index] = bits
            made = self._taken(array.reshape(shape), cuts, scratch) if cuts else view
            return self._scaled(made) if self.scale != 1.0 else made

        return make

    def _taken(
        self, array: np.ndarray, cuts: list[tuple[int, np.ndarray]], scratch: Scratch
    ) -> np.ndarray:
        for axis, positions in cuts[:-1]:
            array = np.take(array, positions, axis=axis, mode="clip")
        axis, positions = cuts[-1]
        left = (*array.shape[:axis], len(positions), *array.shape[axis + 1 :])
        room = scratch(math.prod(left) * self.item)
        # The positions were checked, and any mode but "clip" would go through a copy.
        result = room.view(self.carrier).reshape(left)
        np.take(array, positions, axis=axis, mode="clip", out=result)
        return room

    def _scaled(self, made: memoryview | np.ndarray) -> np.ndarray:
        values = np.frombuffer(made, self.carrier).view(self.dtype)
        return scaled(values, self.scale).view(np.uint8)

    def _fills_of(
        self, outer: tuple[int, ...], first: int, end: int
    ) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
        """Each fill that meets one block, as an index into the block and the bits to put there."""
        shape = ((1,) * len(outer) + (end - first, *self.whole[self.axis + 1 :]))[self.added :]
        start = (*outer, first)[self.added :]
        for fill in self.fills:
            index = fill.index(shape, start)
            if index is not None:
                bits = from_float(fill.value, self.dtype).reshape(1).view(self.carrier)
                yield index, bits


def _gathered(edit: TensorEdit, shape: tuple[int, ...]) -> np.ndarray:
    """Kept positions of a grouped kernel's last two axes, taken as one axis, in output order."""
    assert edit.blocks is not None
    columns = shape[-1]
    kept = edit.keep[-1] if edit.keep else None
    chosen = np.arange(columns) if kept is None else np.asarray(kept)
    own = np.asarray(edit.blocks)[chosen // (columns // len(edit.blocks))]  # (columns left, kept)
    return (own.T * columns + chosen).ravel()
