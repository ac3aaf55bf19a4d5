"""Memory with a bound: tensors that go beyond it wait in a temporary folder.

What counts is what grows with the samples and with the kernels: the tensors that are kept between
calls, of both models, and what a kernel's least squares take while it is fitted. On top come the
models themselves, and what one call works with: a chunk of at most `values.CHUNK` bytes for each
tensor that it reads and writes, and rows of `row_stream.ROWS` bytes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from kprune.atomic import TemporaryFolder

MEMORY = 4 << 30
"""Bytes that may be kept at once, unless somebody says otherwise."""


class Entry:
    """A tensor that is kept, in memory or in a file. `mask`: Keras's, if the tensor has one."""

    __slots__ = ("array", "dtype", "file", "mask", "size", "value")

    def __init__(self, value: Any, mask: Any, size: int) -> None:
        self.value, self.mask, self.size = value, mask, size
        self.array, self.dtype = isinstance(value, np.ndarray), value.dtype
        self.file: Path | None = None


class Room:
    """Keeps tensors, the newest in memory.

    Args:
        limit: bytes that may be in memory. The tensor that was taken last always is.
    Attributes:
        used: bytes in memory, of tensors and of what is reserved; `most`: the most at once.
        spilled: bytes that were written.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.most = self.spilled = 0
        self._memory: OrderedDict[int, Entry] = OrderedDict()
        self._folder: TemporaryFolder | None = None
        self._files = 0

    def __enter__(self) -> Room:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._memory.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def take(self, value: Any) -> Entry:
        """Keep a tensor of Keras, or an array."""
        entry = Entry(value, getattr(value, "_keras_mask", None), _bytes(value))
        if entry.size:
            self._memory[id(entry)] = entry
        self._count(entry.size)
        return entry

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Have some bytes for something else for a while: tensors make way. It must be at most the limit."""
        self._count(size)
        try:
            yield
        finally:
            self.used -= size

    def _count(self, size: int) -> None:
        self.used += size
        while self.used > self.limit and len(self._memory) > 1:
            self._write_oldest()
        self.most = max(self.most, self.used)

    def back(self, entry: Entry) -> Any:
        """The tensor that was kept, with its mask, or the array."""
        value = entry.value if entry.file is None else np.load(entry.file)
        if entry.array:
            return value
        from keras import ops
        from keras.src.backend import set_keras_mask

        value = ops.convert_to_tensor(value, entry.dtype)
        set_keras_mask(value, entry.mask)
        return value

    def drop(self, entry: Entry) -> None:
        """Forget a tensor."""
        if self._memory.pop(id(entry), None) is not None:
            self.used -= entry.size
        elif entry.file is not None:
            entry.file.unlink()

    def _write_oldest(self) -> None:
        _, entry = self._memory.popitem(last=False)
        if self._folder is None:
            self._folder = TemporaryFolder()
        entry.file = Path(self._folder.name) / f"{self._files}.npy"
        self._files += 1
        from keras import ops

        # Types that numpy does not have (bfloat16) come back by the type that is remembered.
        array = np.asarray(ops.convert_to_numpy(entry.value))
        np.save(entry.file, array if array.dtype.kind in "fiubc" else array.astype(np.float32))
        entry.value = None
        self.used -= entry.size
        self.spilled += entry.size


def _bytes(value: Any) -> int:
    if getattr(value.dtype, "name", "") == "string":
        return 0  # it goes into no file, and is small
    # TensorFlow's types say their size, numpy's their item size.
    each: Any = getattr(value.dtype, "size", None) or getattr(value.dtype, "itemsize", 4)
    return math.prod(value.shape) * int(each)
