"""What flows through a graph: labels, and integers that say sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kprune.labels.labels import Labels
from kprune.labels.sizes import Number, computed, product, size_number

if TYPE_CHECKING:
    from kprune.saved_model.tracing.parameters import Parameter

__all__ = ["Number", "Place", "TensorList", "Value", "computed", "product", "size_number"]

Place = tuple[str, str, int]
"""One number of an integer constant: (graph, node, flat index)."""


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
