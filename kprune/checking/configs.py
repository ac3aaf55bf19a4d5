"""Numbers and arrays in the configs of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from kprune.checking.shapes import MaybeShape
from kprune.graph.model import Shape

Config = Mapping[str, Any]


@cache  # a model has few classes, each many times over
def plain_name(kind: str) -> str:
    """The one name of a class that Keras exports under several."""
    kind = kind.replace("Convolution", "Conv").replace("GroupedQuery", "GroupQuery")
    return re.sub(r"(Avg|Max)Pool(?=\d)", _spelt_out, kind)


def _spelt_out(found: re.Match[str]) -> str:
    return {"Avg": "Average", "Max": "Max"}[found[1]] + "Pooling"


def first(inputs: Sequence[MaybeShape]) -> Shape:
    """The first input's shape; () if it is not known."""
    return (inputs[0] if inputs else None) or ()


def at(shape: Shape, axis: int) -> int | None:
    """The size of an axis, None if it is not known or not there."""
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def channels(config: Config, inputs: Sequence[MaybeShape]) -> int | None:
    """How many channels the first input has."""
    return at(first(inputs), 1 if config.get("data_format") == "channels_first" else -1)


def numbers(value: Any, count: int) -> list[int]:
    """`3` or `[3, 5]` as a list of so many numbers."""
    return (
        [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)] * count
    )


def axes_of(config: Config) -> list[int]:
    """The axes that a normalisation has parameters along."""
    axis = config.get("axis", -1)
    return list(axis) if isinstance(axis, (list, tuple)) else [axis]


def times(one: int | None, factor: int) -> int | None:
    return None if one is None else one * factor


def shape_of(value: Any) -> Shape:
    """The shape of an array written as nested lists. Only first items are looked at: lists may be long."""
    shape = []
    while isinstance(value, (list, tuple)):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def array_shape(value: Any) -> MaybeShape:
    """The shape of a number or an array in a config, in any of its forms; None if it is neither."""
    if isinstance(value, dict):
        if value.get("class_name") not in ("__numpy__", "__tensor__"):
            return None
        return array_shape((value.get("config") or {}).get("value"))
    if isinstance(value, (list, tuple, int, float)):
        return shape_of(value)
    return None
