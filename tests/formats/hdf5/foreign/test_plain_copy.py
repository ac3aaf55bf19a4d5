"""What Keras reads and kprune's own reader does not: copied by libhdf5, in a child with limits.

h5py in this process is the oracle: every value and every attribute, bit for bit.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kprune.errors import DamagedFileError, FileError, KpruneError, LimitError, SetupError
from kprune.formats.hdf5.foreign import plain_copy
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.opening import open_file
from kprune.limits import limit
from tests.formats.hdf5.judge import judged

Fill = Callable[[h5py.File], object]
RNG = np.random.default_rng(0)


def opened(path: Path, fill: Fill, **options: Any) -> Hdf5Weights:
    with h5py.File(path, "w", **options) as file:
        fill(file)
    return Hdf5Weights(open_file(path).window(), "weights")


def as_h5py_reads(path: Path) -> dict[str, np.ndarray]:
    found = {}

    def see(group: h5py.Group, prefix: str) -> None:
        for name in group:
            item = group[name]
            if isinstance(item, h5py.Group):
                see(item, f"{prefix}{name}/")
            else:
                found[prefix + name] = item[()]

    with h5py.File(path) as file:
        see(file, "")
    return found


def check_same(weights: Hdf5Weights, path: Path) -> None:
    wanted = as_h5py_reads(path)
    assert weights.tensors.keys() == wanted.keys()
    for name, value in wanted.items():
        read = weights.read(name)
        assert read.shape == value.shape, name
        assert read.tobytes() == np.asarray(value).tobytes(), name


def dataset(**options: Any) -> Fill:
    values = RNG.integers(-100, 100, (37, 23)).astype(options.pop("dtype", "f4"))
    return lambda file: file.create_dataset("layers/a/vars/0", data=values, **options)


def never_written(file: h5py.File) -> None:
    file.create_dataset("zero", (30, 4), "f4")
    file.create_dataset("seven", (30, 4), "f4", fillvalue=7)
    file.create_dataset("chunks", (30, 4), "f4", fillvalue=-1, chunks=(8, 3))
    part = file.create_dataset("part", (30, 4), "f4", fillvalue=3, chunks=(8, 3))
    part[4:9, 1:2] = 5


def compact(file: h5py.File) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((5, 3))
    made = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plan)
    h5py.Dataset(made)[:] = RNG.normal(size=(5, 3))


def two_names(file: h5py.File) -> None:
    file["a/b/0"] = RNG.normal(size=(3, 4))
    file["a/b"].attrs["name"] = "a text"
    file["a/c"] = file["a/b/0"]
    file["other"] = file["a/b"]


def nbit(file: h5py.File) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4, 4))
    plan.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((10, 10))
    made = h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, space, plan)
    h5py.Dataset(made)[:] = RNG.integers(0, 1000, (10, 10))


def many_in_a_dense_group(file: h5py.File) -> None:
    for number in range(200):
        file[f"group/{number}"] = np.float32(number)
        file["group"].attrs[f"attribute {number}"] = "text" * number


LAYOUTS: dict[str, tuple[Fill, dict[str, Any]]] = {
    "chunked": (dataset(chunks=(5, 7)), {}),
    "gzip": (dataset(chunks=(5, 7), compression="gzip"), {}),
    "gzip and shuffle": (dataset(compression="gzip", shuffle=True), {}),
    "lzf": (dataset(compression="lzf"), {}),
    "fletcher32": (dataset(chunks=(5, 23), fletcher32=True), {}),
    "scale-offset": (dataset(dtype="i4", chunks=(5, 7), scaleoffset=True), {}),
    "n-bit": (nbit, {}),
    "growing": (dataset(maxshape=(None, 23)), {}),
    "compact": (compact, {}),
    "never written": (never_written, {}),
    "two names": (two_names, {}),
    "newest format": (dataset(), {"libver": "latest"}),
    "version 1.8": (dataset(), {"libver": ("v108", "v108")}),
    "newest, chunked": (dataset(chunks=(5, 7), maxshape=(None, None)), {"libver": "latest"}),
    "dense groups": (many_in_a_dense_group, {"libver": "latest"}),
    "order of creation": (many_in_a_dense_group, {"track_order": True}),
    "user block": (dataset(), {"userblock_size": 512}),
    "pages": (dataset(), {"fs_strategy": "page"}),
}


@pytest.mark.parametrize("what", LAYOUTS)
def test_whatever_keras_reads_is_read_bit_for_bit(tmp_path: Path, what: str) -> None:
    fill, options = LAYOUTS[what]
    weights = opened(tmp_path / "w.h5", fill, **options)
    assert weights.copied
    assert weights.attributes is not None
    check_same(weights, tmp_path / "w.h5")
    weights.close()


def test_attributes_go_over_as_they_are(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "text": "größe",
        "texts": ["a", "", "ccc"],
        "bytes": np.array([b"one", b"three"]),
        "number": np.float16(0.5),
        "matrix": np.arange(6, dtype=">i2").reshape(2, 3),
        "flags": np.array([True, False]),
        "opaque": np.void(b"abc"),
        "pair": np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
        "nothing": h5py.Empty("f4"),
        "size zero": np.zeros((0, 3)),
    }

    def fill(file: h5py.File) -> None:
        file.create_dataset("x", data=np.ones((4, 4)), chunks=(2, 2))
        for name, value in given.items():
            file["x"].attrs[name] = value
        ragged = np.array([np.arange(3, dtype="i4"), np.arange(0, dtype="i4")], object)
        file.attrs.create("ragged", ragged, dtype=h5py.vlen_dtype("i4"))
        file.attrs["größe"] = "name"

    for number, libver in enumerate(("earliest", "latest")):
        weights = opened(tmp_path / f"{number}.h5", fill, libver=libver)
        data = weights.window.file.read(0, weights.window.size)
        with h5py.File(io.BytesIO(data)) as copy, h5py.File(tmp_path / f"{number}.h5") as file:
            for new, old in ((copy, file), (copy["x"], file["x"])):
                assert new.attrs.keys() == old.attrs.keys()
                for name in old.attrs:
                    one, other = new.attrs[name], old.attrs[name]
                    assert type(one) is type(other), name
                    if not isinstance(one, h5py.Empty):
                        assert np.array(one, object).tolist().__repr__() == (
                            np.array(other, object).tolist().__repr__()
                        )
        weights.close()


def test_a_chunk_is_unpacked_once(tmp_path: Path) -> None:
    """64 MB in one chunk of 64 kB: each look at it takes a tenth of a second."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (16_000, 1000), "f4", chunks=(16_000, 1000), compression="gzip")[
            :
        ] = 0
    weights = Hdf5Weights(open_file(path).window(), "weights")
    before = os.times()
    assert sum(float(block.sum()) for _, block in weights.blocks("x", 1 << 16)) == 0
    after = os.times()
    spent = after.children_user + after.user - before.children_user - before.user
    assert spent < 5
    weights.close()


