"""HDF5 files of weights, read: which tensors there are and where their bytes lie.

    hdf5_plain.py   the metadata of files as Keras writes them, read directly
    hdf5_walk.py    that of any other HDF5 file, by libhdf5
    hdf5_table.py   what both find

Values are read from where they lie, and by libhdf5 where they are chunked or compressed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kprune.faults import parsing
from kprune.formats.hdf5.contents import Table
from kprune.formats.hdf5.direct_reader import read_plain
from kprune.formats.opening import OpenFile, Window
from kprune.formats.source import Tensor
from kprune.text import clean

_LARGEST_READ = 1 << 30  # the kernel reads at most 2 GiB at a time


class Hdf5Weights:
    """The tensors of an HDF5 file, which may be a part of another file.

    Attributes:
        window: the HDF5 file.
        where: what messages call it, such as "model.weights.h5".
        table: what is in it.
    """

    def __init__(self, window: Window, where: str) -> None:
        self.window, self.where = window, where
        self.table = read_table(window, where)

    @property
    def file(self) -> OpenFile:
        return self.window.file

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.table.tensors

    def read(self, path: str) -> np.ndarray:
        tensor = self.tensors[path]
        if tensor.offset is None and tensor.nbytes:
            with self.opened(path) as dataset:
                return np.asarray(dataset[()], tensor.dtype).reshape(tensor.shape)
        return self._read_stretch(tensor, tensor.offset or 0, tensor.shape)

    def blocks(self, path: str, limit: int) -> Iterator[tuple[int, np.ndarray]]:
        tensor = self.tensors[path]
        rows, *rest = tensor.shape
        row_bytes = math.prod(rest) * tensor.dtype.itemsize
        step = max(1, limit // max(row_bytes, 1))
        if tensor.offset is None and tensor.nbytes:
            with self.opened(path) as dataset:
                for start in range(0, rows, step):
                    yield start, dataset[start : start + step]
            return
        for start in range(0, rows, step):
            shape = (min(step, rows - start), *rest)
            yield start, self._read_stretch(tensor, (tensor.offset or 0) + start * row_bytes, shape)

    def _read_stretch(self, tensor: Tensor, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, tensor.dtype)
        view = array.reshape(-1).view(np.uint8).data
        for start in range(0, view.nbytes, _LARGEST_READ):
            self.file.read_into(view[start : start + _LARGEST_READ], offset + start)
        return array

    def opened(self, path: str) -> _OpenDataset:
        """Have HDF5 read from a tensor that is chunked, compressed or compact."""
        return _OpenDataset(self, path)


class _OpenDataset:
    """A dataset that HDF5 holds open for the time of a `with`; indexing it reads."""

    def __init__(self, weights: Hdf5Weights, path: str) -> None:
        self.weights, self.path = weights, path

    def __enter__(self) -> _OpenDataset:
        with self._parsing():
            from kprune.formats.hdf5.libhdf5 import h5py

            self.hdf5 = h5py.File(self.weights.window, "r")
            self.dataset = h5py.Dataset(h5py.h5d.open(self.hdf5.id, self.path.encode()))
        return self

    def __getitem__(self, index: Any) -> np.ndarray:
        with self._parsing():
            return np.asarray(self.dataset[index])

    def __exit__(self, *_: object) -> None:
        self.hdf5.close()

    def _parsing(self) -> Any:
        return parsing(self.weights.file, f"{self.weights.where}, {clean(self.path)}")


def read_table(window: Window, where: str) -> Table:
    """Read the metadata of an HDF5 file of weights.

    Args:
        window: the HDF5 file.
        where: what messages call it.
    Raises: DamagedFileError, or FileError for what kprune refuses to follow (links, other files).
    """
    found = read_plain(window)
    if found is not None:
        return found.table(window, where)
    from kprune.formats.hdf5.libhdf5_reader import (
        walk,  # h5py takes longer to import than most files to read
    )

    return walk(window, where)
