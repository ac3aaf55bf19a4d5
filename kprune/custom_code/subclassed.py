"""Models whose graph exists only in the code of call(): traced once on symbolic inputs, as a Functional model.

The Functional model is made of the very layers of the model, so it has their weights. What its
author calls them becomes their name: `self.stem = Conv2D(…)` is the layer `stem`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from kprune.custom_code.keras_patches import calls_of_layers
from kprune.errors import CannotPruneError, KpruneError
from kprune.runtime.keras_import import import_keras, reason_of
from kprune.text import clean

# Of tokens the file does not say that they are whole numbers.
_INTEGERS = ("Embedding", "IntegerLookup", "CategoryEncoding", "Hashing")
EXPORT = "write it as a SavedModel in Keras, model.export('folder'), and give that to kprune"


def functional_model(model: Any) -> Any:
    """The Functional model that tracing the call() of a model gives, in inference.

    Args:
        model: a Keras model that was built, neither Functional nor Sequential.
    Raises: CannotPruneError if its code does not run on symbolic tensors, or if it needs weights
        that belong to no layer.
    """
    name = clean(type(model).__name__)
    try:
        traced = _trace(model)
    except KpruneError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise CannotPruneError(
            f"the call() of a {name} cannot be traced",
            why=clean(reason_of(error), 300),
            do=EXPORT,
        ) from error
    own = {id(weight): weight for weight in model.weights}
    for operation in traced.operations:
        for node in operation._inbound_nodes:
            for leaf in import_keras().tree.flatten([node.arguments.args, node.arguments.kwargs]):
                if isinstance(leaf, import_keras().Variable) and id(leaf) in own:
                    raise CannotPruneError(
                        f"the call() of a {name} uses the weight '{clean(leaf.name)}' directly",
                        why="a graph holds the weights of layers only",
                        do=f"move it into a layer of its own; or {EXPORT}",
                    )
    return traced


class AsOne:
    """A model whose call() takes several tensors, called with all of them in one structure."""

    def __init__(self, model: Any, names: list[str]) -> None:
        self.model, self.names, self.name = model, names, model.name

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        if len(self.names) == 1:
            return self.model(inputs, **kwargs)
        return self.model(**{name: inputs[name] for name in self.names}, **kwargs)


def as_one(model: Any) -> AsOne:
    """A model of a class of its own, to be called on inputs in the structure of its `functional_model`."""
    return AsOne(model, list(_shapes(model)))


def _trace(model: Any) -> Any:
    _name_layers(model)
    shapes = _shapes(model)
    inputs, outputs = _traced(model, shapes, set())
    tokens = {
        id(tensor)
        for tensor in import_keras().tree.flatten(inputs)
        if any(type(op).__name__ in _INTEGERS for op in _readers(tensor, outputs))
    }
    whole = {n for n, t in enumerate(import_keras().tree.flatten(inputs)) if id(t) in tokens}
    if whole:
        inputs, outputs = _traced(model, shapes, whole)
    name = _kind(model) if _is_automatic(model) else model.name
    graph = import_keras().Model(inputs, outputs, name=name)
    _name_operations(graph)
    return graph


def _traced(model: Any, shapes: Mapping[str, Any], whole: set[int]) -> tuple[Any, Any]:
    """Call the model on symbolic inputs. Returns: inputs and outputs.

    Args:
        shapes: by the name of each argument of its call().
        whole: which inputs hold whole numbers, counted over all arguments.
    """
    keras = import_keras()
    count = iter(range(1 << 20))

    def symbol(shape: Any) -> Any:
        number = next(count)
        dtype = "int32" if number in whole else "float32"
        return keras.Input(batch_shape=(None, *shape[1:]), dtype=dtype, name=f"input_{number}")

    given = {name: _map_shapes(symbol, shape) for name, shape in shapes.items()}
    required = _required(model)
    extra = {"training": False} if "training" in required else {}
    unknown = [name for name in required[1:] if name not in (*given, "training")]
    if unknown:
        raise CannotPruneError(
            f"the call() of a {clean(type(model).__name__)} also takes '{clean(unknown[0])}'",
            why="the file gives the shape of its first argument only",
            do=f"have it take all its tensors in one list or dict; or {EXPORT}",
        )
    with _followed():
        if len(given) == 1:
            inputs = next(iter(given.values()))
            return inputs, model.call(inputs, **extra)
        return given, model.call(**given, **extra)


def _required(model: Any) -> list[str]:
    """The arguments that a model's call() cannot do without."""
    kinds = inspect.Parameter
    return [
        name
        for name, parameter in inspect.signature(model.call).parameters.items()
        if parameter.default is kinds.empty
        and parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]


