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

from kprune.formats.hdf5.attributes import message
from kprune.formats.hdf5.contents import Found
from kprune.formats.hdf5.datatypes import Unusual, parsed
from kprune.formats.hdf5.structures import (
    ATTRIBUTE,
    CONSTANT,
    CONTIGUOUS,
    CONTINUATION,
    DATA_LAYOUT,
    DATASPACE,
    DATATYPE,
    ENTRY,
    FILL,
    HEADER,
    HEAP,
    HIGHEST_RANK,
    LAYOUT,
    LAYOUT_VERSION,
    LEAF,
    LEAF_ENTRIES,
    LEAF_SIZE,
    MESSAGE,
    MODIFIED,
    NIL,
    NO_FILL,
    NO_FREE_ROOM,
    OLD_FILL,
    PAIR,
    SPACE,
    SYMBOL_TABLE,
    TREE,
    TREE_CHILDREN,
    TREE_SIZE,
    UNDEFINED,
)
from kprune.formats.opening import Window
from kprune.formats.source import Tensor
from kprune.limits import HDF5_OBJECTS

_PAGE = 1 << 13
_LARGEST_HEAP = 1 << 24  # of the names in one group
_LONGEST_NAME = 1 << 16
_TALLEST_TREE = 16

_SUPERBLOCK = struct.Struct("<8s8BHHIQQQQQQII16x")
_KEYS = struct.Struct("<QQQ")
# Where the superblock has the end of the file, the root's header, and where the root's links are.
_END, _ROOT, _ROOT_CACHE = 40, 64, (80, 88)

_STEPPED_OVER = {NIL, ATTRIBUTE, CONTINUATION, MODIFIED}
_OF_DATASET = {DATASPACE, DATATYPE, DATA_LAYOUT}


Messages = dict[int, tuple[int, bytes]]
"""Of an object's header: by type where in the file each one stands, and its bytes."""


def read_plain(window: Window, where: str = "it", *, odd: bool = False) -> Found | None:
    """Read the metadata of an HDF5 file.

    Args:
        window: the file.
        where: what messages call it.
        odd: whether types may be such that h5py would not write them.
    Returns: its objects, or None if it is anything but a plain file of arrays that is not damaged.
    Raises: FileError if the system cannot read it.
    """
    try:
        return _Reader(window, where, odd).over_all()
    except (Unusual, struct.error, ValueError, OverflowError):
        return None


