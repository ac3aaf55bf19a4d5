"""What differs between two model files: layers, units, parameters, operations, bytes, values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import Counts, LayerCount, count
from kprune.edit import TensorEdit
from kprune.formats import Source
from kprune.graph.model import Model
from kprune.graph.weight_groups import is_state
from kprune.opened import LiveModel, Opened, opened
from kprune.page.result import Note
from kprune.pointing import checked
from kprune.report.facts import facts
from kprune.surgery.provenance import left_units
from kprune.surgery.remove import cut_weight
from kprune.types import AnyPath, Progress
from kprune.views.difference import Difference, LayerDiff, WeightDiff
from kprune.views.fields import FieldChange, connections, field_changes, model_changes
from kprune.views.values import Compared, compare

_SUMMED = (
    "units_before",
    "units_after",
    "parameters_before",
    "parameters_after",
    "flops_before",
    "flops_after",
)


@checked()
def diff(
    a: AnyPath | LiveModel,
    b: AnyPath | LiveModel,
    *,
    rules: Iterable[str] = (),
    trust: bool = False,
    progress: Progress | None = None,
) -> Difference:
    """Say what differs between two model files. Values are compared block by block.

    If kprune made `b`, its record of the remaining units is used, so that their values are compared
    with the values that they had in `a`.

    Args:
        a, b: paths of model files, of which one may be `-` for standard input; or Keras models.
        rules: files with rules for layers that kprune does not know.
        trust: whether code that is not Keras's own may be run to read the model.
        progress: called with (bytes compared, bytes in all).
    Raises: FileError if a file cannot be read, CannotPruneError if one holds no graph.
    """
    with (
        opened(a, rules=rules, trust=trust) as old,
        opened(b, rules=rules, trust=trust) as new,
    ):
        return difference(old, new, progress)


def difference(one: Opened, other: Opened, progress: Progress | None = None) -> Difference:
    """The same for opened models."""
    old, before, new, after = one.source, one.analysis, other.source, other.analysis
    counts = count(before), count(after)
    weights = _weights(old, before, new, after, progress)
    fields = field_changes(before.model, after.model)
    layers = _as_models(
        _layers(counts, fields, _rewired(before, after), weights), before.model, after.model
    )
    rest = model_changes(before.config, after.config)
    notes = _optimizer(old, new)
    return Difference(
        equal=not (layers or weights or rest or notes),
        a=facts(one, counts[0]),
        b=facts(other, counts[1]),
        layers=layers,
        weights=weights,
        fields=rest,
        notes=notes,
    )


# -- layers ---------------------------------------------------------------------------------------


def _layers(
    counts: tuple[Counts, Counts],
    fields: Iterable[FieldChange],
    rewired: Iterable[FieldChange],
    weights: Iterable[WeightDiff],
) -> list[LayerDiff]:
    changed: dict[str, list[FieldChange]] = {}
    for field in (*fields, *rewired):
        changed.setdefault(field.layer, []).append(field)
    values: dict[str, int] = {}
    for weight in weights:
        values[weight.layer] = values.get(weight.layer, 0) + weight.different
    old, new = counts[0].layers, counts[1].layers
    found = []
    for name in _in_order(list(old), list(new)):
        one, other = old.get(name), new.get(name)
        moved = one is None or other is None or _figures(one) != _figures(other)
        if moved or name in changed or name in values:
            found.append(_layer(name, one, other, values.get(name, 0), changed.get(name, [])))
    return found


def _layer(
    name: str,
    old: LayerCount | None,
    new: LayerCount | None,
    values: int,
    fields: list[FieldChange],
) -> LayerDiff:
    there = old or new
    assert there is not None
    return LayerDiff(
        name=name,
        class_=there.kind,
        status="added" if old is None else "removed" if new is None else "changed",
        units_before=old.units if old else None,
        units_after=new.units if new else None,
        parameters_before=old.parameters if old else None,
        parameters_after=new.parameters if new else None,
        flops_before=old.flops if old else None,
        flops_after=new.flops if new else None,
        values_different=values,
        fields=fields if old and new else [],
    )


def _as_models(layers: list[LayerDiff], old: Model, new: Model) -> list[LayerDiff]:
    """The same with one row for each nested model that only one of the two has."""
    paths = [
        {layer.path: layer.kind for layer in model.walk() if layer.model is not None}
        for model in (old, new)
    ]
    found: dict[str, LayerDiff] = {}
    for row in layers:
        there = {"added": 1, "removed": 0}.get(row.status)
        outer = row.name
        if there is not None:
            parts = row.name.split("/")
            fronts = ("/".join(parts[:end]) for end in range(1, len(parts)))
            own = [path for path in fronts if path in paths[there] and path not in paths[1 - there]]
            outer = own[0] if own else row.name
        if outer == row.name:
            found[outer] = row
            continue
        known = found.get(outer)
        found[outer] = _together(known, row, outer, paths[there or 0][outer])
    return list(found.values())


def _together(known: LayerDiff | None, row: LayerDiff, name: str, kind: str) -> LayerDiff:
    """The row of a model, with the figures of one more of its layers."""
    if known is None:
        return replace(row, name=name, class_=kind)
    sums = {
        field: None if one is None and other is None else (one or 0) + (other or 0)
        for field in _SUMMED
        for one, other in [(getattr(known, field), getattr(row, field))]
    }
    return replace(known, **sums)


def _figures(row: LayerCount) -> tuple[Any, ...]:
    return row.kind, row.units, row.parameters, row.trainable, row.flops


def _in_order(old: list[str], new: list[str]) -> list[str]:
    """The first model's layers, with each of the second's own behind what it follows there."""
    known, order = set(old), list(old)
    at = 0
    for name in new:
        if name in known:
            at = order.index(name) + 1
        else:
            order.insert(at, name)
            at += 1
    return order


def _rewired(before: Analysis, after: Analysis) -> list[FieldChange]:
    """Layers of both models that are called on other layers' tensors than before."""
    old, new = connections(before.model), connections(after.model)
    return [
        FieldChange(layer, "inputs", calls, new[layer])
        for layer, calls in old.items()
        if layer in new and new[layer] != calls
    ]


