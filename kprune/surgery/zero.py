"""Setting units' weights to zero; all shapes stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit, Fill, TensorEdit
from kprune.errors import CannotPruneError
from kprune.labels.closure import Closure
from kprune.labels.map import LayerRecord, UnitAxis, Weight
from kprune.text import clean

# exp(-1e9) is 0 in every float type; float16 cannot hold it, and exp(-6e4) is 0 as well.
SILENT = -1e9
SILENT_FLOAT16 = -6e4


def zero(analysis: Analysis, chosen: Mapping[str, np.ndarray], *, silence: bool = False) -> Edit:
    """The edit that zeroes the units' incoming weights and biases: each emits act(0) from then on.

    For a recurrent layer these are the unit's columns in every gate, of the kernel and of the
    recurrent kernel, and its bias.

    Args:
        chosen: by address of the axis of units, sorted int64 indices.
        silence: set the bias so low that a class of an output layer gets probability 0.
    """
    edits: dict[str, TensorEdit] = {}
    for address, indices in chosen.items():
        axis = analysis.map.axes[address]
        ids = axis.ids[indices]
        silenced = found = False
        for weight, number in incoming(analysis, axis):
            fills = _incoming_fills(weight, number, ids)
            if silence and weight.name == "bias":
                half = (
                    np.dtype(getattr(analysis.tensors[weight.path], "dtype", np.float32))
                    == np.float16
                )
                value = SILENT_FLOAT16 if half else SILENT
                fills = tuple(Fill(fill.axis, fill.positions, value) for fill in fills)
                silenced = True
            if fills:
                found = True
                _add(edits, weight, fills)
        if not found:
            why = analysis.map.record(axis.layer).opaque or "the units have no weights of their own"
            raise CannotPruneError(
                f"cannot zero units of '{clean(address)}'", why=why, do="use 'kprune mask'"
            )
        if silence and not silenced:
            raise CannotPruneError(
                f"'{clean(address)}' has no bias that could silence a class",
                why="the layer was built with use_bias=False",
                do="use 'kprune remove', which takes the classes out of the output",
            )
    return Edit(analysis.config, analysis.metadata, tuple(edits.values()))


def zero_through(analysis: Analysis, closure: Closure) -> Edit:
    """The edit that zeroes every weight entry that belongs to the units: incoming, outgoing, normalisation.

    This is the masked original that `remove` equals.

    Args:
        closure: the units with all that is tied to them.
    """
    edits: dict[str, TensorEdit] = {}
    for weight in analysis.weights:
        fills = [
            Fill(number, np.flatnonzero(dead))
            for number, axis in enumerate(weight.axes)
            if (dead := axis.dead(closure.gone)).any()
        ]
        if weight.grouped is not None and len(weight.grouped.sides) > 1:
            fills += _grouped_fills(weight, closure.gone)
        if fills:
            _add(edits, weight, tuple(fills))
    return Edit(analysis.config, analysis.metadata, tuple(edits.values()))


def incoming(analysis: Analysis, axis: UnitAxis) -> list[tuple[Weight, int]]:
    """The weights in the file that make these units, each with the axis of them."""
    return [place for place in made_by(analysis, axis) if analysis.is_stored(place[0])]


def made_by(analysis: Analysis, axis: UnitAxis) -> list[tuple[Weight, int]]:
    """The weights of the layer (or of the layers inside it) that make these units, each with the axis of them."""
    found = []

    def collect(record: LayerRecord) -> None:
        for weight in record.weights.values():
            if (number := weight.makes(axis.ids)) is not None:
                found.append((weight, number))
        for child in record.children.values():
            collect(child)

    collect(analysis.map.record(axis.layer))
    return found


def _incoming_fills(weight: Weight, out: int, ids: np.ndarray) -> tuple[Fill, ...]:
    along = weight.axes[out]
    if len(along.factors) == 1 and len(along.factors[0]) > 1:
        # Several units stand at one position (a depthwise kernel): the axis behind tells them apart.
        hits = np.isin(along.factors[0], ids)  # (multiplier, inputs)
        return tuple(
            Fill(out, np.flatnonzero(row), within=((out + 1, np.array([number])),))
            for number, row in enumerate(hits)
            if row.any()
        )
    positions = np.flatnonzero(np.isin(along.ids, ids))
    return (Fill(out, positions),) if positions.size else ()


def _grouped_fills(weight: Weight, gone: np.ndarray) -> list[Fill]:
    """A grouped kernel's input positions mean another input in each run of filters."""
    assert weight.grouped is not None and weight.out is not None
    dead = gone[weight.grouped.sides[0]]
    width = (weight.axes[weight.out].size or 0) // len(dead)
    return [
        Fill(
            weight.out - 1,
            np.flatnonzero(row),
            within=((weight.out, np.arange(group * width, (group + 1) * width)),),
        )
        for group, row in enumerate(dead)
        if row.any()
    ]


def _add(edits: dict[str, TensorEdit], weight: Weight, fills: tuple[Fill, ...]) -> None:
    before = edits[weight.path].fills if weight.path in edits else ()
    edits[weight.path] = TensorEdit(weight.path, weight.path, fills=(*before, *fills))
