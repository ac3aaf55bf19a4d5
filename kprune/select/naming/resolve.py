"""From names and indices to units of a model."""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import SpecError, UnknownLayerError, UsageError
from kprune.graph.model import Layer
from kprune.labels.map import TOKENS, LayerRecord, UnitAxis
from kprune.select.indices import FromFile, Indices, Where
from kprune.select.pointing import did_you_mean
from kprune.select.specs import LayerName, Spec, parse_layer, parse_spec, spec_from_pair
from kprune.labels.map import LayerRecord, UnitAxis
from kprune.pointing import did_you_mean
from kprune.select.naming.indices import Indices, Where
from kprune.select.naming.specs import LayerName, Spec, parse_layer, parse_spec, spec_from_pair
from kprune.sets import distinct
from kprune.text import clean


class Environment(Protocol):
    """Where the numbers of an expression come from."""

    def env(self, axis: UnitAxis, names: Iterable[str]) -> Mapping[str, np.ndarray]: ...


def specs_from(units: Any) -> list[Spec]:
    """Specs from what a caller gives.

    Args:
        units: a mapping from LAYER[.AXIS] to indices, a spec as text, or a sequence of specs.
    Raises: SpecError for anything else.
    """
    if isinstance(units, Mapping):
        return [spec_from_pair(str(name), indices) for name, indices in units.items()]
    if isinstance(units, (str, Spec)):
        units = [units]
    if not isinstance(units, Sequence):
        raise SpecError(
            f"units are given as a {type(units).__name__}",
            do="give a mapping such as {'dense_1': [3, 7, 12]}, or specs such as 'dense_1:3,7,12'",
        )
    return [spec if isinstance(spec, Spec) else parse_spec(spec) for spec in units]


def is_glob(name: LayerName) -> bool:
    return not name.exact and any(sign in name.layer for sign in "*?[")


def axes_named(analysis: Analysis, name: LayerName) -> list[UnitAxis]:
    """The axes of units that a name means: one, or for a glob all that match.

    Raises:
        UnknownLayerError: there is no such layer, or it has no such axis; with the nearest names.
        UsageError: the layer has no units, or none of those that match has.
    """
    axes = analysis.map.axes
    layers = {layer.path: layer for layer in analysis.map.records}
    for layer_name, axis_name in name.candidates():
        layer_name = _whole_path(analysis, layer_name, layers)
        if is_glob(name) and layer_name not in layers:
            found = [
                axis
                for axis in axes.values()
                if _matches(analysis, axis.layer.path, layer_name)
                and axis.name != "features"
                and (axis.name == axis_name if axis_name else axis.default)
            ]
            if found:
                return found
            continue
        address = f"{layer_name}.{axis_name}" if axis_name else layer_name
        if address in axes:
            return [axes[address]]
        for axis in axes.values():
            if axis.layer.path == layer_name and axis_name in (None, axis.name):
                return [axis]
        if layer_name in layers:
            raise _no_such_axis(analysis, name, layer_name, axis_name)
    raise _unknown(analysis, name, layers)


def _whole_path(analysis: Analysis, path: str, known: Container[str]) -> str:
    """The path of a layer inside a wrapped model, which may be named without that model's own name."""
    if path in known:
        return path
    return next((full for full, short in analysis.short_paths.items() if short == path), path)


def _matches(analysis: Analysis, path: str, glob: str) -> bool:
    names = (path, analysis.short_paths.get(path, path))
    return any(fnmatch.fnmatchcase(name, glob) for name in names)


def layers_named(analysis: Analysis, name: LayerName) -> list[str]:
    """Paths of the layers that a name means, with or without units (for masks)."""
    paths = [layer.path for layer in analysis.leaf_layers]
    models = [layer.path for layer in analysis.model.walk() if layer.model is not None]
    whole = _whole_path(analysis, name.layer, {*paths, *models})
    if whole in paths or whole in models:
        return [whole]
    if is_glob(name):
        found = [path for path in paths if _matches(analysis, path, name.layer)]
        if found:
            return found
    for layer, axis in name.candidates():
        if axis and f"{_whole_path(analysis, layer, paths)}.{axis}" in analysis.map.axes:
            raise UsageError(
                f"a mask is put on what '{clean(layer)}' gives, and '{clean(axis)}' is no axis of that",
                where=name.where(),
                do=f"write '{clean(layer)}:INDICES' for channels, or use 'kprune zero'",
            )
    raise _unknown(analysis, name, dict.fromkeys([*paths, *models]))