# -- weights --------------------------------------------------------------------------------------

# A weight's name, however Keras numbers the groups: the layer, and the path inside it.
Name = tuple[str, str]


def _weights(
    old: Source, before: Analysis, new: Source, after: Analysis, progress: Progress | None
) -> list[WeightDiff]:
    here, there = _names(before), _names(after)
    cuts = _expected_cuts(before, after)
    called = {weight.path: weight.name for weight in (*after.weights, *before.weights)}
    total = sum(old.tensors[path].nbytes for path in here.values())
    done = 0
    found = []
    for name in dict.fromkeys([*here, *there]):
        one, other = here.get(name), there.get(name)
        compared = _compare(old, one, new, other, cuts)
        if one is not None:
            done += old.tensors[one].nbytes
            if progress is not None:
                progress(done, total)
        shapes = [
            None if path is None else list(source.tensors[path].shape)
            for source, path in ((old, one), (new, other))
        ]
        if shapes[0] != shapes[1] or compared.different:
            label = called.get(one or other or "", name[1])
            found.append(
                WeightDiff(
                    name[0], label, one, other, shapes[0], shapes[1],
                    compared.how, compared.values, compared.different, compared.largest,
                )
            )  # fmt: skip
    return found


def _names(analysis: Analysis) -> dict[Name, str]:
    """Dataset paths of all weights but the optimizer's."""
    stores = {
        layer.store: layer.path
        for layer in analysis.model.walk()
        if layer.store and layer.twin is None
    }
    found = {}
    for path in analysis.tensors:
        if is_state(path):
            continue
        home = group = analysis.home(path)
        while group and group not in stores:
            group = group.rpartition("/")[0]
        found[stores.get(group, ""), home[len(group) :].lstrip("/")] = path
    return found


def _compare(
    old: Source, one: str | None, new: Source, other: str | None, cuts: Mapping[str, TensorEdit]
) -> Compared:
    if one is None or other is None:
        return Compared("no")
    shape = new.tensors[other].shape
    if one not in cuts and old.tensors[one].shape == shape:
        return compare(old, one, new, other)
    cut = cuts.get(one)
    return compare(old, one, new, other, cut) if cut is not None else Compared("no")


def _expected_cuts(before: Analysis, after: Analysis) -> dict[str, TensorEdit]:
    """How each weight of the first was cut, if kprune noted in the second which units are left."""
    gone = _gone(before, after)
    if gone is None:
        return {}
    cuts = ((weight.path, cut_weight(weight, gone)) for weight in before.weights)
    return {path: cut for path, cut in cuts if cut is not None}


def _gone(before: Analysis, after: Analysis) -> np.ndarray | None:
    """bool (labels,) of the first model: what is no more in the second; None if nothing tells.

    Both models may have been pruned from a common one: indices are those of the original.
    """
    old, new = left_units(before.metadata), left_units(after.metadata)
    lost = []
    for address, axis in before.map.axes.items():
        had: Sequence[int] = old.get(address, range(len(axis)))
        has: Sequence[int] | None = new.get(address)
        if has is None:
            twin = after.map.axes.get(address)
            has = had if twin is not None and len(twin) == len(axis) else None
        if has is None or len(had) != len(axis) or not set(has) <= set(had):
            return None
        kept = set(has)
        lost.append(axis.ids[[index for index, original in enumerate(had) if original not in kept]])
    ids = np.concatenate([np.zeros(0, np.int64), *lost])
    return before.groups.spread(ids) if ids.size else None


def _optimizer(old: Source, new: Source) -> list[Note]:
    """A difference in the optimizer's state, in one sentence: its tensors have no names."""
    here, there = (
        {path: t for path, t in source.tensors.items() if is_state(path)} for source in (old, new)
    )
    if not here and not there:
        return []
    if not here or not there:
        which = "second" if not here else "first"
        return [Note("optimizer", "", f"only the {which} file carries the state of an optimizer")]
    if {path: t.shape for path, t in here.items()} != {path: t.shape for path, t in there.items()}:
        return [
            Note("optimizer", "", "the optimizer's state differs in shape, as its variables do")
        ]
    different = sum(compare(old, path, new, path).different for path in here)
    if not different:
        return []
    return [Note("optimizer", "", f"the optimizer's state differs in {different:,} values")]
