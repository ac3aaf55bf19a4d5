"""Makes the report of one change from the very objects that are carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import Counts, count
from kprune.edit import Edit
from kprune.labels.closure import Closure
from kprune.page.result import Note
from kprune.report.facts import FileFacts
from kprune.report.kept import weight_changes
from kprune.report.report import LayerChange, Report
from kprune.report.traps import bias_traps
from kprune.surgery.compile_config.compile_config import recompiled, texts
from kprune.text import clean

Units = Mapping[str, np.ndarray]


def facts(counts: Counts, path: str | None, format_name: str, size: int) -> FileFacts:
    """The figures of one file."""
    return FileFacts(
        path, format_name, size, counts.parameters, counts.trainable, counts.flops, counts.units
    )


def build(
    analysis: Analysis,
    edit: Edit,
    *,
    command: str,
    backend: str,
    before: FileFacts,
    counted: Counts,
    selected: Units,
    changed: Units,
    gone: np.ndarray | None,
    notes: Iterable[Note] = (),
    exact: bool = True,
) -> Report:
    """The report of one edit; its `output` still lacks path and bytes (see `finished`).

    Args:
        before: figures of the input.
        counted: the same, layer by layer.
        selected, changed: by address, indices: what was named, and all that is affected.
        gone: bool (labels,): what is physically removed; None if nothing is.
    """
    new = count(analysis, gone, edit.dropped)
    touched = touched_layers(analysis, edit)
    layers = []
    for name, row in counted.layers.items():
        now = new.layers[name]
        if row == now and name not in touched:
            continue
        layers.append(
            LayerChange(
                name,
                row.kind,
                row.units,
                now.units,
                row.parameters,
                now.parameters,
                row.flops,
                now.flops,
            )
        )
    return Report(
        command=command,
        backend=backend,
        exact=exact,
        input=before,
        output=facts(new, None, before.format, 0),
        selected=_lists(selected),
        changed=_lists(changed),
        layers=layers,
        weights=weight_changes(analysis, edit),
        notes=list(notes),
    )


def _lists(units: Units) -> dict[str, list[int]]:
    return {address: [int(index) for index in indices] for address, indices in units.items()}


def touched_layers(analysis: Analysis, edit: Edit) -> set[str]:
    """Paths of the layers that own a tensor that the edit changes."""
    paths = {edited.source for edited in edit.tensors if not edited.copies}
    return {weight.layer.path for weight in analysis.weights if weight.path in paths}


def removal_notes(analysis: Analysis, closure: Closure) -> list[Note]:
    """What a reader of a removal should know: where it is not exact, and where Keras does not do what it says."""
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
