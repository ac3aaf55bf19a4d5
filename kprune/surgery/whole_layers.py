"""Whole layers removed, where the rest is a valid graph.

The outputs of the removed layers must come from somewhere else, or not be needed:

    a chain            all that they gave was made of one tensor of the same shape: what read
                       they gave reads that tensor
    a residual branch  what they gave was added to something else, and the tensor that they read is
                       read by others too: the sum goes on without this addend

A sum with only one addend left is removed as well. Nothing is cut: every weight stays whole or is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit
from kprune.errors import CannotPruneError, FrozenUnitsError
from kprune.graph.copies import copied
from kprune.graph.model import Call, Layer, Model, Shape, TensorRef, leaves
from kprune.graph.parse import INPUT
from kprune.graph.value_kinds import values_of
from kprune.surgery.relocate import relocate
from kprune.surgery.splice import rewire
from kprune.text import clean

Key = tuple[str, int, int]
"""A tensor: output `index` of call `node` of a layer."""

_TENSORFLOW_SUMS = frozenset({"math.add", "add", "__operators__.add", "__operators__.radd"})
_MOST_NAMED = 3  # layers that a message lists


class Wiring(Struct, eq=False):
    """How one model is connected after layers were removed.

    Attributes:
        model: which.
        named: layers that are removed because they were named.
        gone: those, and sums of which one addend is left.
        instead: by tensor that is gone, the tensor that is read in its place.
        addends: by call of a sum (layer, node), which of its addends are gone.
    """

    model: Model
    named: dict[Layer, None]
    gone: dict[Layer, None] = field(default_factory=dict)
    instead: dict[Key, Key] = field(default_factory=dict)
    addends: dict[tuple[str, int], list[int]] = field(default_factory=dict)


class WholeLayers(Struct, eq=False):
    """Layers that are removed as a whole, model by model."""

    wirings: list[Wiring]

    @property
    def layers(self) -> list[Layer]:
        """All that go, except those inside others that go."""
        return [layer for wiring in self.wirings for layer in wiring.gone]

    @property
    def paths(self) -> list[str]:
        return [layer.path for layer in self.layers]

    def holds(self, layer: Layer) -> bool:
        """Whether a layer goes, or is inside one that goes."""
        return any(layer.path == path or layer.path.startswith(path + "/") for path in self.paths)

    def sentences(self) -> Iterator[tuple[str, str]]:
        """By layer that stays, what became of it."""
        for wiring in self.wirings:
            prefix = wiring.model.path
            for call in wiring.model.calls:
                path = clean(prefix + call.layer.name)
                if call.layer in wiring.gone:
                    continue
                for ref in call.inputs:
                    if ref.key in wiring.instead:
                        new = clean(prefix + wiring.instead[ref.key][0])
                        yield (
                            path,
                            f"'{path}' now reads '{new}' instead of '{clean(prefix + ref.layer)}'",
                        )
                for place in wiring.addends.get((call.layer.name, call.node), ()):
                    lost = clean(prefix + call.inputs[place].layer)
                    yield path, f"'{path}' goes on without '{lost}'"


def find_whole_layers(
    analysis: Analysis, named: Iterable[Layer], *, allow_output_change: bool = False
) -> WholeLayers:
    """How the rest of a model is connected without some layers.

    Args:
        named: layers to remove; a model among them with everything inside it.
    Raises: CannotPruneError if the rest would not be a valid graph.
    """
    wanted = dict.fromkeys(named)
    outer = {path for layer in wanted if (path := layer.path) and layer.inside is not None}
    shapes = _Shapes(analysis)
    wirings = []
    for model in _models(analysis.model):
        own = {
            layer: None
            for layer in model.layers.values()
            if layer in wanted and not any(layer.path.startswith(f"{path}/") for path in outer)
        }
        if own:
            _refuse_shared(analysis, own)
            found = _Rewiring(model, own, shapes, outermost=model is analysis.model)
            wirings.append(found.run(allow_output_change))
    return WholeLayers(wirings)


def take_out(analysis: Analysis, whole: WholeLayers) -> Edit:
    """The edit that takes layers out."""
    copies: dict[int, Any] = {}
    config = copied(analysis.config, copies)
    for wiring in whole.wirings:
        target = copies[id(wiring.model.spec["config"])]
        names = {layer.name for layer in wiring.gone}
        if wiring.model.is_sequential:
            _keep_input(wiring.model, target, names)
        rewire(target, names, wiring.instead, wiring.addends)
    moved = relocate(analysis, config)
    return Edit(config, analysis.metadata, moved.tensors, moved.dropped, order=moved.order)


def _keep_input(model: Model, config: dict[str, Any], gone: set[str]) -> None:
    """A Sequential of Keras 2 has its input's shape in its first layer."""
    first = config["layers"][0]
    shape = first["config"].get("batch_input_shape")
    left = [entry for entry in config["layers"] if entry["config"].get("name") not in gone]
    if first["config"].get("name") in gone and shape is not None and left:
        left[0]["config"].setdefault("batch_input_shape", shape)


