"""The metadata of HDF5 files as Keras writes them, read directly.

Keras leaves the format to h5py, whose default is the oldest one (superblock 0), with groups in
B-trees and datasets in one piece. libhdf5 needs 0.1 ms for each object of such a file, and 30 ms to
be imported; reading the same bytes here takes a tenth of that.

What is read here is understood to the last field, or not at all: at the first byte that h5py would
not have written, `read_plain` gives the file up and libhdf5 has the word, on what is unusual and on
what is damaged.

Source: HDF5 File Format Specification 1.1 (support.hdfgroup.org/documentation).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np

from kprune.formats.hdf5.contents import Found, Marks
from kprune.formats.opening import Window
from kprune.formats.source import Tensor

_PAGE = 1 << 13
_UNDEFINED = (1 << 64) - 1
_LARGEST_HEAP = 1 << 24  # of the names in one group
_TALLEST_TREE = 16
_HIGHEST_RANK = 32

_SUPERBLOCK = struct.Struct("<8s8BHHIQQQQQQII16x")
_HEADER = struct.Struct("<BxHII4x")
_MESSAGE = struct.Struct("<HHB3x")
_TREE = struct.Struct("<4sBBHQQ")
_HEAP = struct.Struct("<4sB3xQQQ")
_LEAF = struct.Struct("<4sBxH")
_ENTRY = struct.Struct("<QQII16x")
_SPACE = struct.Struct("<BBB5x")
_LAYOUT = struct.Struct("<BBQQ")
_PAIR = struct.Struct("<QQ")
# Where the superblock has the end of the file, the root's header, and where the root's links are.
_END, _ROOT, _ROOT_CACHE = 40, 64, (80, 88)

# Messages of an object header. Attributes are stepped over: their values are not needed here.
# (`hdf5_moved` reads them, where it has to.)
_NIL, _DATASPACE, _DATATYPE, _OLD_FILL, _FILL, _DATA_LAYOUT = 0, 1, 3, 4, 5, 8
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE, _MODIFIED = 12, 16, 17, 18
_STEPPED_OVER = {_NIL, _OLD_FILL, _FILL, _ATTRIBUTE, _CONTINUATION, _MODIFIED}
_CONSTANT = 1  # the one flag of a message that h5py sets
_CONTIGUOUS = 1


def _integer(size: int, signed: bool) -> bytes:
    return struct.pack("<BBHIHH", 0x10, 8 * signed, 0, size, 0, 8 * size)


def _float(size: int, exponent: int, mantissa: int, bias: int) -> bytes:
    """A little-endian IEEE float whose mantissa has a leading one that is not stored."""
    sign = 8 * size - 1
    head = struct.pack("<BBBBIHH", 0x11, 0x20, sign, 0, size, 0, 8 * size)
    return head + struct.pack("<BBBBI", mantissa, exponent, 0, mantissa, bias)


_TYPES: dict[bytes, np.dtype] = {
    _float(2, 5, 10, 15): np.dtype("<f2"),
    _float(4, 8, 23, 127): np.dtype("<f4"),
    _float(8, 11, 52, 1023): np.dtype("<f8"),
    **{_integer(size, True): np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{_integer(size, False): np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}
# How libhdf5 begins the code of a type when it is asked for one (H5Tencode).
_TYPE_CODE = b"\x03\x00"


Messages = dict[int, tuple[int, bytes]]
"""Of an object's header: by type where in the file each one stands, and its bytes."""


class _Unusual(Exception):
    """Something that h5py does not write by default, or damage: libhdf5 will tell."""


def read_plain(window: Window) -> Found | None:
    """Read the metadata of an HDF5 file.

    Args:
        window: the file.
    Returns: its objects, or None if it is anything but a plain file of arrays that is not damaged.
    Raises: FileError if the system cannot read it.
    """
    try:
        return _Reader(window).over_all()
    except (_Unusual, struct.error, ValueError, OverflowError):
        return None


