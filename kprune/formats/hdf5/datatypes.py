"""Number types as HDF5 encodes them, and what numpy calls them.

A type is known by the bytes of its datatype message, and written again as the same bytes. All that
could lead elsewhere in the file is told apart here: references hold addresses, types of variable
length have their values in a heap.

Source: HDF5 File Format Specification 1.1, IV.A.2.d.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kprune.formats.hdf5.structures import REFERENCE

_FIXED, _FLOAT, _TIME, _TEXT, _BITS, _OPAQUE, _COMPOUND = range(7)
_ENUM, _VARIABLE, _ARRAY = 8, 9, 10
_HEAD = struct.Struct("<BBBBI")
_DEEPEST = 8  # of a type in a type
_PROPERTIES = {_FIXED: 4, _FLOAT: 12, _TIME: 2, _BITS: 4}  # bytes of them
_MOST_MEMBERS = 1024
_NEWEST_OF_H5PY = 2  # in files of the oldest format
_NEWEST = 5  # version; from 3 on, names are not padded
_LARGEST = 1 << 16  # bytes of one value


class Unusual(Exception):
    """Something that h5py does not write by default, or damage: libhdf5 will tell."""


class Datatype(Struct, frozen=True):
    """A type of values.

    Attributes:
        code: its message, without what is put behind it to align the next.
        size: bytes of one value.
        dtype: what numpy calls it: opaque where numpy has no such numbers, None for what no tensor
            is made of (compounds, values of variable length).
        item: of values of variable length, the type of one item; its size is 1 for texts.
        text: whether it is a text, of fixed or variable length.
        odd: whether it is encoded as h5py would not, or has numbers that numpy does not know; libhdf5
            may understand it, or not.
    """

    code: bytes
    size: int
    dtype: np.dtype | None = None
    item: Datatype | None = None
    text: bool = False
    odd: bool = False


def _integer(size: int, signed: bool, order: int = 0) -> bytes:
    return struct.pack("<BBHIHH", 0x10, 8 * signed + order, 0, size, 0, 8 * size)


def _float(size: int, exponent: int, mantissa: int, order: int = 0) -> bytes:
    """An IEEE float whose mantissa has a leading one that is not stored."""
    sign, bias = 8 * size - 1, (1 << (exponent - 1)) - 1
    head = struct.pack("<BBBBIHH", 0x11, 0x20 + order, sign, 0, size, 0, 8 * size)
    return head + struct.pack("<BBBBI", mantissa, exponent, 0, mantissa, bias)


_NUMBERS: dict[bytes, np.dtype] = {
    **{
        _float(*form, order): np.dtype(f"{sign}f{form[0]}")
        for form in ((2, 5, 10), (4, 8, 23), (8, 11, 52))
        for order, sign in enumerate("<>")
    },
    **{
        _integer(size, signed, order): np.dtype(f"{sign}{kind}{size}")
        for size in (1, 2, 4, 8)
        for signed, kind in ((True, "i"), (False, "u"))
        for order, sign in enumerate("<>" if size > 1 else "<")
    },
}
_CODES = {dtype: code for code, dtype in _NUMBERS.items()}
# h5py writes truth values as an enumeration: two names, padded to 8 bytes, then two values.
_BOOL = (
    struct.pack("<BHBI", 0x18, 2, 0, 1)
    + _integer(1, True)
    + b"FALSE\0\0\0TRUE\0\0\0\0\0\1"
)  # fmt: skip
_BOOL_NAMES = (b"FALSE", b"TRUE"), b"\0\1"
VARIABLE_TEXT = struct.pack("<BHBI", 0x19, 0x0101, 0, REFERENCE.size) + _integer(1, False)
"""The type of h5py's texts: of any length, UTF-8."""


def type_code(dtype: np.dtype) -> bytes:
    """The number type that h5py, and so Keras, writes for a numpy type.

    Raises: KeyError for a type that no tensor and no attribute of Keras has.
    """
    if dtype.kind == "b":
        return _BOOL
    if dtype.kind == "V":
        return _HEAD.pack(0x15, 0, 0, 0, dtype.itemsize)
    if dtype.kind == "S":
        return _HEAD.pack(0x13, 1, 0, 0, dtype.itemsize)
    return _CODES[np.dtype(dtype.newbyteorder("<") if dtype.itemsize == 1 else dtype)]


def parsed(message: bytes) -> Datatype:
    """Read a datatype message.

    Args:
        message: the message; fewer than 8 zeros may follow the type.
    Raises: Unusual if it is not understood to the last field, or holds addresses.
    """
    known = _KNOWN.get(message)
    if known is not None:
        return known
    found = _parsed(message, 0)
    if len(message) - len(found.code) > 7 or any(message[len(found.code) :]):
        raise Unusual
    if len(_KNOWN) < _MOST_KNOWN:
        _KNOWN[message] = found
    return found


_KNOWN: dict[bytes, Datatype] = {}
_MOST_KNOWN = 256


