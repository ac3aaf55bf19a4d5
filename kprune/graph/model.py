"""What a saved config says: models, layers, calls and the tensors between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from msgspec import Struct

Shape = tuple[int | None, ...]

KERAS_REGISTERED = {"Custom>CustomScaleLayer": {"name", "trainable", "dtype", "scale"}}
"""Layers of Keras 2 itself that it registers as users register theirs, with what their config holds.

The one is InceptionResNetV2's (tf_keras/src/applications/inception_resnet_v2.py).
"""


class TensorRef(Struct, frozen=True):
    """A tensor, named as Keras names it: output `index` of call `node` of `layer`.

    Attributes:
        shape: the shape recorded in the config, batch first; None where the dialect records none.
        record: the dict in the config that holds the recorded shape, so that it can be kept true.
    Raises: TypeError if a name is no text, or a number no whole one.
    """

    layer: str
    node: int
    index: int
    shape: Shape | None = None
    dtype: str | None = None
    record: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if type(self.layer) is not str or type(self.node) is not int or type(self.index) is not int:
            raise TypeError(f"[{self.layer!r}, {self.node!r}, {self.index!r}] names no tensor")

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.layer, self.node, self.index)


class Constant(Struct, frozen=True):
    """An array written into the config: an argument of a call, or a value in a layer's own config.

    Attributes:
        record, key: the dict or list of the config, and where in it the numbers stand as nested lists.
    """

    record: Any
    key: str | int

    @property
    def value(self) -> np.ndarray:
        return np.asarray(self.record[self.key])

    @property
    def place(self) -> tuple[int, str | int]:
        """Tells arrays of one config apart."""
        return (id(self.record), self.key)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape, read off its first elements."""
        sizes, value = [], self.record[self.key]
        while isinstance(value, list):
            sizes.append(len(value))
            value = value[0] if value else None
        return tuple(sizes)


KERAS2_FUNCTIONS = (
    "TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"
)  # fmt: skip

ARRAYS = ("__numpy__", "__tensor__", "__tuple__")
"""Classes under which a config holds an array; Keras 2 and `tolist()` leave bare lists."""


def array_at(record: Any, key: str | int) -> Constant | None:
    """The array that an entry of a config holds, in any of its spellings; None for a scalar or anything else."""
    value = record[key]
    while isinstance(value, dict) and value.get("class_name") in ARRAYS:
        record, key = value.get("config"), "value"
        if not isinstance(record, dict) or key not in record:
            return None
        value = record[key]
    found = Constant(record, key)
    while isinstance(value, list) and value:
        value = value[0]
    return found if found.shape and isinstance(value, (int, float)) else None


class Layer(Struct, eq=False):
    """A layer (or an operation) of one model.

    Attributes:
        name: unique within its model.
        path: names from the outermost model inwards, joined by `/`: how users address it.
        kind: the class name, as in the config.
        module: the Python module in the config; "" in the Keras 2 dialect.
        registered: the registered name of a custom class, such as `my_package>MyLayer`.
        spec: the layer's own dict in the config ({"class_name": …, "config": …}).
        store: group path of its variables in the weights file, without `/vars`; "" for operations.
        model: the nested model, if the layer is one.
        trainable: False if the layer or any model around it is frozen for training.
        wrapped: the layer that a wrapper (TimeDistributed) holds.
        twin: where one layer object stands in two models, its first appearance; None there.
    """

    name: str
    path: str
    kind: str
    module: str
    registered: str | None
    spec: dict[str, Any]
    store: str = ""
    model: Model | None = None
    wrapped: Layer | None = None
    trainable: bool = True
    twin: Layer | None = None

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.spec["config"]
        return config

    @property
    def inside(self) -> Model | None:
        """The model that the layer is, or that it wraps; None if it is neither."""
        if self.model is not None or self.wrapped is None:
            return self.model
        return self.wrapped.inside

    @property
    def is_operation(self) -> bool:
        """Whether it is a `keras.ops` node, which holds no weights and is not counted as a layer."""
        return self.module.startswith(("keras.src.ops", "keras.ops", "keras.src.random"))

    @property
    def calls_function(self) -> bool:
        """Whether it stands for a function with arguments of its own, in either dialect."""
        return self.is_operation or (self.is_builtin and self.kind in KERAS2_FUNCTIONS)

    @property
    def is_builtin(self) -> bool:
        """Whether the class is Keras's own. A class of the same name from elsewhere is not."""
        name = self.registered or self.kind  # a legacy file has the registered name as the class
        if ">" in name:
            return set(self.config) == KERAS_REGISTERED.get(name)
        return self.module.partition(".")[0] in ("", "keras", "tf_keras")


class Call(Struct, eq=False, dict=True):
    """One call of one layer.

    Attributes:
        node: which call of the layer it is, from 0.
        args, kwargs: the arguments: TensorRef, Constant, slice, Ellipsis, and plain values in
            lists, tuples and dicts.
        as_written: whether Keras takes `kwargs` in the order in which they are written, as Keras 2 does
            (tf_keras/src/engine/node.py), and not in that of their names.
    """

    layer: Layer
    node: int
    args: list[Any]
    kwargs: dict[str, Any]
    as_written: bool = False

    @cached_property
    def inputs(self) -> list[TensorRef]:
        """The tensors among the arguments, in the order in which Keras flattens them."""
        named = list(self.kwargs.values()) if self.as_written else self.kwargs
        return [leaf for leaf in leaves([self.args, named]) if isinstance(leaf, TensorRef)]


class Model(Struct, eq=False):
    """A Sequential or Functional model, outermost or nested.

    Attributes:
        layers: by name, in the order in which Keras lists `model.layers` (operations included).
        calls: in an order in which each call's inputs come first.
        inputs, outputs: structures (a ref, or lists and dicts of refs) as in the config.
    """

    name: str
    path: str
    kind: str
    spec: dict[str, Any]
    layers: dict[str, Layer]
    calls: list[Call]
    inputs: Any
    outputs: Any

    @property
    def is_sequential(self) -> bool:
        return "input_layers" not in self.spec["config"]

    def walk(self) -> Iterator[Layer]:
        """Every layer, those of nested and of wrapped models included, outer ones first."""
        for layer in self.layers.values():
            yield layer
            if layer.inside is not None:
                yield from layer.inside.walk()


MOST_AXES = 32
"""Of a tensor; numpy takes no more in all its versions, and TensorFlow's operations fewer."""

_MOST_ELEMENTS = 1 << 63


def as_shape(value: Any) -> tuple[int | None, ...] | None:
    """A shape from a config, or None if it is not one that a tensor can have."""
    if isinstance(value, (list, tuple)) and len(value) <= MOST_AXES and all(map(_is_size, value)):
        return tuple(value)
    return None


def _is_size(item: Any) -> bool:
    return item is None or (type(item) is int and 0 <= item < _MOST_ELEMENTS)


def leaves(structure: Any) -> Iterator[Any]:
    """The leaves of nested lists, tuples and dicts; dicts in the order of their sorted keys, as Keras has it."""
    if isinstance(structure, (list, tuple)):
        for item in structure:
            yield from leaves(item)
    elif isinstance(structure, dict):
        for key in sorted(structure):
            yield from leaves(structure[key])
    else:
        yield structure


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same structure with `function` applied to each leaf."""
    if isinstance(structure, (list, tuple)):
        return type(structure)(map_leaves(function, item) for item in structure)
    if isinstance(structure, dict):
        return {key: map_leaves(function, structure[key]) for key in structure}
    return function(structure)
