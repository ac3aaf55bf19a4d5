"""Inputs and expected outputs of a pruned model, made from those of the original."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.page.result import Note
from kprune.running.classes import Classes, ignored_numbers
from kprune.running.divergence import over_units_left
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
    ends = analysis.tensors_of(analysis.model.outputs)
    for name, (ref, labels), values in zip(names, ends, full, strict=True):
        cut, summed = over_units_left(values, labels, gone)
        for axis, keep in labels.cut_axes(gone):
            kept = np.flatnonzero(keep)
            # A number below the classes' new count is that of another class now.
            taken = {*kept.tolist(), *range(len(kept))}
            void = ignored_numbers(analysis, len(found.values), taken)
            found.classes[name] = Classes(kept, labels.rank, axis, void)
            if axis in summed:
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
