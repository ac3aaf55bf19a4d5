"""Shapes with sizes left open. None in a shape is an open size; None instead of one, an unknown shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kprune.graph.model import Shape

MaybeShape = Shape | None


class Contradiction(ValueError):
    """Shapes that do not go together; the message says which."""


def agree(one: MaybeShape, other: MaybeShape) -> bool:
    """Whether two shapes may be the same one."""
    if one is None or other is None or one == other:
        return True
    return len(one) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(one, other, strict=True)
    )


def merged(one: MaybeShape, other: MaybeShape) -> MaybeShape:
    """What two records of the same shape tell together; where they contradict each other, the first."""
    if one is None or other is None or len(one) != len(other):
        return other if one is None else one
    return tuple(b if a is None else a for a, b in zip(one, other, strict=True))


def broadcast(shapes: Iterable[MaybeShape]) -> MaybeShape:
    """What element-wise operations make of some shapes.

    Raises: Contradiction if they do not go together.
    """
    known = list(shapes)
    if any(shape is None for shape in known):
        return None
    given = [shape for shape in known if shape is not None]
    rank = max(map(len, given), default=0)
    return tuple(
        _common([shape[axis - rank + len(shape)] for shape in given if axis - rank + len(shape) >= 0], given)
        for axis in range(rank)
    )  # fmt: skip


def _common(sizes: Sequence[int | None], shapes: Sequence[Shape]) -> int | None:
    """The size along one axis: the one that is not 1."""
    wide = {size for size in sizes if size is not None and size != 1}
    if len(wide) > 1:
        raise Contradiction(" and ".join(map(str, shapes)) + " do not fit together")
    if wide:
        return wide.pop()
    return None if None in sizes else 1


def product(sizes: Iterable[int | None]) -> int | None:
    """How many positions there are; None if a size is open."""
    known = list(sizes)
    return None if None in known else math.prod(size for size in known if size is not None)