def _models(model: Model) -> Iterator[Model]:
    yield model
    for layer in model.walk():
        if layer.model is not None:
            yield layer.model
        elif layer.inside is not None and layer.wrapped is not None:
            yield layer.inside


def _refuse_shared(analysis: Analysis, layers: Iterable[Layer]) -> None:
    """Raises: CannotPruneError for a layer that stands in two models, of which only one would lose it."""
    twins = {layer.twin for layer in analysis.model.walk() if layer.twin is not None}
    for layer in layers:
        inside = list(layer.inside.walk()) if layer.inside is not None else []
        shared = next((it for it in (layer, *inside) if it.twin is not None or it in twins), None)
        if shared is not None:
            raise _refused(
                [layer],
                f"'{clean(shared.path)}' is one layer in two models, which share its weights",
            )


def _refused(layers: Sequence[Layer], why: str, do: str = "", where: str = "") -> CannotPruneError:
    names = ", ".join(f"'{clean(layer.path)}'" for layer in layers[:_MOST_NAMED])
    more = f" and {len(layers) - _MOST_NAMED} more layers" if len(layers) > _MOST_NAMED else ""
    return CannotPruneError(
        f"{names}{more} cannot be removed as whole layers",
        where=where,
        why=why,
        do=do or "name a residual branch that ends in an Add, or a chain that keeps the shape",
    )


