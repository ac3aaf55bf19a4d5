"""From a model's inputs through its graph: what each layer is called on, and so what its weights must be.

Shapes are propagated here anew. What a config records of them (of every tensor in Keras 3, of what a
layer was built on) is held against that, and is believed where nothing else is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from kprune.checking.configs import array_shape
from kprune.checking.layer_shapes import given_shapes
from kprune.checking.layer_weights import Expected, Weights, expected_weights
from kprune.checking.operations import Shaped, operation_shape
from kprune.checking.shapes import Contradiction, MaybeShape, agree, broadcast, merged, product
from kprune.checking.wrappers import Part, parts, wrapped_shapes
from kprune.graph.model import Call, Constant, Layer, Model, TensorRef, as_shape, leaves, map_leaves
from kprune.graph.parse import INPUT, declared_shape, layer_inside
from kprune.text import clean

Found = TypeVar("Found")
ATTENTION = frozenset({"MultiHeadAttention", "GroupQueryAttention"})
ATTENTION_INPUTS = ("query", "value", "key")


class Complaint(Struct, frozen=True):
    """Where a file contradicts itself.

    Attributes:
        layer: its path.
        about: which of its weights or entries, the same for the same complaint about another file.
        text: the whole sentence.
    """

    layer: str
    about: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        return self.layer, self.about


class Walk:
    """One walk through a model.

    Attributes:
        complaints: contradictions in the config.
    """

    def __init__(self, model: Model) -> None:
        self.complaints: list[Complaint] = []
        self._model = model
        self._expected: dict[Layer, Weights | None] = {}
        self._inner: dict[Layer, list[Layer]] = {}
        self._run(model, [])

    def weights(self, layer: Layer) -> Iterator[tuple[Layer, Weights | None]]:
        """The weights of a layer and of all layers inside it, in Keras's order; None where not known."""
        holds_none = layer.model is not None or layer.is_operation or layer.kind == INPUT
        yield layer, ([] if holds_none else self._expected.get(layer))
        for inner in self._inner.get(layer, []):
            yield from self.weights(inner)
        if layer.model is not None:
            for inner in layer.model.layers.values():
                yield from self.weights(inner)

    def complain(self, layer: Layer, about: str, text: str) -> None:
        self.complaints.append(Complaint(layer.path, about, text))

    # -- one model ------------------------------------------------------------------------------

    def _run(self, model: Model, given: Sequence[MaybeShape]) -> list[MaybeShape]:
        """Walk along the calls of a model that is called on tensors of some shapes."""
        shapes: dict[tuple[str, int, int], MaybeShape] = {}
        for ref, shape in zip(_refs(model.inputs), given, strict=False):
            layer = model.layers.get(ref.layer)
            if layer is not None:
                self._hold(
                    layer, "the input that its config declares", declared_shape(layer), shape
                )
            shapes[ref.key] = shape
        self._check_built(model, given)
        folds: dict[tuple[str, int, int], int] = {}
        for call in model.calls:
            if call.inputs:
                made = self._call(call, shapes)
                self._fold(call, shapes, folds)
            else:
                key = (call.layer.name, call.node, 0)
                made = [merged(shapes.get(key), declared_shape(call.layer))]
            for index, shape in enumerate(made):
                shapes[call.layer.name, call.node, index] = shape
        return [shapes.get(ref.key) for ref in _refs(model.outputs)]

    def _check_built(self, model: Model, given: Sequence[MaybeShape]) -> None:
        """A Sequential repeats the shape of its input."""
        own = as_shape(model.spec["config"].get("build_input_shape"))
        first = next(iter(model.layers.values()), None)
        if own and first is not None and model.is_sequential:
            there = declared_shape(first) or (given[0] if given else None)
            self._hold(first, "the build_input_shape of its model", own, there)

    def _call(
        self, call: Call, shapes: Mapping[tuple[str, int, int], MaybeShape]
    ) -> list[MaybeShape]:
        layer = call.layer
        for ref in call.inputs:
            self._hold(
                layer, f"the recorded shape of '{ref.layer}'", ref.shape, shapes.get(ref.key)
            )

        def shape_of(leaf: Any) -> Any:
            if not isinstance(leaf, TensorRef):
                return leaf
            shape = merged(shapes.get(leaf.key), leaf.shape)
            return _Unknown() if shape is None else Shaped(shape)

        inputs = [
            operand.shape
            if isinstance(operand, Constant)
            else merged(shapes.get(operand.key), operand.shape)
            for operand in _operands(call)
        ]
        if len(inputs) == 1 and inputs[0] is None:
            inputs = [_built_on(layer)]
        if _called_once(layer) and layer.is_builtin:
            self._check_recorded(layer, inputs)
        if layer.is_operation or layer.kind == "TFOpLambda":
            self._expected[layer] = []
            arguments, keywords = (map_leaves(shape_of, part) for part in (call.args, call.kwargs))
            kind, config = layer.kind, layer.config
            return [self._try(layer, lambda: operation_shape(kind, config, arguments, keywords))]
        return self.visit(layer, inputs)

    def _fold(
        self,
        call: Call,
        shapes: Mapping[tuple[str, int, int], MaybeShape],
        folds: dict[tuple[str, int, int], int],
    ) -> None:
        """Note what the last axis of a tensor is a multiple of, where an unknown number of places is flattened."""
        layer = call.layer
        if not layer.is_builtin or len(call.inputs) != 1:
            return
        (ref,) = call.inputs
        key, made = ref.key, (layer.name, call.node, 0)
        shape = merged(shapes.get(key), ref.shape)
        if (
            layer.kind == "Embedding"
            and shape is None
            and isinstance(layer.config["output_dim"], int)
        ):
            folds[made] = layer.config["output_dim"]
        elif layer.kind == "Flatten" and shape is not None:
            folds[made] = product(size or 1 for size in shape[1:]) or 1
        elif layer.kind in ("Flatten", "Dropout", "Activation") and key in folds:
            folds[made] = folds[key]
        elif layer.kind == "Dense" and key in folds and (found := self._expected.get(layer)):
            self._expected[layer] = [replace(found[0], multiple=max(folds[key], 1)), *found[1:]]

    # -- one layer ------------------------------------------------------------------------------

    def visit(self, layer: Layer, inputs: Sequence[MaybeShape]) -> list[MaybeShape]:
        """Note what weights a layer must have, and tell what it gives."""
        if layer.model is not None:
            return self._run(layer.model, inputs)
        if not layer.is_builtin:
            self._expected.setdefault(layer, None)
            return [None]
        kind, config = layer.kind, layer.config
        if layer not in self._expected:
            found = self._try(layer, lambda: expected_weights(kind, config, inputs))
            self._expected[layer] = found
            for weight in found or ():
                self._check_initializer(layer, weight)
        inside = self._try(layer, lambda: parts(kind, config, inputs)) or []
        if not inside:
            return self._try(layer, lambda: given_shapes(kind, config, inputs)) or [None]
        made = [self.visit(self._part(layer, part), part.inputs) for part in inside]
        return self._try(layer, lambda: wrapped_shapes(kind, config, inputs, made)) or [None]

    def _part(self, layer: Layer, part: Part) -> Layer:
        """A layer inside another one, as a layer of its own."""
        known = self._inner.setdefault(layer, [])
        store = f"{layer.store}/{part.at}"
        for inner in known:
            if inner.store == store:
                return inner
        inner = layer_inside(layer, part.spec, part.at)
        known.append(inner)
        return inner

    def _try(self, layer: Layer, find: Callable[[], Found]) -> Found | None:
        """What is found; None where a config is of a form that is not known here."""
        try:
            return find()
        except Contradiction as error:
            self.complain(layer, "inputs", f"'{clean(layer.path)}': {clean(str(error), 300)}")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError):
            pass
        return None

    # -- the config against itself --------------------------------------------------------------

    def _hold(self, layer: Layer, what: str, recorded: MaybeShape, found: MaybeShape) -> None:
        if not agree(recorded, found):
            name = clean(layer.path)
            text = f"{what} is {recorded}, where '{name}' is called on {found}"
            self.complain(layer, what, text)

    def _check_recorded(self, layer: Layer, inputs: Sequence[MaybeShape]) -> None:
        """What a layer's dict says of the shapes that it was built on."""
        named = ["batch_input_shape"]
        if layer.kind in ATTENTION:
            named = [f"{name}_shape" for name in ATTENTION_INPUTS]
        for key, shape in zip(named, inputs, strict=False):
            self._hold(layer, key, as_shape(layer.config.get(key)) or None, shape)
        if None in inputs or not inputs:
            return
        for shape in _shapes_in(layer.spec.get("build_config")):
            if not any(agree(shape, there) for there in inputs):
                self._hold(layer, "build_config", shape, inputs[0])

    def _check_initializer(self, layer: Layer, weight: Expected) -> None:
        """An array that a weight starts from has the weight's shape, or broadcasts to it."""
        spec = layer.config.get(weight.initializer)
        if not isinstance(spec, dict) or not isinstance(spec.get("config"), dict):
            return
        array = array_shape(spec["config"].get("value"))
        if array and not _starts(array, weight.shape):
            text = (
                f"the {weight.initializer} of '{clean(layer.path)}' holds an array of shape {array} "
                f"for the {weight.name} of shape {weight.shape}"
            )
            self.complain(layer, weight.initializer, text)