def whole_layers_named(analysis: Analysis, names: Iterable[str]) -> list[Layer]:
    """Layers that names or globs mean, models and operations among them.

    Raises: UnknownLayerError if one means none.
    """
    layers = {layer.path: layer for layer in analysis.model.walk()}
    found: dict[Layer, None] = {}
    for text in names:
        name = parse_layer(text)
        whole = _whole_path(analysis, name.layer, layers)
        if whole in layers:
            found[layers[whole]] = None
            continue
        matched = [
            layer
            for path, layer in layers.items()
            if is_glob(name) and _matches(analysis, path, name.layer)
        ]
        if not matched:
            raise _unknown(analysis, name, layers)
        found.update(dict.fromkeys(matched))
    return list(found)


def _no_such_axis(analysis: Analysis, name: LayerName, layer: str, axis: str | None) -> UsageError:
    own = [found.name for found in analysis.map.axes.values() if found.layer.path == layer]
    if axis is not None and own:
        return UnknownLayerError(
            f"'{clean(layer)}' has no axis of units called '{clean(axis)}'",
            where=name.where(),
            do=f"it has {', '.join(own)}",
        )
    record = next(record for record in analysis.map.records.values() if record.layer.path == layer)
    makers = _makers(analysis, record)
    listed = ", ".join(map(clean, makers))
    hint = f"the units that pass through it belong to {listed}" if makers else ""
    if makers and record.layer.inside is not None:
        hint = f"it is made of other layers, and what it gives are the units of {listed}"
    held = (freeze.do for freeze in analysis.map.freezes if freeze.at == layer and freeze.do)
    do = next(held, "") if record.opaque else "name one of those layers" if hint else ""
    return UsageError(
        f"layer '{clean(layer)}' ({clean(record.layer.kind)}) has no units of its own",
        where=name.where(),
        why=record.opaque or hint,
        do=do or "'kprune inspect' lists the layers that have units",
    )


def _makers(analysis: Analysis, record: LayerRecord) -> list[str]:
    """Whose units reach a layer; for a model, or what wraps one, whose units it gives."""
    gives = record.layer.inside is not None
    found: dict[str, None] = {}
    for visit in record.visits:
        for labels in visit.outputs if gives else visit.inputs:
            owners = distinct(analysis.groups.owner[labels.all_ids()])
            found.update((list(analysis.map.axes)[owner], None) for owner in owners if owner >= 0)
    return list(found)[:4]


def _unknown(analysis: Analysis, name: LayerName, layers: Mapping[str, Any]) -> UnknownLayerError:
    what = "no layer matches" if is_glob(name) else "there is no layer called"
    hint = did_you_mean(name.layer, layers)
    return UnknownLayerError(
        f"{what} '{clean(name.layer)}'{'; ' + hint if hint else ''}",
        where=name.where(),
        do="'kprune inspect' lists the layers",
    )


def resolve(
    analysis: Analysis, specs: Iterable[Spec], environment: Environment
) -> dict[str, np.ndarray]:
    """Units by address of their axis, sorted int64 indices; what is named twice counts once.

    Raises: the errors of `axes_named` and of `Indices.resolve`.
    """
    chosen: dict[str, np.ndarray] = {}
    for spec in specs:
        axes = axes_named(analysis, spec)
        several = len(axes) > 1
        for axis in axes:
            indices = _rows_or_units(analysis, spec.indices, axis, environment, allow_empty=several)
            before = chosen.get(axis.address, np.zeros(0, np.int64))
            chosen[axis.address] = distinct(before, indices)
        if several and not any(chosen[axis.address].size for axis in axes):
            raise UsageError("no unit of the layers that match is chosen", where=spec.where())
    return {address: indices for address, indices in chosen.items() if indices.size}


def _rows_or_units(
    analysis: Analysis,
    indices: Indices,
    axis: UnitAxis,
    environment: Environment,
    *,
    allow_empty: bool,
) -> np.ndarray:
    """The same as `indices_of`; a file may list the rows of an embedding by their tokens as well."""
    try:
        return indices_of(indices, axis, environment, allow_empty=allow_empty)
    except SpecError:
        source = getattr(environment, "source", None)
        if axis.name != TOKENS or not isinstance(indices, FromFile) or source is None:
            raise
        from kprune.select.kept_tokens import rows_of_tokens

        rows = rows_of_tokens(analysis, source, axis, indices.name, indices.base)
        if rows is None:
            raise
        return np.setdiff1d(np.arange(len(axis)), rows) if indices.complement else rows


def indices_of(
    indices: Indices, axis: UnitAxis, environment: Environment, *, allow_empty: bool = False
) -> np.ndarray:
    """Which units of one axis some indices mean."""
    env = environment.env(axis, indices.expression.names) if isinstance(indices, Where) else None
    what = f"layer '{clean(axis.address)}'"
    return indices.resolve(len(axis), what=what, env=env, allow_empty=allow_empty)


def excluded(analysis: Analysis, names: Iterable[str]) -> set[str]:
    """Addresses that `--exclude` or a plan's `exclude` leaves as they are."""
    return {axis.address for name in names for axis in axes_named(analysis, parse_layer(name))}
