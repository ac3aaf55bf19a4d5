"""Files of weights, and archives with them."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.formats.making import tensors_in
from tests.hostile import seeds
from tests.hostile.mutations import (
    Op,
    Seed,
    busy,
    numbers_in,
)
from tests.hostile.targets.target import Bytes


class Weights(Bytes):
    """The HDF5 file inside a `.keras` file, whose checksum is right."""

    name = "hdf5"
    weight = 6

    def files(self) -> list[bytes]:
        def named(file: h5py.File) -> None:
            file["layers/dense/vars"].attrs["name"] = "a"

        return [seeds.weights(more=named)]

    def seed(self, data: bytes) -> Seed:
        with h5py.File(io.BytesIO(data)) as file:
            values = _ranges(file)
        return Seed(data, busy(data, values), numbers_in(data))

    def write(self, ops: list[Op], folder: Path) -> None:
        (folder / self.file).write_bytes(seeds.keras(weights=self.changed(ops)))

    def judged(self, folder: Path) -> str:
        return compared(
            weights_in(folder / self.file),
            weights_in(folder / self.output),
            CUT,
            optional="optimizer/",
        )


def _ranges(file: h5py.File) -> list[range]:
    """Where the values of datasets lie."""
    found: list[range] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset():
            start = item.id.get_offset()
            found.append(range(start, start + item.id.get_storage_size()))

    file.visititems(visit)
    return found


class OddWeights(Weights):
    """The same in layouts that Keras reads and does not write."""

    name = "hdf5-layouts"
    weight = 3

    def files(self) -> list[bytes]:
        return [
            seeds.weights(libver="latest"),
            _stored(chunks=True, compression="gzip", shuffle=True),
            _stored(chunks=True, fletcher32=True),
            _stored(libver="latest", chunks=True, compression="gzip"),
            _stored(libver="v108", chunks=(1, 2)),
            seeds.weights(libver=("v110", "v110"), track_order=True),
            _stored(compact=True),
        ]

    def seed(self, data: bytes) -> Seed:
        return Seed(data, busy(data), numbers_in(data))


def _stored(
    *, libver: str = "earliest", compact: bool = False, chunks: Any = None, **options: Any
) -> bytes:
    """The weights file with its matrices stored in another way."""
    data = io.BytesIO()
    with h5py.File(data, "w", libver=libver) as file:
        for path, value in seeds.tensors().items():
            if compact:
                plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plan.set_layout(h5py.h5d.COMPACT)
                file.require_group(path.rpartition("/")[0])
                kind = h5py.h5t.py_create(value.dtype)
                space = (
                    h5py.h5s.create_simple(value.shape)
                    if value.ndim
                    else h5py.h5s.create(h5py.h5s.SCALAR)
                )
                made = h5py.h5d.create(file.id, path.encode(), kind, space, plan)
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(value))
            elif value.ndim == 2:
                file.create_dataset(path, data=value, chunks=chunks, **options)
            else:
                file[path] = value
    return data.getvalue()


class Archive(Weights):
    """The zip archive, its records above all."""

    name = "zip"
    weight = 4

    def files(self) -> list[bytes]:
        parts = seeds.members() | {"assets/words.txt": b"one\ntwo\n"}
        return [seeds.zipped(parts), seeds.zipped(parts, zipfile.ZIP_DEFLATED)]

    def seed(self, data: bytes) -> Seed:
        places = [
            at + step
            for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6")
            for at in _all(data, mark)
            for step in range(62)
        ]
        return Seed(data, places, numbers_in(data[data.index(b"PK\1\2") :]))

    def write(self, ops: list[Op], folder: Path) -> None:
        (folder / self.file).write_bytes(self.changed(ops))


def _all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


class Legacy(Bytes):
    """A legacy `.h5` file of Keras 3 or Keras 2."""

    name = "legacy"
    file = "bad.h5"
    weight = 3

    def files(self) -> list[bytes]:
        return [
            seeds.legacy(), seeds.legacy(version=2), seeds.legacy(libver="latest"),
            seeds.legacy(track_order=True),
        ]  # fmt: skip

    def judged(self, folder: Path) -> str:
        cut = {}
        for tail in ("", ":0"):
            cut |= {
                f"model_weights/a/a/kernel{tail}": 1, f"model_weights/a/a/bias{tail}": 0,
                f"model_weights/b/b/kernel{tail}": 0,
            }  # fmt: skip
        one, other = ((folder / name).read_bytes() for name in (self.file, self.output))
        return compared(one, other, cut)


CUT = {
    "layers/dense/vars/0": 1, "layers/dense/vars/1": 0, "layers/dense_1/vars/0": 0,
    **{f"layers/batch_normalization/vars/{number}": 0 for number in range(4)},
}  # fmt: skip
"""The axis of each tensor that a unit of `a` takes a slice of."""


def weights_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


def named_values(data: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Datasets of a file, opened by their names, as Keras opens them."""
    with h5py.File(io.BytesIO(data)) as file:
        return {name: file[name][...] for name in names}


def compared(one: bytes, other: bytes, cut: Mapping[str, int], optional: str = "\n") -> str:
    """How an output differs from what plain h5py and numpy make of the input; nothing if it does not.

    Args:
        cut: by tensor, the axis from which the unit 1 is gone.
        optional: the beginning of names of tensors that may be left out, or cut in other ways.
    """
    try:
        after = tensors_in(other)
    except Exception as error:
        return f"output that h5py does not read: {type(error).__name__}: {error}"[:160]
    try:
        before = named_values(one, after)
    except Exception as error:
        return f"taken, but h5py does not read it: {type(error).__name__}: {error}"[:160]
    with contextlib.suppress(Exception):  # what cannot be listed may be read by name all the same
        before |= tensors_in(one)
    for path in before.keys() | after.keys():
        if path.startswith(optional):
            continue
        if path not in after or path not in before:
            return f"{path} is in only one of input and output"
        wanted = before[path]
        if path in cut:
            wanted = np.delete(wanted, 1, axis=cut[path])
        if wanted.dtype != after[path].dtype or wanted.tobytes() != after[path].tobytes():
            return f"{path} is not what h5py and numpy make of it"
    return ""
