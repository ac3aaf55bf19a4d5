"""Changes to Keras while a layer's own code is traced; each is undone when its block ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from kprune.runtime.keras_import import import_keras
from kprune.tracing.code_graph import Untraceable


@contextmanager
def calls_of_layers(call: Callable[..., Any]) -> Iterator[None]:
    """Have every call of a layer go through a function.

    Args:
        call: given what Keras would do, the layer, and the call's arguments.
    """
    keras = import_keras()
    original = keras.layers.Layer.__call__

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(original, self, *args, **kwargs)

    keras.layers.Layer.__call__ = patched
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = original


def is_foreign(layer: Any) -> bool:
    """Whether a layer's class is not Keras's own."""
    return type(layer).__module__.partition(".")[0] != "keras"


@contextmanager
def symbolic_weights(layer: Any, symbols: Mapping[int, Any], apart: set[int]) -> Iterator[None]:
    """Put symbolic tensors in place of the weights of a layer, and of those inside whose code is followed.

    Args:
        symbols: by the id of each weight.
        apart: ids of Keras's own layers whose code is followed.
    """
    changed: list[tuple[dict[str, Any], str, Any]] = []

    def swapped(value: Any) -> Any:
        if id(value) in symbols:
            return symbols[id(value)]
        if type(value).__name__ in ("list", "TrackedList"):
            new = [swapped(item) for item in value]
            return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
        if isinstance(value, tuple) and type(value) is tuple:
            new = [swapped(item) for item in value]
            return tuple(new) if any(a is not b for a, b in zip(new, value, strict=True)) else value
        if type(value).__name__ in ("dict", "TrackedDict"):
            pairs = {key: swapped(item) for key, item in value.items()}
            return pairs if any(pairs[key] is not value[key] for key in pairs) else value
        return value

    def put(layer: Any) -> None:
        attributes = vars(layer)
        for name, value in list(attributes.items()):
            if name in ("_trainable_variables", "_non_trainable_variables", "_layers"):
                continue
            new = swapped(value)
            if new is not value:
                changed.append((attributes, name, value))
                attributes[name] = new
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            if is_foreign(inner) or id(inner) in apart:
                put(inner)

    try:
        put(layer)
        yield
    finally:
        for attributes, name, value in changed:
            attributes[name] = value


class OnConstants(Exception):
    """A layer of Keras's own is called on numbers alone, such as a table of positions on 0, 1, 2 …"""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer.name)
        self.layer = layer


@contextmanager
def invented_tensors() -> Iterator[list[Any]]:
    """Have tensors that are made for a batch of any size (noise, zeros) be symbolic.

    Their shape holds None, from `ops.shape` of a symbolic tensor, and Keras cannot make them.

    Returns: what was made.
    """
    keras = import_keras()
    from keras.src import backend

    made: list[Any] = []
    changed: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str) -> None:
        original = getattr(module, name)

        def make(shape: Any, *args: Any, **kwargs: Any) -> Any:
            open_ended = isinstance(shape, (list, tuple)) and any(size is None for size in shape)
            if not open_ended:
                return original(shape, *args, **kwargs)
            dtype = kwargs.get("dtype") or "float32"
            made.append(keras.Input(batch_shape=shape, dtype=dtype, name=f"made.{len(made)}"))
            return made[-1]

        changed.append((module, name, original))
        setattr(module, name, make)

    for name in ("normal", "uniform", "truncated_normal"):
        put(backend.random, name)
    for name in ("zeros", "ones", "full"):
        put(backend.numpy, name)
    try:
        yield made
    finally:
        for module, name, original in changed:
            setattr(module, name, original)


@contextmanager
def open_counts() -> Iterator[None]:
    """Have `ops.tile` and `ops.repeat` take the size of a batch, which is None while it is not known.

    A token or a table of positions is often put before each sample so.
    """
    keras = import_keras()
    from keras.src.ops.numpy import Repeat, Tile

    originals = Tile.compute_output_spec, Repeat.compute_output_spec

    def tiled(self: Any, x: Any) -> Any:
        counts = [self.repeats] if isinstance(self.repeats, int) else list(self.repeats or [None])
        known = Tile([1 if count is None else count for count in counts])
        shape = list(originals[0](known, x).shape)
        for place, count in enumerate(reversed(counts), 1):
            if count is None:
                shape[-place] = None
        return keras.KerasTensor(shape, dtype=x.dtype)

    def repeated(self: Any, x: Any) -> Any:
        if self.repeats is not None:
            return originals[1](self, x)
        shape = [None] if self.axis is None else list(x.shape)
        shape[self.axis or 0] = None
        return keras.KerasTensor(shape, dtype=x.dtype)

    Tile.compute_output_spec, Repeat.compute_output_spec = tiled, repeated
    try:
        yield
    finally:
        Tile.compute_output_spec, Repeat.compute_output_spec = originals


def followed(masked: bool, apart: set[int], inside: set[int]) -> AbstractContextManager[None]:
    """Follow the code of layers inside that are not Keras's own, where they would be one step each.

    Args:
        apart: ids of Keras's own layers whose code is followed as well.
        inside: ids of all layers of the layer that is traced.
    Raises: OnConstants where a layer of Keras's own would have to be.
    """
    keras = import_keras()

    def call(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        symbolic = any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten([args, kwargs]))
        if id(self) in apart:
            return self.call(*args, **kwargs)
        if not symbolic and id(self) in inside and self.weights and not is_foreign(self):
            raise OnConstants(self)
        if not symbolic or not is_foreign(self):
            return original(self, *args, **kwargs)
        named = inspect.signature(self.call).parameters
        if masked and "mask" in named and kwargs.get("mask") is None:
            raise Untraceable(f"whose '{self.name}' takes the mask of time steps from Keras")
        if "training" in named:
            kwargs.setdefault("training", False)
        return self.call(*args, **kwargs)

    return calls_of_layers(call)
