"""Chunks unpacked: as libhdf5 does with good ones, and never to fewer or more bytes than they should."""

from __future__ import annotations

import io
import random
import zlib

import h5py
import numpy as np
import pytest

from kprune.formats.hdf5.foreign.chunks import DEFLATE, LZF, SHUFFLE, BadChunk, check_lzf, unpacked

OPTIONS = (
    {"compression": "gzip"},
    {"shuffle": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"fletcher32": True},
    {"compression": "lzf"},
    {"compression": "lzf", "shuffle": True, "fletcher32": True},
)  # fmt: skip


def stored(value: np.ndarray, options: dict[str, object]) -> tuple[bytes, list[int]]:
    """The one chunk of an array as libhdf5 stores it, and the filters that it went through."""
    with h5py.File(io.BytesIO(), "w") as file:
        made = file.create_dataset("x", data=value, chunks=value.shape, **options)
        mask, data = made.id.read_direct_chunk((0,) * value.ndim)
        plan = made.id.get_create_plist()
        filters = [plan.get_filter(at)[0] for at in range(plan.get_nfilters())]
    return bytes(data), [number for at, number in enumerate(filters) if not mask >> at & 1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["u1", "f4", "f8", "S3"])
@pytest.mark.parametrize("shape", [(7,), (300, 3), (33, 257)])
def test_chunks_are_what_libhdf5_packed(
    options: dict[str, object], kind: str, shape: tuple[int, ...]
) -> None:
    numbers = np.random.default_rng(0).integers(0, 5, shape).astype(kind)
    for value in (numbers, np.zeros(shape, kind)):
        data, filters = stored(value, options)
        if "lzf" in options.values():
            check_lzf(data, filters, value.nbytes)
        else:
            assert unpacked(data, filters, value.nbytes, value.itemsize) == value.tobytes()


@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
def test_a_changed_chunk_is_refused_or_has_the_right_length(options: dict[str, object]) -> None:
    value = np.random.default_rng(0).integers(0, 5, (40, 50)).astype("f4")
    data, filters = stored(value, options)
    draw = random.Random(3)
    refused = 0
    for _ in range(200):
        broken = bytearray(data)
        broken[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        if draw.random() < 0.2:
            del broken[draw.randrange(len(data)) :]
        try:
            if "lzf" in options.values():
                check_lzf(bytes(broken), filters, value.nbytes)
            else:
                found = unpacked(bytes(broken), filters, value.nbytes, value.itemsize)
                assert len(found) == value.nbytes
        except BadChunk:
            refused += 1
    assert refused >= (200 if "fletcher32" in options else 20)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (zlib.compress(bytes(8)), "unpacks to 8"),
        (zlib.compress(bytes(1 << 20)), "more bytes than it should"),
        (zlib.compress(bytes(100))[:-3], "too early"),
        (b"no stream", "does not unpack"),
    ],
)
def test_a_chunk_of_another_length_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadChunk, match=why):
        unpacked(data, [DEFLATE], 100, 4)


def test_lzf_is_measured_before_it_is_unpacked() -> None:
    for data in (b"\0a", b"\xe0\xff", b"\xff", b"\x20\x05", b""):
        with pytest.raises(BadChunk):
            check_lzf(data, [LZF], 100)
    with pytest.raises(BadChunk, match="order"):
        check_lzf(b"\0a", [LZF, SHUFFLE], 1)
