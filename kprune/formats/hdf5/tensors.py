"""HDF5 files of weights, read: which tensors there are and where their bytes lie.

A file as Keras writes it is read where it lies. Of any other a plain copy is made by libhdf5, in a
process of its own, and read instead.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from kprune.dtypes import BFLOAT16
from kprune.faults import damaged
from kprune.formats.hdf5.attributes import Attribute, Message, Stored
from kprune.formats.hdf5.datatypes import Unusual
from kprune.formats.hdf5.direct_reader import read_plain
from kprune.formats.hdf5.foreign.plain_copy import PlainCopy
from kprune.formats.hdf5.global_heap import HeapReader
from kprune.formats.opening import OpenFile, Window
from kprune.formats.source import Tensor
from kprune.text import clean

_TYPE, _BFLOAT16 = "dtype", "bfloat16"
_LARGEST_READ = 1 << 30  # the kernel reads at most 2 GiB at a time


def _has_type(attributes: list[tuple[int, Message]]) -> bool:
    return any(message.name == _TYPE.encode() for _, message in attributes)


class Hdf5Weights:
    """The tensors of an HDF5 file, which may be a part of another file.

    Args:
        original: the HDF5 file.
        where: what messages call it, such as "model.weights.h5".
    Attributes:
        window: the file that is read: this one, or a plain copy, to which all offsets belong.
        table: what is in it.
    Raises: DamagedFileError; FileError for what kprune refuses to follow or read; LimitError.
    """

    def __init__(self, original: Window, where: str) -> None:
        self.original, self.where = original, where
        self._copy: PlainCopy | None = None
        self.window = original
        found = read_plain(original, where)
        if found is None:
            self._copy = PlainCopy(original, where)
            self.window, found = self._copy.window, self._copy.found
        self._attributes: dict[str, dict[str, Stored]] | None = None
        try:
            self.table = found.table(self.window, where)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the copy, if there is one."""
        if self._copy is not None:
            self._copy.close()

    @property
    def file(self) -> OpenFile:
        """The file that the user named."""
        return self.original.file

    @property
    def copied(self) -> bool:
        """Whether a plain copy is read, which has no checksum."""
        return self._copy is not None

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.table.tensors

    @property
    def attributes(self) -> dict[str, dict[str, Stored]]:
        """What stands beside groups and datasets, by path ("" for the root) and name.

        Raises: DamagedFileError if an attribute refers to what is not there.
        """
        if self._attributes is None:
            heap = HeapReader(self.window).take
            self._attributes = {}
            for path, found in self.table.attributes.items():
                held = self._attributes[path] = {}
                for _, message in found:
                    name = message.name.decode()
                    with self._understood(path, name):
                        held[name] = message.stored(heap)
        return self._attributes

    def attribute_values(self) -> dict[str, dict[str, Attribute]]:
        """What they say, as far as Keras writes such; to be read together with `attributes`.

        Raises: DamagedFileError as there.
        """
        values: dict[str, dict[str, Attribute]] = {}
        for path, found in self.attributes.items():
            for name, stored in found.items():
                value = stored.value()
                if value is not None:
                    values.setdefault(path, {})[name] = value
        return values

    @contextmanager
    def _understood(self, path: str, name: str) -> Iterator[None]:
        """Raises: DamagedFileError if an attribute turns out damaged."""
        try:
            yield
        except (Unusual, struct.error, ValueError):
            place = f"{self.where}, {clean(path)}".rstrip(", ")
            raise damaged(
                self.file,
                "it does not say what it should",
                where=f"{place}, attribute '{clean(name)}'",
            ) from None

    def require_named_types(self) -> None:
        """Raises: DamagedFileError unless bfloat16, and nothing else, is called so beside its values.

        HDF5 has no such type: a `.keras` file has two opaque bytes, and an attribute.
        """
        halves = {path for path, tensor in self.tensors.items() if tensor.dtype == BFLOAT16}
        named = {path for path, found in self.table.attributes.items() if _has_type(found)}
        if not (halves or named):
            return
        values = self.attribute_values()
        for path in self.tensors:
            called = values.get(path, {}).get(_TYPE) == _BFLOAT16
            if called != (path in halves):
                why = "is called bfloat16 and is not" if called else "is opaque, and called nothing"
                raise damaged(
                    self.file,
                    f"its number type {why}",
                    where=f"{self.where}, {clean(path)}",
                )

    def readable(self) -> Window:
        """`window`, with all values in it."""
        if self._copy is not None:
            self._copy.fill(self.table)
        return self.window

    def read(self, path: str) -> np.ndarray:
        tensor = self.tensors[path]
        return self._read_stretch(tensor, tensor.offset or 0, tensor.shape)

    def blocks(self, path: str, limit: int) -> Iterator[tuple[int, np.ndarray]]:
        tensor = self.tensors[path]
        rows, *rest = tensor.shape
        row_bytes = math.prod(rest) * tensor.dtype.itemsize
        step = max(1, limit // max(row_bytes, 1))
        for start in range(0, rows, step):
            shape = (min(step, rows - start), *rest)
            yield start, self._read_stretch(tensor, (tensor.offset or 0) + start * row_bytes, shape)

    def _read_stretch(self, tensor: Tensor, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, tensor.dtype)
        view = array.reshape(-1).view(np.uint8).data
        file = self.readable().file
        for start in range(0, view.nbytes, _LARGEST_READ):
            file.read_into(view[start : start + _LARGEST_READ], offset + start)
        return array
