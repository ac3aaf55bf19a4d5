"""Inputs and expected outputs of a pruned model, made from those of the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.graph.model import TensorRef, leaves
from kprune.labels.labels import Labels
from kprune.page.result import Note
from kprune.running.classes import Classes, ignored_numbers
from kprune.running.divergence import is_distribution
from kprune.runtime.keras_import import import_keras
from kprune.text import clean


class CutOutputs(Struct, eq=False):
    """Outputs at the positions that are left.

    Attributes:
        values: one array per output; probabilities add up to 1 again.
        classes: by output, the classes that are left, if some were removed.
        renormalised: the layers of outputs whose probabilities were rescaled to add up to 1.
        notes: on those.
    """

    values: list[np.ndarray] = field(default_factory=list)
    classes: dict[str, Classes] = field(default_factory=dict)
    renormalised: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def cut_outputs(
    analysis: Analysis, gone: np.ndarray, full: Sequence[np.ndarray], names: Sequence[str]
) -> CutOutputs:
    """The outputs of the original without the removed units.

    Args:
        analysis: of the original.
        gone: bool (labels,).
        full: its outputs, one array each.
        names: of the outputs.
    """
    found = CutOutputs()
    refs = [leaf for leaf in leaves(analysis.model.outputs) if isinstance(leaf, TensorRef)]
    for name, ref, values in zip(names, refs, full, strict=True):
        labels = analysis.map.tensors.get((analysis.model.path, *ref.key), Labels(None))
        cut = labels.cut(values, gone)
        for axis, keep in _lost_along(labels, gone):
            kept = np.flatnonzero(keep)
            # A number below the classes' new count is that of another class now.
            taken = {*kept.tolist(), *range(len(kept))}
            void = ignored_numbers(analysis, len(found.values), taken)
            found.classes[name] = Classes(kept, labels.rank, axis, void)
            if is_distribution(values, axis):
                cut = cut / cut.sum(axis=axis, keepdims=True)
                found.renormalised.append(ref.layer)
                text = f"'{clean(ref.layer)}' is compared over the {len(kept)} classes left"
                found.notes.append(Note("renormalised", clean(ref.layer), text))
        found.values.append(cut)
    return found


def inexact(analysis: Analysis, gone: np.ndarray, renormalised: Sequence[str]) -> list[Note]:
    """Notes why the outputs need not be equal up to float rounding; none if they must be."""
    notes = []
    for mix in analysis.map.mixes:
        hit = int(gone[mix.ids].sum())
        if hit and mix.at.partition("/")[0] not in renormalised:
            text = f"differences are expected: {hit} removed units {clean(mix.why, 300)}"
            notes.append(Note("inexact", mix.at, text))
    return notes


def cut_inputs(analysis: Analysis, gone: np.ndarray, inputs: Any) -> Any:
    """Inputs without the features that were removed."""
    tree = import_keras().tree
    refs = [leaf for leaf in leaves(analysis.model.inputs) if isinstance(leaf, TensorRef)]
    arrays = tree.flatten(inputs)
    if len(refs) != len(arrays):
        return inputs
    cut = [
        analysis.map.tensors.get((analysis.model.path, *ref.key), Labels(None)).cut(array, gone)
        for ref, array in zip(refs, arrays, strict=True)
    ]
    return tree.pack_sequence_as(inputs, cut)


def _lost_along(labels: Labels, gone: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The axes of a tensor, counted from the end, that were cut; bool (size,) for the positions left."""
    if labels.shape is None:
        return
    for axis in range(1 - labels.rank, 0):
        dead = labels.axis(labels.rank + axis).dead(gone)
        if dead.any():
            yield axis, ~dead
