"""The legacy `.h5` of whole models, as Keras 2 and Keras 3 write it.

The architecture is a text in an attribute of the root. Weights stand under `model_weights/<layer>`,
and attributes list their names: which tensor is which is a matter of that order alone, for Keras
compares no names when it loads. The format has no checksums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, ClassVar

import numpy as np

from kprune.atomic import new_file
from kprune.edit import Edit
from kprune.errors import Cannot, DamagedFileError
from kprune.faults import damaged, writing
from kprune.formats import stream
from kprune.formats.bounded_json import json_object
from kprune.formats.hdf5.attributes import Attribute, Stored, encoded
from kprune.formats.hdf5.layout import Layout, check_layout, lay_out
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.lookalikes import refuse_hdf5
from kprune.formats.opening import OpenFile
from kprune.formats.output_tensors import Outcome, require_sound, resolve
from kprune.formats.output_tensors import attributes as outcome_attributes
from kprune.formats.source import Order, Source, json_bytes
from kprune.text import clean
from kprune.types import AnyPath, Progress

WEIGHTS = "model_weights"
OPTIMIZER = "optimizer_weights"
CONFIG, TRAINING, PROVENANCE = "model_config", "training_config", "kprune"
LAYER_NAMES, WEIGHT_NAMES = "layer_names", "weight_names"
_WEIGHTS_ALONE = ("layers", "_layer_checkpoint_dependencies", "vars")  # groups of a .weights.h5
_MOST_IN_HEADER = 64512  # bytes of one attribute (keras/src/legacy/saving/legacy_h5_format.py)
_REFERENCE = 16  # bytes that a text of variable length takes there


def open_source(file: OpenFile) -> Source:
    """Open a legacy `.h5`. The source closes `file`, also if it cannot be opened."""
    return LegacyH5(file)


class LegacyH5(Source):
    """A whole model in one HDF5 file.

    `metadata` holds `keras_version`, `backend` and `training_config` as far as the file has them,
    and `kprune`, which is written as an attribute of that name.
    """

    format = "h5"
    cannot: ClassVar[Mapping[str, Cannot]] = {
        "tune": Cannot(
            "a file of format h5 cannot be trained on",
            do="convert it first: kprune remove … -o NAME.keras, or save it from Keras as .keras",
        )
    }
    weights: Hdf5Weights
    order: Order

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.path = file.path
        self.bytes = file.size
        with ExitStack() as held:
            held.callback(file.close)
            self.weights = held.enter_context(closing(Hdf5Weights(file.window(), "its tensors")))
            self.attributes = self.weights.attribute_values()
            self.config = self._config()
            self.metadata = self._metadata()
            self.order = self._order()
            self._held = held.pop_all()

    def close(self) -> None:
        self._held.close()

    def check_integrity(self) -> None:
        """There is nothing to compare with: opening has checked that all bytes are there."""

    def _config(self) -> dict[str, Any]:
        text = self.attributes.get("", {}).get(CONFIG)
        if isinstance(text, str) and WEIGHTS in self.weights.table.groups:
            return json_object(text.encode(errors="surrogatepass"), self.file, CONFIG)
        if text is None and self.weights.tensors:
            raise refuse_hdf5(self.file, weights=self._holds_weights())
        raise damaged(self.file, f"it has no text {CONFIG}, or no group {WEIGHTS}")

    def _holds_weights(self) -> bool:
        """Whether Keras wrote the file with `save_weights`."""
        groups = self.weights.table.groups
        return bool(_parts(self.attributes.get("", {}), LAYER_NAMES)) or any(
            name in groups for name in (*_WEIGHTS_ALONE, WEIGHTS)
        )

    def _metadata(self) -> dict[str, Any]:
        root = self.attributes.get("", {})
        found: dict[str, Any] = {
            name: root[name]
            for name in ("keras_version", "backend")
            if isinstance(root.get(name), str)
        }
        for name in (TRAINING, PROVENANCE):
            text = root.get(name)
            if name == PROVENANCE and not isinstance(text, str | None):
                raise damaged(self.file, "it is not text", where=f"attribute {PROVENANCE}")
            if isinstance(text, str):
                found[name] = json_object(text.encode(errors="surrogatepass"), self.file, name)
        return found

    def _order(self) -> Order:
        layers = {}
        for name in self._listed(WEIGHTS, LAYER_NAMES):
            group = f"{WEIGHTS}/{name}"
            if name in layers or group not in self.weights.table.places:
                raise damaged(
                    self.file, f"{clean(name)} is listed twice, or not there", where=LAYER_NAMES
                )
            layers[name] = self._datasets(group)
        optimizer = OPTIMIZER in self.weights.table.places
        return Order(
            {name: paths for name, paths in layers.items() if paths},
            self._datasets(OPTIMIZER) if optimizer else (),
        )

    def _datasets(self, group: str) -> tuple[str, ...]:
        paths = tuple(f"{group}/{name}" for name in self._listed(group, WEIGHT_NAMES))
        missing = [path for path in paths if path not in self.weights.tensors]
        if missing or len(set(paths)) < len(paths):
            why = f"no {clean(missing[0])}" if missing else "the same tensor twice"
            raise damaged(self.file, f"it lists {why}", where=f"{clean(group)}, {WEIGHT_NAMES}")
        return paths

    def _listed(self, group: str, name: str) -> list[str]:
        """A list of texts in an attribute, or in several that are numbered from 0."""
        found = self.attributes.get(group, {})
        parts = [found[part] for part in _parts(found, name)]
        texts: list[str] = []
        for part in parts:
            if isinstance(part, list):
                texts += part
            elif not (isinstance(part, np.ndarray) and part.size == 0):  # an empty list of Keras
                raise self._no_list(group, name)
        return texts

    def _no_list(self, group: str, name: str) -> DamagedFileError:
        return damaged(self.file, "it is not a list of names", where=f"{clean(group)}, {name}")

    # -- writing -----------------------------------------------------------------------------------

    def output_size(self, edit: Edit) -> int:
        return self._plan(edit)[1].size

    def write(self, edit: Edit, output: AnyPath, force: bool, progress: Progress | None) -> int:
        with new_file(output, force=force) as new:
            outcome, layout = self._plan(edit)
            with writing(new.name):
                os.ftruncate(new.fd, layout.size)
            target = stream.Target(new.fd, 0, new.name)
            stream.copy_weights(
                self.weights, outcome, layout, target, verify=False, progress=progress
            )
            target.checksum(layout.size)  # it is not stored, but a hole would be noticed
            check_layout(layout, new.fd, 0, new.name)
            new.commit(self.file.check_unchanged)
        return layout.size

    def _plan(self, edit: Edit) -> tuple[Outcome, Layout]:
        edit = self.settled(edit)
        outcome = resolve(self.weights.table, edit)
        require_sound(outcome, edit, self.outline, self.order.layers)
        emptied = self._emptied(outcome)
        objects = [item for item in outcome.objects if item not in emptied]
        attributes: dict[str, dict[str, Attribute]] = {
            path: dict(found) for path, found in self.attributes.items() if path not in emptied
        }
        attributes.setdefault("", {})[CONFIG] = json_bytes(edit.config).decode()
        if edit.metadata.get(TRAINING) is None:
            attributes[""].pop(TRAINING, None)
        elif edit.metadata[TRAINING] != self.metadata.get(TRAINING):
            attributes[""][TRAINING] = json_bytes(edit.metadata[TRAINING]).decode()
        if PROVENANCE in edit.metadata:
            attributes[""][PROVENANCE] = json_bytes(edit.metadata[PROVENANCE]).decode()
        for group, found in attributes.items():
            for part in _parts(found, WEIGHT_NAMES):
                names = found[part]
                if isinstance(names, list):
                    left = [name for name in names if f"{group}/{name}" in outcome.origins]
                    found[part] = names if left == names else left
        self._list_layers(attributes.get(WEIGHTS, {}), emptied, edit.order)
        stored = self._stored(attributes, emptied)
        for path, more in outcome_attributes(outcome, edit).items():
            stored.setdefault(path, {}).update(more)
        return outcome, lay_out(objects, stored)

    def _stored(
        self, attributes: dict[str, dict[str, Attribute]], emptied: set[Any]
    ) -> dict[str, dict[str, Stored]]:
        """Attributes as they are written; those that nobody changed, and those of kinds that are
        not read here, as they were stored."""
        found: dict[str, dict[str, Stored]] = {}
        for path, held in self.weights.attributes.items():
            if path not in emptied:
                known = self.attributes.get(path, {})
                found[path] = {name: it for name, it in held.items() if name not in known}
        for path, values in attributes.items():
            before = self.attributes.get(path, {})
            to = found.setdefault(path, {})
            for name, value in _storable(values):
                same = before.get(name) is value
                to[name] = self.weights.attributes[path][name] if same else encoded(name, value)
        return found

    def _emptied(self, outcome: Outcome) -> set[Any]:
        """Groups that lost every tensor they had: of a layer that went, of the optimizer."""
        before = _around(self.weights.tensors)
        return before - _around(outcome.origins)

    def _list_layers(
        self, found: dict[str, Attribute], emptied: set[Any], order: tuple[str, ...]
    ) -> None:
        names = self._listed(WEIGHTS, LAYER_NAMES)
        left = [name for name in names if f"{WEIGHTS}/{name}" not in emptied]
        if order:
            place = {name: number for number, name in enumerate(order)}
            left.sort(key=lambda name: place.get(name, len(place)))
        for part in _parts(found, LAYER_NAMES):
            listed = found[part]
            count = len(listed) if isinstance(listed, list) else 0
            found[part], left = left[:count], left[count:]


def _parts(found: Mapping[str, Attribute], name: str) -> list[str]:
    """The attributes that hold a list: a long one is split into `name0`, `name1`, …"""
    if name in found:
        return [name]
    ends = (part[len(name) :] for part in found if part.startswith(name))
    return [name + end for end in sorted((e for e in ends if e.isascii() and e.isdigit()), key=int)]


def _around(paths: Mapping[str, Any]) -> set[Any]:
    """All groups around some tensors."""
    groups = set()
    for path in paths:
        while path := path.rpartition("/")[0]:
            groups.add(path)
    return groups


def _storable(found: Mapping[str, Attribute]) -> Iterator[tuple[str, Attribute]]:
    for name, value in found.items():
        if isinstance(value, list) and not value:
            yield name, np.zeros(0)  # what Keras writes for an empty list
        elif isinstance(value, list) and len(value) * _REFERENCE > _MOST_IN_HEADER:
            yield (
                name,
                np.array([text.encode() for text in value]),
            )  # of fixed length, as Keras has it
        else:
            yield name, value