class _Shapes:
    """Shapes of tensors; sizes that a model leaves open are worked out for inputs of some size."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._sized: Mapping[Any, Any] | None = None

    def equal(self, model: Model, one: Key, other: Key) -> bool:
        """Whether two tensors have one shape, whatever the sizes that the model leaves open."""
        shapes = [self._of(self._analysis.map.tensors, model, key) for key in (one, other)]
        if shapes[0] is None or shapes[0] != shapes[1]:
            return False
        if None not in shapes[0][1:]:
            return True
        sized = [self._of(self._with_sizes(), model, key) for key in (one, other)]
        return sized[0] is not None and sized[0] == sized[1] and None not in sized[0][1:]

    def sum_is(self, model: Model, addends: list[Key], result: Key) -> bool:
        """Whether some addends broadcast to the shape that a sum has."""
        if len(addends) == 1:
            return self.equal(model, addends[0], result)
        tensors = self._with_sizes()
        shapes = [self._of(tensors, model, key) for key in (*addends, result)]
        if any(shape is None for shape in shapes):
            return False
        sizes = [tuple(1 if size is None else size for size in shape or ()) for shape in shapes]
        return bool(np.broadcast_shapes(*sizes[:-1]) == sizes[-1])

    @staticmethod
    def _of(tensors: Mapping[Any, Any], model: Model, key: Key) -> Shape | None:
        labels = tensors.get((model.path, *key))
        return None if labels is None else labels.shape

    def _with_sizes(self) -> Mapping[Any, Any]:
        """The tensors' labels with a size in place of each that the model's inputs leave open."""
        if self._sized is None:
            from kprune.graph.parse import parse_model
            from kprune.rules import builtin
            from kprune.tracing.trace import trace

            config = copied(self._analysis.config)
            for entry in config["config"]["layers"]:
                for name in ("batch_shape", "batch_input_shape"):
                    shape = entry["config"].get(name)
                    if isinstance(shape, (list, tuple)):
                        entry["config"][name] = _sized(shape)
            if isinstance(config["config"].get("build_input_shape"), (list, tuple)):
                config["config"]["build_input_shape"] = _sized(
                    config["config"]["build_input_shape"]
                )
            try:
                self._sized = trace(parse_model(config), builtin()).tensors
            except CannotPruneError:
                self._sized = {}
        return self._sized


def _sized(shape: Sequence[int | None]) -> list[int | None]:
    """Sizes that differ, and that halve several times without a rest."""
    sizes = [256 + 64 * axis if size is None else size for axis, size in enumerate(shape)]
    return [shape[0], *sizes[1:]]


class _Rewiring:
    """One model without some of its layers."""

    def __init__(
        self, model: Model, named: dict[Layer, None], shapes: _Shapes, *, outermost: bool
    ) -> None:
        self.model, self.shapes, self.outermost = model, shapes, outermost
        self.found = Wiring(model, named, dict(named))
        self.by_key = {(call.layer.name, call.node): call for call in model.calls}
        self.outputs = [leaf for leaf in leaves(model.outputs) if isinstance(leaf, TensorRef)]

    def run(self, allow_output_change: bool) -> Wiring:
        gone = self.found.gone
        for layer in gone:
            if layer.kind == INPUT:
                raise self._no(f"'{clean(layer.path)}' is an input of the model")
        for key in dict.fromkeys(self._exits()):
            self._rewire(key)
        self._drop_sums()
        self._resolve()
        if all(layer in gone or layer.kind == INPUT for layer in self.model.layers.values()):
            raise self._no("nothing would be left of the model that they are in")
        self._refuse_unread()
        changed = [ref for ref in self.outputs if ref.key in self.found.instead]
        if self.outermost and changed and not allow_output_change:
            raise FrozenUnitsError(
                f"'{clean(self.model.path + changed[0].layer)}' is an output of the model",
                why="without it the model's outputs would be different",
                do="leave it in, or pass --allow-output-change",
            )
        return self.found

    def _exits(self) -> Iterator[Key]:
        """Tensors of layers that go, which layers that stay read, or the model gives."""
        gone = self.found.gone
        for call in self.model.calls:
            if call.layer not in gone:
                yield from (ref.key for ref in call.inputs if self._is_gone(ref.key))
        yield from (ref.key for ref in self.outputs if self._is_gone(ref.key))

    def _is_gone(self, key: Key) -> bool:
        call = self.by_key.get(key[:2])
        return call is not None and call.layer in self.found.named

    def _rewire(self, key: Key) -> None:
        """Have the readers of a removed tensor read another one, or nothing."""
        entries = self._entries(key)
        readers = [
            call
            for call in self.model.calls
            if call.layer not in self.found.gone and any(ref.key == key for ref in call.inputs)
        ]
        given = any(ref.key == key for ref in self.outputs)
        forks = all(self._read_elsewhere(entry) for entry in entries)
        if forks and readers and not given and all(map(_is_sum, readers)):
            for call in readers:
                places = [place for place, ref in enumerate(call.inputs) if ref.key == key]
                self.found.addends.setdefault((call.layer.name, call.node), []).extend(places)
            return
        name = clean(self.model.path + key[0])
        if len(entries) != 1:
            listed = ", ".join(f"'{clean(self.model.path + entry[0])}'" for entry in entries)
            raise self._no(
                f"the output of '{name}' is made of {len(entries)} tensors ({listed})"
                if entries
                else f"the output of '{name}' is made of nothing that is kept"
            )
        entry = entries[0]
        for call in readers:
            if any(ref.key == entry for ref in call.inputs):
                raise self._no(
                    f"'{clean(call.layer.path)}' ({clean(call.layer.kind)}) combines the output of '{name}' "
                    f"with '{clean(self.model.path + entry[0])}', from which it is computed",
                    do=f"name '{clean(call.layer.path)}' as well, if it keeps the shape",
                )
        if not self.shapes.equal(self.model, entry, key):
            one, other = self._shape(key), self._shape(entry)
            other = f"{other}, in other sizes" if one == other else other
            source = clean(self.model.path + entry[0] or "the input")
            raise self._no(f"'{name}' gives {one}, and is made of '{source}', which has {other}")
        made, taken = (values_of(self.model, self.by_key, it) for it in (key, entry))
        if made and taken and made != taken:
            source = clean(self.model.path + entry[0])
            raise self._no(f"'{name}' gives {made}, and is made of '{source}', which has {taken}")
        self.found.instead[key] = entry

    def _entries(self, key: Key) -> list[Key]:
        """The tensors that stay, of which one that goes is made."""
        found: dict[Key, None] = {}
        waiting, seen = [key[:2]], {key[:2]}
        while waiting:
            for ref in self.by_key[waiting.pop()].inputs:
                if not self._is_gone(ref.key):
                    found[ref.key] = None
                elif ref.key[:2] not in seen:
                    seen.add(ref.key[:2])
                    waiting.append(ref.key[:2])
        return list(found)

    def _read_elsewhere(self, key: Key) -> bool:
        """Whether a layer that stays reads a tensor, or the model gives it."""
        return any(ref.key == key for ref in self.outputs) or any(
            ref.key == key
            for call in self.model.calls
            if call.layer not in self.found.gone
            for ref in call.inputs
        )

    def _drop_sums(self) -> None:
        """Sums with one addend left go as well; those with more must keep their shape."""
        for (name, node), places in self.found.addends.items():
            call = self.by_key[name, node]
            left = [ref.key for place, ref in enumerate(call.inputs) if place not in places]
            if not left:
                raise self._no(
                    f"nothing would be left to add at '{clean(call.layer.path)}'",
                    do=f"name '{clean(call.layer.path)}' as well, if it keeps the shape",
                )
            if not self.shapes.sum_is(self.model, left, (name, node, 0)):
                raise self._no(f"the sum '{clean(call.layer.path)}' would change its shape")
            if len(left) == 1:
                self.found.instead[name, node, 0] = left[0]
        for name, node in list(self.found.addends):
            layer = self.by_key[name, node].layer
            calls = [call for call in self.model.calls if call.layer is layer]
            fallen = [(name, call.node, 0) in self.found.instead for call in calls]
            if all(fallen):
                self.found.gone[layer] = None
            elif any(fallen):
                raise self._no(f"'{clean(layer.path)}' also adds elsewhere, where it has to stay")

    def _resolve(self) -> None:
        """A tensor that is read instead may itself be one that is gone by now."""
        instead = self.found.instead
        for key, new in instead.items():
            while new in instead:
                new = instead[new]
            instead[key] = new

    def _refuse_unread(self) -> None:
        """Raises: CannotPruneError if nothing would read a layer that stays."""
        gone, instead = self.found.gone, self.found.instead
        read = {instead.get(ref.key, ref.key)[:2] for ref in self.outputs}
        was_read = {ref.key[:2] for ref in self.outputs}
        for call in self.model.calls:
            was_read |= {ref.key[:2] for ref in call.inputs}
            lost = self.found.addends.get((call.layer.name, call.node), [])
            if call.layer not in gone:
                kept = [ref for place, ref in enumerate(call.inputs) if place not in lost]
                read |= {instead.get(ref.key, ref.key)[:2] for ref in kept}
        for call in self.model.calls:
            key = (call.layer.name, call.node)
            if call.layer not in gone and key in was_read and key not in read:
                raise self._no(
                    f"nothing would read '{clean(call.layer.path)}' any more",
                    do="name it as well"
                    if call.layer.kind != INPUT
                    else "keep a layer that reads it",
                )

    def _shape(self, key: Key) -> str:
        labels = self.shapes._analysis.map.tensors.get((self.model.path, *key))
        shape = None if labels is None else labels.shape
        return "an unknown shape" if shape is None else f"the shape {shape}"

    def _no(self, why: str, do: str = "") -> CannotPruneError:
        return _refused(list(self.found.named), why, do)


def _is_sum(call: Call) -> bool:
    """Whether a call adds tensors up, and does nothing else."""
    layer = call.layer
    if layer.kind == "TFOpLambda":
        name = str(layer.config.get("function", "")).removeprefix("compat.v1.")
        return name in _TENSORFLOW_SUMS and len(call.inputs) == 2
    own = layer.is_operation or layer.is_builtin
    return own and layer.kind == "Add" and len(call.inputs) > 1