class _Unknown:
    """A tensor of unknown shape among the arguments of an operation."""


def _refs(structure: Any) -> list[TensorRef]:
    return [leaf for leaf in leaves(structure) if isinstance(leaf, TensorRef)]


def _operands(call: Call) -> list[TensorRef | Constant]:
    """What a layer is called on, in the order of its parameters: tensors, and arrays in the config.

    Masks and states come last.
    """
    if call.layer.kind not in ATTENTION:
        given = [leaf for leaf in leaves(call.args) if isinstance(leaf, (TensorRef, Constant))]
        return given if any(isinstance(leaf, Constant) for leaf in given) else [*call.inputs]
    named = dict(zip(ATTENTION_INPUTS, call.args, strict=False)) | call.kwargs
    found = (named.get(name) for name in ATTENTION_INPUTS)
    return [one for one in found if isinstance(one, (TensorRef, Constant))]


def _called_once(layer: Layer) -> bool:
    return len(layer.spec.get("inbound_nodes") or [None]) == 1


def _built_on(layer: Layer) -> MaybeShape:
    """The shape of the one input that a layer was built on, as its dict records it."""
    built = layer.spec.get("build_config")
    if not isinstance(built, dict) or not _called_once(layer):
        return None
    return as_shape(built.get("input_shape"))


def _shapes_in(built: Any) -> Iterator[MaybeShape]:
    """The shapes in a build_config: `input_shape`, a list of them, or a dict by argument."""
    shape = as_shape(built) or None
    if shape is not None:
        yield shape
    elif isinstance(built, (list, dict)):
        for item in built.values() if isinstance(built, dict) else built:
            yield from _shapes_in(item)


def _starts(array: MaybeShape, shape: MaybeShape) -> bool:
    """Whether a weight of some shape can start from an array: Keras 3 broadcasts, Keras 2 reshapes it."""
    try:
        if agree(broadcast([array, shape]), shape):
            return True
    except Contradiction:
        pass
    size = product(shape or ())
    return size is None or size == product(array or ())
