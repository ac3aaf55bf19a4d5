"""Matching tensors and weights in files that assign them by order.

A legacy `.h5` lists, for each layer of the outermost model, the datasets of all layers inside it:
trainable ones first, in the order of `layer.weights`. Keras compares neither names nor classes when
it loads them. Here the weights that the rules declared are put in that order, held against the
tensors shape by shape, and given their datasets' paths. Where it is not certain which tensor is
which, what stands along the layer's weights is frozen, and its tensors stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kprune.errors import DamagedFileError
from kprune.graph.model import Layer
from kprune.labels.map import LAYER, LabelMap, LayerRecord, Weight
from kprune.text import clean


def bind(
    label_map: LabelMap, layers: Mapping[str, Sequence[str]], tensors: Mapping[str, Any]
) -> dict[str, str]:
    """Give every declared weight the path of its dataset.

    Args:
        label_map: what tracing found; its weights change.
        layers: for each layer of the outermost model the datasets, in order.
        tensors: what is stored, by dataset path.
    Returns: for each dataset of a layer the path that it would have in a `.keras` file; for one
        that no rule knows, a path below its layer's store.
    Raises: DamagedFileError if layers stand in another order than the config puts them, or a layer
        has other tensors than its class has.
    """
    model = label_map.model
    _check_layers(list(model.layers), list(layers))
    homes: dict[str, str] = {}
    for layer in model.layers.values():
        paths = layers.get(layer.name, ())
        homes.update((path, f"{layer.store}/{path}") for path in paths)
        found = list(_declared(label_map, layer))
        # Keras 2's order of `layer.weights`, in which Keras 3 stores them here as well.
        found.sort(key=lambda place: not place.weight.trainable)
        if len(found) < len(paths):
            if found:
                _unbind(label_map, layer, len(paths), len(found))
            continue
        _check_tensors(layer, found, paths, tensors)
        for place, path in zip(found, paths, strict=True):
            homes[path] = homes.get(place.weight.path, place.weight.path)
            place.put(path)
    return homes


class _Place(Struct):
    """A weight of a layer, at one place where the layer stands."""

    record: LayerRecord
    key: str
    weight: Weight
    again: bool

    def put(self, path: str) -> None:
        if not self.again:
            self.weight.path = path
            return
        # A layer that stands in two models is stored with each: both are cut alike.
        copy = replace(self.weight, path=path, duplicate=True)
        self.record.weights[f"{self.key} in {path}"] = copy


def _declared(label_map: LabelMap, layer: Layer) -> Iterator[_Place]:
    """The weights of a layer and of all layers inside it, in the order of `layer.weights`."""
    record = label_map.records.get(layer.twin or layer)
    if record is not None:
        yield from _of_record(label_map, record, layer.twin is not None)
    if layer.model is not None:
        for inner in layer.model.layers.values():
            yield from _declared(label_map, inner)


def _of_record(label_map: LabelMap, record: LayerRecord, again: bool) -> Iterator[_Place]:
    for key, weight in list(record.weights.items()):
        if " in " in key:
            continue
        if weight.duplicate:
            del record.weights[key]  # such a file lists no variable twice
        else:
            yield _Place(record, key, weight, again)
    for child in record.children.values():
        yield from _of_record(label_map, child, again)
        if child.layer.model is not None:
            for inner in child.layer.model.layers.values():
                yield from _declared(label_map, inner)


def _check_layers(graph: list[str], listed: list[str]) -> None:
    """Keras pairs the layers of the file with those of the model one by one, by no name."""
    unknown = next((name for name in listed if name not in graph), None)
    if unknown is not None:
        raise DamagedFileError(
            f"the file holds weights of a layer '{clean(unknown)}', which the model does not have",
            where="layer_names",
            do="check that the file loads in Keras",
        )
    known = set(listed)
    if [name for name in graph if name in known] != listed:
        raise DamagedFileError(
            "the file lists the layers' weights in a different order from the config",
            where="layer_names",
            why="Keras relies on the order, so layers would get each other's weights",
            do="check that the file loads in Keras, and save it again there",
        )


def _check_tensors(
    layer: Layer, found: list[_Place], paths: Sequence[str], tensors: Mapping[str, Any]
) -> None:
    if len(found) > len(paths):
        raise DamagedFileError(
            f"'{clean(layer.path)}' has {len(paths)} tensors in the file, "
            f"but its config requires {len(found)}",
            where="weight_names",
            do="check that the file loads in Keras; a model that was never built has no weights",
        )
    for place, path in zip(found, paths, strict=True):
        want, have = place.weight.shape, tuple(tensors[path].shape)
        if len(want) != len(have) or any(
            size is not None and size != there for size, there in zip(want, have, strict=True)
        ):
            raise DamagedFileError(
                f"the {place.weight.name} of '{clean(place.weight.layer.path)}' has shape {have} "
                f"in the file, but the config requires {want}",
                where=clean(path, 200),
                do="check that the file loads in Keras",
            )
    wanted = [place.weight.name for place in found]
    names = [path.rpartition("/")[2].partition(":")[0] for path in paths]
    # Names decide nothing in Keras, but the same names in another order are not what it wrote.
    if names != wanted and sorted(names) == sorted(wanted):
        raise DamagedFileError(
            f"the tensors of '{clean(layer.path)}' are listed in an order that Keras does not write",
            where="weight_names",
            why=f"they are called {clean(', '.join(names), 120)}, "
            f"where Keras has {clean(', '.join(wanted), 120)}",
            do="check that the file loads in Keras, and save it again there",
        )


def _unbind(label_map: LabelMap, layer: Layer, stored: int, known: int) -> None:
    """Nobody can tell which tensor is which: what stands along the layer's weights stays."""
    why = (
        f"'{clean(layer.path)}' has {stored} tensors in the file, of which kprune's rules know "
        f"{known}, and only their order says which is which"
    )
    held = [np.zeros(0, np.int64)]
    for place in list(_declared(label_map, layer)):
        held += [axis.all_ids() for axis in place.weight.axes]
        place.record.weights.pop(place.key, None)
        for axis in place.record.axes.values():
            held.append(axis.ids)
            label_map.axes.pop(axis.address, None)
    label_map.freeze(np.concatenate(held), why, layer.path, subject=LAYER)
