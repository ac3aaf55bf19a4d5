"""Memory for tensors, with a bound: what goes beyond it waits in a temporary folder."""

from __future__ import annotations

import math
import tempfile
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np


class Entry:
    """A tensor that is kept, in memory or in a file. `mask`: Keras's, if the tensor has one."""

    __slots__ = ("dtype", "file", "mask", "size", "value")

    def __init__(self, value: Any, mask: Any, size: int) -> None:
        self.value, self.mask, self.size = value, mask, size
        self.dtype = value.dtype
        self.file: Path | None = None


class Room:
    """Keeps tensors, the newest in memory.

    Args:
        limit: bytes that may be in memory.
    Attributes:
        most: the most bytes that were in memory at once; `spilled`: bytes that were written.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.most = self.spilled = 0
        self._memory: OrderedDict[int, Entry] = OrderedDict()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
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
        """Keep a tensor of Keras."""
        entry = Entry(value, getattr(value, "_keras_mask", None), _bytes(value))
        self._memory[id(entry)] = entry
        self.used += entry.size
        while self.used > self.limit and len(self._memory) > 1:
            self._write_oldest()
        self.most = max(self.most, self.used)
        return entry

    def back(self, entry: Entry) -> Any:
        """The tensor that was kept."""
        if entry.file is None:
            return entry.value
        from keras import ops

        value = ops.convert_to_tensor(np.load(entry.file), entry.dtype)
        if entry.mask is not None:
            value._keras_mask = entry.mask
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
            self._folder = tempfile.TemporaryDirectory(prefix="kprune-")
        entry.file = Path(self._folder.name) / f"{self._files}.npy"
        self._files += 1
        from keras import ops

        # Types that numpy does not have (bfloat16) come back by the type that is remembered.
        array = np.asarray(ops.convert_to_numpy(entry.value))
        np.save(entry.file, array if array.dtype.kind in "fiub" else array.astype(np.float32))
        entry.value = None
        self.used -= entry.size
        self.spilled += entry.size


def _bytes(value: Any) -> int:
    # TensorFlow's types say their size, numpy's their item size.
    each: Any = getattr(value.dtype, "size", None) or getattr(value.dtype, "itemsize", 4)
    return math.prod(value.shape) * int(each)
