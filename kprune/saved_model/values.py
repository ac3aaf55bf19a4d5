"""What flows through a graph: labels, and integers that say sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kprune.labels.labels import Axis, Labels

if TYPE_CHECKING:
    from kprune.saved_model.parameters import Parameter

Place = tuple[str, str, int]
"""One number of an integer constant: (graph, node, flat index)."""


@dataclass(frozen=True, eq=False)
class Number:
    """One element of an integer tensor.

    Attributes:
        value: as far as it is known before the model runs.
        at: the constant in which it is written; None if it is computed.
        of: axes with units whose sizes went into it.
        lost: whether it is anything else than a product of sizes, so that it cannot be followed.
    """

    value: int | None
    at: Place | None = None
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


@dataclass(eq=False)
class TensorList:
    """A list of tensors, as loops fill and read it.

    Attributes:
        element: labels of the tensors in it, once one was seen.
    """

    element: Labels | None


@dataclass(eq=False)
class Value:
    """One tensor.

    Attributes:
        labels: which units stand where.
        numbers: for a small integer tensor, an object array of `Number` in its shape.
        parameter: what a resource handle points to.
        items: the list that a variant holds.
        fixed: whether it is made of weights and constants alone.
    """

    labels: Labels
    numbers: Any = None
    parameter: Parameter | None = None
    items: TensorList | None = None
    fixed: bool = False
