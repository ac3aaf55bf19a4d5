"""CRC-32, the checksum that a zip holds for each of its members.

Parts of a member are read and written by several threads; each part's checksum is computed while its
bytes are at hand, and the parts are joined here. zlib-ng computes the same sums as Python's zlib,
four times as fast (it multiplies polynomials where the processor can), and can join them.
"""

from __future__ import annotations

from collections.abc import Iterable

from zlib_ng.zlib_ng import crc32 as crc32
from zlib_ng.zlib_ng import crc32_combine


def joined(parts: Iterable[tuple[int, int, int]], size: int) -> int:
    """The CRC-32 of a text of which every part was seen exactly once.

    Args:
        parts: (start, length, CRC-32) of each part, in any order.
        size: length of the whole text.
    Raises: AssertionError if the parts do not cover the text exactly, which is a bug in kprune.
    """
    whole = end = 0
    for start, length, checksum in sorted(parts):
        if start != end:
            raise AssertionError(f"bytes {min(start, end)} to {max(start, end)} of {size}")
        whole = crc32_combine(whole, checksum, length)
        end += length
    if end != size:
        raise AssertionError(f"{end} bytes of {size}")
    return whole
