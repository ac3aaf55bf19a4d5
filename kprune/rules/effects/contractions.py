"""Products that are summed over: what is multiplied is tied."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

import numpy as np

from kprune.labels.labels import Labels
from kprune.tracing.rule_call import CannotTell, RuleCall


def contract(call: RuleCall, operands: Sequence[tuple[Labels, str]], output: str) -> Labels:
    """The labels of an einsum.

    Every operand is laid out over all letters, of size 1 where it has none, and they are multiplied
    element by element; then the letters that the output lacks are summed away.

    Args:
        operands: each with one letter an axis.
        output: letters of the result.
    """
    letters = list(dict.fromkeys([*output, *(letter for _, own in operands for letter in own)]))
    wide = []
    for labels, own in operands:
        if len(set(own)) != len(own):
            raise CannotTell("takes a diagonal")
        shape = call.shape(labels)
        order = sorted(range(len(own)), key=lambda axis: letters.index(own[axis]))
        spots = [letters.index(own[axis]) for axis in order]

        def lay(
            factor: np.ndarray, order: list[int] = order, spots: list[int] = spots
        ) -> np.ndarray:
            extents = [1] * len(letters)
            for axis, spot in zip(order, spots, strict=True):
                extents[spot] = factor.shape[axis]
            return factor.transpose(order).reshape(extents)

        sizes: list[int | None] = [1] * len(letters)
        for axis, spot in zip(order, spots, strict=True):
            sizes[spot] = shape[axis]
        wide.append(labels.move(lay, tuple(sizes)))
    product = call.combine(wide)
    summed = [letters.index(letter) for letter in letters if letter not in output]
    for axis in summed:
        along = product.axis(axis)
        if along.factors and not _keeps_zero_along(wide, axis):
            call.mix(
                along,
                f"are multiplied and summed by {call.layer.path!r}, where a masked unit gives no 0",
            )
    left = call.collapse(product, summed)
    shape = tuple(size for axis, size in enumerate(call.shape(left)) if axis not in summed)
    result = left.move(lambda factor: factor.squeeze(tuple(summed)), shape)
    kept = (axis for axis in range(len(letters)) if axis not in summed and left.varies(axis))
    return result.with_keeps_zero(all(_keeps_zero_along(wide, axis) for axis in kept))


def _keeps_zero_along(factors: Iterable[Labels], axis: int) -> bool:
    """Whether a product gives 0 where a unit on one axis is gone: it does if one factor with that unit does."""
    return any(labels.keeps_zero and labels.varies(axis) for labels in factors)


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters of each operand and of the output, with `...` spelled out.

    Args:
        equation: einsum's, with or without `->`.
        ranks: of the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ranks):
        raise CannotTell(f"has the equation {equation!r} for {len(ranks)} tensors")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = max(
        (
            rank - len(own.replace("...", ""))
            for own, rank in zip(inputs, ranks, strict=True)
            if "..." in own
        ),
        default=0,
    )
    dots = "".join(free[:hidden])
    spelled = []
    for own, rank in zip(inputs, ranks, strict=True):
        count = rank - len(own.replace("...", ""))
        spelled.append(own.replace("...", dots[hidden - count :] if count else ""))
    if arrow:
        output = right.replace("...", dots)
    else:
        every = "".join(spelled)
        output = dots + "".join(
            sorted(letter for letter in set(every) - set(dots) if every.count(letter) == 1)
        )
    if any(len(own) != rank for own, rank in zip(spelled, ranks, strict=True)):
        raise CannotTell(f"has the equation {equation!r}")
    return spelled, output


def matmul_letters(first: int, second: int, *, turned: Sequence[bool] = ()) -> tuple[str, str, str]:
    """A product of matrices (or vectors, without batches) as an einsum: the batches meet.

    Args:
        first, second: ranks of the operands.
        turned: for each, whether its last two axes change places before.
    Returns: letters of both operands and of the result.
    Raises: CannotTell if one of them is a scalar.
    """
    if min(first, second) == 0:
        raise CannotTell("multiplies scalars")
    batch = string.ascii_lowercase[: max(first, second, 2) - 2]
    left, right = ("Y" if first > 1 else "") + "K", "K" + ("Z" if second > 1 else "")
    output = batch + left[:-1] + right[1:]
    if any(turned):
        left, right = (
            side[::-1] if turn else side for side, turn in zip((left, right), turned, strict=True)
        )
    return _batched(batch, first) + left, _batched(batch, second) + right, output


def _batched(batch: str, rank: int) -> str:
    return batch[len(batch) - (rank - 2) :] if rank > 2 else ""
