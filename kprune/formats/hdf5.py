"""HDF5 files of weights, read: which tensors there are and where their bytes lie.

libhdf5 trusts what it reads: a damaged attribute value can make it loop for ever, an external link
or a virtual dataset makes it open other files, a declared size makes it allocate. So no attribute's
value is ever read here, each object is looked at only after its kind is known to be harmless, and
every size is held against the bytes that are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from kprune.errors import FileError
from kprune.formats.faults import damaged, parsing
from kprune.formats.libhdf5 import h5py
from kprune.formats.opening import OpenFile, Window
from kprune.formats.source import Tensor
from kprune.text import clean

h5d, h5g, h5l, h5o, h5s, h5t = h5py.h5d, h5py.h5g, h5py.h5l, h5py.h5o, h5py.h5s, h5py.h5t

# Deflate, shuffle and h5py's own LZF, which people compress weights with. The others are plugins,
# or crash on damaged data, as fletcher32 does in HDF5 1.14.6.
_FILTERS = {1, 2, 32000}
_LARGEST_EXPANSION = 1100  # deflate cannot exceed 1032:1, LZF stays far below
_LARGEST_COMPACT = 1 << 16  # an object header holds no more
_LARGEST_READ = 1 << 30  # the kernel reads at most 2 GiB at a time


@dataclass(frozen=True)
class Table:
    """What an HDF5 file of weights holds.

    Attributes:
        tensors: by path, in file order.
        groups: path of each group but the root.
        types: for each tensor its number type as HDF5 encodes it.
        places: for each tensor and group where it begins in the HDF5 file. What was written first
            stands first, so this is the order of creation.
    """

    tensors: Mapping[str, Tensor]
    groups: tuple[str, ...]
    types: Mapping[str, bytes]
    places: Mapping[str, int]


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
            self.hdf5 = h5py.File(self.weights.window, "r")
            self.dataset = h5py.Dataset(h5d.open(self.hdf5.id, self.path.encode()))
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
    Returns: the table; nothing of HDF5 stays open.
    Raises: DamagedFileError, or FileError for what kprune refuses to follow (links, other files).
    """
    # All in one `with`: what HDF5 makes of damage may be any exception at any call.
    with parsing(window.file, where), h5py.File(window, "r") as hdf5:
        return _Walk(window, where).over(hdf5.id)


