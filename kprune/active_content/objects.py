"""What one object of a config would do when Keras builds it.

Keras builds an object wherever a dict says `class_name`, however deep it stands: a layer, an
initializer, a loss, a function, a slice. It looks for the class among what is registered, then
among its own, and Keras 2 then imports whatever `module` says and takes the class, or the function,
from there (keras/src/saving/serialization_lib.py, tf_keras/src/saving/serialization_lib.py).
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kprune.active_content.active import Active, Kind
from kprune.active_content.inert_operations import INERT
from kprune.active_content.keras_classes import (
    CLASSES,
    FILE_ENTRIES,
    FUNCTION_ENTRIES,
    FUNCTIONS,
    HELPERS,
    INITIALIZER_MODULES,
    INITIALIZERS,
    OPERATION_MODULES,
    OPERATIONS,
    OPTIMIZERS,
    PROGRAMS,
    RAGGED,
    READERS,
    SPEC_MODULES,
    SPECS,
)
from kprune.active_content.tensorflow_functions import only_computes
from kprune.rules import PACKAGES

DATA = frozenset(
    "CompositeTensor TensorShape __bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ "
    "__tensor__ __tuple__".split()
)
"""Objects that are mere data."""

_KERAS = ("keras", "tf_keras")
_HUB = "keras_hub"
# Keras 2 registers these of its own as users register theirs.
_REGISTERED_BY_KERAS = frozenset(f"Custom>{name}" for name in (*OPTIMIZERS, "CustomScaleLayer"))
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PATH = re.compile(r"/[^/\s]|~/|\.\.?/|[A-Za-z]:\\")


def is_object(item: Mapping[str, Any]) -> bool:
    """Whether Keras builds something of a dict."""
    return isinstance(item.get("class_name"), str)


def of_object(item: Mapping[str, Any], place: str) -> Iterator[Active]:
    """What building an object would do, apart from what is inside it."""
    name = item["class_name"]
    if name == "__lambda__":
        yield Active(Kind.BYTECODE, place)
    elif name == "function":
        yield from _of_function(item, place)
    elif name in ("TypeSpec", "__typespec__"):
        yield from _of_type(item, place)
    elif name not in DATA:
        yield from _of_class(item, name, place)


def of_entries(item: Mapping[str, Any], place: str) -> Iterator[Active]:
    """What entries of a dict would do, whatever the dict describes."""
    for key, value in item.items():
        if key.endswith("_type") and value == "lambda":  # a function of Keras 2's Lambda
            yield Active(Kind.BYTECODE, place)
        elif key in FUNCTION_ENTRIES:
            for name in _texts(value):
                if name in HELPERS:
                    yield Active(Kind.FUNCTION, place, name, name)


def opened_by(text: str, place: str) -> Iterator[Active]:
    """A file or an address, if a text looks like one: a class that is not Keras's may open it."""
    if _ADDRESS.match(text):
        yield Active(Kind.ADDRESS, place, text)
    elif _PATH.match(text):
        yield Active(Kind.FILE, place, text)


def is_own(item: Mapping[str, Any]) -> bool:
    """Whether an object is of a class of Keras's own, as far as a config can say so."""
    module, name = item.get("module"), item["class_name"]
    if name in DATA or name in ("function", "__lambda__", "TypeSpec", "__typespec__"):
        return True
    return _in_keras(module) and (name in CLASSES or name in PROGRAMS or _is_operation(module))


def _of_class(item: Mapping[str, Any], name: str, place: str) -> Iterator[Active]:
    module, registered = item.get("module"), _registered(item)
    config = item.get("config")
    config = config if isinstance(config, dict) else {}
    if name in PROGRAMS and _in_keras(module):
        entry = config.get(PROGRAMS[name])
        named = f"{name} ({entry})" if isinstance(entry, str) else name
        yield Active(Kind.PROGRAM, place, named)
    elif _is_known_class(module, name, item.get("registered_name")):
        yield from _of_own_class(name, config, place)
    elif _in_keras(module) and not isinstance(module, str):
        yield Active(Kind.CLASS, place, name, registered)
    else:
        yield Active(Kind.MODULE, place, f"{module}.{name}", registered)