def _shapes(model: Any) -> dict[str, Any]:
    """The shapes that the model was built for, by the name of the argument of its call().

    Raises: CannotPruneError if the file does not say.
    """
    config = model.get_build_config() or {}
    if config.get("input_shape"):
        return {"": config["input_shape"]}
    named = config.get("shapes_dict") or {}
    if not named:
        raise CannotPruneError(
            f"the file does not say which inputs a {clean(type(model).__name__)} takes",
            why="it was saved before it was called, or Keras cannot run its call() on symbolic tensors",
            do=f"call it once on data, and save it again; where that does not help, {EXPORT}",
        )
    if len(named) == 1:
        return {"": next(iter(named.values()))}
    return {name.removesuffix("_shape"): shape for name, shape in named.items()}


def _map_shapes(function: Any, structure: Any) -> Any:
    """The structure with `function` applied to each shape: a list of sizes."""
    if isinstance(structure, Mapping):
        return {key: _map_shapes(function, item) for key, item in structure.items()}
    if all(item is None or isinstance(item, int) for item in structure):
        return function(tuple(structure))
    return [_map_shapes(function, item) for item in structure]


def _followed() -> AbstractContextManager[None]:
    """Follow the code of models inside that are of classes of their own, where they would be one step each."""
    keras = import_keras()

    def call(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        symbolic = any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten([args, kwargs]))
        if not symbolic or not is_subclassed(self):
            return original(self, *args, **kwargs)
        return self.call(*args, **kwargs)

    return calls_of_layers(call)


def is_subclassed(layer: Any) -> bool:
    """Whether it is a model with a call() of its own and no graph."""
    keras = import_keras()
    from keras.src.models.functional import Functional

    return isinstance(layer, keras.Model) and not isinstance(layer, (Functional, keras.Sequential))


def _readers(tensor: Any, outputs: Any) -> list[Any]:
    """The layers and operations that read a tensor, on the way to some outputs."""
    found, seen, stack = [], set(), import_keras().tree.flatten(outputs)
    while stack:
        history = getattr(stack.pop(), "_keras_history", None)
        if history is None or (id(history.operation), history.node_index) in seen:
            continue
        seen.add((id(history.operation), history.node_index))
        node = history.operation._inbound_nodes[history.node_index]
        if any(given is tensor for given in node.input_tensors):
            found.append(history.operation)
        stack.extend(node.input_tensors)
    return found


# -- names ----------------------------------------------------------------------------------------


def _name_layers(model: Any) -> None:
    """Give each layer the name that its author calls it by, unless it has one; each its own."""
    taken: set[str] = set()
    for path, layer in _inside(model, ""):
        own = not _is_automatic(layer) and layer.name not in taken
        _rename(layer, layer.name if own else path, taken)
        inner = getattr(layer, "layers", None)  # of a Sequential, whose author names none of them
        within: set[str] = set()
        for item in inner if isinstance(inner, list) else []:
            _rename(item, _kind(item) if _is_automatic(item) else item.name, within)


def _rename(layer: Any, wanted: str, taken: set[str]) -> None:
    """Give a layer a name, with a number behind it if another has the name already."""
    number = 0
    while (free := f"{wanted}_{number}" if number else wanted) in taken:
        number += 1
    taken.add(free)
    if layer.name != free:
        layer.name = free


def _name_operations(graph: Any) -> None:
    """Number the operations of a graph from 0: Keras counts on over all that it ever built."""
    layer = import_keras().layers.Layer
    taken = {op.name for op in graph.operations if isinstance(op, layer)}
    for op in graph.operations:
        if not isinstance(op, layer):
            _rename(op, _kind(op), taken)


def _kind(op: Any) -> str:
    from keras.src.utils.naming import to_snake_case

    name: str = to_snake_case(type(op).__name__)
    return name


def _inside(model: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every layer that the graph will show, with the attributes that lead to it, joined by `_`."""
    seen: set[int] = set()
    for attribute, value in _attributes(model):
        for number, layer in enumerate(_layers_in(value)):
            if id(layer) in seen or not hasattr(layer, "call"):
                continue
            seen.add(id(layer))
            name = prefix + attribute.lstrip("_") + (f"_{number}" if layer is not value else "")
            if is_subclassed(layer):
                yield from _inside(layer, f"{name}_")
            else:
                yield name, layer


def _attributes(model: Any) -> list[tuple[str, Any]]:
    # TensorFlow's own bookkeeping, and Keras's list of all layers, name nothing.
    return [
        (name, value)
        for name, value in vars(model).items()
        if name not in ("_layers", "_metrics", "_losses") and not name.startswith("_self_")
    ]


def _layers_in(value: Any) -> list[Any]:
    if isinstance(value, import_keras().layers.Layer):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [layer for item in value for layer in _layers_in(item)]
    return []


def _is_automatic(layer: Any) -> bool:
    """Whether Keras made up a layer's name: that of its class, and a number."""
    from keras.src.utils.naming import to_snake_case

    return bool(
        re.fullmatch(rf"{re.escape(to_snake_case(type(layer).__name__))}(_\d+)?", layer.name)
    )
