"""What Keras 3 and Keras 2 write differently: the arguments of calls.

Keras 3 writes them as they were given. In Keras 2 the first argument is a row [layer, node, tensor,
kwargs], or lists and dicts of such rows; each row holds all the other arguments again, of which Keras
reads those of the first row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kprune.graph.model import Constant, TensorRef, as_shape

CONSTANT = "_CONSTANT_VALUE"
"""Stands for a layer's name where Keras 2 writes a constant."""


def is_keras_2(metadata: Mapping[str, Any]) -> bool:
    """Whether Keras 2 (or 1) wrote a file."""
    return str(metadata.get("keras_version", "3")).startswith(("1.", "2."))


def arguments(data: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of one call, from either dialect."""
    if is_keras3_node(data):
        if not isinstance(data["args"], list) or not isinstance(data["kwargs"], dict):
            raise TypeError("the arguments of a call are not a list and a dict")
        return _arguments_in(data["args"], _argument), _arguments_in(data["kwargs"], _argument)
    kwargs = _arguments_in(legacy_kwargs(data), _row_argument)
    first = _first_row(data)
    return [first[0] if isinstance(first, list) and len(first) == 1 else first], kwargs


def _arguments_in(holder: Any, read: Callable[[Any], Any]) -> Any:
    """The arguments in a list or dict of the config. Fractions in a list are an array; whole numbers are
    sizes, axes or indices, and stay as they are.
    """
    keys: Any = holder if isinstance(holder, dict) else range(len(holder))
    found = {
        key: Constant(holder, key) if is_array(holder[key]) else read(holder[key]) for key in keys
    }
    return found if isinstance(holder, dict) else list(found.values())


def is_array(value: Any) -> bool:
    """Whether nested lists hold numbers, and those of the first row are not all whole."""
    while isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not all(type(item) in (int, float) for item in value):
        return False
    return any(type(item) is float for item in value)


def is_keras3_node(data: Any) -> bool:
    """Whether a call is written as Keras 3 does, as a dict of its arguments."""
    return isinstance(data, dict) and "args" in data and "kwargs" in data


def _is_row(data: Any) -> bool:
    return (
        isinstance(data, list)
        and len(data) > 2
        and isinstance(data[0], str)
        and isinstance(data[1], int)
    )


def legacy_rows(data: Any) -> list[list[Any]]:
    """The rows of a call in Keras 2's dialect."""
    if _is_row(data):
        return [data]
    items = data.values() if isinstance(data, dict) else data
    return [row for item in items for row in legacy_rows(item)]


def legacy_kwargs(data: Any) -> dict[str, Any]:
    """The arguments of a call but the first, as they stand in the config."""
    rows = legacy_rows(data)
    kwargs = rows[0][3] if rows and len(rows[0]) > 3 else {}
    return kwargs if isinstance(kwargs, dict) else {}


def _first_row(data: Any) -> Any:
    if not _is_row(data):
        if isinstance(data, dict):
            return {key: _first_row(item) for key, item in data.items()}
        return [_first_row(item) for item in data]
    if data[0] == CONSTANT:
        return Constant(data, 2) if isinstance(data[2], list) else data[2]
    return TensorRef(data[0], data[1], data[2])


def _row_argument(item: Any) -> Any:
    if _is_row(item) and len(item) == 3:
        return TensorRef(item[0], item[1], item[2])
    if isinstance(item, (list, dict)):
        return _arguments_in(item, _row_argument)
    return item


def _argument(item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        return _arguments_in(item, _argument)
    if not isinstance(item, dict):
        return item
    kind = item.get("class_name")
    config: Any = item.get("config")
    if kind == "__keras_tensor__":
        layer, node, index = config["keras_history"]
        return TensorRef(
            layer, node, index, as_shape(config.get("shape")), config.get("dtype"), config
        )
    if kind in ("__numpy__", "__tensor__"):
        return Constant(config, "value")
    if kind == "__slice__":
        return slice(*(_argument(config[part]) for part in ("start", "stop", "step")))
    if kind == "__ellipsis__":
        return Ellipsis
    if kind == "__tuple__":
        return tuple(_argument(part) for part in config["value"])
    if kind is None:
        return _arguments_in(item, _argument)
    return item
