"""Attributes: read as they are stored, understood as far as Keras writes them, stored anew.

An attribute that nobody changes is written with the bytes that it had, whatever its type is; only
the values of variable length, which stand in a heap, get another address.

Source: HDF5 File Format Specification 1.1, IV.A.2.m.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
from msgspec import Struct

from kprune.formats.hdf5.datatypes import VARIABLE_TEXT, Datatype, Unusual, parsed, type_code
from kprune.formats.hdf5.structures import (
    HIGHEST_RANK,
    NO_VALUES,
    REFERENCE,
    SPACE,
)

Text = str | list[str]
Attribute = Text | np.ndarray
"""A text, a list of texts, or numbers."""

_HEAD = struct.Struct("<BBHHH")

Heap = Callable[[int, int], bytes]
"""Gives the content of an object in a heap: by the heap's address, and the object's number."""


class Stored(Struct, frozen=True):
    """An attribute as it is stored.

    Attributes:
        name: in UTF-8.
        kind: its datatype's code.
        space: its dataspace message.
        data: its values; those of variable length are empty here.
        items: the values of variable length, in order; None for other types.
    """

    name: bytes
    kind: bytes
    space: bytes
    data: bytes
    items: tuple[bytes, ...] | None = None

    def value(self) -> Attribute | None:
        """What it says; None for what no Keras writes."""
        shape = extents(self.space)
        kind = parsed(self.kind)
        if shape is None:
            return None
        if not kind.text:
            known = kind.dtype is not None and kind.dtype.kind in "iufb"
            return np.frombuffer(self.data, kind.dtype).reshape(shape) if known else None
        size = kind.size
        texts = self.items if self.items is not None else [
            self.data[at : at + size].rstrip(b"\0") for at in range(0, len(self.data), size)
        ]  # fmt: skip
        try:
            plain = [text.decode() for text in texts]
        except UnicodeDecodeError:
            return None
        return plain if shape else plain[0]


class Message(Struct, frozen=True):
    """An attribute's message, not followed into the heap yet.

    Attributes:
        name, kind, space: as in `Stored`.
        count: how many values there are.
        at: where in the message they begin.
        body: the whole message.
    """

    name: bytes
    kind: Datatype
    space: bytes
    count: int
    at: int
    body: bytes

    def stored(self, heap: Heap) -> Stored:
        """The attribute with all its values.

        Raises: Unusual if it refers to what is not there.
        """
        values = self.body[self.at : self.at + self.count * self.kind.size]
        item = self.kind.item
        if item is None:
            return Stored(self.name, self.kind.code, self.space, values)
        items = []
        for length, address, number in REFERENCE.iter_unpack(values):
            data = heap(address, number) if length else b""
            if len(data) != length * item.size:
                raise Unusual
            items.append(data)
        return Stored(self.name, self.kind.code, self.space, b"", tuple(items))


def message(body: bytes) -> Message:
    """Read an attribute's message.

    Raises: Unusual if it is not understood to the last byte; struct.error or ValueError, too.
    """
    version, flags, name, kind, space = _HEAD.unpack_from(body)
    if version not in (1, 3) or flags:
        raise Unusual
    at, pad = (_HEAD.size, 8) if version == 1 else (_HEAD.size + 1, 1)  # the name's encoding
    ends = [at]
    for size in (name, kind, space):
        ends.append(ends[-1] + -(-size // pad) * pad)
    text = body[at : at + name]
    if ends[3] > len(body) or text.find(b"\0") != name - 1:
        raise Unusual
    text[:-1].decode()  # UnicodeDecodeError is a ValueError
    known = parsed(body[ends[1] : ends[1] + kind])
    shape = body[ends[2] : ends[2] + space]
    found = extents(shape)
    count = 0 if found is None else math.prod(found)
    left = len(body) - ends[3] - count * known.size
    if left < 0 or left > 7:
        raise Unusual
    return Message(text[:-1], known, shape, count, ends[3], body)


def extents(space: bytes) -> tuple[int, ...] | None:
    """The extents that a dataspace message gives; None if it says that there are no values.

    Raises: Unusual, struct.error
    """
    if space == NO_VALUES:
        return None
    version, rank, limits = SPACE.unpack_from(space.ljust(SPACE.size, b"\0"))
    head = SPACE.size if version == 1 else 4
    if version not in (1, 2) or rank > HIGHEST_RANK or limits > 1:
        raise Unusual
    if version == 2 and space[3] != (rank > 0):
        raise Unusual
    if len(space) != head + 8 * rank * (1 + limits):
        raise Unusual
    return struct.unpack_from(f"<{rank}Q", space, head)


def space_of(shape: tuple[int, ...]) -> bytes:
    """The dataspace message for some extents, as h5py writes it."""
    if not shape:
        return SPACE.pack(1, 0, 0)
    return SPACE.pack(1, len(shape), 1) + struct.pack(f"<{2 * len(shape)}Q", *shape, *shape)


def encoded(name: str, value: Attribute) -> Stored:
    """An attribute as h5py stores it.

    Raises: UnicodeEncodeError for what is no text; KeyError for numbers of an odd kind.
    """
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value).tobytes()
        return Stored(name.encode(), type_code(value.dtype), space_of(value.shape), data)
    texts = [value] if isinstance(value, str) else value
    shape = () if isinstance(value, str) else (len(texts),)
    items = tuple(text.encode() for text in texts)
    return Stored(name.encode(), VARIABLE_TEXT, space_of(shape), b"", items)


def body(stored: Stored, references: bytes) -> bytes:
    """The message of an attribute.

    Args:
        references: to its values of variable length, 16 bytes each; of no use for other types.
    """
    name = stored.name + b"\0"
    data = references if stored.items is not None else stored.data
    parts = (name, stored.kind, stored.space)
    if stored.name.isascii():
        padded = b"".join(_padded(part) for part in parts)
        return _padded(_HEAD.pack(1, 0, *map(len, parts)) + padded + data)
    return _padded(_HEAD.pack(3, 0, *map(len, parts)) + b"\1" + b"".join(parts) + data)


def reference(length: int, address: int, number: int) -> bytes:
    """What stands in place of a value of variable length."""
    return REFERENCE.pack(length, address, number)


def item_size(stored: Stored) -> int:
    """Bytes of one item of a value of variable length."""
    item = parsed(stored.kind).item
    return item.size if item else 1


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
