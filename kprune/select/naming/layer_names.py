"""From names to layers of a model, and to their axes of units."""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Iterable, Mapping
from typing import Any

from kprune.analysis.analysis import Analysis
from kprune.errors import UnknownLayerError, UsageError
from kprune.graph.model import Layer
from kprune.labels.map import LayerRecord, UnitAxis
from kprune.pointing import did_you_mean
from kprune.select.naming.specs import LayerName, parse_layer
from kprune.sets import distinct
from kprune.text import clean


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
                f"a mask covers the output of '{clean(layer)}', and '{clean(axis)}' is not an axis of it",
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