class _Walk:
    """One pass over the groups of a file, each object once."""

    def __init__(self, window: Window, where: str) -> None:
        self.window, self.where = window, where
        self.places: dict[str, int] = {}
        self.types: dict[str, bytes] = {}
        self.tensors: list[Tensor] = []
        self.groups: list[str] = []

    def over(self, root: Any) -> Table:
        seen = {h5o.get_info(root).addr}
        waiting = [("", root)]
        while waiting:
            prefix, group = waiting.pop()
            for name, address in self._links(group, prefix):
                path = prefix + name
                item = h5o.open(group, name.encode())
                if address in seen:
                    raise self._refused(path, "is a second name for an object that has one already")
                seen.add(address)
                self.places[path] = address
                if isinstance(item, h5g.GroupID):
                    self.groups.append(path)
                    waiting.append((path + "/", item))
                elif isinstance(item, h5d.DatasetID):
                    self._dataset(path, item)
                else:
                    raise self._refused(path, "is neither a group nor a dataset")
        return self._table()

    def _links(self, group: Any, prefix: str) -> list[tuple[str, int]]:
        """Name and address of each object in a group."""
        links: list[tuple[bytes, int, int]] = []
        group.links.iterate(lambda name, info: links.append((name, info.type, info.u)), info=True)
        for name, kind, _ in links:
            path = prefix + name.decode()
            if kind != h5l.TYPE_HARD:
                raise self._refused(path, "is a link to somewhere else, which kprune never follows")
            if name in (b"", b".") or b"/" in name:
                raise self._bad(path, "no object can have this name")
        return [(name.decode(), address) for name, _, address in links]

    def _dataset(self, path: str, dataset: Any) -> None:
        plan = dataset.get_create_plist()
        layout = plan.get_layout()
        if plan.get_external_count() or layout == h5d.VIRTUAL:
            raise self._refused(path, "keeps its values in other files, which kprune never opens")
        if layout not in (h5d.CONTIGUOUS, h5d.CHUNKED, h5d.COMPACT):
            raise self._bad(path, f"HDF5 has no storage layout {layout}")
        shape = self._shape(path, dataset.get_space())
        kind = dataset.get_type()
        dtype = self._dtype(path, kind)
        nbytes = math.prod(shape) * dtype.itemsize
        stored = dataset.get_storage_size()
        offset = None
        if layout == h5d.CONTIGUOUS:
            offset = self._contiguous(path, nbytes, stored, dataset.get_offset())
        elif layout == h5d.COMPACT and (nbytes >= _LARGEST_COMPACT or stored != nbytes):
            raise self._bad(path, f"it says it has {nbytes} bytes of values, which is not so")
        elif layout == h5d.CHUNKED:
            self._chunked(path, nbytes, stored, plan)
        self.types[path] = kind.encode()
        if offset is not None:
            self.places[path] = offset
            offset += self.window.start
        self.tensors.append(Tensor(path, shape, dtype, nbytes, offset))

    def _shape(self, path: str, space: Any) -> tuple[int, ...]:
        kind = space.get_simple_extent_type()
        if kind == h5s.SCALAR:
            return ()
        if kind != h5s.SIMPLE:
            raise self._refused(path, "holds no array")
        return tuple(int(extent) for extent in space.get_simple_extent_dims())

    def _dtype(self, path: str, kind: Any) -> np.dtype:
        numbers = (h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.OPAQUE, h5t.STRING)
        if kind.get_class() not in numbers or (
            kind.get_class() == h5t.STRING and kind.is_variable_str()
        ):
            raise self._refused(path, "holds something else than numbers of a fixed size")
        size = kind.get_size()
        if size < 1:
            raise self._bad(path, f"its numbers have {size} bytes")
        dtype = np.dtype(kind.dtype)
        # A float that numpy does not have comes back as a wider one that could hold its values.
        plain = dtype.kind in "iufbVS" and dtype.subdtype is None and dtype.fields is None
        if plain and dtype.itemsize == size:
            return np.dtype(dtype.str)  # without h5py's remarks, such as the names of an enum
        return np.dtype(f"V{size}")

    def _contiguous(self, path: str, nbytes: int, stored: int, offset: int | None) -> int | None:
        if nbytes == 0:
            return None
        if offset is None:
            raise self._bad(path, "its values were never written")
        if stored != nbytes or offset + nbytes > self.window.size:
            raise self._bad(
                path,
                f"{nbytes} bytes of values at {offset}, where {stored} are reserved, "
                f"do not fit into a file of {self.window.size}",
            )
        return int(offset)

    def _chunked(self, path: str, nbytes: int, stored: int, plan: Any) -> None:
        filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
        foreign = sorted(set(filters) - _FILTERS)
        if foreign:
            raise self._refused(path, f"uses HDF5 filter {foreign[0]}, neither deflate nor LZF")
        chunk = math.prod(plan.get_chunk())
        most = _LARGEST_EXPANSION * stored if filters else stored
        if stored > self.window.size or nbytes > most or (nbytes and chunk > most):
            raise self._bad(path, f"{stored} bytes cannot hold {nbytes} bytes of values")

    def _table(self) -> Table:
        self.tensors.sort(key=lambda tensor: (self.places[tensor.path], tensor.path))
        end, before = 0, ""
        for tensor in self.tensors:
            if tensor.offset is None:
                continue
            if tensor.offset < end:
                raise self._bad(tensor.path, f"its values overlap those of {clean(before)}")
            end, before = tensor.offset + tensor.nbytes, tensor.path
        return Table(
            MappingProxyType({tensor.path: tensor for tensor in self.tensors}),
            tuple(sorted(self.groups, key=self.places.__getitem__)),
            self.types,
            self.places,
        )

    def _bad(self, path: str, why: str) -> FileError:
        return damaged(self.window.file, why, where=f"{self.where}, {clean(path)}")

    def _refused(self, path: str, what: str) -> FileError:
        return FileError(
            f"cannot read {self.window.file}",
            where=f"{self.where}, {clean(path)}",
            why=f"it {what}; Keras writes no such files",
        )