@pytest.mark.parametrize(
    ("fill", "name"),
    [
        (lambda file: file.create_dataset("x", (1 << 40,), "f4"), "value-bytes"),
        (
            lambda file: file.create_dataset(
                "x", (1,), "f4", chunks=(1 << 27,), maxshape=(None,), compression="gzip"
            ),
            "chunk-bytes",
        ),
    ],
)
def test_what_is_too_large_is_refused_by_the_name_of_its_limit(
    tmp_path: Path, fill: Fill, name: str
) -> None:
    with pytest.raises(LimitError, match=f"limit {name}") as caught:
        opened(tmp_path / "w.h5", fill)
    assert f"--limit {name}" in caught.value.do
    assert (tmp_path / "w.h5").stat().st_size < 10_000


def test_a_limit_that_is_raised_lets_it_pass(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("x", (3000,), "f4", fillvalue=2)

    with limit(value_bytes=1000), pytest.raises(LimitError):
        opened(tmp_path / "w.h5", fill)
    with limit(value_bytes=12_000):
        weights = opened(tmp_path / "w.h5", fill)
    assert (weights.read("x") == 2).all()
    weights.close()


def chunked(path: Path) -> Hdf5Weights:
    return opened(path, dataset(chunks=(5, 7)))


@pytest.mark.parametrize(
    ("program", "error", "why"),
    [
        ("import os; os.kill(os.getpid(), 11)", DamagedFileError, "crashed"),
        ("import os; os.abort()", DamagedFileError, "crashed"),
        ("import os; os.kill(os.getpid(), 9)", FileError, "SIGKILL"),
        ("import os; os.kill(os.getpid(), 24)", LimitError, "limit hdf5-seconds"),
        ("import time; time.sleep(60)", LimitError, "limit hdf5-seconds"),
        ("import os; os._exit(4)", LimitError, "limit hdf5-memory"),
        ("import os; os.write(2, b'[1'); os._exit(3)", DamagedFileError, "cannot read it"),
        ("import os; os.write(2, b'[7,\"w.h5\",1,1,1]'); os._exit(3)", FileError, "w.h5"),
        ("raise SystemExit(7)", FileError, "exit code 7"),
        ("pass", DamagedFileError, "no sense"),
    ],
)
def test_what_became_of_the_child_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, error: type, why: str
) -> None:
    monkeypatch.setattr(plain_copy, "_PROGRAM", program)
    monkeypatch.setattr(plain_copy, "_PATIENCE", 0.2)
    with limit(hdf5_seconds=5), pytest.raises(error, match=why) as caught:
        chunked(tmp_path / "w.h5")
    assert type(caught.value) is error
    assert "w.h5" in caught.value.what


