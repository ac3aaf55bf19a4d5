"""A config with its sizes cut: units, constants, recorded shapes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import NoneType
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import DamagedFileError
from kprune.graph.copies import copied
from kprune.graph.model import Call, Layer, Model, as_shape, leaves
from kprune.graph.parse import INPUT
from kprune.labels.labels import Labels, Shape
from kprune.labels.map import LabelMap, LayerRecord
from kprune.labels.tokens import entries_left
from kprune.surgery.compile_config.compile_config import recompiled


def config_without(
    analysis: Analysis, gone: np.ndarray, branches: Collection[Layer] = ()
) -> dict[str, Any]:
    """The config of a model after some labels are gone.

    Args:
        gone: bool (labels,).
        branches: layers that go as a whole.
    Raises: CannotPruneError if Keras would not rebuild a custom layer as it is needed.
    """
    own = getattr(analysis, "rewritten", None)  # a SavedModel's graphs are rewritten node by node
    if own is not None:
        found: dict[str, Any] = own(gone, branches)
        return found
    if analysis.rebuild_check is not None:
        analysis.rebuild_check.require(gone)
    specs = recompiled(analysis, gone).specs
    return Rewriter(analysis.config, analysis.map, gone).run(branches, specs)


class Rewriter:
    """Makes the config of a model from which some labels are gone.

    Args:
        config: the whole config.json; it is copied, not changed.
        label_map: what tracing its graph found.
        gone: bool (labels,).
    """

    def __init__(self, config: dict[str, Any], label_map: LabelMap, gone: np.ndarray) -> None:
        self._map, self._gone = label_map, gone
        self._copies: dict[int, Any] = {}
        self.config: dict[str, Any] = copied(config, self._copies)

    def run(
        self,
        branches: Collection[Layer] = (),
        compiled: Iterable[tuple[dict[str, Any], dict[str, Any] | None]] = (),
    ) -> dict[str, Any]:
        """The new config.

        Args:
            branches: layers that go as a whole.
            compiled: dicts of the old config that hold a `compile_config`, each with the new one.
        """
        self._sizes()
        self._blocks()
        self._follows()
        self._arrays()
        self._vocabularies()
        self._model(self._map.model)
        for record in self._map.records.values():
            if record.layer.model is not None:
                self._model(record.layer.model)
            self._build_config(record)
        for spec, new in compiled:
            self.new(spec)["compile_config"] = new
        self._twins()
        for layer in branches:
            self._take_out(layer, branches)
        return self.config

    def _take_out(self, layer: Layer, branches: Collection[Layer]) -> None:
        """Take a layer out of its model, and what it gives out of the lists that it was joined with."""
        owner = next(
            model
            for model in [
                self._map.model,
                *(r.layer.model for r in self._map.records.values() if r.layer.model),
            ]
            if model.layers.get(layer.name) is layer
        )
        config = self.new(owner.spec["config"])
        config["layers"].remove(self.new(layer.spec))
        for call in owner.calls:
            if call.layer in branches or not any(ref.layer == layer.name for ref in call.inputs):
                continue
            entry = self.new(call.layer.spec)
            entry.pop("build_config", None)
            for node in entry["inbound_nodes"]:
                listed = node["args"][0] if isinstance(node, dict) else node
                listed[:] = [tensor for tensor in listed if _source(tensor) != layer.name]

    def new(self, old: Any) -> Any:
        """The copy of a dict or list of the old config."""
        return self._copies[id(old)]

    def shape(self, labels: Labels, recorded: Shape) -> list[int | None]:
        """A recorded shape without the removed positions.

        Raises: DamagedFileError if positions go from a tensor that has another shape: Keras may load
            that, and would not load what were left of it.
        """
        result = list(recorded)
        if labels.shape is None:
            return result
        for axis, found in enumerate(labels.shape):
            along = labels.axis(axis)
            gone = int(along.dead(self._gone).sum()) if along.factors else 0
            if not gone:
                continue
            if len(result) != labels.rank or result[axis] not in (None, found):
                raise _contradictory(recorded, labels.shape)
            if result[axis] is not None:
                result[axis] = found - gone if found is not None else None
        return result

    def _sizes(self) -> None:
        for size in self._map.sizes:
            dead = size.axis.dead(self._gone)
            if size.field and dead.any():
                holder = self.new(size.layer.config)
                for part in size.field[:-1]:
                    holder = holder[part]
                holder[size.field[-1]] = int((~dead).sum())

    def _blocks(self) -> None:
        for blocks in self._map.blocks:
            left = int((~self._gone[blocks.sides[0]]).any(axis=1).sum())
            if left != len(blocks.sides[0]):
                self.new(blocks.layer.config)[blocks.field] = left

    def _follows(self) -> None:
        for follow in self._map.follows:
            dead = [axis.dead(self._gone) for axis in follow.axes]
            if any(gone.any() for gone in dead):
                self.new(follow.record)[follow.key] = follow.value(*(~gone for gone in dead))

    def _arrays(self) -> None:
        for array in self._map.arrays:
            dead = [along.dead(self._gone) if along.factors else None for along in array.axes]
            if not any(gone is not None and gone.any() for gone in dead):
                continue
            value = np.asarray(array.array.record[array.array.key], dtype=object)
            if array.shape is not None:
                value = value.reshape(array.shape)
            for axis, gone in enumerate(dead):
                if gone is not None:
                    value = value.compress(~gone, axis)
            self.new(array.array.record)[array.array.key] = value.tolist()

    def _vocabularies(self) -> None:
        for source in self._map.token_sources:
            dead = self._gone[source.ids]
            if not source.lookup or not dead.any():
                continue
            config = self.new(source.layer.config)
            if config.get("vocabulary") is not None:
                config["vocabulary"] = entries_left(source, self._gone)
            for field in ("vocabulary_size", "max_tokens"):
                # Rows behind the vocabulary stand for nothing yet.
                if isinstance(size := config.get(field), int):
                    # Keras takes a limit of 2 for the least there is.
                    config[field] = max(size - int(dead[:size].sum()), 2)

    def _model(self, model: Model) -> None:
        """Recorded shapes: of every argument, of inner input layers, of a Sequential's input."""
        for call in model.calls:
            for ref in call.inputs:
                labels = self._map.tensors.get((model.path, *ref.key))
                if ref.record is not None and ref.shape is not None and labels is not None:
                    self.new(ref.record)["shape"] = self.shape(labels, ref.shape)
            self._declared(model, call)
        config = model.spec["config"]
        first = next((ref for ref in leaves(model.inputs) if ref is not None), None)
        if first is not None and as_shape(config.get("build_input_shape")):
            labels = self._map.tensors.get((model.path, *first.key))
            if labels is not None:
                self.new(config)["build_input_shape"] = self.shape(
                    labels, config["build_input_shape"]
                )

    def _declared(self, model: Model, call: Call) -> None:
        """The shape that a layer says it takes: an input layer, and in Keras 2 any that was first in a Sequential."""
        read = (call.layer.name, call.node, 0) if call.layer.kind == INPUT else None
        if read is None and call.inputs:
            read = call.inputs[0].key
        labels = None if read is None else self._map.tensors.get((model.path, *read))
        for field in ("batch_shape", "batch_input_shape"):
            shape = as_shape(call.layer.config.get(field))
            if shape and labels is not None:
                self.new(call.layer.config)[field] = self.shape(labels, shape)

    def _build_config(self, record: LayerRecord) -> None:
        """Keras builds a layer from its build_config before it is called: one that is not true is an error.

        Where it is not clear which shape became which, it goes: Keras then builds at the call.
        """
        spec = record.layer.spec
        built = spec.get("build_config")
        if not built or not record.visits:
            return
        became: dict[Shape, set[tuple[int | None, ...]]] = {}
        for labels in record.visits[0].inputs:
            if labels.shape is not None:
                became.setdefault(labels.shape, set()).add(tuple(self.shape(labels, labels.shape)))
        if all(new == {old} for old, new in became.items()):
            return
        clear = True

        def replace(value: Any) -> Any:
            nonlocal clear
            if isinstance(value, dict):
                return {key: replace(item) for key, item in value.items()}
            if not isinstance(value, list):
                return value
            if any(isinstance(item, (list, dict)) for item in value):
                # Beside a shape stands no number: what holds both is none.
                clear = clear and all(isinstance(item, (list, dict, NoneType)) for item in value)
                return [replace(item) for item in value]
            new = _matching(tuple(value), became)
            clear = clear and len(new) == 1
            return list(next(iter(new))) if new else value

        replaced = replace(built)
        target = self.new(spec)
        if clear:
            target["build_config"] = replaced
        else:
            del target["build_config"]

    def _twins(self) -> None:
        """A layer shared between models stands in the config of each."""
        for layer in self._map.model.walk():
            if layer.twin is not None:
                first: Layer = layer.twin
                self.new(layer.spec)["config"] = copied(self.new(first.spec)["config"])
                for key in ("build_config", "compile_config"):
                    if key in layer.spec:
                        self.new(layer.spec)[key] = copied(self.new(first.spec).get(key))


def _source(tensor: Any) -> Any:
    """Which layer gave a tensor, in either dialect."""
    return tensor["config"]["keras_history"][0] if isinstance(tensor, dict) else tensor[0]


def _matching(
    shape: Shape, became: Mapping[Shape, set[tuple[int | None, ...]]]
) -> set[tuple[int | None, ...]]:
    """What a shape in a build_config became; sizes that it leaves open match any."""
    found: set[tuple[int | None, ...]] = set()
    for old, new in became.items():
        if len(old) == len(shape) and all(
            a is None or b is None or a == b for a, b in zip(old, shape, strict=True)
        ):
            found |= {
                tuple(
                    None if there is None else size
                    for size, there in zip(sizes, shape, strict=True)
                )
                for sizes in new
            }
    return found


def _contradictory(recorded: Shape, found: Shape) -> DamagedFileError:
    return DamagedFileError(
        "the model's config contradicts itself",
        why=f"it records the shape {recorded} of a tensor of shape {found}, which would be cut",
        do="load and save it in Keras; then the shapes agree",
    )
