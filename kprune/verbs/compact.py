"""Removing what is dead or constant: the same outputs from a smaller file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit
from kprune.errors import CannotPruneError, CheckError
from kprune.formats import Source, write_model
from kprune.labels.closure import Closure, close
from kprune.labels.closure import check as check_closure
from kprune.opened import analyse, open_model
from kprune.page.result import Note
from kprune.pruning.carrying import (
    Make,
    Target,
    carry_out,
    companions,
    with_output,
    write,
    written_beside,
)
from kprune.pruning.changes import Change, fold_notes, unmasking
from kprune.pruning.selection import Units
from kprune.report.build import removal_notes
from kprune.report.report import Report
from kprune.select.naming.indices import compact_text
from kprune.surgery.compact import Search, removable
from kprune.surgery.constants.constants import Constants
from kprune.surgery.fold import reader, removal_with_shares
from kprune.surgery.mask import PREFIX, masked_layer
from kprune.surgery.merge import Twins, twins, with_sums
from kprune.surgery.provenance import with_provenance
from kprune.surgery.relocate import with_names
from kprune.text import clean

SAMPLES = 8
"""Random inputs on which the result is held against the original."""


def compact(
    model: Any,
    target: Target,
    rules: Iterable[str],
    *,
    merge: bool,
    check: bool,
    trust: bool = False,
) -> Any:
    """See `kprune.verbs.change.compact`."""

    def make(source: Source, analysis: Analysis) -> Change:
        return compacting(source, analysis, merge=merge)

    if not isinstance(model, (str, os.PathLike)):
        return carry_out(model, target, rules, make, trust=trust)
    with open_model(model, trust=trust) as source:
        return compact_source(source, list(rules), make, target, check=check)


def compact_source(
    source: Source, rules: list[str], make: Make, target: Target, *, check: bool
) -> Report:
    """The same for a file that is open.

    Args:
        make: gives a change of `compacting`.
    """
    analysis = analyse(source, rules)
    change = make(source, analysis)
    masks = idle_masks(analysis, change.gone)
    if change.gone is None and not masks:
        return _unchanged(source, analysis, change, target)
    if not masks and (target.dry_run or not check):
        return write(source, analysis, change, target)
    return _by_way_of(source, analysis, change, target, rules, masks=masks, check=check)


def compacting(
    source: Source, analysis: Analysis, *, merge: bool = False, only: Units | None = None
) -> Change:
    """The change that takes out whatever nothing would miss.

    Args:
        merge: also make one of units that are equal.
        only: units that may go; None for all.
    """
    if analysis.model.kind == "SavedModel":
        return compacting_graph(source, analysis, merge=merge, only=only)
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
    check_closure(closure, drop_branches=True)  # nothing would miss them
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


def compacting_graph(source: Source, analysis: Any, *, merge: bool, only: Units | None) -> Change:
    """The same for a graph of operations: units that nobody reads, or that give nothing."""
    from kprune.saved_model.dead import dead_units
    from kprune.surgery.remove import remove

    if merge:
        raise CannotPruneError(
            "units of a SavedModel are not merged",
            do="leave out --merge; dead ones are still removed",
        )
    gone = dead_units(source, analysis)
    if only is not None:
        gone &= close(analysis.groups, only).gone
    if not gone.any():
        note = Note("nothing", "", "nothing to remove: no unit is dead")
        edit = Edit(analysis.config, analysis.metadata)
        return Change("compact", "compact", edit, {}, {}, None, (note,))
    closure = Closure(analysis.groups, {}, gone)
    check_closure(closure)
    affected = closure.affected
    metadata = with_provenance(analysis, backend="compact", units=affected, options={}, gone=gone)
    edit = replace(remove(analysis, closure), metadata=metadata)
    return Change("compact", "compact", edit, affected, affected, gone)


def merge_notes(analysis: Analysis, found: Twins) -> list[Note]:
    """Which units were merged, layer by layer, and what was not looked at."""
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
    """Which constant units were left, and why."""
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
    """Which of the units that a plan names are neither dead nor constant."""
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


def idle_masks(analysis: Analysis, gone: np.ndarray | None) -> list[str]:
    """Paths of the masked layers whose mask has only ones left to multiply by."""
    found = []
    for array in analysis.map.arrays:
        masked = masked_layer(array.layer)
        if masked is None or array.array.key != "scale" or not array.layer.name.startswith(PREFIX):
            continue
        scale = array.array.value.astype(np.float64)
        if gone is not None:
            for axis, along in enumerate(array.axes):
                if along.factors:
                    scale = scale.compress(~along.dead(gone), axis)
        if scale.size and (scale == 1).all():
            found.append(masked)
    return found


def _unchanged(source: Source, analysis: Analysis, change: Change, target: Target) -> Report:
    """Nothing to do: the output is a copy, which whoever reads it next expects; the input stays."""
    if not target.in_place:
        return write(source, analysis, change, target)
    report = write(source, analysis, change, replace(target, dry_run=True))
    return report if target.dry_run else with_output(report, target.path(source), source.bytes)


def _by_way_of(
    source: Source,
    analysis: Analysis,
    change: Change,
    target: Target,
    rules: list[str],
    *,
    masks: list[str],
    check: bool,
) -> Report:
    """Write beside the output first, take idle masks out, check, and only then put it in place."""
    path = None if target.dry_run else target.path(source)
    beside = None if path in (None, "-") else Path(str(path)).absolute().parent
    texts, told = companions(source, change, target) if path else ({}, [])
    # These are of the last of these writes.
    change = replace(change, names=None, token_ids=None, notes=(*change.notes, *told))
    with tempfile.TemporaryDirectory(dir=beside, prefix=".kprune-") as folder:
        # The name says in which format the result is written, here as in its own place.
        named = Path(path) if path not in (None, "-") else source.path or Path("model.keras")
        place = Path(folder) / f"0{named.suffix}"
        report = write(source, analysis, change, Target(place, limits=target.limits))
        if masks:
            before, place = place, Path(folder) / f"1{named.suffix}"
            with open_model(before, trust=source.trusted) as masked:
                inner = analyse(masked, rules)
                unmasked = write(masked, inner, unmasking(inner, masks), Target(place))
            text = "masks that have nothing left to silence were taken out"
            notes = [
                *report.notes,
                *(Note("unmasked", layer, f"'{clean(layer)}': {text}") for layer in masks),
            ]
            report = msgspec.structs.replace(report, notes=notes, output=unmasked.output)
        if check and path is not None:
            same_outputs(source, place, Path(folder), rules)
        if path is None:
            return with_output(report, None, report.output.bytes)
        force = target.force or target.in_place
        with written_beside(texts, force=force) as commit:
            if not masks:  # what was checked, once more: the bytes that it has without a check
                edit = with_names(analysis, change.edit)
                written = write_model(source, edit, path, force=force, progress=target.progress)
            else:
                with open_model(place, trust=source.trusted) as result:
                    edit = with_names(analyse(result, rules), Edit(result.config, result.metadata))
                    written = write_model(result, edit, path, force=force, progress=target.progress)
            commit()
    return with_output(report, path, written)


def same_outputs(source: Source, result: Path, folder: Path, rules: list[str]) -> None:
    """Run both models in plain Keras.

    Raises: CheckError if they differ, CannotPruneError if one cannot be run here.
    """
    from kprune.verification.verify import verify

    original = source.path
    if original is None:  # standard input cannot be read twice
        original = folder / "original.keras"
        write_model(source, Edit(source.config, source.metadata), original)
    try:
        found = verify(original, result, samples=SAMPLES, rules=rules, trust=source.trusted)
    except CannotPruneError as error:
        error.do = f"{error.do}; or pass --no-check" if error.do else "pass --no-check"
        raise
    if not found.passed:
        worst = max((output.relative or 0.0 for output in found.outputs), default=0.0)
        raise CheckError(
            "the compacted model does not compute what the original does",
            why=f"outputs differ by up to {worst:.2g} of their magnitude on random inputs",
            do="nothing was written; please report this",
        )
