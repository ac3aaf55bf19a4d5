"""HDF5 files of weights, laid out: all but the values, and where those will stand.

h5py writes a file into memory, with each dataset's space reserved and none of it written. What it
wrote is the metadata, a few kB per layer, which stands in the gaps between the values. Whoever
writes the file then copies gaps and values front to back, once, at full speed.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.errors import FileError
from kprune.formats.opening import OpenFile

_PAGE = 4096

Attribute = str | list[str] | np.ndarray
"""A text, a list of texts, or numbers. Read by Keras alone: a legacy file's architecture, names."""


class Space(Struct, frozen=True):
    """Room for one tensor.

    Attributes:
        path: of the dataset.
        shape: its extents.
        kind: its number type as HDF5 encodes it; see `type_code`.
    """

    path: str
    shape: tuple[int, ...]
    kind: bytes


class Layout(Struct, frozen=True):
    """An HDF5 file without its values.

    Attributes:
        size: of the whole file, in bytes.
        offsets: where each tensor's values go; a tensor without values is missing.
        sizes: how many bytes they are, for the same tensors.
        gaps: (start, bytes) of all the rest, in order.
        spaces: all tensors, those without values too.
    """

    size: int
    offsets: dict[str, int]
    sizes: dict[str, int]
    gaps: list[tuple[int, bytes]]
    spaces: list[Space]


def type_code(dtype: np.dtype) -> bytes:
    """The number type that h5py, and so Keras, writes for a numpy type."""
    from kprune.formats.hdf5.libhdf5 import h5py

    code: bytes = h5py.h5t.py_create(dtype, logical=True).encode()
    return code


def lay_out(
    objects: Iterable[str | Space], attributes: Mapping[str, Mapping[str, Attribute]]
) -> Layout:
    """Lay out a file the way Keras writes it: oldest format, contiguous, no times.

    Args:
        objects: groups (as paths) and datasets in the order in which they are created. A group that
            a path needs is created on the way.
        attributes: what stands beside groups and datasets, by path ("" for the root) and name.
    """
    from kprune.formats.hdf5.libhdf5 import h5py

    sheet = _Sheet()
    offsets: dict[str, int] = {}
    sizes: dict[str, int] = {}
    spaces: list[Space] = []
    with h5py.File(sheet, "w", libver="earliest") as hdf5:
        drawing = _Drawing(hdf5.id, attributes)
        for item in objects:
            if isinstance(item, str):
                drawing.group(item)
                continue
            dataset = drawing.dataset(item)
            spaces.append(item)
            if math.prod(item.shape):
                offsets[item.path] = dataset.get_offset()
                sizes[item.path] = dataset.get_storage_size()
    return Layout(sheet.size, offsets, sizes, _gaps(sheet, offsets, sizes), spaces)


def check_layout(layout: Layout, fd: int, start: int, name: str) -> None:
    """Read back the metadata of a file that was written, and compare it with what HDF5 laid out.

    Args:
        fd: of the file, open for reading.
        start: where the HDF5 file begins in it.
        name: how messages call it.
    Raises: FileError if it differs.
    """
    file = OpenFile(os.dup(fd), None, name)
    try:
        same = all(file.read(start + at, len(data)) == data for at, data in layout.gaps)
        why = "what stands around the values is not what was put there"
    except FileError as error:
        same, why = False, error.why or error.what
    finally:
        file.close()
    if not same:
        raise FileError(
            f"what was written to {name} does not read back, so it was thrown away",
            why=why,
            do="check the disk, then run the command again",
        )


def _gaps(sheet: _Sheet, offsets: dict[str, int], sizes: dict[str, int]) -> list[tuple[int, bytes]]:
    gaps = []
    end = 0
    for path, offset in sorted(offsets.items(), key=lambda item: item[1]):
        if offset > end:
            gaps.append((end, sheet.read_at(end, offset - end)))
        end = offset + sizes[path]
    if end < sheet.size:
        gaps.append((end, sheet.read_at(end, sheet.size - end)))
    return gaps


class _Drawing:
    """Groups, datasets and texts, created through h5py's low level, which is five times faster."""

    def __init__(self, root: Any, attributes: Mapping[str, Mapping[str, Attribute]]) -> None:
        from kprune.formats.hdf5.libhdf5 import h5py

        self.h5py = h5py
        self.groups = {"": root}
        self.attributes = attributes
        self.scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        self.text = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
        self.kinds: dict[bytes, Any] = {}
        self.plan = self._plan()
        self._label(root, "")

    def _plan(self) -> Any:
        """How a dataset is made: in one piece, none of it written."""
        h5d, h5p = self.h5py.h5d, self.h5py.h5p
        plan = h5p.create(h5p.DATASET_CREATE)
        plan.set_layout(h5d.CONTIGUOUS)
        # Early, so that offsets are known before any value is written.
        plan.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5d.FILL_TIME_NEVER)
        plan.set_obj_track_times(False)
        return plan

    def group(self, path: str) -> Any:
        found = self.groups.get(path)
        if found is None:
            parent, _, name = path.rpartition("/")
            found = self.groups[path] = self.h5py.h5g.create(self.group(parent), name.encode())
            self._label(found, path)
        return found

    def dataset(self, space: Space) -> Any:
        parent, _, name = space.path.rpartition("/")
        kind = self.kinds.get(space.kind)
        if kind is None:
            kind = self.kinds[space.kind] = self.h5py.h5t.decode(space.kind)
        extent = self._extent(space.shape)
        dataset = self.h5py.h5d.create(self.group(parent), name.encode(), kind, extent, self.plan)
        self._label(dataset, space.path)
        return dataset

    def _extent(self, shape: tuple[int, ...]) -> Any:
        return self.h5py.h5s.create_simple(shape) if shape else self.scalar

    def _label(self, item: Any, path: str) -> None:
        h5a, h5t = self.h5py.h5a, self.h5py.h5t
        for name, value in self.attributes.get(path, {}).items():
            if isinstance(value, np.ndarray):
                array, kind = value, h5t.py_create(value.dtype, logical=True)
            else:
                array, kind = np.array(value, dtype=self.h5py.string_dtype()), self.text
            made = h5a.create(item, name.encode(), kind, self._extent(array.shape))
            made.write(np.asarray(array, order="C"))


class _Sheet(io.RawIOBase):
    """A file in memory that takes space only where it was written; the rest reads as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = (0, self._position, self.size)[whence] + offset
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = self.read_at(self._position, view.nbytes)
        self._position += view.nbytes
        return view.nbytes

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < view.nbytes:
            page, start = divmod(self._position + done, _PAGE)
            count = min(_PAGE - start, view.nbytes - done)
            if page not in self._pages:
                self._pages[page] = bytearray(_PAGE)
            self._pages[page][start : start + count] = view[done : done + count]
            done += count
        self._position += done
        self.size = max(self.size, self._position)
        return done

    def read_at(self, offset: int, count: int) -> bytes:
        pages = range(offset // _PAGE, (offset + count - 1) // _PAGE + 1)
        blank = bytes(_PAGE)
        text = b"".join(self._pages.get(page, blank) for page in pages)
        skip = offset % _PAGE
        return bytes(text[skip : skip + count])
