"""Arrays in a config whose sizes count units: found, and cut or frozen.

A rule speaks for the arrays that it knows: operands (`LayerCall.constant`), and what weights start
with or are held to, which `place_initial` finds for every weight that a rule declares. Whatever
else has as many positions as there are units along some axis of the layer would no longer fit once
one of them went, so `unclaimed_arrays.freeze_unclaimed` freezes these units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from kprune.graph.dialects import is_array
from kprune.graph.model import ARRAYS, Constant, Layer, array_at
from kprune.labels.labels import Axis, Labels, Shape
from kprune.text import clean

# Keras's own objects that hold an array which is broadcast against the weight, and where.
BROADCAST = {
    "Constant": ("value",),
    "MaxNorm": ("max_value",),
    "MinMaxNorm": ("min_value", "max_value"),
}
# Fields of a config are named after the weight, except these.
STEMS = {
    "recurrent_kernel": "recurrent",
    "depthwise_kernel": "depthwise",
    "pointwise_kernel": "pointwise",
    "reverse_embeddings": "embeddings",
}

DO = (
    "choose other units; save the model with a number in place of the array; "
    "or use 'kprune mask', which changes no shape"
)


class PlacesArrays(Protocol):
    """The call of a layer, as far as it is asked here: see `LayerCall`."""

    layer: Layer

    def freeze(
        self, what: Labels | Axis | np.ndarray, why: str, do: str = "", *, subject: str = ...
    ) -> None: ...

    def constant(
        self,
        constant: Constant,
        *axes: Axis,
        shape: tuple[int, ...] | None = None,
        initial: bool = False,
    ) -> None: ...


def place_initial(
    call: PlacesArrays, name: str, axes: tuple[Axis, ...], config: dict[str, Any], grouped: Any
) -> None:
    """Say which labels stand along the arrays with which a weight starts, or to which it is held.

    Args:
        name: of the weight; its initializer is `config[f"{name}_initializer"]`.
        axes: of the weight.
        grouped: see `Weight`.
    """
    stem = STEMS.get(name, name)
    for field in (f"{stem}_initializer", f"{stem}_constraint"):
        spec = config.get(field)
        if type(spec) is not dict or spec.get("class_name") not in BROADCAST or not _own(spec):
            continue
        for key in BROADCAST[spec["class_name"]]:
            array = array_at(spec["config"], key) if key in spec["config"] else None
            if array is not None:
                _place(call, array, axes, grouped)


def _own(spec: dict[str, Any]) -> bool:
    """Whether the class of an object in a config is Keras's own."""
    module = str(spec.get("module") or "").partition(".")[0]
    return ">" not in str(spec.get("registered_name")) and module in ("", "keras", "tf_keras")


def _place(call: PlacesArrays, array: Constant, axes: tuple[Axis, ...], grouped: Any) -> None:
    sizes = array.shape
    last = axes[len(axes) - len(sizes) :] if len(sizes) <= len(axes) else ()
    if grouped is not None and len(sizes) > 1 and sizes[-2] > 1:
        # Each group of filters keeps inputs of its own, which one array cannot follow.
        for axis in (*axes, grouped.sides[0], grouped.sides[-1]):
            call.freeze(axis, reason(call.layer, sizes), DO)
    elif len(last) == len(sizes) and all(
        size in (1, axis.size) for size, axis in zip(sizes, last, strict=True)
    ):
        along = [
            axis if size == axis.size else Axis(size)
            for size, axis in zip(sizes, last, strict=True)
        ]
        call.constant(array, *along, initial=True)
    elif math.prod(sizes) == math.prod(axis.size or 0 for axis in axes):
        shape = tuple(axis.size or 0 for axis in axes)
        call.constant(array, *axes, shape=shape, initial=True)


def reason(layer: Layer, shape: Shape) -> str:
    sizes = " × ".join(map(str, shape))
    return (
        f"may be counted by an array of {sizes} numbers in the config of "
        f"'{clean(layer.path)}', which kprune has no rule to cut"
    )


def arrays_in(config: dict[str, Any], skipped: set[int]) -> Iterator[Constant]:
    """The arrays in a layer's config.

    Whole numbers in a bare list are sizes and axes, for which its rule answers, unless the list
    belongs to an object inside: an initializer, say.

    Args:
        skipped: ids of the dicts in it that are configs of layers by themselves.
    """
    yield from _search(config, False, skipped)


def _search(holder: Any, inside: bool, skipped: set[int]) -> Iterator[Constant]:
    for key, value in holder.items() if type(holder) is dict else enumerate(holder):
        if type(value) is dict:
            kind = value.get("class_name")
            if kind in ARRAYS:
                array = array_at(holder, key)
                if array is not None:
                    yield array
            elif key != "dtype" and id(value) not in skipped:
                yield from _search(value, inside or kind is not None, skipped)
        elif type(value) is list and value:
            if is_array(value) or (inside and _holds_numbers(value)):
                yield Constant(holder, key)
            elif type(value[0]) in (dict, list):
                yield from _search(value, inside, skipped)


def _holds_numbers(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return type(value) in (int, float)