def _of_own_class(name: str, config: Mapping[str, Any], place: str) -> Iterator[Active]:
    """What a class of Keras does that does what its config says."""
    for entry in FILE_ENTRIES if name in READERS else ():
        if isinstance(path := config.get(entry), str):
            yield Active(Kind.ADDRESS if _ADDRESS.match(path) else Kind.FILE, place, path)
    if name == "Lambda":
        if any(isinstance(config.get(entry), list) and _is_dumped(config[entry])
               for entry in ("function", "output_shape", "mask")):  # fmt: skip
            yield Active(Kind.BYTECODE, place)
    elif name in ("TFOpLambda", "SlicingOpLambda"):
        function = str(config.get("function"))
        if not only_computes(function):
            yield Active(Kind.FUNCTION, place, f"tf.{function}")
    elif name == "ClassMethod":
        of, method = config.get("cls_symbol"), config.get("method_name")
        if of != "RaggedTensor" or str(method) not in RAGGED:
            yield Active(Kind.FUNCTION, place, f"tf.{of}.{method}")
    elif name in ("InstanceMethod", "InstanceProperty"):
        if str(config.get("attr_name")) not in RAGGED:
            yield Active(Kind.FUNCTION, place, f"tensor.{config.get('attr_name')}")
    elif name == "TensorFlowOpLayer":
        node = config.get("node_def")
        operation = str(node.get("op")) if isinstance(node, dict) else "?"
        if operation not in INERT:
            yield Active(Kind.OPERATION, place, operation)


def _of_function(item: Mapping[str, Any], place: str) -> Iterator[Active]:
    module, name = item.get("module"), item.get("config")
    if not isinstance(name, str):
        name = repr(name)
    elif _is_known_function(module, name, item.get("registered_name")):
        return
    what = f"{module}.{name}" if isinstance(module, str) else name
    yield Active(Kind.FUNCTION, place, what, name)


def _of_type(item: Mapping[str, Any], place: str) -> Iterator[Active]:
    module, name = item.get("module"), item.get("spec_name", item.get("type_spec"))
    if str(name).removeprefix("tf.") not in SPECS or module not in (None, *SPEC_MODULES):
        yield Active(Kind.MODULE, place, f"{module}.{name}" if module else str(name))
    elif item.get("registered_name") not in (None, name):
        yield Active(Kind.MODULE, place, str(item["registered_name"]))


def _is_known_class(module: Any, name: str, registered: Any) -> bool:
    if module in INITIALIZER_MODULES:
        return name in INITIALIZERS and registered in (None, "", name)
    if not _in_keras(module):
        hub = isinstance(module, str) and module.partition(".")[0] == _HUB
        return hub and f"{_HUB}>{name}" in PACKAGES.rules
    if name in _REGISTERED_BY_KERAS:  # in a legacy file, which has no other place for it
        return True
    if not isinstance(registered, str | None):
        return False
    if registered in _REGISTERED_BY_KERAS:
        return registered == f"Custom>{name}"
    # Keras 2 looks for the registered name in the module as well.
    return registered in (None, "", name) and (name in CLASSES or _is_operation(module))


def _is_known_function(module: Any, name: str, registered: Any) -> bool:
    if registered not in (None, "", name, *(["function"] if module == "builtins" else [])):
        return False
    package, _, rest = module.partition(".") if isinstance(module, str) else ("", "", "")
    if package in ("", "builtins") and not hasattr(builtins, name.partition(".")[0]):
        return True  # if it is not registered, Keras finds nothing
    if name.startswith(f"{_HUB}>"):  # such a name is looked for among what is registered alone
        return package in ("", "builtins", _HUB)
    if package == "keras" and rest.partition(".")[0] == "ops":
        return name in OPERATIONS
    return package in ("", "builtins", *_KERAS) and name in FUNCTIONS


def _is_operation(module: Any) -> bool:
    return module in OPERATION_MODULES


def _in_keras(module: Any) -> bool:
    """Whether Keras looks for something in itself. Without a module it looks nowhere else."""
    return module is None or (isinstance(module, str) and module.partition(".")[0] in _KERAS)


def _registered(item: Mapping[str, Any]) -> str:
    """The name under which Keras looks among what is registered."""
    name = item.get("registered_name", item["class_name"])
    return name if isinstance(name, str) else ""


def _is_dumped(value: list[Any]) -> bool:
    """Whether a list is a function as Keras 2 dumps it: code, defaults, closure."""
    return len(value) == 3 and isinstance(value[0], str)


def _texts(value: Any) -> Iterator[str]:
    """The texts in lists and dicts that are no objects."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict) and not is_object(item):
            waiting.extend(item.values())
