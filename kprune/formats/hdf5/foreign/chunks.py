"""Chunks of a dataset, unpacked: each once, and to exactly the bytes that it should have.

libhdf5 takes a chunk that unpacks to fewer bytes for whole, and reads on in whatever stands behind
it in memory. So deflate, shuffle and fletcher32 are done here, and of h5py's LZF the length is
checked before libhdf5 unpacks it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000
OWN = frozenset({DEFLATE, SHUFFLE, FLETCHER32})
"""Filters that are done here."""

_CHECKSUM = 4
_MOST_EFFORT = 9
_LONG = 7  # of LZF: one more byte of length follows


def as_written(number: int, values: Sequence[int], item: int) -> bool:
    """Whether a filter has the parameters that libhdf5 gives it.

    Args:
        item: bytes of one value.
    """
    if number == DEFLATE:
        return len(values) == 1 and values[0] <= _MOST_EFFORT
    if number == SHUFFLE:
        return list(values) == [item]
    return number != FLETCHER32 or not values


class BadChunk(Exception):
    """A chunk that does not unpack to what it should; carries a clause."""


def unpacked(data: bytes, filters: Sequence[int], size: int, item: int) -> bytes:
    """Undo filters of `OWN`.

    Args:
        data: of the chunk, as stored.
        filters: those that were applied, in order.
        size: of the chunk, in bytes.
        item: bytes of one value.
    Raises: BadChunk
    """
    for number in reversed(filters):
        if number == FLETCHER32:
            data = _verified(data)
        elif number == DEFLATE:
            data = _inflated(data, size + _CHECKSUM * len(filters))
        elif item > 1:
            whole = len(data) // item * item
            columns = np.frombuffer(data[:whole], np.uint8).reshape(item, -1)
            data = columns.T.tobytes() + data[whole:]
    if len(data) != size:
        raise BadChunk(f"a chunk of {size} bytes unpacks to {len(data)}")
    return data


def check_lzf(data: bytes, filters: Sequence[int], size: int) -> None:
    """Check the length of a chunk that LZF packed, before anything else unpacks it.

    Args: as `unpacked`.
    Raises: BadChunk
    """
    left = list(filters)
    while left and left[-1] == FLETCHER32:
        data, _ = _verified(data), left.pop()
    if DEFLATE in left or LZF in left[:-1]:
        raise BadChunk("its filters stand in an order that h5py does not write")
    length = _lzf_length(data) if LZF in left else len(data)
    length -= _CHECKSUM * left.count(FLETCHER32)
    if length != size:
        raise BadChunk(f"a chunk of {size} bytes unpacks to {length}")


def _inflated(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, most + 1)
    except zlib.error as error:
        raise BadChunk(f"a chunk does not unpack: {error}") from None
    if len(found) > most:
        raise BadChunk("a chunk unpacks to more bytes than it should")
    if not stream.eof:
        raise BadChunk("a chunk ends too early")
    return found


def _lzf_length(data: bytes) -> int:
    """How many bytes a stream of LZF unpacks to: runs of bytes, and copies of earlier ones."""
    at = length = 0
    end = len(data)
    while at < end:
        control = data[at]
        if control < 32:
            length += control + 1
            at += control + 2
            continue
        copied, at = control >> 5, at + 1
        if copied == _LONG:
            copied += data[at] if at < end else 0
            at += 1
        back = ((control & 31) << 8) + (data[at] if at < end else 0) + 1
        if back > length:
            raise BadChunk("a chunk does not unpack")
        at += 1
        length += copied + 2
    if at != end:
        raise BadChunk("a chunk ends too early")
    return length


def _verified(data: bytes) -> bytes:
    """Data without their checksum. Raises: BadChunk if it is another one."""
    if len(data) < _CHECKSUM:
        raise BadChunk("a chunk ends too early")
    data, stored = data[:-_CHECKSUM], data[-_CHECKSUM:]
    first, second = _fletcher32(data)
    high, low = int.from_bytes(stored[2:], "little"), int.from_bytes(stored[:2], "little")
    swapped = [int.from_bytes(part, "big") for part in (stored[2:], stored[:2])]  # by old libraries
    if (second, first) not in ((high, low), tuple(swapped)):
        raise BadChunk("the checksum of a chunk is another one")
    return data


def _fletcher32(data: bytes) -> tuple[int, int]:
    """The two sums of HDF5's checksum, modulo 65535: of the words, and of the sums up to each."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2")
    first = second = 0
    block = 1 << 16  # so that no sum overflows
    for start in range(0, len(words), block):
        part = words[start : start + block].astype(np.uint64)
        weights = np.arange(len(part), 0, -1, dtype=np.uint64)
        second = (second + first * len(part) + int((part * weights).sum())) % 65535
        first = (first + int(part.sum())) % 65535
    if words.any():  # 0 is that of zeros alone
        first, second = first or 65535, second or 65535
    return first, second