def test_a_missing_h5py_is_not_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "w.h5", "w", libver="latest") as file:
        dataset()(file)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "h5py.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(hidden)
    for name in [name for name in sys.modules if name.partition(".")[0] == "h5py"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "kprune.formats.hdf5.foreign.libhdf5", raising=False)
    with pytest.raises(SetupError, match="h5py"):
        Hdf5Weights(open_file(tmp_path / "w.h5").window(), "weights")


def test_memory_that_hdf5_asks_for_is_limited(tmp_path: Path) -> None:
    """A text of variable length that says it is 2 GB long, in a format that only HDF5 reads."""

    def fill(file: h5py.File) -> None:
        file.create_dataset("x", data=np.ones(9), chunks=(3,))
        file.attrs["t"] = "some text"

    path = tmp_path / "w.h5"
    opened(path, fill).close()
    data = bytearray(path.read_bytes())
    for length in (2_000_000_000, 4_000_000_000):
        place = data.index(b"some text")
        heap = data.rindex(b"GCOL", 0, place)
        found = data.index(heap.to_bytes(8, "little"))
        data[found - 4 : found] = length.to_bytes(4, "little")
        path.write_bytes(data)
        with pytest.raises(KpruneError) as caught:
            Hdf5Weights(open_file(path).window(), "weights")
        assert caught.value.exit_code == 4


SANDBOX = """
from kprune.formats.hdf5.foreign.conversion import _Sandbox
_Sandbox(5, 5)
for use in (lambda: open("/dev/null"), lambda: bytearray(3 << 30)):
    try:
        use()
    except (OSError, MemoryError) as error:
        print(type(error).__name__)
while True:
    pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know other limits")
def test_the_child_can_open_no_file_take_no_memory_and_run_for_no_longer_than_it_should() -> None:
    ran = subprocess.run([sys.executable, "-u", "-c", SANDBOX], capture_output=True, text=True)
    assert ran.stdout.split() == ["OSError", "MemoryError"]
    assert ran.returncode == -signal.SIGXCPU


@pytest.mark.parametrize("length", [8, 1 << 20])
def test_a_chunk_of_another_length_is_named_with_its_tensor(tmp_path: Path, length: int) -> None:
    """libhdf5 would fill what is missing with whatever stands in its memory."""

    def fill(file: h5py.File) -> None:
        options = {"chunks": (5, 6), "compression": "gzip"}
        made = file.create_dataset("layers/x", (5, 6), "f4", **options)
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(length)))

    weights = opened(tmp_path / "w.h5", fill)
    with pytest.raises(DamagedFileError, match=r"weights, layers/x\n(.*\n)*.*unpacks to"):
        weights.read("layers/x")
    weights.close()


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, mostly where the structures are."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(min(len(data), draw.choice((600, 3000, len(data)))))
        size = draw.choice((1, 1, 2, 8))
        changed[at : at + size] = draw.choice((bytes(size), b"\xff" * size, draw.randbytes(size)))[
            : len(data) - at
        ]
    return bytes(changed)


def test_damage_in_any_layout_is_refused_or_read_as_libhdf5_reads_it(tmp_path: Path) -> None:
    draw = random.Random(5)
    taken: list[tuple[Path, dict[str, str]]] = []
    for number, what in enumerate(LAYOUTS):
        fill, options = LAYOUTS[what]
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w", **options) as file:
            fill(file)
        path.write_bytes(mutated(path.read_bytes(), draw))
        try:
            weights = Hdf5Weights(open_file(path).window(), "weights")
            values = {name: weights.read(name).tobytes() for name in weights.tensors}
            weights.close()
        except FileError:
            continue
        taken.append((path, {name: hashlib.sha1(it).hexdigest() for name, it in values.items()}))
    assert len(taken) >= 3
    for (path, values), judge in zip(taken, judged([path for path, _ in taken]), strict=True):
        assert judge is not None, path
        assert judge["values"].items() <= values.items(), path
