"""The sizes that a graph computes with, as far as they are known before the model runs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.labels.labels import Axis, Labels


class Number(Struct, frozen=True, eq=False):
    """One element of an integer tensor.

    Attributes:
        value: as far as it is known before the model runs.
        at: the place where it is written, in the graph or in the config; None if it is computed.
        of: axes with units whose sizes went into it.
        lost: whether it is something other than a product of sizes, so that it cannot be followed.
    """

    value: int | None
    at: Any = None
    of: tuple[Axis, ...] = ()
    lost: bool = False


def size_number(labels: Labels, axis: int) -> Number:
    """The size of a tensor along one axis, as Shape gives it."""
    along = labels.axis(axis)
    return Number(along.size, of=(along,) if along.factors else ())


def product(numbers: list[Number]) -> Number:
    """Several sizes multiplied."""
    value: int | None = 1
    for number in numbers:
        value = None if value is None or number.value is None else value * number.value
    return Number(
        value,
        of=tuple(axis for number in numbers for axis in number.of),
        lost=any(number.lost for number in numbers),
    )


def computed(value: int | None, numbers: list[Number]) -> Number:
    """Anything else that was made of sizes."""
    return Number(value, of=tuple(axis for number in numbers for axis in number.of), lost=True)


ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Subtract": operator.sub,
    "FloorDivide": operator.floordiv,
    "Mod": operator.mod,
    "Maximum": max,
    "Minimum": min,
}
"""What is computed of two sizes beside products, by the operation's name in `keras.ops`."""


def calculated(kind: str, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What an operation makes of two arrays of `Number`, element by element."""
    pairs: Any = np.broadcast(one, other)
    result = np.empty(pairs.size, object)
    result[:] = [_of_two(kind, a, b) for a, b in pairs]
    return result.reshape(pairs.shape)


def _of_two(kind: str, one: Number, other: Number) -> Number:
    if kind == "Multiply":
        return product([one, other])
    function, value = ARITHMETIC.get(kind), None
    by_zero = kind in ("FloorDivide", "Mod") and other.value == 0
    if function is not None and one.value is not None and other.value is not None and not by_zero:
        value = function(one.value, other.value)
    made = computed(value, [one, other])
    # What is made of plain numbers is one itself.
    return made if made.of or one.lost or other.lost else Number(value)
