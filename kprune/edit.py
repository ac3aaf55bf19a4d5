"""What a backend wants done to a file, as plain data.

Backends make it, `kprune.formats` carries it out; nothing else writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from kprune.dtypes import from_float, scaled


class Fill(Struct, frozen=True):
    """Set every entry at some positions along one axis to one value.

    Attributes:
        axis: the axis, from 0.
        positions: sorted int64 (k,), positions in the *input* tensor.
        value: what stands there afterwards.
        within: further (axis, positions): only entries at these positions too are set.
    """

    axis: int
    positions: np.ndarray
    value: float = 0.0
    within: tuple[tuple[int, np.ndarray], ...] = ()

    def index(
        self, shape: Sequence[int], start: Sequence[int] = ()
    ) -> tuple[slice | np.ndarray, ...] | None:
        """The entries that are set, as an index into a block of the tensor.

        Args:
            shape: of the block.
            start: where the block begins along the first axes; it begins at 0 along all others.
        Returns: None if none of them is in the block.
        """
        here: dict[int, np.ndarray] = {}
        for axis, positions in ((self.axis, self.positions), *self.within):
            first = start[axis] if axis < len(start) else 0
            own = np.asarray(positions, np.intp) - first
            own = own[(own >= 0) & (own < shape[axis])]
            here[axis] = np.intersect1d(here[axis], own) if axis in here else own
        if not all(len(positions) for positions in here.values()):
            return None
        axes = sorted(here)
        # One axis needs no mesh, and a slice beside it moves whole rows.
        meshes = np.ix_(*(here[axis] for axis in axes)) if len(axes) > 1 else [here[axes[0]]]
        found: list[slice | np.ndarray] = [slice(None)] * len(shape)
        for axis, mesh in zip(axes, meshes, strict=True):
            found[axis] = mesh
        return tuple(found)


class TensorEdit(Struct, frozen=True):
    """One tensor of the output file.

    Attributes:
        path: dataset path in the output's weights file, such as `layers/dense_1/vars/0`.
        source: dataset path in the input's weights file; None for a tensor the input does not have.
        keep: an entry per axis of the input tensor: None where the axis is whole, else the sorted
            int64 positions that stay. `()` means that every axis is whole.
        blocks: for a grouped kernel, whose second-last axis is cut differently for each group of
            its last axis: int64 (groups, kept), one row for each run of last-axis positions
            (counted in the input, all of equal length). None elsewhere.
        fills: applied to the input's values before anything is cut.
        scale: every value is multiplied by this; floating point tensors only.
        value: the new content; required if `source` is None, and then it is all there is.
    """

    path: str
    source: str | None
    keep: tuple[np.ndarray | None, ...] = ()
    blocks: np.ndarray | None = None
    fills: tuple[Fill, ...] = ()
    scale: float = 1.0
    value: np.ndarray | None = None

    @property
    def copies(self) -> bool:
        """Whether the bytes go over as they are."""
        return (
            self.value is None
            and self.blocks is None
            and not self.fills
            and self.scale == 1.0
            and all(kept is None for kept in self.keep)
        )

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What is left of a tensor's shape.

        Raises: ValueError if the edit does not fit the tensor, which is a bug in the backend.
        """
        if self.value is not None:
            return np.shape(self.value)
        keep = self.keep or (None,) * len(shape)
        if len(keep) != len(shape):
            raise ValueError(f"{self.path}: {len(keep)} axes of indices for the shape {shape}")
        extents = list(shape)
        for axis, kept in enumerate(keep):
            if kept is not None:
                self._check_positions(kept, shape[axis], f"keep[{axis}]")
                extents[axis] = len(kept)
        for fill in self.fills:
            for axis, positions in ((fill.axis, fill.positions), *fill.within):
                if not 0 <= axis < len(shape):
                    raise ValueError(f"{self.path}: a fill along axis {axis} of the shape {shape}")
                self._check_positions(positions, shape[axis], f"fill along {axis}")
        if self.blocks is not None:
            extents[-2] = self._check_blocks(self.blocks, shape)
        return tuple(extents)

    def _check_positions(self, positions: np.ndarray, extent: int, what: str) -> None:
        array = np.asarray(positions)
        fits = array.ndim == 1 and (array.dtype.kind in "iu" or not array.size)
        if not fits or (array.size and (array[0] < 0 or array[-1] >= extent)):
            raise ValueError(f"{self.path}, {what}: no positions of an axis of {extent}")
        if (array[1:] <= array[:-1]).any():
            raise ValueError(f"{self.path}, {what}: positions must be sorted, each of them once")

    def _check_blocks(self, blocks: np.ndarray, shape: tuple[int, ...]) -> int:
        rows = np.asarray(blocks)
        if len(shape) < 2 or rows.ndim != 2 or (self.keep and self.keep[-2] is not None):
            raise ValueError(f"{self.path}: blocks need two axes, and no keep on the second-last")
        groups, kept = rows.shape
        if not groups or shape[-1] % groups:
            raise ValueError(f"{self.path}: {groups} groups do not divide {shape[-1]} positions")
        # In no order: the row of a group of which no column is left is never used, and may hold zeros.
        if rows.size and (rows.min() < 0 or rows.max() >= shape[-2]):
            raise ValueError(f"{self.path}, blocks: no positions of an axis of {shape[-2]}")
        return int(kept)

    def applied(self, array: np.ndarray, start: int = 0) -> np.ndarray:
        """What the edit makes of a tensor, or of its run from a position of axis 0 on.

        Args:
            array: the input's values; never modified.
        Returns: array of the same type.
        """
        if self.value is not None:
            return np.asarray(self.value, array.dtype)
        made = self.cut(self.filled(array, start), start)
        return made if self.scale == 1.0 else scaled(made, self.scale)

    def filled(self, array: np.ndarray, start: int = 0) -> np.ndarray:
        """The values once the fills are done, before anything is cut; see `applied`."""
        for number, fill in enumerate(self.fills):
            array = array if number else array.copy()
            index = fill.index(array.shape, (start,))
            if index is not None:
                array[index] = from_float(fill.value, array.dtype)
        return array

    def cut(self, array: np.ndarray, start: int = 0) -> np.ndarray:
        """What is left of values of any type, neither filled nor scaled; see `applied`."""
        keep = self.keep or (None,) * array.ndim
        if self.blocks is not None:
            # Each run of columns keeps rows of its own.
            columns = np.arange(array.shape[-1]) if keep[-1] is None else np.asarray(keep[-1])
            rows = np.asarray(self.blocks)[columns // (array.shape[-1] // len(self.blocks))].T
            array, keep = array[..., rows, columns], (*keep[:-2], None, None)
        for axis, kept in enumerate(keep):
            if kept is None:
                continue
            here = np.asarray(kept, np.intp)
            if axis == 0:
                here = here[(here >= start) & (here < start + len(array))] - start
            array = np.take(array, here, axis=axis)
        return array


class Edit(Struct, frozen=True):
    """A whole change to a model file.

    Tensors of the input that `tensors` does not name as a source, and whose path does not start
    with an entry of `dropped`, go over unchanged under the path they have.

    Attributes:
        config: the new config.json.
        metadata: the new metadata.json.
        tensors: those that are cut, filled, renamed or new.
        dropped: path prefixes (`optimizer`) that are left behind.
        names: gives for a group of variables (`layers/dense_1/vars`) the layer's name, which Keras 3
            writes beside the variables and does not need to load them; called where the metadata
            of the weights are made anew. A group that neither the input has nor a tensor needs is
            not made for it.
        without_lines: by name, text files beside the weights (vocabularies) and the lines that they
            lose: sorted int64, from 0.
        groups: groups that are made although nothing is in them, as Keras 2 asks for.
        order: the names of the outermost model's layers, if the change put them in another order,
            for a format that hands tensors to layers by order.
    """

    config: dict[str, Any]
    metadata: dict[str, Any]
    tensors: tuple[TensorEdit, ...] = ()
    dropped: tuple[str, ...] = ()
    names: Callable[[], dict[str, str]] = dict
    without_lines: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    order: tuple[str, ...] = ()


def combined(one: Edit, other: Edit) -> Edit:
    """The edit that fills what either does; where both fill an entry, the second has the last word.

    Args:
        one, other: of the same file, with tensors that are filled and not cut.
    """
    tensors: dict[str, TensorEdit] = {}
    for edited in (*one.tensors, *other.tensors):
        known = tensors.get(edited.path)
        fills = (*known.fills, *edited.fills) if known else edited.fills
        tensors[edited.path] = replace(edited, fills=fills)
    return replace(one, tensors=tuple(tensors.values()))
