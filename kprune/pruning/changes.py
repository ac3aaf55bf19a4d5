"""From chosen units to an edit, with everything that its report needs. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit
from kprune.errors import CannotPruneError, UsageError
from kprune.formats import Source
from kprune.graph.stores import GROUPS
from kprune.labels.closure import Closure, check, close, refuse_coupled
from kprune.page.result import Note
from kprune.pruning.selection import NamesLeft, Selection, Units
from kprune.pruning.token_ids import TokenIds, token_notes
from kprune.report.build import removal_notes
from kprune.select.naming.indices import compact_text
from kprune.select.naming.layer_names import layers_named, whole_layers_named
from kprune.select.naming.resolve import specs_from
from kprune.select.naming.specs import parse_layer
from kprune.sets import distinct
from kprune.surgery.optimizer import find_slots
from kprune.surgery.provenance import with_provenance, without_masks
from kprune.surgery.remove import remove as remove_edit
from kprune.surgery.zero import zero as zero_edit
from kprune.surgery.zero import zero_through
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.select.ranking.statistics import Statistics


class Change(Struct, frozen=True, eq=False):
    """An edit with everything its report needs.

    Attributes:
        gone: bool (labels,) if units were physically removed.
        names: a file of class names that goes with the result.
        token_ids: those before the change, if they are others now.
    """

    command: str
    backend: str
    edit: Edit
    selected: Units
    changed: Units
    gone: np.ndarray | None = None
    notes: tuple[Note, ...] = ()
    exact: bool = True
    names: NamesLeft | None = None
    token_ids: TokenIds | None = None


def removal(
    analysis: Analysis,
    chosen: Units,
    notes: Iterable[Note] = (),
    *,
    coupled: bool = True,
    allow_output_change: bool = False,
    drop_branches: bool = False,
    folding: Source | None = None,
) -> Change:
    """The change that removes units.

    Args:
        drop_branches: see `kprune.labels.closure.check`.
        folding: the model, if what zeroed units would still give is to be folded into biases.
    Raises: CannotPruneError if they cannot go.
    """
    if folding is not None and analysis.model.kind == "SavedModel":
        raise CannotPruneError(
            "constants are not folded into a SavedModel",
            why="its biases are additions like any other in a graph of operations",
            do="leave out --fold, or fold in the .keras file and export that",
        )
    closure = close(analysis.groups, chosen)
    check(
        closure,
        allow_output_change=allow_output_change,
        coupled=coupled,
        drop_branches=drop_branches,
    )
    found = [*notes, *removal_notes(analysis, closure), *token_notes(analysis, closure.gone)]
    if folding is None:
        edit = remove_edit(analysis, closure)
    else:
        from kprune.surgery.fold import fold, together

        edit, layers, coupled_too = fold(folding, analysis, closure)
        found += fold_notes(layers, coupled_too)
        # The step then says of itself which units `zero` would have to be given.
        chosen = together(chosen, coupled_too)
    found += _dropped_state(analysis, edit)
    allowed = {"allow_output_change": allow_output_change, "drop_branches": drop_branches}
    options = {name: True for name, given in allowed.items() if given}
    if folding is not None:
        options["fold"] = True
    metadata = with_provenance(
        analysis, backend="remove", units=chosen, options=options, gone=closure.gone
    )
    return Change(
        "remove",
        "remove",
        _with_metadata(edit, metadata),
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
    """The change that takes whole layers out.

    Args:
        names: of layers, or globs.
    Raises: UnknownLayerError; CannotPruneError if what is left would be no sound graph.
    """
    from kprune.surgery.whole_layers import find_whole_layers, refuse_graphs, take_out

    refuse_graphs(analysis)
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
    notes += _dropped_state(analysis, edit)
    options: dict[str, Any] = {"whole_layers": [layer.path for layer in layers]}
    if allow_output_change:
        options["allow_output_change"] = True
    metadata = with_provenance(analysis, backend="remove", units={}, options=options, gone=None)
    return Change(
        "remove", "remove", _with_metadata(edit, metadata), units, units, None, tuple(notes)
    )


def fold_notes(layers: Iterable[str], coupled: Units) -> list[Note]:
    """Which layers took constants over, and which units that were not chosen count as zeroed."""
    notes = [
        Note("folded", path, f"'{clean(path)}' takes over what the removed units always gave")
        for path in dict.fromkeys(layers)
    ]
    for address, indices in coupled.items():
        text = f"units {compact_text(indices.tolist())} of '{clean(address)}' go along, and count as zeroed too"
        notes.append(Note("coupled", address, text))
    return notes


def zeroing(
    source: Source,
    analysis: Analysis,
    chosen: Units,
    notes: Iterable[Note] = (),
    *,
    outgoing: bool = False,
    silence: bool = False,
    coupled: bool = True,
) -> Change:
    """The change that zeroes units."""
    found = list(notes)
    options = {name: True for name, on in (("outgoing", outgoing), ("silence", silence)) if on}
    if outgoing and silence:
        raise UsageError(
            "--silence is for an output layer, which has no consumers", do="leave out --outgoing"
        )
    for address in chosen:
        if analysis.map.axes[address].name == "features":
            raise CannotPruneError(
                f"'{clean(address)}' is the model's input, which has no weights to zero",
                do="use 'kprune remove --allow-output-change' to take input features away",
            )
    changed: Units = chosen
    if outgoing:
        closure: Closure = close(analysis.groups, chosen)
        check_coupled(closure, coupled)
        edit, changed = zero_through(analysis, closure), closure.affected
    else:
        edit = zero_edit(analysis, chosen, silence=silence)
        if not silence:
            from kprune.surgery.constants import emitted

            found += [
                Note("emits", e.layer, e.text)
                for e in emitted.emissions(analysis, source.read, chosen)
            ]
    metadata = with_provenance(analysis, backend="zero", units=chosen, options=options, gone=None)
    return Change(
        "zero", "zero", _with_metadata(edit, metadata), chosen, changed, None, tuple(found)
    )


def check_coupled(closure: Closure, coupled: bool) -> None:
    """Raises: CannotPruneError if others go along and may not."""
    if not coupled and closure.coupled:
        refuse_coupled(closure)


def masking(
    analysis: Analysis,
    statistics: Statistics,
    selections: Iterable[Selection],
    *,
    below: float | None = None,
) -> Change:
    """The change that masks.

    Args:
        selections: units by name, or by rank as for every backend. By name any layer can be meant,
            with or without weights; the indices then count channels of its output.
        below: zero, at run time, activations whose magnitude is under this, instead of all.
    """
    masks = masks_of(analysis)
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
            f"a threshold of {below:g}",
            why="magnitudes are never under 0",
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
    notes += _dropped_state(analysis, edit)
    options = {} if below is None else {"below": below}
    metadata = with_provenance(analysis, backend="mask", units=selected, options=options, gone=None)
    return Change(
        "mask", "mask", _with_metadata(edit, metadata), selected, selected, None, tuple(notes)
    )


def masks_of(analysis: Analysis) -> Any:
    """The module that masks such a model: by layers in a config, or by operations in a graph."""
    if analysis.model.kind == "SavedModel":
        from kprune.saved_model import masks as in_graphs

        return in_graphs
    from kprune.surgery import mask as keras_masks

    return keras_masks


def unmasking(analysis: Analysis, layers: Sequence[str] | None) -> Change:
    """The change that takes masks out. Raises: UsageError if there is none."""
    paths = None
    if layers:
        paths = {path for name in layers for path in layers_named(analysis, parse_layer(name))}
    edit, freed = masks_of(analysis).unmask(analysis, paths)
    if not freed:
        raise UsageError(
            "the model has no mask to take out"
            if paths is None
            else "none of these layers is masked"
        )
    none = {path: np.zeros(0, np.int64) for path in freed}
    notes = tuple(_dropped_state(analysis, edit))
    metadata = without_masks(analysis.metadata, freed)
    return Change("unmask", "mask", _with_metadata(edit, metadata), none, none, None, notes)


def _with_metadata(edit: Edit, metadata: dict[str, Any]) -> Edit:
    return replace(edit, metadata=metadata)


def _dropped_state(analysis: Analysis, edit: Edit) -> list[Note]:
    if not any(prefix in GROUPS for prefix in edit.dropped):
        return []
    why = (
        find_slots(analysis).why
        or "the order of the variables changed, so the optimizer's state was left out"
    )
    return [Note("optimizer", "", why)]
