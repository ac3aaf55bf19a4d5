"""An opened model file: its config as data, its tensors as promises."""

from __future__ import annotations

import builtins
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kprune.edit import Edit
from kprune.errors import Cannot
from kprune.faults import shown
from kprune.graph.weight_groups import GROUPS, is_state
from kprune.types import AnyPath, Progress

if TYPE_CHECKING:
    from kprune.active_content import Active
    from kprune.checking import Outline


BLOCK = 4 << 20
"""Bytes of one block of `Source.blocks`, unless told otherwise."""


class Tensor(Struct, frozen=True):
    """One array of the weights file, not read yet.

    Attributes:
        path: of the dataset in the weights file, such as `layers/dense_1/vars/0`.
        shape: () for a scalar.
        dtype: numpy's; bfloat16 is `V2`.
        nbytes: of the values, uncompressed.
        offset: of the values in the file that holds the weights (a zip counts from the archive's
            first byte); None if they do not lie there in one piece and in C order.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int
    offset: int | None


class Order(Struct, frozen=True):
    """Which tensors are whose, in a format that says so by order and not by path.

    Attributes:
        layers: for each layer of the outermost model that has weights its datasets, layers in the
            order of `model.layers`, datasets in that of Keras 2's `layer.weights`: trainable ones
            first, those of all layers inside it included.
        optimizer: the optimizer's datasets.
    """

    layers: Mapping[str, tuple[str, ...]]
    optimizer: tuple[str, ...] = ()


class Weights(Protocol):
    """Where a source's tensors come from."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...

    def read(self, path: str) -> np.ndarray: ...

    def blocks(self, path: str, limit: int) -> Iterator[tuple[int, np.ndarray]]: ...


class Source(ABC):
    """A model file, opened for reading; a context manager.

    Attributes:
        path: the file or folder as the user named it; None for standard input.
        format: 'keras', 'keras-folder', ...
        bytes: its size on disk.
        config: config.json.
        metadata: metadata.json; {} if there is none.
        tensors: by path, in the order in which they stand in the file.
        order: which tensors are whose, where their paths do not say so.
        trusted: whether code that is not Keras's own may be run for it.
        drops_optimizer: whether what is written leaves the state of the optimizer behind.
        stands_at: the file that is read, where that is not the user's own.
        told: what a reader of a report should know of it.
        default_output: where a result goes, if not to the place that `path` suggests.
        cannot: tasks that a file of this format does not support, and the error for each.
        has_signatures: whether TensorFlow runs it, signature by signature, and not Keras.
    """

    format: str
    path: Path | None
    bytes: int
    config: dict[str, Any]
    metadata: dict[str, Any]
    weights: Weights
    order: Order | None = None
    trusted: bool = False
    drops_optimizer: bool = False
    stands_at: Path | None = None
    told: tuple[str, ...] = ()
    default_output: Path | None = None
    cannot: ClassVar[Mapping[str, Cannot]] = {}
    has_signatures: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """How messages call it."""
        return "standard input" if self.path is None else shown(self.path)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.weights.tensors

    def require(self, task: str) -> None:
        """Raises: CannotPruneError if a file of this format cannot be put to a task."""
        if task in self.cannot:
            raise self.cannot[task].error()

    def outline(self) -> Outline:
        """Its config and the shapes of its tensors, as `kprune.checking` holds them against each other."""
        from kprune.checking import Outline

        shapes = {path: tensor.shape for path, tensor in self.tensors.items()}
        return Outline(self.config, shapes, self.order.layers if self.order else None)

    def drop_optimizer(self) -> None:
        """Have what is written leave the state of the optimizer behind. Raises: CannotPruneError."""
        self.require("drop_optimizer")
        self.drops_optimizer = True

    def settled(self, edit: Edit) -> Edit:
        """An edit as it is carried out: without the optimizer's state if that is left behind."""
        if not self.drops_optimizer:
            return edit
        left = tuple(item for item in edit.tensors if not is_state(item.source or item.path))
        return replace(edit, tensors=left, dropped=(*edit.dropped, *GROUPS))

    def active(self) -> tuple[Active, ...]:
        """What in the file would run, import, call or read something when it is loaded."""
        from kprune.active_content import active_in_keras_file

        return active_in_keras_file(self.config, self.metadata)

    @property
    def extras(self) -> list[str]:
        """Names of what else the file carries, such as `assets/…/vocabulary.txt`."""
        return []

    def extra(self, name: str) -> builtins.bytes:
        """The content of one of these. Raises: KeyError for an unknown name, FileError."""
        raise KeyError(name)

    def read(self, path: str) -> np.ndarray:
        """A whole tensor. bfloat16 comes as `V2`; see `kprune.formats.as_float`.

        Raises: KeyError for an unknown path, DamagedFileError if it cannot be decompressed.
        """
        return self.weights.read(path)

    def blocks(self, path: str, limit: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
        """A tensor piece by piece, so that memory does not grow with it.

        Args:
            path: of a tensor that is not a scalar.
            limit: bytes of a block; one position of axis 0 is the least there is in any case.
        Returns: pairs (start, array), the array holding the positions of axis 0 from `start` on.
        """
        return self.weights.blocks(path, limit)

    @abstractmethod
    def write(self, edit: Edit, output: AnyPath, force: bool, progress: Progress | None) -> int:
        """Carry out an edit; see `kprune.formats.write_model`."""

    @abstractmethod
    def output_size(self, edit: Edit) -> int:
        """How many bytes `write` would write."""

    @abstractmethod
    def check_integrity(self) -> None:
        """Read everything and compare it with the checksums, as far as the format has any."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def json_bytes(value: dict[str, Any]) -> bytes:
    """Write config.json or metadata.json as Keras does: one line, ASCII, NaN allowed."""
    return json.dumps(value).encode("ascii")
