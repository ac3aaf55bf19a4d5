"""The lists of what is harmless, held against Keras 3, Keras 2 and TensorFlow as they are installed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from kprune.active_content.keras_classes import (
    CLASSES,
    FUNCTIONS,
    LAYERS,
    OPERATION_MODULES,
    OPERATIONS,
    PROGRAMS,
    READERS,
)
from kprune.active_content.tensorflow_functions import FUNCTIONS as TENSORFLOW

pytestmark = pytest.mark.oracle

NAMESPACES = """
    layers models initializers regularizers constraints optimizers optimizers.schedules
    optimizers.legacy losses metrics quantizers dtype_policies
""".split()
LEFT_OUT = {*PROGRAMS, "DenseFeatures"}
HELPERS = {"get", "serialize", "deserialize", "clone_model", "load_model", "save_model",
           "model_from_json", "model_from_config", "model_from_yaml", "Input"}  # fmt: skip
ACTS = re.compile(
    r"\b(func_load|load_model|load_weights|import_module|get_file|saved_model\.load|gfile|"
    r"torch\.load|numpy_function|py_function)\b|(?<![.\w])(open|eval|exec|__import__)\("
)


def both() -> list[ModuleType]:
    import keras
    import tf_keras

    return [keras, tf_keras]


def members(module: Any, path: str) -> dict[str, Any]:
    for part in path.split("."):
        module = getattr(module, part, None)
    return {} if module is None else {name: getattr(module, name) for name in dir(module)}


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_class_that_keras_exports_is_on_a_list(namespace: str) -> None:
    missing = {
        name
        for keras in both()
        for name, held in members(keras, namespace).items()
        if inspect.isclass(held) and name not in CLASSES | LEFT_OUT
    }
    assert missing == set()


@pytest.mark.parametrize("namespace", ["activations", "losses", "metrics"])
def test_every_function_that_a_layer_or_a_loss_can_be_is_on_the_list(namespace: str) -> None:
    missing = {
        name
        for keras in both()
        for name, held in members(keras, namespace).items()
        if inspect.isfunction(held) and name not in FUNCTIONS | HELPERS
    }
    assert missing == set()


def code_of(kind: type) -> Iterator[str]:
    """The code of a class and of those it is made of, the base of all layers aside."""
    for base in kind.__mro__:
        name = f"{base.__module__}.{base.__name__}"
        if re.match(r"(tf_)?keras\.src\.(?!engine|models|utils|backend)", name) and not (
            name.endswith(("layers.layer.Layer", "operation.Operation"))
        ):
            yield inspect.getsource(base)


def test_no_class_on_the_list_opens_or_imports_anything_but_those_that_are_looked_at() -> None:
    acting = {
        name
        for keras in both()
        for name, held in members(keras, "layers").items()
        if inspect.isclass(held) and name in LAYERS and any(map(ACTS.search, code_of(held)))
    }
    # Discretization has numpy's digitize called, and nothing of the file's; TextVectorization has a
    # StringLookup inside, and no other class is like it.
    inside = {"IndexLookup", "TextVectorization"}
    assert acting - {"Discretization"} == (READERS - inside) | {"Lambda"}


def test_the_modules_of_operations_hold_nothing_that_opens_or_imports() -> None:
    import importlib

    found = {
        name: [
            match.group()
            for match in ACTS.finditer(inspect.getsource(importlib.import_module(name)))
        ]
        for name in OPERATION_MODULES
    }
    assert {name for name, acts in found.items() if acts} == set()


def test_the_operations_that_a_layer_may_call_take_one_tensor() -> None:
    import keras

    for name in OPERATIONS:
        parameters = list(inspect.signature(getattr(keras.ops, name)).parameters.values())
        needed = [item for item in parameters if item.default is item.empty]
        assert len(needed) == 1, name


def test_no_function_of_tensorflow_on_the_list_takes_a_path() -> None:
    from tensorflow.python.util import tf_export

    symbols = tf_export._NAME_TO_SYMBOL_MAPPING
    suspect = re.compile("file|path(?!s)|dir$|stream|library|func|^fn$")
    found = {}
    for name in TENSORFLOW:
        for exported in (name, f"compat.v1.{name}"):
            held = symbols.get(exported)
            if held is None or inspect.isclass(held):
                continue
            names = [word for word in inspect.signature(held).parameters if suspect.search(word)]
            if names:
                found[exported] = names
    assert found == {}
