"""The checksum of a whole out of the checksums of its parts.

A zip holds one CRC-32 per member. Parts of a member are read and written by several threads, each
part's own CRC is computed while its bytes are at hand, and the parts are joined here. The algebra
is that of zlib's crc32_combine: a CRC is the remainder of a polynomial over GF(2), and to put `n`
bytes behind a text multiplies its remainder by x^(8n). (Python's zlib has this from 3.15 on.)
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache

_POLYNOMIAL = 0xEDB88320  # the CRC-32 of zip, bits reflected: the highest bit stands for x^0
_ONE = 1 << 31
_X = 1 << 30


def joined(parts: Iterable[tuple[int, int, int]], size: int) -> int:
    """The CRC-32 of a text of which every part was seen exactly once.

    Args:
        parts: (start, length, CRC-32) of each part, in any order.
        size: length of the whole text.
    Raises: AssertionError if the parts do not cover the text exactly, which is a bug in kprune.
    """
    whole = end = 0
    for start, length, crc in sorted(parts):
        if start != end:
            raise AssertionError(f"bytes {min(start, end)} to {max(start, end)} of {size}")
        whole = _times(_shift(length), whole) ^ crc
        end += length
    if end != size:
        raise AssertionError(f"{end} bytes of {size}")
    return whole


@lru_cache(maxsize=4096)  # nearly all parts have one of few lengths
def _shift(length: int) -> int:
    """x^(8 * length), modulo the polynomial."""
    result = _ONE
    bit = 3
    while length:
        if length & 1:
            result = _times(_squared(bit), result)
        length >>= 1
        bit += 1
    return result


@cache  # at most one entry for each bit of a file's length
def _squared(times: int) -> int:
    """x^(2^times), modulo the polynomial."""
    if times == 0:
        return _X
    root = _squared(times - 1)
    return _times(root, root)


def _times(a: int, b: int) -> int:
    """The product of two remainders, modulo the polynomial."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product
