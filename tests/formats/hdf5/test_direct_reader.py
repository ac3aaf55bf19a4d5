"""HDF5 metadata read directly: libhdf5 is the oracle, on files of h5py's and on damaged ones."""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from kprune.errors import KpruneError, LimitError
from kprune.formats import open_model
from kprune.formats.hdf5.contents import Table
from kprune.formats.hdf5.direct_reader import read_plain
from kprune.formats.opening import OpenFile, Window, open_file
from kprune.limits import limit
from tests.formats.hdf5.judge import agrees, judged

TYPES = (
    "f2",
    "f4",
    "f8",
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    ">f4",
    ">i8",
    "?",
    "V2",
    "S3",
)


def written(fill: Callable[[h5py.File], object], **options: object) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        fill(file)
    return memory.getvalue()


def opened(folder: Path, data: bytes) -> OpenFile:
    path = folder / "weights.h5"
    path.write_bytes(data)
    return open_file(path)


def read(window: Window) -> Table | None:
    found = read_plain(window)
    return None if found is None else found.table(window, "weights")


def as_libhdf5_says(table: Table | None, file: OpenFile) -> bool:
    (judge,) = judged([file.path or Path()])
    return table is not None and judge is not None and agrees(table, judge)


def many_layers(file: h5py.File) -> None:
    """Enough names in one group for a B-tree of several levels, and long attributes."""
    draw = random.Random(7)
    for number in range(400):
        group = file.create_group(f"layers/dense_{number}/vars")
        group.attrs["name"] = "n" * draw.randrange(300)
        shape = tuple(draw.randrange(1, 5) for _ in range(draw.randrange(5)))
        group["0"] = np.zeros(shape, draw.choice(TYPES))
        group["1"] = np.float32(number)
    file.create_group("optimizer/vars")
    file["empty"] = np.zeros((3, 0), "f4")


def test_it_finds_what_libhdf5_finds(tmp_path: Path) -> None:
    file = opened(tmp_path, written(many_layers))
    table = read(file.window())
    assert table is not None
    assert len(table.tensors) == 801
    assert as_libhdf5_says(table, file)


@pytest.mark.parametrize("kind", TYPES)
def test_it_knows_the_number_types(tmp_path: Path, kind: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(kind)
    file = opened(tmp_path, written(lambda new: new.create_dataset("x", data=values)))
    table = read(file.window())
    assert table is not None
    assert table.tensors["x"].dtype == values.dtype
    assert as_libhdf5_says(table, file)


@pytest.mark.parametrize("name", ["digits_cnn", "digits_lstm", "digits_mlp", "digits_resnet"])
def test_the_models_that_keras_wrote_are_read_directly(samples: Path, name: str) -> None:
    with open_model(samples / f"{name}.keras") as source:
        assert not source.weights.copied  # type: ignore[attr-defined]


UNUSUAL: dict[str, Callable[[h5py.File], object]] = {
    "compressed": lambda file: file.create_dataset("x", data=np.ones(9), compression="gzip"),
    "chunked": lambda file: file.create_dataset("x", data=np.ones(9), chunks=(3,)),
    "text": lambda file: file.create_dataset("x", data="text"),
    "no values": lambda file: file.create_dataset("x", shape=(9,), dtype="f4"),
    "soft link": lambda file: file.__setitem__("x", h5py.SoftLink("/y")),
    "second name": lambda file: _two_names(file),
    "named type": lambda file: file.__setitem__("x", np.dtype("f4")),
}


def _two_names(file: h5py.File) -> None:
    file["x"] = np.ones(9)
    file["y"] = file["x"]


@pytest.mark.parametrize("what", UNUSUAL)
def test_it_leaves_to_libhdf5_what_keras_does_not_write(tmp_path: Path, what: str) -> None:
    assert read_plain(opened(tmp_path, written(UNUSUAL[what])).window()) is None


def test_it_leaves_newer_formats_to_libhdf5(tmp_path: Path) -> None:
    data = written(lambda file: file.create_dataset("x", data=np.ones(9)), libver="latest")
    assert read_plain(opened(tmp_path, data).window()) is None


def test_a_file_that_was_cut_short_is_left_to_libhdf5(tmp_path: Path) -> None:
    data = written(many_layers)
    for size in (0, 7, 8, 95, 96, 500, len(data) // 2, len(data) - 1):
        assert read_plain(opened(tmp_path, data[:size]).window()) is None


def test_damage_is_never_read_as_something_else(tmp_path: Path) -> None:
    """Whatever byte is wrong: it says what libhdf5 says, or leaves it to libhdf5."""
    whole = written(some_of_all)
    assert read(opened(tmp_path, whole).window()) is not None
    draw = random.Random(11)
    answers: list[tuple[Path, Table]] = []
    for number in range(3000):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            data[draw.randrange(len(data))] = draw.choice((0, 1, 255, draw.randrange(256)))
        path = tmp_path / str(number)
        path.write_bytes(data)
        file = open_file(path)
        try:
            table = read(file.window())
        except KpruneError:
            table = None  # two tensors overlap
        file.close()
        if table is None:
            path.unlink()
        else:
            answers.append((path, table))
    assert len(answers) > 1000
    judges = judged([path for path, _ in answers])
    # libhdf5 looks at more than is needed here: at modification times, at free room in heaps.
    assert sum(judge is None for judge in judges) < 15
    for (path, table), judge in zip(answers, judges, strict=True):
        assert judge is None or agrees(table, judge), path
        path.unlink()


def some_of_all(file: h5py.File) -> None:
    file.attrs["title"] = "a text"
    for number in range(1, 9):
        file.create_dataset(f"a/{number}", data=np.ones(number, TYPES[number]))
        file["a"].attrs[str(number)] = ["some", "texts"]


def test_a_tree_that_leads_in_a_circle_ends(tmp_path: Path) -> None:
    data = bytearray(written(lambda file: file.create_dataset("x", data=np.ones(9))))
    tree = data.index(b"TREE")
    data[tree + 5] = 1  # its children are trees: the first is itself
    data[tree + 32 : tree + 40] = tree.to_bytes(8, "little")
    assert read_plain(opened(tmp_path, bytes(data)).window()) is None


def test_groups_that_share_their_names_are_not_read_for_ever(tmp_path: Path) -> None:
    """Each of many groups with a heap of names that is as large as the file."""

    def fill(file: h5py.File) -> None:
        for number in range(200):
            file.create_group(f"{number:03}/inner")
        file.create_group("x" * 60_000)

    data = bytearray(written(fill))
    heap = data.index(b"x" * 60_000)
    at = data.find(b"HEAP")
    while at >= 0:
        size, _, place = struct.unpack_from("<QQQ", data, at + 8)
        if size < 1000:
            names = data[place : place + size]
            data[heap : heap + len(names)] = names
            data[at + 8 : at + 32] = struct.pack("<QQQ", 60_000, 1, heap)
        at = data.find(b"HEAP", at + 1)
    assert read_plain(opened(tmp_path, bytes(data)).window()) is None


def test_a_file_of_more_objects_than_the_limit_is_refused(tmp_path: Path) -> None:
    file = opened(tmp_path, written(many_layers))
    with limit(hdf5_objects=1000), pytest.raises(LimitError, match="hdf5-objects"):
        read(file.window())


def test_it_opens_no_library(tmp_path: Path) -> None:
    import subprocess
    import sys

    model = Path(__file__).parents[3] / "sample_models" / "digits_mlp.keras"
    probe = (
        "import sys; from kprune.formats import open_model; "
        f"open_model({str(model)!r}).tensors; sys.exit('h5py' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], env=os.environ).returncode == 0
