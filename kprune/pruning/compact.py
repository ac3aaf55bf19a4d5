"""Removing what is dead or constant: the change, and the units that such a step pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit
from kprune.labels.closure import Closure, Units, check, close
from kprune.opened import Opened
from kprune.page.result import Note
from kprune.report.build import fold_notes, removal_notes
from kprune.report.change import Change
from kprune.select.naming.indices import compact_text
from kprune.surgery.compact import Search, removable
from kprune.surgery.constants.constants import Constants
from kprune.surgery.fold import reader, removal_with_shares
from kprune.surgery.merge import Twins, twins, with_sums
from kprune.surgery.provenance import with_provenance
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.pruning.pruned_units import PrunedUnits
    from kprune.pruning.steps import Asked


def compacting(it: Opened, *, merge: bool = False, only: Units | None = None) -> Change:
    """The change that removes all units without any effect.

    Args:
        merge: also merge equal units.
        only: units that may be removed; None for all.
    """
    source, analysis = it.source, it.analysis
    if merge:
        analysis.require("merge")
    if not analysis.layered:
        return _compacting_graph(it, only)
    may_go = None if only is None else close(analysis.groups, only).gone
    constants = Constants(analysis, reader(source))
    search = removable(analysis, constants, may_go)
    notes = left_notes(analysis, constants, search)
    gone = search.gone
    found = twins(source, analysis, constants, search) if merge else Twins()
    if may_go is not None:
        merges = [pair for pair in found.merges if may_go[pair.drop].all()]
        found = replace(found, merges=merges)
    for pair in found.merges:
        gone[pair.drop] = True
    notes += alive_notes(analysis, constants, gone, only or {})
    notes += merge_notes(analysis, found)
    if not gone.any():
        text = "nothing to remove: no unit is dead or constant that could go without a trace"
        text += ", and none is another's equal" if merge else ""
        edit = Edit(analysis.config, analysis.metadata)
        return Change("compact", "compact", edit, {}, {}, None, (Note("nothing", "", text), *notes))
    closure = Closure(analysis.groups, {}, gone)
    check(closure, drop_branches=True)  # nothing would miss them
    edit, layers = removal_with_shares(source, analysis, closure, constants)
    edit = with_sums(source, constants, edit, found.merges)
    affected = closure.affected
    options = {"merge": True} if merge else {}
    metadata = with_provenance(
        analysis, backend="compact", units=affected, options=options, gone=gone
    )
    told = (*removal_notes(analysis, closure), *fold_notes(layers, {}), *notes)
    return Change(
        "compact",
        "compact",
        replace(edit, metadata=metadata),
        affected,
        affected,
        gone,
        told,
    )


def _compacting_graph(it: Opened, only: Units | None) -> Change:
    """The same for a graph of operations: units that nothing reads, or whose output is 0."""
    from kprune.saved_model.dead_units import dead_units
    from kprune.surgery.remove import remove

    analysis: Any = it.analysis
    gone = dead_units(it.source, analysis)
    if only is not None:
        gone &= close(analysis.groups, only).gone
    if not gone.any():
        note = Note("nothing", "", "nothing to remove: no unit is dead")
        edit = Edit(analysis.config, analysis.metadata)
        return Change("compact", "compact", edit, {}, {}, None, (note,))
    closure = Closure(analysis.groups, {}, gone)
    check(closure)
    affected = closure.affected
    metadata = with_provenance(analysis, backend="compact", units=affected, options={}, gone=gone)
    edit = replace(remove(analysis, closure), metadata=metadata)
    return Change("compact", "compact", edit, affected, affected, gone)


def merge_notes(analysis: Analysis, found: Twins) -> list[Note]:
    """Notes on merged units, layer by layer, and on what was not examined."""
    axes, owner = list(analysis.map.axes.values()), analysis.groups.owner
    merged: dict[tuple[str, bool], list[int]] = {}
    for pair in found.merges:
        for label in pair.drop:
            axis = axes[owner[label]]
            key = axis.address, pair.factor == 1
            merged.setdefault(key, []).append(int(np.flatnonzero(axis.ids == label)[0]))
    notes = []
    for (address, equal), indices in merged.items():
        units = clean(compact_text(sorted(indices)), 120)
        like = "equal others" if equal else "are others times a factor"
        text = f"units {units} of '{clean(address)}' {like}, and were merged with them"
        notes.append(Note("merged", address, text))
    for path in dict.fromkeys(found.skipped):
        text = f"'{clean(path)}' has a weight too large to look for equal units in it"
        notes.append(Note("large", path, text))
    return notes


def left_notes(analysis: Analysis, constants: Constants, search: Search) -> list[Note]:
    """Notes on constant units that were left, and why."""
    notes = []
    for address, axis in analysis.map.axes.items():
        left = np.flatnonzero(~np.isnan(constants.made[axis.ids]) & search.stays[axis.ids])
        whys: dict[str, list[int]] = {}
        for index in left:
            label = int(axis.ids[index])
            whys.setdefault(constants.lost.get(label) or search.why_of(label), []).append(
                int(index)
            )
        for why, indices in whys.items():
            units = (
                f"unit {indices[0]}"
                if len(indices) == 1
                else f"units {clean(compact_text(indices), 120)}"
            )
            verb = "is constant and was left" if len(indices) == 1 else "are constant and were left"
            notes.append(
                Note("left", address, f"{units} of '{clean(address)}' {verb}: {clean(why, 300)}")
            )
    return notes


def alive_notes(
    analysis: Analysis, constants: Constants, gone: np.ndarray, only: Units
) -> list[Note]:
    """Notes on units of a plan that are neither dead nor constant."""
    notes = []
    for address, indices in only.items():
        ids = analysis.map.axes[address].ids[indices]
        alive = indices[~gone[ids] & np.isnan(constants.made[ids])].tolist()
        if alive:
            units = clean(compact_text(alive), 120)
            text = (
                f"units {units} of '{clean(address)}' are neither dead nor constant, and were left"
            )
            notes.append(Note("left", address, text))
    return notes


def of_step(asked: Asked) -> Change:
    """The change of one step of a plan."""
    chosen, _ = asked.units()
    return compacting(asked.it, merge=asked.step.merge, only=chosen if asked.step.layers else None)


def replay(analysis: Analysis, step: Mapping[str, Any], pruned: PrunedUnits) -> None:
    """Record the units that such a step pruned."""
    pruned.remove(analysis, pruned.original(analysis, step["layers"]), kept=True)