def _parsed(data: bytes, level: int) -> Datatype:
    found = _of_kind(data, level)
    newer = data[0] >> 4 > _NEWEST_OF_H5PY
    return replace(found, odd=True) if newer else found


def _of_kind(data: bytes, level: int) -> Datatype:
    first, low, middle, _, size = _HEAD.unpack_from(data)
    version, kind = first >> 4, first & 15
    if level > _DEEPEST or not 1 <= version <= _NEWEST or not 0 < size <= _LARGEST:
        raise Unusual
    if kind in (_FIXED, _FLOAT, _TIME, _BITS):
        return _number(data, kind, size)
    if kind == _TEXT:
        return Datatype(data[:8], size, np.dtype(f"S{size}"), text=True)
    if kind == _OPAQUE:  # the tag's length is a multiple of 8
        return Datatype(_cut(data, 8 + low), size, _opaque(size))
    count = low + (middle << 8)
    if kind == _ENUM:
        return _enumeration(data, size, version, count)
    if kind == _COMPOUND:
        end, odd = _compound_end(data, size, version, count, level)
        return Datatype(_cut(data, end), size, odd=odd)
    if kind == _ARRAY and version >= 2:
        return _array(data, size, version, level)
    if kind == _VARIABLE and size == REFERENCE.size and low & 15 <= 1:
        item = _parsed(data[8:], level + 1)
        text = low & 15 == 1
        if item.item is not None or (text and item.size != 1):
            raise Unusual
        return Datatype(_cut(data, 8 + len(item.code)), size, item=item, text=text, odd=item.odd)
    raise Unusual


def _fits(code: bytes, kind: int, size: int) -> bool:
    """Whether the parts of a number lie inside it."""
    if kind == _TIME:
        return True
    start, bits = struct.unpack_from("<HH", code, 8)
    if not bits or start + bits > 8 * size:
        return False
    if kind != _FLOAT:
        return True
    exponent, width, mantissa, length = code[12:16]
    inside = exponent + width <= bits and mantissa + length <= bits and code[2] < 8 * size
    return inside and width > 0 and length > 0


def _opaque(size: int) -> np.dtype:
    return np.dtype(f"V{size}")


def _cut(data: bytes, length: int) -> bytes:
    if length > len(data):
        raise Unusual
    return data[:length]


def _number(data: bytes, kind: int, size: int) -> Datatype:
    code = _cut(data, 8 + _PROPERTIES[kind])
    if not _fits(code, kind, size):
        raise Unusual
    if kind not in (_FIXED, _FLOAT):
        return Datatype(code, size, odd=True)
    known = _NUMBERS.get(bytes([0x10 | kind]) + code[1:])
    return Datatype(code, size, known or _opaque(size), odd=known is None)


def _enumeration(data: bytes, size: int, version: int, count: int) -> Datatype:
    base = _parsed(data[8:], _DEEPEST)
    if base.size != size or base.dtype is None or count > _MOST_MEMBERS:
        raise Unusual
    at, names = 8 + len(base.code), []
    for _ in range(count):
        name, at = _name(data, at, version)
        names.append(name)
    code = _cut(data, at + count * size)
    truth = size == 1 and (tuple(names), code[at:]) == _BOOL_NAMES
    return Datatype(code, size, np.dtype(bool) if truth else base.dtype, odd=base.odd)


def _name(data: bytes, at: int, version: int) -> tuple[bytes, int]:
    """A name, and where it ends; up to version 2 it is padded to 8 bytes."""
    length = data.index(b"\0", at) - at
    name = data[at : at + length]
    return name, at + (length + 1 if version > 2 else length // 8 * 8 + 8)


def _compound_end(data: bytes, size: int, version: int, count: int, level: int) -> tuple[int, bool]:
    """Where the members of a compound end, and whether one is odd. None has its values elsewhere."""
    at, odd = 8, False
    if count > _MOST_MEMBERS:
        raise Unusual
    for _ in range(count):
        _, at = _name(data, at, version)
        width = 4 if version < 3 else next(n for n in (1, 2, 3, 4) if size < 1 << (8 * n))
        offset = int.from_bytes(_cut(data, at + width)[at:], "little")
        at += width
        repeated = 1
        if version == 1:  # up to four extents
            rank, *extents = struct.unpack_from("<B11x4I", data, at)
            repeated, at = math.prod(extents[:rank]), at + 28
        member = _parsed(data[at:], level + 1)
        if member.item is not None or offset + member.size * repeated > size:
            raise Unusual
        at += len(member.code)
        odd |= member.odd
    return at, odd


def _array(data: bytes, size: int, version: int, level: int) -> Datatype:
    rank = _cut(data, 9)[8]
    at = 12 if version == 2 else 9
    extents = struct.unpack_from(f"<{rank}I", data, at)
    at += 4 * rank * (2 if version == 2 else 1)
    item = _parsed(data[at:], level + 1)
    if item.item is not None or item.size * math.prod(extents) != size:
        raise Unusual
    return Datatype(_cut(data, at + len(item.code)), size, odd=item.odd)
