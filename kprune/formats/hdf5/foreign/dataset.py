"""A dataset as libhdf5 reads it: what it is made of, and its values, each chunk unpacked once.

This runs in the child; see `plain_copy.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kprune.formats.hdf5.datatypes import Datatype, Unusual, parsed
from kprune.formats.hdf5.foreign import chunks
from kprune.formats.hdf5.foreign.chunks import BadChunk
from kprune.formats.hdf5.foreign.libhdf5 import h5py
from kprune.formats.hdf5.foreign.links import Refused
from kprune.formats.opening import Window

h5d, h5s = h5py.h5d, h5py.h5s

CODE_HEAD = 2
"""Bytes with which libhdf5 begins the code of a type (H5Tencode)."""

_BLOCK = 4 << 20
_LARGEST_ROWS = 64 << 20  # of chunks that are read together
_MOST_STORED = 2  # times the size of a chunk; packing makes nothing twice as large
_FILTERS = range(1, 7), (32000,)  # HDF5's own, and h5py's LZF; all others are plugins


def check_known(kind: Datatype | None, found: Any) -> None:
    """Raises: what h5py raises for numbers that it, and so Keras, does not know."""
    if kind is not None and kind.odd:
        found.dtype  # noqa: B018


class Dataset:
    """A dataset of the file.

    Raises (constructor): Refused if kprune does not read such.
    """

    def __init__(self, path: str, item: Any) -> None:
        self.path, self.item = path, item
        plan = item.get_create_plist()
        self.layout = plan.get_layout()
        if plan.get_external_count() or self.layout == h5d.VIRTUAL:
            raise Refused(path, "it keeps its values in other files, which kprune never opens")
        if self.layout not in (h5d.CONTIGUOUS, h5d.CHUNKED, h5d.COMPACT):
            raise Refused(path, f"HDF5 has no storage layout {self.layout}", damaged=True)
        self.shape = self._shape()
        self.kind = self._kind()
        self.nbytes = math.prod(self.shape) * self.kind.size
        chunked = self.layout == h5d.CHUNKED
        self.chunk = tuple(map(int, plan.get_chunk())) if chunked else None
        self.chunk_bytes = math.prod(self.chunk) * self.kind.size if self.chunk else 0
        self.filters: list[int] = []
        for index in range(plan.get_nfilters() if chunked else 0):
            number, _, values, _ = plan.get_filter(index)
            if not any(number in known for known in _FILTERS):
                raise Refused(path, f"it uses HDF5 filter {number}, which is a plugin")
            if not chunks.as_written(number, values, self.kind.size):
                raise Refused(path, f"HDF5 filter {number} has odd parameters", damaged=True)
            self.filters.append(int(number))

    def _shape(self) -> tuple[int, ...]:
        space = self.item.get_space()
        kind = space.get_simple_extent_type()
        if kind == h5s.SCALAR:
            return ()
        if kind != h5s.SIMPLE:
            raise Refused(self.path, "it holds no array; Keras writes no such files")
        return tuple(int(extent) for extent in space.get_simple_extent_dims())

    def _kind(self) -> Datatype:
        found = self.item.get_type()
        try:
            kind = parsed(found.encode()[CODE_HEAD:])
        except Unusual:
            kind = None
        check_known(kind, found)
        if kind is None or kind.dtype is None:
            raise Refused(
                self.path,
                "it holds something other than numbers of a fixed size; Keras writes no such files",
            )
        return kind

    def place(self, header: int) -> int:
        """Where it begins in the file: values, if they lie in one piece."""
        offset = self.item.get_offset() if self.layout == h5d.CONTIGUOUS else None
        return header if offset is None else int(offset)

    def values(self, window: Window) -> Iterator[tuple[int, Any]]:
        """Its values, as (first byte, bytes). No chunk is unpacked twice."""
        offset = self.item.get_offset() if self.layout == h5d.CONTIGUOUS else None
        if offset is not None:
            stored = self.item.get_storage_size()
            if stored != self.nbytes or offset + stored > window.size:
                raise Refused(
                    self.path, f"{stored} bytes of values do not fit into the file", damaged=True
                )
            for at in range(0, stored, _BLOCK):
                count = min(_BLOCK, stored - at)
                yield at, window.file.read(window.start + offset + at, count)
            return
        if not self.shape:
            yield 0, self._read((), ())
        elif stored := self._stored_chunks():
            yield from self._unpacked(stored)
        else:
            yield from self._as_libhdf5_reads()

    def _stored_chunks(self) -> dict[tuple[int, ...], int]:
        """Chunks that are unpacked here: where each one begins, and which filters it went without.

        Others are measured at least, as far as that can be done.
        """
        found: dict[tuple[int, ...], int] = {}
        filters = set(self.filters)
        own, packed = filters <= chunks.OWN, chunks.LZF in filters
        if self.chunk is None or not (own or packed):
            return found

        def see(info: Any) -> None:
            if info.size > _MOST_STORED * self.chunk_bytes + _BLOCK:
                raise BadChunk(f"a chunk of {self.chunk_bytes} bytes takes {info.size}")
            found[tuple(map(int, info.chunk_offset))] = info.filter_mask

        try:
            self.item.chunk_iter(see)
            if not own:
                for start in found:
                    applied, data = self._stored(start)
                    chunks.check_lzf(data, applied, self.chunk_bytes)
                return {}
        except BadChunk as error:
            raise Refused(self.path, str(error), damaged=True) from None
        return found

    def _stored(self, start: tuple[int, ...]) -> tuple[list[int], bytes]:
        """The filters of a chunk, and the chunk as they left it."""
        mask, data = self.item.read_direct_chunk(start)
        applied = [number for at, number in enumerate(self.filters) if not mask >> at & 1]
        return applied, bytes(data)

    def _unpacked(self, stored: dict[tuple[int, ...], int]) -> Iterator[tuple[int, Any]]:
        chunk = self.chunk or ()
        dtype = np.dtype(f"V{self.kind.size}")
        for start, count in _grid(self.shape, chunk):
            if start not in stored:  # never written
                data = self._read(start, count)
            else:
                applied, packed = self._stored(start)
                try:
                    whole = chunks.unpacked(packed, applied, self.chunk_bytes, self.kind.size)
                except BadChunk as error:
                    raise Refused(self.path, str(error), damaged=True) from None
                inside = np.frombuffer(whole, dtype).reshape(chunk)[tuple(map(slice, count))]
                data = np.ascontiguousarray(inside).reshape(-1).view(np.uint8)
            yield from _runs(start, count, self.shape, data, self.kind.size)

    def _as_libhdf5_reads(self) -> Iterator[tuple[int, Any]]:
        for start, count in _grid(self.shape, self._step()):
            yield from _runs(start, count, self.shape, self._read(start, count), self.kind.size)

    def _step(self) -> tuple[int, ...]:
        """What is read at a time: whole chunks, and several of them while that is small."""
        least = self.chunk or (1,) * len(self.shape)
        step = [min(size, extent) for size, extent in zip(least, self.shape, strict=True)]
        most = _LARGEST_ROWS if self.chunk else _BLOCK
        for axis in reversed(range(len(step))):
            others = math.prod(step) // step[axis] * self.kind.size
            size = most // max(others, 1) // least[axis] * least[axis]
            step[axis] = min(max(size, step[axis]), self.shape[axis])
            if step[axis] < self.shape[axis]:
                break
        return tuple(step)

    def _read(self, start: tuple[int, ...], count: tuple[int, ...]) -> np.ndarray:
        """Values as they are, not converted."""
        array = np.empty(count, np.dtype(f"V{self.kind.size}"))
        kind = self.item.get_type()
        if not self.shape:
            self.item.read(h5s.ALL, h5s.ALL, array, mtype=kind)
        else:
            chosen = self.item.get_space()
            chosen.select_hyperslab(start, count)
            self.item.read(h5s.create_simple(count), chosen, array, mtype=kind)
        return array.reshape(-1).view(np.uint8)


def _grid(
    shape: tuple[int, ...], step: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Blocks that an array falls into: where each begins, and its extents."""
    axes = [range(0, extent, size) for extent, size in zip(shape, step, strict=True)]
    for index in np.ndindex(*map(len, axes)):
        start = tuple(axis[at] for axis, at in zip(axes, index, strict=True))
        yield (
            start,
            tuple(
                min(size, extent - at) for size, extent, at in zip(step, shape, start, strict=True)
            ),
        )


def _runs(
    start: tuple[int, ...],
    count: tuple[int, ...],
    shape: tuple[int, ...],
    data: np.ndarray,
    size: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a block of an array into runs that lie in one piece in it, as (first byte, bytes)."""
    axis = len(shape) - 1  # the run covers this one's positions, and all of those behind it
    while axis and count[axis] == shape[axis]:
        axis -= 1
    strides = [math.prod(shape[place + 1 :]) * size for place in range(len(shape))]
    length = math.prod(count[axis:]) * size
    first = sum(at * stride for at, stride in zip(start, strides, strict=True))
    for number, index in enumerate(np.ndindex(*count[:axis])):
        at = first + sum(
            place * stride for place, stride in zip(index, strides[:axis], strict=True)
        )
        yield at, data[number * length : (number + 1) * length]
