"""Removing units, or whole layers: the change, and the units that such a step pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.labels.closure import Units, check, close
from kprune.opened import Opened
from kprune.page.result import Note
from kprune.report.build import dropped_state, fold_notes, removal_notes
from kprune.report.change import Change
from kprune.report.token_ids import TokenIds, token_notes
from kprune.select.naming.layer_names import whole_layers_named
from kprune.surgery.provenance import with_provenance
from kprune.surgery.remove import remove as remove_edit
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.pruning.pruned_units import PrunedUnits
    from kprune.pruning.steps import Asked


def removal(
    it: Opened,
    chosen: Units,
    notes: Iterable[Note] = (),
    *,
    coupled: bool = True,
    allow_output_change: bool = False,
    drop_branches: bool = False,
    fold: bool = False,
) -> Change:
    """The change that removes units.

    Args:
        drop_branches: see `kprune.labels.closure.check`.
        fold: whether the constants of zeroed units are folded into biases.
    Raises: CannotPruneError if they cannot be removed.
    """
    analysis = it.analysis
    if fold:
        analysis.require("fold")
    closure = close(analysis.groups, chosen)
    check(
        closure,
        allow_output_change=allow_output_change,
        coupled=coupled,
        drop_branches=drop_branches,
    )
    found = [*notes, *removal_notes(analysis, closure), *token_notes(analysis, closure.gone)]
    if not fold:
        edit = remove_edit(analysis, closure)
    else:
        from kprune.surgery.fold import fold as folded
        from kprune.surgery.fold import together

        edit, layers, coupled_too = folded(it.source, analysis, closure)
        found += fold_notes(layers, coupled_too)
        # The step then says of itself which units `zero` would have to be given.
        chosen = together(chosen, coupled_too)
    found += dropped_state(analysis, edit)
    given = {
        "allow_output_change": allow_output_change, "drop_branches": drop_branches, "fold": fold,
    }  # fmt: skip
    options = {name: True for name, on in given.items() if on}
    metadata = with_provenance(
        analysis, backend="remove", units=chosen, options=options, gone=closure.gone
    )
    return Change(
        "remove",
        "remove",
        replace(edit, metadata=metadata),
        closure.chosen,
        closure.affected,
        closure.gone,
        tuple(found),
        exact=not any(note.kind == "inexact" for note in found),
        token_ids=TokenIds.changed_by(analysis, closure.gone),
    )


def taking_out(
    analysis: Analysis, names: Sequence[str], *, allow_output_change: bool = False
) -> Change:
    """The change that removes whole layers.

    Args:
        names: of layers, or globs.
    Raises: UnknownLayerError; CannotPruneError if the rest would not be a valid graph.
    """
    from kprune.surgery.whole_layers import find_whole_layers, take_out

    analysis.require("whole layers")
    layers = whole_layers_named(analysis, names)
    whole = find_whole_layers(analysis, layers, allow_output_change=allow_output_change)
    edit = take_out(analysis, whole)
    units = {
        address: np.arange(len(axis))
        for address, axis in analysis.map.axes.items()
        if axis.name != "features" and whole.holds(axis.layer)
    }
    listed = ", ".join(clean(path) for path in whole.paths)
    notes = [Note("whole-layers", "", f"taken out: {listed}")]
    notes += [Note("whole-layers", path, text) for path, text in whole.sentences()]
    notes += dropped_state(analysis, edit)
    options: dict[str, Any] = {"whole_layers": [layer.path for layer in layers]}
    if allow_output_change:
        options["allow_output_change"] = True
    metadata = with_provenance(analysis, backend="remove", units={}, options=options, gone=None)
    return Change(
        "remove", "remove", replace(edit, metadata=metadata), units, units, None, tuple(notes)
    )


def of_step(asked: Asked) -> Change:
    """The change of one step of a plan."""
    step, it = asked.step, asked.it
    if step.whole_layers:
        asked.place = ("whole_layers",)
        return taking_out(
            it.analysis, step.whole_layers, allow_output_change=step.allow_output_change
        )
    chosen, notes = asked.units()
    change = removal(
        it,
        chosen,
        notes,
        coupled=step.coupled,
        allow_output_change=step.allow_output_change,
        drop_branches=asked.drop_branches or step.drop_branches,
        fold=step.fold,
    )
    if step.classes is None or asked.selection is None:
        return change
    return replace(change, names=asked.selection.names_left(it.analysis, change.changed))


def replay(analysis: Analysis, step: Mapping[str, Any], pruned: PrunedUnits) -> None:
    """Record the units that such a step pruned."""
    units = pruned.original(analysis, step["layers"])
    pruned.remove(analysis, units, kept=bool(step.get("fold")))
    if step.get("fold"):
        pruned.zero(units)
