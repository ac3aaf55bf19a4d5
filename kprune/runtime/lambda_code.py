"""The functions of Lambda layers: loaded from a file that the user trusts, and traced as graphs.

Keras stores a Lambda's function as bytecode, which only unsafe loading runs, and without the names
of modules that it uses: `ops.abs(a - b)` fails in any program but the one that saved it. The usual
names are put back here.

A function that calls TensorFlow's own functions takes no symbolic tensor of Keras 3; those of
tf_keras go through it, and what it calls becomes TFOpLambda layers, as in any file of Keras 2.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from kprune.active_content import Kind
from kprune.analysis.user_rules import loaded_modules
from kprune.formats import Source
from kprune.graph.model import Shape, leaves, map_leaves
from kprune.labels.labels import merged
from kprune.page.result import Note
from kprune.runtime.keras_import import import_keras
from kprune.runtime.numbering import numbered
from kprune.text import clean
from kprune.tracing.code_graph import Part, Tensor, TracedCode, Untraceable

LAMBDA = "Lambda"
_LOADERS = ("keras.src.utils.python_utils", "tf_keras.src.utils.generic_utils")


_DONE = {
    "the code of their Lambda layers was run": frozenset({Kind.BYTECODE}),
    "files that they name were opened": frozenset({Kind.FILE, Kind.ADDRESS, Kind.PROGRAM}),
}
_UNSAFE = frozenset.union(*_DONE.values())

_LIVE: ContextVar[Mapping[str, Any] | None] = ContextVar("_LIVE", default=None)


@contextmanager
def names_of(model: Any) -> Iterator[None]:
    """Let functions that are loaded meanwhile see what the Lambda layers of a live model see."""
    layers = [layer for layer in model._flatten_layers() if type(layer).__name__ == LAMBDA]
    functions = [getattr(layer, "function", None) for layer in layers]
    names: dict[str, Any] = {}
    for function in functions:
        names.update(getattr(function, "__globals__", {}))
    token = _LIVE.set(names)
    try:
        yield
    finally:
        _LIVE.reset(token)


@contextmanager
def usual_names(keras: ModuleType) -> Iterator[None]:
    """Give functions that are loaded from bytecode meanwhile the names that people import Keras by.

    Args:
        keras: the Keras that loads them, `keras` or `tf_keras`.
    """
    names = _names(keras)
    changed: list[tuple[ModuleType, Any]] = []
    for place in _LOADERS:
        module = sys.modules.get(place)
        if module is not None:
            changed.append((module, module.func_load))
            module.func_load = _with_names(module, names)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, original in changed:
            module.func_load = original  # type: ignore[attr-defined]


def _names(keras: ModuleType) -> dict[str, Any]:
    import math

    import numpy as np
    import tensorflow as tf

    return {
        **{name: value for module in loaded_modules() for name, value in vars(module).items()},
        **(_LIVE.get() or {}),
        "keras": keras, "tf": tf, "tensorflow": tf, "np": np, "numpy": np, "math": math,
        "layers": keras.layers, "K": keras.backend, "backend": keras.backend,
        "ops": import_keras().ops,
    }  # fmt: skip


def _with_names(module: ModuleType, names: Mapping[str, Any]) -> Any:
    original = module.func_load

    def func_load(code: Any, defaults: Any = None, closure: Any = None, globs: Any = None) -> Any:
        known = vars(module) if globs is None else globs
        return original(code, defaults, closure, {**names, **known})

    return func_load


def trace_by_tensorflow(spec: dict[str, Any], arguments: Any, *, old: bool) -> TracedCode:
    """What a Lambda's function does, as a graph of Keras 2.

    Args:
        spec: the layer's dict in the config.
        arguments: (args, kwargs) of the call, with a `Tensor` in place of each tensor.
        old: whether Keras 2 wrote the dict.
    Raises: Untraceable; whatever the function raises.
    """
    keras2 = _tf_keras()
    layer = _layer(spec, keras2 if old else import_keras())
    inputs: list[Any] = []

    def symbol(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        name = f"input.{len(inputs)}"
        inputs.append(
            keras2.Input(batch_shape=leaf.shape, dtype=leaf.dtype or "float32", name=name)
        )
        return inputs[-1]

    args, _ = map_leaves(symbol, tuple(arguments))
    expected = inspect.getfullargspec(layer.function).args
    if "mask" in expected:
        raise Untraceable("whose function takes a mask of time steps")
    training = {"training": False} if "training" in expected else {}
    outputs = layer.function(*args, **layer.arguments, **training)
    for output in _flat(outputs):
        if not keras2.backend.is_keras_tensor(output):
            raise Untraceable("whose code gives something other than tensors of its inputs")
    graph = keras2.Model(inputs, outputs, name="code")
    gives = tuple(tuple(output.shape) for output in _flat(outputs))
    _hold_against_declared(layer, arguments[0], gives)
    config = _without_seeds(numbered(json.loads(graph.to_json())))
    return TracedCode(config, Part("", LAMBDA, False, ()), gives=gives)


def _without_seeds(config: dict[str, Any]) -> dict[str, Any]:
    """A graph without the seeds of its noise, which Keras 2 draws anew each time that code is traced."""
    for layer in config["config"]["layers"]:
        if "random." in str(layer["config"].get("function", "")):
            layer["inbound_nodes"] = _seedless(layer["inbound_nodes"])
    return config


def _seedless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _seedless(item) for key, item in value.items() if key != "seed"}
    return [_seedless(item) for item in value] if isinstance(value, list) else value


def _hold_against_declared(layer: Any, args: Any, gives: tuple[Shape, ...]) -> None:
    """Raises: Untraceable if a function that declares the shapes of the outputs is wrong."""
    if callable(layer._output_shape):
        shapes = [leaf.shape for leaf in leaves(args) if isinstance(leaf, Tensor)]
        said = layer._output_shape(shapes[0] if len(shapes) == 1 else shapes)
        if len(gives) != 1 or merged(tuple(said), gives[0]) is None:
            raise Untraceable(f"whose code gives {gives[0]} where its output_shape says {said}")


def require_registered(config: Mapping[str, Any], keras: ModuleType) -> None:
    """Raises: Untraceable if a Lambda's function is one that the file only names, and does not define."""
    function = config.get("function")
    if isinstance(function, dict) and function.get("class_name") == "function":
        name = function.get("config")
        if isinstance(name, str) and keras.saving.get_registered_object(name) is None:
            raise Untraceable(
                f"whose function '{clean(name)}' is not registered with Keras (have a --rules file import "
                "and register it)"
            )


