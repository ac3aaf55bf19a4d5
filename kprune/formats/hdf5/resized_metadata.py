"""The metadata of a plain HDF5 file, for the same objects in other sizes.

Cutting units changes the extents of some arrays and moves everything behind them. So the metadata
of the output are those of the input, in which extents, sizes and addresses are written anew:
a tenth of the time that libhdf5 takes to make such a file, and what Keras wrote stays as it wrote it.

Source: HDF5 File Format Specification 1.1 (support.hdfgroup.org/documentation).
"""

from __future__ import annotations

import math
import struct

import numpy as np

from kprune.formats.hdf5.contents import Table
from kprune.formats.hdf5.datatypes import Unusual
from kprune.formats.hdf5.layout import Layout, Space
from kprune.formats.hdf5.structures import UNDEFINED
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.opening import Window
from kprune.formats.source import Tensor

_ALIGNED = 8
_IN_REFERENCE = 4  # where in the place of a value of variable length the address of its heap stands


def moved(weights: Hdf5Weights, spaces: list[Space]) -> Layout | None:
    """Lay out a file that has the objects of another one, some of them in other sizes.

    Args:
        weights: the input.
        spaces: its tensors, all of them and by their own paths, as they are to be.
    Returns: None where the metadata are not understood to the last address.
    Raises: FileError if the system cannot read the input.
    """
    table = weights.table
    weights.attributes  # noqa: B018 - what is damaged in them is not passed on
    try:
        pairs = [(table.tensors[space.path], space) for space in spaces]
        if any(table.types[space.path] != space.kind for space in spaces):
            raise Unusual
        return _Move(weights.window, table, pairs).layout()
    except (Unusual, struct.error, IndexError):
        return None


class _Move:
    """The values of a file in the order in which they stand, and the gaps between them.

    Gap `i` stands before the values of tensor `i`, the last gap behind all of them. Values move by
    multiples of 8 bytes, so that they and the metadata stay as aligned as they were.
    """

    def __init__(self, window: Window, table: Table, pairs: list[tuple[Tensor, Space]]) -> None:
        self.marks, self.pairs = table.marks, pairs
        self.messages = [pair for found in table.attributes.values() for pair in found]
        self.stored = sorted(
            ((tensor, space) for tensor, space in pairs if tensor.offset is not None),
            key=lambda pair: pair[0].offset or 0,
        )
        starts = [(tensor.offset or 0) - window.start for tensor, _ in self.stored]
        before = [tensor.nbytes for tensor, _ in self.stored]
        self.sizes = [
            math.prod(space.shape) * tensor.dtype.itemsize for tensor, space in self.stored
        ]
        if 0 in self.sizes or any(len(t.shape) != len(space.shape) for t, space in pairs):
            raise Unusual
        grown = np.array(self.sizes, np.int64) - np.array(before, np.int64)
        shift = -(-grown // _ALIGNED) * _ALIGNED
        self.pads = [0, *(shift - grown).tolist()]
        self.shifts = np.concatenate([[0], np.cumsum(shift)]).astype(np.int64)
        ends = np.array(starts, np.int64) + np.array(before, np.int64)
        self.first = np.concatenate([[0], ends]).astype(np.int64)
        self.last = np.array([*starts, window.size], np.int64)
        lengths = self.last - self.first
        self.at = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.size = window.size + int(self.shifts[-1])
        gaps = zip(self.first.tolist(), lengths.tolist(), strict=True)
        read = [window.file.read(window.start + start, count) for start, count in gaps if count]
        self.bytes = np.frombuffer(bytearray(b"".join(read)), np.uint8)
        self.window = window

    def layout(self) -> Layout:
        marks = self.marks
        addresses = np.array([*marks.addresses, *self._in_attributes()], np.int64)
        old = self._integers(addresses)
        if self._integers(np.array([marks.end])).tolist() != [self.window.size]:
            raise Unusual
        places = self.last[:-1] + self.shifts[:-1]
        storage = np.array([marks.storage[tensor.path] for tensor, _ in self.stored], np.int64)
        self._write(addresses, np.where(old == UNDEFINED, old, self._moved(old)))
        self._write(np.array([marks.end]), np.array([self.size], np.uint64))
        self._write(storage, places)
        self._write(storage + 8, np.array(self.sizes))
        for tensor, space in self.pairs:
            if space.shape != tensor.shape:
                at, times = marks.extents[space.path]
                where = at + 8 * np.arange(len(space.shape) * times)
                self._write(where, np.array(space.shape * times))
        paths = [space.path for _, space in self.stored]
        return Layout(
            self.size,
            dict(zip(paths, places.tolist(), strict=True)),
            dict(zip(paths, self.sizes, strict=True)),
            self._gaps(),
            [space for _, space in self.pairs],
        )

    def _gaps(self) -> list[tuple[int, bytes]]:
        gaps = []
        whole = self.bytes.tobytes()
        starts = (self.first + self.shifts).tolist()
        cuts = self.at.tolist()
        for number, (start, pad) in enumerate(zip(starts, self.pads, strict=True)):
            data = bytes(pad) + whole[cuts[number] : cuts[number + 1]]
            if data:
                gaps.append((start - pad, data))
        return gaps

    def _moved(self, addresses: np.ndarray) -> np.ndarray:
        """Where metadata come to stand; whatever is not the address of any stays."""
        known = addresses != UNDEFINED
        inside = np.where(known, addresses, 0).astype(np.int64)
        gap = self._gap_of(inside, 1)
        return (inside + self.shifts[gap]).astype(np.uint64)

    def _gap_of(self, places: np.ndarray, count: int) -> np.ndarray:
        """The gaps in which so many bytes from these places on stand."""
        gap = np.searchsorted(self.first, places, side="right") - 1
        if (places < 0).any() or (places + count > self.last[gap]).any():
            raise Unusual
        return gap

    def _index(self, places: np.ndarray) -> np.ndarray:
        """Where in `bytes` the eight bytes at each place stand."""
        gap = self._gap_of(places, 8)
        return (places - self.first[gap] + self.at[gap])[:, None] + np.arange(8)

    def _integers(self, places: np.ndarray) -> np.ndarray:
        return self.bytes[self._index(places)].view("<u8").reshape(-1)

    def _write(self, places: np.ndarray, values: np.ndarray) -> None:
        self.bytes[self._index(places)] = values.astype("<u8").view(np.uint8).reshape(-1, 8)

    def _in_attributes(self) -> list[int]:
        """Where attributes have the addresses of heaps, which hold values of any length."""
        return [
            place + message.at + _IN_REFERENCE + number * message.kind.size
            for place, message in self.messages
            if message.kind.item is not None
            for number in range(message.count)
        ]
