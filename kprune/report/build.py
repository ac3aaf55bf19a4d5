"""Makes the report of one change from the objects that are carried out."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from kprune.active_content.active import listed
from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import Counts, count
from kprune.edit import Edit
from kprune.graph.weight_groups import GROUPS
from kprune.labels.closure import Closure, Units
from kprune.opened import Opened
from kprune.page.result import Note
from kprune.report.change import Change
from kprune.report.facts import facts, figures
from kprune.report.kept_positions import weight_changes
from kprune.report.report import LayerChange, Report
from kprune.report.traps import bias_traps
from kprune.select.naming.indices import compact_text
from kprune.surgery.compile_config.compile_config import recompiled, texts
from kprune.surgery.optimizer import find_slots
from kprune.text import clean


def build(it: Opened, change: Change, notes: Iterable[Note] = ()) -> Report:
    """The report of one change; its `output` still lacks path and bytes.

    Args:
        notes: further ones, behind those of the change.
    """
    before = count(it.analysis)
    after = count(it.analysis, change.gone, change.edit.dropped)
    touched = touched_layers(it.analysis, change.edit)
    report = Report(
        command=change.command,
        backend=change.backend,
        exact=change.exact,
        input=facts(it, before),
        output=figures(after, None, it.source.format, 0),
        selected=lists(change.selected),
        changed=lists(change.changed),
        layers=_layers(before, after, touched),
        weights=weight_changes(it.analysis, change.edit),
        notes=[*change.notes, *notes, *active_notes(it)],
    )
    if change.repaired is None:
        return report
    from kprune.report.repaired import RepairedReport

    return RepairedReport(**structs.asdict(report), repaired=change.repaired)


def active_notes(it: Opened) -> list[Note]:
    """What would act when Keras loads a file, if anything: the output carries it as well.

    Not told of a model in memory, of a file that is trusted, and of classes that files of rules may
    have registered.
    """
    if it.live or it.source.trusted:
        return []
    items = [item for item in it.source.active() if not (it.rules and item.registered)]
    if not items:
        return []
    text = f"when Keras loads the model, {listed(items)}; the output carries that as well"
    return [Note("active", items[0].place, text)]


def _layers(before: Counts, after: Counts, touched: set[str]) -> list[LayerChange]:
    """The layers whose figures or weights changed."""
    rows = ((row, after.layers[name]) for name, row in before.layers.items())
    return [
        LayerChange(
            row.name,
            row.kind,
            row.units,
            now.units,
            row.parameters,
            now.parameters,
            row.flops,
            now.flops,
        )
        for row, now in rows
        if row != now or row.name in touched
    ]


def lists(units: Units) -> dict[str, list[int]]:
    """Units as JSON has them."""
    return {address: [int(index) for index in indices] for address, indices in units.items()}


def touched_layers(analysis: Analysis, edit: Edit) -> set[str]:
    """Paths of the layers that own a tensor that the edit changes."""
    paths = {edited.source for edited in edit.tensors if not edited.copies}
    return {weight.layer.path for weight in analysis.weights if weight.path in paths}


def dropped_state(analysis: Analysis, edit: Edit) -> list[Note]:
    """Why the optimizer's state is left out, if an edit leaves it out."""
    if not any(prefix in GROUPS for prefix in edit.dropped):
        return []
    why = (
        find_slots(analysis).why
        or "the order of the variables changed, so the optimizer's state was left out"
    )
    return [Note("optimizer", "", why)]


def fold_notes(layers: Iterable[str], coupled: Units) -> list[Note]:
    """Which layers absorbed constants, and which units that were not chosen count as zeroed."""
    notes = [
        Note("folded", path, f"'{clean(path)}' now includes what the removed units always gave")
        for path in dict.fromkeys(layers)
    ]
    for address, indices in coupled.items():
        text = f"units {compact_text(indices.tolist())} of '{clean(address)}' are removed as well, and count as zeroed"
        notes.append(Note("coupled", address, text))
    return notes


def removal_notes(analysis: Analysis, closure: Closure) -> list[Note]:
    """Notes on a removal: where it is not exact, and where Keras behaves differently from its config."""
    notes = bias_traps(analysis, closure.gone)
    compiled = recompiled(analysis, closure.gone)
    notes += [Note("compiled", path, text) for path, text in texts(compiled)]
    for mix in analysis.map.mixes:
        hit = mix.ids[closure.gone[mix.ids]]
        if hit.size:
            notes.append(
                Note(
                    "inexact",
                    mix.at,
                    f"the removed units {clean(mix.why, 300)}: what is left gives other values without them",
                )
            )
    return notes