def _tf_keras() -> ModuleType:
    try:
        return importlib.import_module("tf_keras")
    except Exception as error:  # whatever an installation raises
        raise Untraceable("whose code is traced by tf_keras, which cannot be imported") from error


def _layer(spec: dict[str, Any], keras: ModuleType) -> Any:
    """The Lambda itself, built by the Keras that wrote it."""
    config = json.loads(json.dumps(spec["config"]))
    with usual_names(keras):
        if keras.__name__ == "keras":
            return keras.layers.Lambda.from_config(config, safe_mode=False)
        lib = importlib.import_module("tf_keras.src.saving.serialization_lib")
        with lib.SafeModeScope(safe_mode=False):
            return keras.layers.Lambda.from_config(config)


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, (list, tuple)):
        return [leaf for item in outputs for leaf in _flat(item)]
    return [outputs]


@contextmanager
def safe_mode_of(source: Source, keras: ModuleType) -> Iterator[bool]:
    """Whether Keras's safe mode stays on while a file is loaded; Lambda layers get the names they need.

    It is off where a trusted file holds what safe mode refuses.
    """
    if not (source.trusted and _unsafe(source)):
        yield True
        return
    with usual_names(keras):
        yield False


def _unsafe(source: Source) -> set[Kind]:
    """What Keras's safe mode refuses in a file."""
    return {item.kind for item in source.active() if not item.compiled} & _UNSAFE


def trusted(*sources: Source) -> list[Note]:
    """The notes about files whose own code was run, or which had others opened."""
    notes = []
    for did, kinds in _DONE.items():
        names = [s.name for s in sources if s.trusted and _unsafe(s) & kinds]
        if names:
            text = f"Keras's safe mode was off for {' and '.join(names)}: {did}"
            notes.append(Note("trusted", "", text))
    return notes
