"""Where the structures of an HDF5 file stand, for scripts that damage them one by one.

Offsets are those of the file format's own description, for superblock 0 and object headers of
version 1, which Keras writes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import h5py

from kprune.formats.hdf5.foreign import libhdf5  # noqa: F401 - h5py without plug-ins

DATASPACE, DATATYPE, FILL, LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION, TABLE = (
    1, 3, 5, 8, 11, 12, 16, 17,
)  # fmt: skip
"""Types of messages in an object header."""


class Hdf5:
    """The bytes of an HDF5 file, to be changed."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def put(self, at: int, value: bytes | int, size: int = 8) -> Hdf5:
        """Write bytes, or a number of `size` bytes."""
        if isinstance(value, int):
            value = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self.data[at : at + len(value)] = value
        return self

    def number(self, at: int, size: int = 8) -> int:
        return int.from_bytes(self.data[at : at + size], "little")

    def header(self, path: str) -> int:
        """Where an object's header begins."""
        with h5py.File(io.BytesIO(bytes(self.data)), "r") as file:
            found: int = h5py.h5o.get_info(file[path].id).addr
        return found

    def messages(self, path: str) -> Iterator[tuple[int, int, int]]:
        """Of each message of an object: its type, where its content begins, and how long it is."""
        at = self.header(path)
        waiting = [(at + 16, self.number(at + 8, 4))]
        while waiting:
            start, length = waiting.pop()
            here = start
            while here + 8 <= start + length:
                kind, size = struct.unpack("<HH", self.data[here : here + 4])
                if kind == CONTINUATION:
                    waiting.append((self.number(here + 8), self.number(here + 16)))
                yield kind, here + 8, size
                here += 8 + size

    def message(self, path: str, kind: int, number: int = 0) -> int:
        """Where the content of an object's message of this type begins."""
        return [at for found, at, _ in self.messages(path) if found == kind][number]

    def find(self, signature: bytes, number: int = 0) -> int:
        """Where a structure with a signature begins: TREE, SNOD, HEAP, GCOL."""
        at = -1
        for _ in range(number + 1):
            at = self.data.index(signature, at + 1)
        return at

    def group(self, path: str) -> tuple[int, int]:
        """Where a group's B-tree and heap begin."""
        at = self.message(path, TABLE)
        return self.number(at), self.number(at + 8)

    def node(self, path: str) -> int:
        """Where the first table of a group's links begins (SNOD)."""
        return self.number(self.group(path)[0] + 32)