class _Reader:
    """One pass over the objects of a file, each once."""

    def __init__(self, window: Window, where: str, odd: bool) -> None:
        self.window, self.where, self.odd = window, where, odd
        self.found = Found()
        self.marks = self.found.marks
        self._pages: dict[int, bytes] = {}
        self._seen: set[int] = set()
        self._rows: dict[int, list[tuple[int, int, int]]] = {}  # of one tree, by level
        self._left = 2 * window.size  # bytes of headers, names and paths: more is a trap
        self._end = window.size

    def over_all(self) -> Found:
        waiting = [("", self._root())]
        while waiting:
            prefix, address = waiting.pop()
            HDF5_OBJECTS.check(len(self.found.places), self.where, self.window.file)
            for name, place, cached in self._links(address):
                path = prefix + name
                self._left -= len(path)
                messages = self._messages(place, path)
                self.found.places[path] = place
                if SYMBOL_TABLE in messages:
                    self.found.groups.append(path)
                    table = self._table_of(messages)
                    if cached not in (b"", table):
                        raise Unusual
                    waiting.append((path + "/", table))
                elif cached:
                    raise Unusual
                else:
                    self._dataset(path, messages)
        return self.found

    def _root(self) -> bytes:
        fields = _SUPERBLOCK.unpack(self._structure(0, _SUPERBLOCK.size))
        signature, versions, sizes = fields[0], fields[1:6], fields[6:8]
        base, free, end, driver, _, header, cached = fields[12:19]
        if fields[9:12] != (LEAF_ENTRIES // 2, TREE_CHILDREN // 2, 0) or cached > 1:
            raise Unusual
        if signature != b"\x89HDF\r\n\x1a\n" or any(versions) or sizes != (8, 8) or fields[8]:
            raise Unusual
        if base or free != UNDEFINED or driver != UNDEFINED or end > self.window.size:
            raise Unusual
        self.marks.end, self._end = _END, end
        self.marks.addresses += [_ROOT, *_ROOT_CACHE] if cached == 1 else [_ROOT]
        table = self._table_of(self._messages(header, ""))
        if cached and self._at(_ROOT_CACHE[0], PAIR.size) != table:
            raise Unusual
        return table

    def _table_of(self, messages: Messages) -> bytes:
        """Where a group's links are: the addresses of a B-tree and of a heap of names."""
        if messages.keys() != {SYMBOL_TABLE}:
            raise Unusual
        at, table = messages[SYMBOL_TABLE]
        self.marks.addresses += (at, at + 8)
        return table

    # -- groups ---------------------------------------------------------------------------------

    def _links(self, table: bytes) -> Iterator[tuple[str, int, bytes]]:
        """Of each object in a group: name, address, and of a group perhaps where its links are.

        libhdf5 finds a name by bisection, so names and keys must be in order.
        """
        tree, heap = PAIR.unpack(table)
        names = self._names(heap)
        before = b""
        self._rows = {}
        for leaf, low, high in self._leaves(tree):
            self._once(leaf)
            data = self._structure(leaf, LEAF_SIZE)
            signature, version, count = LEAF.unpack_from(data)
            if signature != b"SNOD" or version != 1 or not 0 < count <= LEAF_ENTRIES:
                raise Unusual
            before = max(before, _name(names, low))
            at = leaf + LEAF.size
            entries = data[LEAF.size : LEAF.size + count * ENTRY.size]
            for place, address, kind, _, cached in ENTRY.iter_unpack(entries):
                name = _name(names, place)
                if kind > 1 or name <= before or name == b"." or b"/" in name:
                    raise Unusual  # a symbolic link, or names that are not in order
                # A group's entry repeats where its links are.
                self.marks.addresses += (at + 8, at + 24, at + 32) if kind else (at + 8,)
                at += ENTRY.size
                before = name
                yield name.decode(), address, cached if kind else b""
            if before > _name(names, high):
                raise Unusual
        for row in self._rows.values():  # libhdf5 goes from node to node of a level
            places = [UNDEFINED, *(node for node, _, _ in row), UNDEFINED]
            if [(left, right) for _, left, right in row] != list(
                zip(places, places[2:], strict=False)
            ):
                raise Unusual

    def _names(self, address: int) -> bytes:
        signature, version, size, free, data = HEAP.unpack(self._structure(address, HEAP.size))
        if signature != b"HEAP" or version or size > _LARGEST_HEAP:
            raise Unusual
        self._spend(size)
        self.marks.addresses.append(address + 24)
        names = self._structure(data, size)
        left = size // PAIR.size
        while free != NO_FREE_ROOM and left >= 0:  # each room says where the next one is
            start = free
            free, room = PAIR.unpack(_inside(names, start, PAIR.size))
            left -= 1
            if room < PAIR.size or start + room > size:
                raise Unusual
        if left < 0:
            raise Unusual
        return names

    def _leaves(self, address: int, level: int | None = None) -> Iterator[tuple[int, int, int]]:
        """Of each leaf of a tree: address, and the keys on both sides, which are places of names."""
        self._once(address)
        data = self._structure(address, TREE_SIZE)
        signature, kind, height, count, left, right = TREE.unpack_from(data)
        if signature != b"TREE" or kind or height > _TALLEST_TREE or level not in (None, height):
            raise Unusual
        if count > TREE_CHILDREN or (height and not count):
            raise Unusual
        self._rows.setdefault(height, []).append((address, left, right))
        for at, neighbour in ((address + 8, left), (address + 16, right)):
            if neighbour != UNDEFINED:
                self.marks.addresses.append(at)
        first = address + TREE.size + 8
        self.marks.addresses += range(first, first + count * PAIR.size, PAIR.size)
        for at in range(TREE.size, TREE.size + count * PAIR.size, PAIR.size):
            low, child, high = _KEYS.unpack_from(data, at)
            if not height:
                yield child, low, high
                continue
            inner = list(self._leaves(child, height - 1))
            if (inner[0][1], inner[-1][2]) != (low, high):
                raise Unusual
            yield from inner

    # -- objects --------------------------------------------------------------------------------

    def _messages(self, address: int, path: str) -> Messages:
        """The messages of an object's header, by type."""
        self._once(address)
        version, count, links, length = HEADER.unpack(self._structure(address, HEADER.size))
        if version != 1 or links != 1:
            raise Unusual
        blocks = [(address + HEADER.size, length)]
        found: Messages = {}
        attributes = []
        for start, length in blocks:
            self._spend(length)
            data, at = self._structure(start, length), 0
            while at < length:
                count -= 1
                kind, size, flags = MESSAGE.unpack_from(data, at)
                place = start + at + MESSAGE.size
                body = data[at + MESSAGE.size : at + MESSAGE.size + size]
                at += MESSAGE.size + size
                if len(body) != size or flags & ~CONSTANT or count < 0:
                    raise Unusual
                if kind == CONTINUATION:
                    blocks.append(PAIR.unpack(body))
                    self.marks.addresses.append(place)
                elif kind == ATTRIBUTE:
                    attributes.append((place, message(body)))
                    if attributes[-1][1].kind.odd > self.odd:
                        raise Unusual
                if kind not in _STEPPED_OVER:
                    if kind in found:
                        raise Unusual
                    found[kind] = place, body
        if count:
            raise Unusual
        if len({item.name for _, item in attributes}) < len(attributes):
            raise Unusual  # which of two of one name Keras gets is libhdf5's to say
        if attributes:
            self.found.attributes[path] = attributes
        return found

    def _dataset(self, path: str, messages: Messages) -> None:
        if messages.keys() - {OLD_FILL, FILL} != _OF_DATASET:
            raise Unusual
        (place, space), (at, plan) = messages[DATASPACE], messages[DATA_LAYOUT]
        shape = _shape(space)
        kind = parsed(messages[DATATYPE][1])
        dtype = kind.dtype
        if dtype is None or kind.odd > self.odd:
            raise Unusual
        _check_fill(messages, dtype.itemsize)
        version, layout, address, stored = LAYOUT.unpack_from(plan)
        nbytes = math.prod(shape) * dtype.itemsize
        if (version, layout) != (LAYOUT_VERSION, CONTIGUOUS):
            raise Unusual
        offset = None
        if nbytes:
            if stored != nbytes or address + nbytes > self._end:
                raise Unusual
            self.found.places[path] = address
            self.marks.storage[path] = at + 2
            offset = address + self.window.start
        self.marks.extents[path] = place + SPACE.size, 2 if space[2] else 1
        self.found.types[path] = kind.code
        self.found.tensors.append(Tensor(path, shape, dtype, nbytes, offset))

    # -- bytes ----------------------------------------------------------------------------------

    def _once(self, address: int) -> None:
        if address in self._seen:
            raise Unusual
        self._seen.add(address)

    def _structure(self, start: int, size: int) -> bytes:
        """One of the file's own structures."""
        self.found.taken.append((start, start + size))
        return self._at(start, size)

    def _spend(self, count: int) -> None:
        """Count what is read. Structures that overlap could be read for ever, each once."""
        self._left -= count
        if self._left < 0:
            raise Unusual

    def _at(self, offset: int, count: int) -> bytes:
        """Some bytes; what stands near them is read along and kept, as headers stand together."""
        if offset + count > self._end:
            raise Unusual
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


def _name(names: bytes, place: int) -> bytes:
    return names[place : names.index(b"\0", place, place + _LONGEST_NAME)]


def _inside(data: bytes, start: int, count: int) -> bytes:
    if start + count > len(data):
        raise Unusual
    return data[start : start + count]


def _shape(space: bytes) -> tuple[int, ...]:
    version, rank, limits = SPACE.unpack_from(space)
    if version != 1 or rank > HIGHEST_RANK or limits > 1:
        raise Unusual
    if len(space) != SPACE.size + 8 * rank * (1 + limits):
        raise Unusual
    extents = struct.unpack_from(f"<{rank * (1 + limits)}Q", space, SPACE.size)
    if limits and extents[rank:] != extents[:rank]:
        raise Unusual
    return extents[:rank]


def _check_fill(messages: Messages, size: int) -> None:
    """What a value is that was never written: of no use here, and to be understood all the same."""
    if OLD_FILL in messages:
        fill = messages[OLD_FILL][1]
        (given,) = struct.unpack_from("<I", fill)
        if given not in (0, size) or not 0 <= len(fill) - 4 - given < 8:
            raise Unusual
    if FILL in messages and messages[FILL][1] != NO_FILL:
        fill = messages[FILL][1]
        version, allocated, written, defined = fill[:4]
        if version != 2 or not 1 <= allocated <= 3 or written > 2 or defined > 1:
            raise Unusual
        given = struct.unpack_from("<I", fill, 4)[0] if defined else 0
        if given not in (0, size) or not 0 <= len(fill) - 4 - 4 * defined - given < 8:
            raise Unusual
