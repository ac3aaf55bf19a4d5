"""Heaps of values of variable length: texts in attributes.

No object is read twice: a file whose attributes share one long text would ask for far more memory
than it has bytes, and HDF5 writes none.

Source: HDF5 File Format Specification 1.1, III.E.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from msgspec import Struct

from kprune.formats.hdf5.attributes import reference
from kprune.formats.hdf5.datatypes import Unusual
from kprune.formats.opening import Window
from kprune.limits import ATTRIBUTE_BYTES

_HEAD = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HH4xQ")
_SMALLEST = 4096
_MOST_OBJECTS = 65535  # a number has two bytes, and 0 is the room that is left


class HeapReader:
    """The heaps of a file; each is read once.

    Args:
        window: the file.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self._heaps: dict[int, dict[int, bytes]] = {}
        self._read_already = 0

    def take(self, address: int, number: int) -> bytes:
        """The content of an object, once.

        Raises: Unusual if it is not there; LimitError if the heaps are larger than is allowed.
        """
        if address not in self._heaps:
            self._heaps[address] = self._objects(address)
        found = self._heaps[address].pop(number, None)
        if found is None:
            raise Unusual
        return found

    def _objects(self, address: int) -> dict[int, bytes]:
        if address + _HEAD.size > self.window.size:
            raise Unusual
        signature, version, size = _HEAD.unpack(self._read(address, _HEAD.size))
        if signature != b"GCOL" or version != 1 or address + size > self.window.size:
            raise Unusual
        self._read_already += size
        if self._read_already > self.window.size or size < _SMALLEST:  # heaps that overlap
            raise Unusual
        ATTRIBUTE_BYTES.check(self._read_already, "its attributes", self.window.file)
        data = self._read(address, size)
        found: dict[int, bytes] = {}
        at = _HEAD.size
        while at + _OBJECT.size <= size:
            number, _, length = _OBJECT.unpack_from(data, at)
            if number == 0:
                break
            at += _OBJECT.size
            if number in found or at + length > size:
                raise Unusual
            found[number] = data[at : at + length]
            at += -(-length // 8) * 8
        return found

    def _read(self, address: int, count: int) -> bytes:
        return self.window.file.read(self.window.start + address, count)


class _Heap(Struct):
    items: list[bytes]
    size: int
    address: int = 0


class HeapWriter:
    """Heaps for a new file: fill it, place it, then write."""

    def __init__(self) -> None:
        self.heaps: list[_Heap] = []

    def put(self, items: Iterable[bytes]) -> list[tuple[int, int]]:
        """Add values; returns for each of them which heap it stands in and its number there."""
        places = []
        for item in items:
            need = _OBJECT.size + -(-len(item) // 8) * 8
            heap = self.heaps[-1] if self.heaps else None
            if heap is None or heap.size + need > _SMALLEST or len(heap.items) == _MOST_OBJECTS:
                heap = _Heap([], _HEAD.size)
                self.heaps.append(heap)
            heap.items.append(item)
            heap.size += need
            places.append((len(self.heaps) - 1, len(heap.items)))
        return places

    def place(self, address: int) -> int:
        """Let them stand from an address on; returns where they end."""
        for heap in self.heaps:
            heap.address = address
            address += max(_SMALLEST, heap.size)
        return address

    def reference(self, place: tuple[int, int], length: int) -> bytes:
        """What stands in place of a value.

        Args:
            place: as `put` returned it.
            length: how many items the value has.
        """
        heap, number = place
        return reference(length, self.heaps[heap].address, number)

    def content(self) -> bytes:
        """All of them, one behind the other."""
        return b"".join(_content(heap) for heap in self.heaps)


def _content(heap: _Heap) -> bytes:
    size = max(_SMALLEST, heap.size)
    parts = [_HEAD.pack(b"GCOL", 1, size)]
    for number, item in enumerate(heap.items, 1):
        parts += [_OBJECT.pack(number, 1, len(item)), item, bytes(-len(item) % 8)]
    left = size - heap.size
    if left >= _OBJECT.size:
        parts.append(_OBJECT.pack(0, 0, left))
        left -= _OBJECT.size
    return b"".join((*parts, bytes(left)))
