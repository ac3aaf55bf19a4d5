"""Checksums of parts, joined."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.formats import crc


@given(st.lists(st.binary(max_size=300), max_size=8), st.randoms())
def test_joined_parts_have_the_checksum_of_the_whole(parts: list[bytes], random: object) -> None:
    whole = b"".join(parts)
    told, start = [], 0
    for part in parts:
        told.append((start, len(part), zlib.crc32(part)))
        start += len(part)
    random.shuffle(told)  # type: ignore[attr-defined]
    assert crc.joined(told, len(whole)) == zlib.crc32(whole)


def test_long_parts_too() -> None:
    parts = [bytes([n]) * (1 << 20) for n in range(5)] + [b"end"]
    told = [(n << 20, len(part), zlib.crc32(part)) for n, part in enumerate(parts)]
    assert crc.joined(told, (5 << 20) + 3) == zlib.crc32(b"".join(parts))


@pytest.mark.parametrize(
    "parts", [[(1, 2, 0)], [(0, 2, 0)], [(0, 2, 0), (1, 2, 0)], [(0, 2, 0), (1, 1, 0)], []]
)
def test_a_hole_or_an_overlap_is_noticed(parts: list[tuple[int, int, int]]) -> None:
    with pytest.raises(AssertionError):
        crc.joined(parts, 3)