class _Reader:
    """One pass over the objects of a file, each once."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.marks = Marks()
        self.found = Found(marks=self.marks)
        self._pages: dict[int, bytes] = {}
        self._seen: set[int] = set()

    def over_all(self) -> Found:
        waiting = [("", self._root())]
        while waiting:
            prefix, address = waiting.pop()
            for name, place in self._links(address):
                path = prefix + name
                messages = self._messages(place)
                self.found.places[path] = place
                if _SYMBOL_TABLE in messages:
                    self.found.groups.append(path)
                    waiting.append((path + "/", self._table_of(messages)))
                else:
                    self._dataset(path, messages)
        return self.found

    def _root(self) -> bytes:
        fields = _SUPERBLOCK.unpack(self._at(0, _SUPERBLOCK.size))
        signature, versions, sizes = fields[0], fields[1:6], fields[6:8]
        base, free, end, driver, _, header, cached = fields[12:19]
        if signature != b"\x89HDF\r\n\x1a\n" or any(versions) or sizes != (8, 8) or fields[8]:
            raise _Unusual
        if base or free != _UNDEFINED or driver != _UNDEFINED or end > self.window.size:
            raise _Unusual
        self.marks.end = _END
        self.marks.addresses += [_ROOT, *_ROOT_CACHE] if cached == 1 else [_ROOT]
        return self._table_of(self._messages(header))

    def _table_of(self, messages: Messages) -> bytes:
        """Where a group's links are: the addresses of a B-tree and of a heap of names."""
        if messages.keys() != {_SYMBOL_TABLE}:
            raise _Unusual
        at, table = messages[_SYMBOL_TABLE]
        self.marks.addresses += (at, at + 8)
        return table

    # -- groups ---------------------------------------------------------------------------------

    def _links(self, table: bytes) -> Iterator[tuple[str, int]]:
        """Name and address of each object in a group."""
        tree, heap = _PAIR.unpack(table)
        names = self._names(heap)
        for leaf in self._leaves(tree):
            self._once(leaf)
            signature, version, count = _LEAF.unpack(self._at(leaf, _LEAF.size))
            if signature != b"SNOD" or version != 1:
                raise _Unusual
            at = leaf + _LEAF.size
            entries = self._at(at, count * _ENTRY.size)
            for place, address, kind, _ in _ENTRY.iter_unpack(entries):
                if kind > 1:  # a symbolic link
                    raise _Unusual
                # A group's entry repeats where its links are.
                self.marks.addresses += (at + 8, at + 24, at + 32) if kind else (at + 8,)
                at += _ENTRY.size
                name = names[place : names.index(b"\0", place)].decode()
                if name in ("", ".") or "/" in name:
                    raise _Unusual
                yield name, address

    def _names(self, address: int) -> bytes:
        signature, version, size, _, data = _HEAP.unpack(self._at(address, _HEAP.size))
        if signature != b"HEAP" or version or size > _LARGEST_HEAP:
            raise _Unusual
        self.marks.addresses.append(address + 24)
        return self._at(data, size)

    def _leaves(self, address: int, level: int | None = None) -> Iterator[int]:
        self._once(address)
        signature, kind, height, count, left, right = _TREE.unpack(self._at(address, _TREE.size))
        if signature != b"TREE" or kind or height > _TALLEST_TREE or level not in (None, height):
            raise _Unusual
        for at, neighbour in ((address + 8, left), (address + 16, right)):
            if neighbour != _UNDEFINED:
                self.marks.addresses.append(at)
        first = address + _TREE.size + 8
        self.marks.addresses += range(first, first + count * _PAIR.size, _PAIR.size)
        pairs = self._at(address + _TREE.size, count * _PAIR.size)
        for _, child in _PAIR.iter_unpack(pairs):
            if height:
                yield from self._leaves(child, height - 1)
            else:
                yield child

    # -- objects --------------------------------------------------------------------------------

    def _messages(self, address: int) -> Messages:
        """The messages of an object's header, by type."""
        self._once(address)
        version, count, links, length = _HEADER.unpack(self._at(address, _HEADER.size))
        if version != 1 or links != 1:
            raise _Unusual
        blocks = [(address + _HEADER.size, length)]
        found: Messages = {}
        for start, length in blocks:
            data, at = self._at(start, length), 0
            while at < length:
                count -= 1
                kind, size, flags = _MESSAGE.unpack_from(data, at)
                place = start + at + _MESSAGE.size
                body = data[at + _MESSAGE.size : at + _MESSAGE.size + size]
                at += _MESSAGE.size + size
                if len(body) != size or flags & ~_CONSTANT or count < 0:
                    raise _Unusual
                if kind == _CONTINUATION:
                    blocks.append(_PAIR.unpack(body))
                    self.marks.addresses.append(place)
                elif kind == _ATTRIBUTE:
                    self.marks.attributes.append((place, body))
                if kind not in _STEPPED_OVER:
                    if kind in found:
                        raise _Unusual
                    found[kind] = place, body
        if count:
            raise _Unusual
        return found

    def _dataset(self, path: str, messages: Messages) -> None:
        if messages.keys() != {_DATASPACE, _DATATYPE, _DATA_LAYOUT}:
            raise _Unusual
        (place, space), (at, plan) = messages[_DATASPACE], messages[_DATA_LAYOUT]
        shape = _shape(space)
        code, dtype = _type(messages[_DATATYPE][1])
        version, layout, address, stored = _LAYOUT.unpack_from(plan)
        nbytes = math.prod(shape) * dtype.itemsize
        if version != 3 or layout != _CONTIGUOUS:
            raise _Unusual
        offset = None
        if nbytes:
            if stored != nbytes or address + nbytes > self.window.size:
                raise _Unusual
            self.found.places[path] = address
            self.marks.storage[path] = at + 2
            offset = address + self.window.start
        self.marks.extents[path] = place + _SPACE.size, 2 if space[2] else 1
        self.found.types[path] = _TYPE_CODE + code
        self.found.tensors.append(Tensor(path, shape, dtype, nbytes, offset))

    # -- bytes ----------------------------------------------------------------------------------

    def _once(self, address: int) -> None:
        if address in self._seen:
            raise _Unusual
        self._seen.add(address)

    def _at(self, offset: int, count: int) -> bytes:
        """Some bytes; what stands near them is read along and kept, as headers stand together."""
        if offset + count > self.window.size:
            raise _Unusual
        page, start = divmod(offset, _PAGE)
        if start + count > _PAGE:
            return self._read(offset, count)
        data = self._pages.get(page)
        if data is None:
            data = self._pages[page] = self._read(
                page * _PAGE, min(_PAGE, self.window.size - page * _PAGE)
            )
        return data[start : start + count]

    def _read(self, offset: int, count: int) -> bytes:
        return self.window.file.read(self.window.start + offset, count)


def _shape(space: bytes) -> tuple[int, ...]:
    version, rank, limits = _SPACE.unpack_from(space)
    if version != 1 or rank > _HIGHEST_RANK or limits > 1:
        raise _Unusual
    if len(space) != _SPACE.size + 8 * rank * (1 + limits):
        raise _Unusual
    extents = struct.unpack_from(f"<{rank * (1 + limits)}Q", space, _SPACE.size)
    if limits and extents[rank:] != extents[:rank]:
        raise _Unusual
    return extents[:rank]


def _type(kind: bytes) -> tuple[bytes, np.dtype]:
    """The type's code and what numpy calls it."""
    code = kind[:20] if kind[:1] == b"\x11" else kind[:12]
    dtype = _TYPES.get(code)
    if dtype is None:
        raise _Unusual
    return code, dtype
