"""Files of data that are pickles, bombs, or arrays that lie about themselves."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.hostile.case import Run, add
from tests.hostile.cases.lookalikes import Planted
from tests.hostile.seeds import zipped


def npy(text: str, payload: bytes = bytes(64)) -> bytes:
    """An array file whose header says what it likes."""
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + payload


def described(descr: str, shape: str, payload: bytes = bytes(64)) -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", payload)


def saved(**arrays: Any) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def archive(name: str, content: bytes) -> Callable[[], bytes]:
    return lambda: zipped({name: content})


def bomb() -> bytes:
    """Four gigabytes of zeros, unpacked: an array that is what it says."""
    head = described("'<f4'", f"({1 << 28}, 5)", b"")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(1 << 20)
    piece = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    same = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    count = 5 << 10
    stream = piece + same * count + b"\x03\0"
    size = len(head) + (count << 20)
    data = bytearray(zipped({"x.npy": stream}))
    record = data.index(b"PK\x01\x02")
    for at, sizes in ((record + 10, record + 20), (8, 18)):
        data[at : at + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        data[sizes : sizes + 8] = struct.pack("<II", len(stream), size & 0xFFFFFFFF)
    return bytes(data)


def data(
    name: str, make: Callable[..., Any], *says: str, file: str = "bad.npz", code: int = 4
) -> None:
    """Data on which a model is to be run."""
    words = (file, *says) if code == 4 else says
    runs = (Run(("verify", "good.keras", "good.keras", "--data", file), code, words),)
    add(f"data/{name}", make, file=file, runs=runs, tensorflow=True)


data("empty", lambda: b"")
data("text", lambda: b"1 2 3\n")
data("a pickle", lambda: pickle.dumps(Planted()))
data("a pickled array", archive("x.npy", described("'|O'", "(1,)", pickle.dumps(Planted()))))
data(
    "a pickled array alone",
    lambda: described("'|O'", "(1,)", pickle.dumps(Planted())),
    file="bad.npy",
)
data(
    "a header that is code",
    archive("x.npy", npy("{'descr': __import__('os').system('touch planted')}\n")),
)
data("a header nested 5,000 deep", archive("x.npy", npy("(" * 5000 + ")" * 5000)))
data("a header of other keys", archive("x.npy", npy("{'a': 1}\n")))
data("a shape of an exabyte", archive("x.npy", described("'<f4'", "(1000000000000000, 5)")))
data("a shape below zero", archive("x.npy", described("'<f4'", "(-4, 5)")))
data("a shape of texts", archive("x.npy", described("'<f4'", "('a',)")))
data(
    "a shape whose product wraps round",
    archive("x.npy", described("'<f4'", "(4294967296, 4294967296)")),
)
data("a type that there is not", archive("x.npy", described("'<q99'", "(4,)")))
data("a record of a gigabyte", archive("x.npy", described("'|V1073741824'", "(4,)")))
data("a version of the future", archive("x.npy", b"\x93NUMPY\x09\0" + bytes(50)))
data("an array that is cut", lambda: zipped({"x.npy": described("'<f4'", "(100, 5)")}))
data("no arrays", lambda: zipped({}))
data("a member that is no array", archive("x.npy", b"hello"))
data("two arrays of one name", lambda: saved(x=np.zeros((4, 5), "f4"))[:-30])
data("a bomb", bomb)
data(
    "a wrong checksum",
    lambda: saved(x=np.zeros((400, 5), "f4")).replace(bytes(40), b"\1" + bytes(39), 1),
)
data("a device", lambda folder: (folder / "bad.npz").symlink_to("/dev/zero"))
data("a folder", lambda folder: (folder / "bad.npz").mkdir())
data("arrays of other widths", lambda: saved(x=np.zeros((4, 9), "f4")), code=2)
data("arrays of texts", lambda: saved(x=np.full((4, 5), "word")), code=3)
data("arrays of other names", lambda: saved(nobody=np.zeros((4, 5), "f4")), code=2)
data("no samples", lambda: saved(x=np.zeros((0, 5), "f4")), code=2)
