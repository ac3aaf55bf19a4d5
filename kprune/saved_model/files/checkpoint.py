"""A checkpoint, written shard by shard, so that it never stands in memory as a whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from kprune.runtime.tensorflow_runtime import tensorflow

SHARD = 64 << 20
"""Bytes of tensors that are gathered before they are written."""


class Checkpoint:
    """Takes tensors and writes them. What fits into one shard becomes one, as TensorFlow has it.

    Args:
        prefix: of the files: `…/variables/variables`. The folder must exist.
    Raises: OSError if TensorFlow cannot write.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self._keys: list[str] = []
        self._values: list[Any] = []
        self._bytes = 0
        self._parts: list[str] = []

    def add(self, key: str, value: Any, size: int) -> None:
        """Take a tensor of TensorFlow's, of so many bytes."""
        if self._keys and self._bytes + size > SHARD:
            self._write(self._part())
        self._keys.append(key)
        self._values.append(value)
        self._bytes += size
        if self._bytes > SHARD:
            self._write(self._part())

    def close(self) -> None:
        """Write what is left, and make one checkpoint of the parts."""
        tf = tensorflow()
        if not self._parts:
            self._write(str(self.prefix))
            return
        if self._keys:
            self._write(self._part())
        try:
            tf.raw_ops.MergeV2Checkpoints(
                checkpoint_prefixes=self._parts,
                destination_prefix=str(self.prefix),
                delete_old_dirs=False,
            )
        except tf.errors.OpError as error:
            raise OSError(str(error)) from error
        shutil.rmtree(self._folder)

    @property
    def _folder(self) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.parts")

    def _part(self) -> str:
        self._folder.mkdir(exist_ok=True)
        self._parts.append(str(self._folder / f"{len(self._parts):05d}"))
        return self._parts[-1]

    def _write(self, prefix: str) -> None:
        tf = tensorflow()
        try:
            with tf.device("/cpu:0"):
                tf.raw_ops.SaveV2(
                    prefix=prefix,
                    tensor_names=self._keys,
                    shape_and_slices=[""] * len(self._keys),
                    tensors=self._values,
                )
        except tf.errors.OpError as error:
            raise OSError(str(error)) from error
        self._keys, self._values, self._bytes = [], [], 0


def as_tensor(array: np.ndarray) -> Any:
    """An array as a tensor of TensorFlow's, in the same memory where that can be.

    `tf.convert_to_tensor` copies it twice.
    """
    tf = tensorflow()
    with tf.device("/cpu:0"):
        try:
            return tf.experimental.dlpack.from_dlpack(np.ascontiguousarray(array).__dlpack__())
        except BufferError:  # bool, bfloat16, what must not be written to
            return tf.convert_to_tensor(array)
