"""A Keras model of a custom class, as a plain Functional model of the same layers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kprune.custom_code.keras_patches import is_foreign
from kprune.custom_code.subclassed import functional_model, is_subclassed
from kprune.errors import CannotPruneError
from kprune.runtime.keras_import import import_keras
from kprune.text import clean

PLAIN = ("Functional", "Sequential")


def plain_model(model: Any) -> tuple[Any, list[str]]:
    """The same network, as Functional and Sequential models all the way down.

    No layer is copied: the models share their layers, and so their weights.

    Args:
        model: a Keras model that was built.
    Returns: the plain model (the one given, if it is plain already), and the names of the classes
        that were unfolded.
    Raises: CannotPruneError if it has no graph, and none can be traced.
    """
    unfolding = _Unfolding()
    if is_subclassed(model):
        traced = functional_model(model)
        unfolding.classes.append(type(model).__name__)
        return unfolding.plain(traced), unfolding.classes
    if not _has_graph(model):
        raise CannotPruneError(
            f"a {clean(type(model).__name__)} cannot be flattened",
            why="it was saved before it was built",
            do="call it once on data, and save it again",
        )
    return unfolding.plain(model), unfolding.classes


def _has_graph(op: Any) -> bool:
    keras = import_keras()
    # Only the class itself tells what descends from it; keras.Model(inputs, outputs) is one.
    from keras.src.models.functional import Functional

    if isinstance(op, keras.Sequential):
        return op.built and op._functional is not None
    return isinstance(op, Functional)


def is_plain(model: Any) -> bool:
    """Whether Keras writes the graph of a model into its config."""
    return type(model).__module__.startswith("keras.") and type(model).__name__ in PLAIN


class _Unfolding:
    """One pass over a model; a model that is called twice is unfolded once."""

    def __init__(self) -> None:
        self.classes: list[str] = []
        self._done: dict[int, Any] = {}

    def plain(self, model: Any) -> Any:
        if id(model) not in self._done:
            self._done[id(model)] = self._unfold(model)
        return self._done[id(model)]

    def _unfold(self, model: Any) -> Any:
        keras = import_keras()
        graph = model._functional if isinstance(model, keras.Sequential) else model
        inner = {id(op): self.plain(op) for op in graph.operations if _has_graph(op)}
        if not is_plain(model):
            self.classes.append(type(model).__name__)
        changed = any(inner[id(op)] is not op for op in graph.operations if id(op) in inner)
        if is_plain(model) and not changed:
            return model
        inputs, outputs = graph._inputs_struct, graph._outputs_struct
        if changed:
            # The nested models are others now, so everything is called anew.
            inputs = keras.tree.map_structure(_like, inputs)
            outputs = graph._run_through_graph(
                inputs, operation_fn=lambda op: inner.get(id(op), op)
            )
        result = keras.Model(inputs, outputs, name=model.name)
        if not model.trainable:
            result.trainable = False
        return result


def _like(tensor: Any) -> Any:
    return import_keras().Input(
        batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=tensor.name
    )


# -- configs that rebuild their layer -------------------------------------------------------------


Made = dict[int, tuple[Any, dict[str, Any]]]
"""By id, an object and the arguments of its constructor."""


@contextmanager
def recording() -> Iterator[Made]:
    """Note the arguments of every layer that is built meanwhile.

    Keras notes them too, in Operation.__new__, and makes a config of them for a class that has none
    of its own; but not where one of them is an object, and a loaded layer's dtype always is.
    """
    keras = import_keras()
    made: Made = {}
    original = keras.Operation.__new__

    def noting(cls: Any, *args: Any, **kwargs: Any) -> Any:
        instance = original(cls, *args, **kwargs)
        try:
            bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
        except TypeError:
            return instance  # the constructor will say so itself
        given = dict(list(bound.arguments.items())[1:])
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(given.pop(name, {}))
        made[id(instance)] = (instance, given)
        return instance

    keras.Operation.__new__ = noting
    try:
        yield made
    finally:
        keras.Operation.__new__ = original


def mend_configs(model: Any, made: Made) -> list[str]:
    """Give each custom layer a config from which its class can be built again.

    A layer inside a model of a class of its own was never saved by itself, so it went unnoticed if its
    get_config is missing, fails, forgets an argument, or writes one that the class does not take.
    Where that is so the config is made of the arguments that its constructor was given.

    Args:
        made: what `recording` noted while the model was loaded.
    Returns: the classes whose configs were mended.
    Raises: CannotPruneError if a layer cannot be built from its arguments either.
    """
    mended = []
    for layer in custom_layers(model):
        given = made[id(layer)][1] if id(layer) in made else {}
        if _rebuilds(layer, given):
            continue
        layer.get_config = _constant(_config_of(layer, given))
        problem = _failure(layer)
        if problem is not None:
            raise CannotPruneError(
                f"the layer '{clean(layer.name)}' cannot be written by itself",
                where=f"{clean(type(layer).__module__)}.{clean(type(layer).__name__)}",
                why=f"its config does not build the layer again: {clean(problem, 200)}",
                do="report it to that package: get_config has to give what the constructor takes",
            ) from problem
        mended.append(type(layer).__name__)
    return sorted(set(mended))


def custom_layers(model: Any) -> Iterator[Any]:
    """The layers of a plain model, nested ones included, whose classes are not Keras's."""
    graph = getattr(model, "_functional", None) or model
    for op in graph.operations:
        if _has_graph(op):
            yield from custom_layers(op)
        elif hasattr(op, "weights") and is_foreign(op):
            yield op


def _rebuilds(layer: Any, given: dict[str, Any]) -> bool:
    """Whether a layer's own config builds it again, with every argument that it was given."""
    try:
        config = layer.get_config()
    except Exception:  # the class's own code
        return False
    return set(given) <= {*config, "name", "dtype", "trainable"} and _failure(layer) is None


def _failure(layer: Any) -> Exception | None:
    keras = import_keras()
    try:
        data = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        name = keras.saving.get_registered_name(type(layer))
        keras.saving.deserialize_keras_object(data, custom_objects={name: type(layer)})
    except Exception as error:  # the class's own code
        return error
    return None


def _config_of(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    keras = import_keras()
    parameters = inspect.signature(type(layer).__init__).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    base = {
        "name": layer.name,
        "trainable": layer.trainable,
        "dtype": keras.dtype_policies.serialize(layer.dtype_policy),
    }
    config = {name: value for name, value in base.items() if open_ended or name in parameters}
    for name, value in given.items():
        if name not in config:
            function = inspect.isfunction(value)
            config[name] = keras.activations.serialize(value) if function else value
    return config


def _constant(config: dict[str, Any]) -> Any:
    def get_config() -> dict[str, Any]:
        return dict(config)

    return get_config
