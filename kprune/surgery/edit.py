"""What a backend wants done to a file, as plain data.

Backends make it, `kprune.formats` carries it out; nothing else writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace


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
        groups: groups that are made although nothing is in them, as Keras 2 asks for.
        order: the names of the outermost model's layers, if the change put them in another order,
            for a format that hands tensors to layers by order.
    """

    config: dict[str, Any]
    metadata: dict[str, Any]
    tensors: tuple[TensorEdit, ...] = ()
    dropped: tuple[str, ...] = ()
    names: Callable[[], dict[str, str]] = dict
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
