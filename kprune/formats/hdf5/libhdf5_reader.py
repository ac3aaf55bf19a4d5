"""The objects of any HDF5 file, as libhdf5 finds them.

libhdf5 trusts what it reads: a damaged attribute value can make it loop forever, an external link
or a virtual dataset makes it open other files, a declared size makes it allocate. So no attribute's
value is ever read here, each object is looked at only after its kind is known to be harmless, and
every size is checked against the bytes in the file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kprune.errors import FileError
from kprune.faults import parsing
from kprune.formats.hdf5.contents import Found, Table, bad
from kprune.formats.hdf5.libhdf5 import h5py
from kprune.formats.opening import Window
from kprune.formats.source import Tensor
from kprune.text import clean

h5d, h5g, h5l, h5o, h5s, h5t = h5py.h5d, h5py.h5g, h5py.h5l, h5py.h5o, h5py.h5s, h5py.h5t

# Deflate, shuffle and h5py's own LZF, which people compress weights with. The others are plugins,
# or crash on damaged data, as fletcher32 does in HDF5 1.14.6.
_FILTERS = {1, 2, 32000}
_LARGEST_EXPANSION = 1100  # deflate cannot exceed 1032:1, LZF stays far below
_LARGEST_COMPACT = 1 << 16  # an object header holds no more


def walk(window: Window, where: str) -> Table:
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
        self.found = Found()

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
                self.found.places[path] = address
                if isinstance(item, h5g.GroupID):
                    self.found.groups.append(path)
                    waiting.append((path + "/", item))
                elif isinstance(item, h5d.DatasetID):
                    self._dataset(path, item)
                else:
                    raise self._refused(path, "is neither a group nor a dataset")
        return self.found.table(self.window, self.where)

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
        self.found.types[path] = kind.encode()
        if offset is not None:
            self.found.places[path] = offset
            offset += self.window.start
        self.found.tensors.append(Tensor(path, shape, dtype, nbytes, offset))

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
            raise self._refused(path, "holds something other than numbers of a fixed size")
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

    def _bad(self, path: str, why: str) -> FileError:
        return bad(self.window, self.where, path, why)

    def _refused(self, path: str, what: str) -> FileError:
        return FileError(
            f"cannot read {self.window.file}",
            where=f"{self.where}, {clean(path)}",
            why=f"it {what}; Keras writes no such files",
        )
