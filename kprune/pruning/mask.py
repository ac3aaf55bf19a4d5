"""Masking units, and removing masks: the changes, and the units that such a step pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.errors import UsageError
from kprune.page.result import Note
from kprune.pruning.pruned_units import Mask, PrunedUnits
from kprune.pruning.selection import Selection
from kprune.report.build import dropped_state
from kprune.report.change import Change
from kprune.select.naming.layer_names import layers_named
from kprune.select.naming.resolve import specs_from
from kprune.select.naming.specs import parse_layer
from kprune.sets import distinct
from kprune.surgery.provenance import with_provenance, without_masks
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.pruning.steps import Asked
    from kprune.select.ranking.statistics import Statistics


def masking(
    analysis: Analysis,
    statistics: Statistics,
    selections: Iterable[Selection],
    *,
    below: float | None = None,
) -> Change:
    """The change that masks.

    Args:
        selections: units by name, or by rank as for every backend. Any layer can be named, with or
            without weights; the indices then count channels of its output.
        below: set only activations whose magnitude is below this to 0, at run time.
    """
    masks = analysis.masks
    notes: list[Note] = []
    chosen: dict[str, np.ndarray | None] = {}

    def add(path: str, indices: np.ndarray) -> None:
        before = chosen.get(path)
        chosen[path] = indices if before is None else distinct(before, indices)

    for selection in selections:
        if not selection.by_spec:
            named, more = selection.resolve(analysis, statistics)
            notes += more
            for address, indices in named.items():
                add(analysis.map.axes[address].layer.path, indices)
            continue
        left_out = {
            path for name in selection.exclude for path in layers_named(analysis, parse_layer(name))
        }
        for spec in specs_from(selection.units or []):
            for path in layers_named(analysis, spec):
                if path not in left_out:
                    width = masks.channels(analysis, masks.layer_at(analysis.model, path))
                    add(path, spec.indices.resolve(width, what=f"layer '{clean(path)}'"))
        for name in selection.layers or []:
            if below is None:
                raise UsageError(
                    f"no units of '{clean(name)}' are named",
                    do="write LAYER:INDICES, or give --units, --where, --criterion or --below",
                )
            for path in layers_named(analysis, parse_layer(name)):
                chosen.setdefault(path, None)
    if not chosen:
        raise UsageError("no unit is chosen", do="write LAYER:INDICES, such as dense_1:3,7,12")
    if below is not None and not below > 0:
        raise UsageError(
            f"the threshold must be positive, got {below:g}",
            why="magnitudes are never below 0",
            do="give --below a positive number",
        )
    selected = {
        path: np.zeros(0, np.int64) if indices is None else indices
        for path, indices in chosen.items()
    }
    edit = (
        masks.mask(analysis, selected)
        if below is None
        else masks.mask_below(analysis, chosen, below)
    )
    notes += dropped_state(analysis, edit)
    options = {} if below is None else {"below": below}
    metadata = with_provenance(analysis, backend="mask", units=selected, options=options, gone=None)
    return Change(
        "mask", "mask", replace(edit, metadata=metadata), selected, selected, None, tuple(notes)
    )


def unmasking(analysis: Analysis, layers: Sequence[str] | None) -> Change:
    """The change that removes masks. Raises: UsageError if there is none."""
    paths = None
    if layers:
        paths = {path for name in layers for path in layers_named(analysis, parse_layer(name))}
    edit, freed = analysis.masks.unmask(analysis, paths)
    if not freed:
        raise UsageError(
            "the model has no mask to remove" if paths is None else "none of these layers is masked"
        )
    none = {path: np.zeros(0, np.int64) for path in freed}
    notes = tuple(dropped_state(analysis, edit))
    metadata = without_masks(analysis.metadata, freed)
    return Change("unmask", "mask", replace(edit, metadata=metadata), none, none, None, notes)


def of_step(asked: Asked) -> Change:
    """The change of one step of a plan."""
    return masking(
        asked.it.analysis, asked.statistics, list(asked.selections()), below=asked.step.below
    )


def replay(analysis: Analysis, step: Mapping[str, Any], pruned: PrunedUnits) -> None:
    """Record the units that such a step pruned."""
    masks = analysis.masks
    for path, indices in step["layers"].items():
        channels = None
        if indices not in ("all", []):  # a list without an index, before there was the word
            dead = masks.dead_channels(analysis, masks.layer_at(analysis.model, path), pruned.gone)
            channels = np.flatnonzero(~dead)[np.asarray(indices, np.int64)]
        pruned.masks.append(Mask(path, channels, step.get("below")))
