"""Looking into a Keras layer while it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Captured(BaseException):
    """Ends a call once what was wanted of it is known. Keras would rewrite the message of an Exception."""


@contextmanager
def observed(layer: Any, *, stop: bool = False) -> Iterator[list[Any]]:
    """Record what a layer is given, what it makes of it before its activation, and what it gives.

    Args:
        stop: end the call, by `Captured`, once it is known what the layer is given.
    """
    seen: list[Any] = []
    original = layer.call

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        if stop:
            seen.append((x, None, None))
            raise Captured
        activation = getattr(layer, "activation", None)
        object.__setattr__(layer, "activation", None)
        try:
            linear = original(x, *args, **kwargs)
        finally:
            object.__setattr__(layer, "activation", activation)
        made = linear if activation is None else activation(linear)
        seen.append((x, linear, made))
        return made

    object.__setattr__(layer, "call", call)
    try:
        yield seen
    finally:
        object.__delattr__(layer, "call")
