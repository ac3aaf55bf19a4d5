"""The values of two tensors compared, block by block, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kprune.edit import TensorEdit
from kprune.formats import Source, as_float

# What is left of a scaled weight was rounded once more when it was written.
SCALED = 1e-6


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes:
        how: `all` values, those that were `kept`, or `no`.
        values: how many were compared.
        different: how many differ. NaN equals NaN.
        largest: the largest absolute difference.
    """

    how: str
    values: int = 0
    different: int = 0
    largest: float = 0.0


def compare(
    old: Source, one: str, new: Source, other: str, cut: TensorEdit | None = None
) -> Compared:
    """Compare two tensors.

    Args:
        one, other: their paths in `old` and `new`.
        cut: what was done to the first, if its kept part is to be compared. Where that does not
            give the second's shape, nothing is compared.
    """
    shape = old.tensors[one].shape
    if cut is not None and cut.shape_after(shape) != new.tensors[other].shape:
        return Compared("no")
    if not shape:
        mine: Iterator[np.ndarray] = iter([old.read(one).reshape(1)])
        theirs: Iterator[np.ndarray] = iter([new.read(other).reshape(1)])
    else:
        mine = (
            block if cut is None else cut.applied(block, start) for start, block in old.blocks(one)
        )
        theirs = (block for _, block in new.blocks(other))
    values = different = 0
    largest = 0.0
    tolerance = SCALED if cut is not None and cut.scale != 1.0 else 0.0
    for left, right in _in_step(mine, theirs):
        values += left.size
        if left.dtype == right.dtype and left.tobytes() == right.tobytes():
            continue
        x, y = (as_float(part).astype(np.float64) for part in (left, right))
        with np.errstate(invalid="ignore"):  # infinity minus infinity, or times 0
            gap = np.abs(x - y)
            near = gap <= tolerance * np.abs(y)
        apart = ~((x == y) | (np.isnan(x) & np.isnan(y)) | near)
        different += int(apart.sum())
        finite = gap[apart & np.isfinite(gap)]
        largest = max(largest, float(finite.max()) if finite.size else 0.0)
    return Compared("all" if cut is None else "kept", values, different, largest)


def _in_step(
    mine: Iterable[np.ndarray], theirs: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of blocks of the same length, from two tensors whose blocks end at different places."""
    other = iter(theirs)
    rest: np.ndarray | None = None
    for block in mine:
        while len(block):
            if rest is None or not len(rest):
                rest = next(other, None)
                if rest is None:
                    return
            length = min(len(block), len(rest))
            yield block[:length], rest[:length]
            block, rest = block[length:], rest[length:]
