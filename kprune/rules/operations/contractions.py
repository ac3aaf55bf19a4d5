"""Products that are summed over: matmul, einsum, tensordot. What is multiplied is tied."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kprune.graph.model import Constant
from kprune.labels.labels import Labels
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
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
        if along.factors and not _silent_along(wide, axis):
            call.mix(
                along,
                f"are multiplied and summed by {call.layer.path!r}, where a masked unit gives no 0",
            )
    left = call.collapse(product, summed)
    shape = tuple(size for axis, size in enumerate(call.shape(left)) if axis not in summed)
    result = left.move(lambda factor: factor.squeeze(tuple(summed)), shape)
    kept = (axis for axis in range(len(letters)) if axis not in summed and left.varies(axis))
    return result.with_silence(all(_silent_along(wide, axis) for axis in kept))


def _silent_along(factors: Iterable[Labels], axis: int) -> bool:
    """Whether a product gives 0 where a unit on one axis is gone: it does if one factor with that unit does."""
    return any(labels.silent and labels.varies(axis) for labels in factors)


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


@OPERATIONS.rule("Einsum", does="combines")
def einsum(call: LayerCall) -> Labels:
    """letters that meet are tied, letters that the output lacks are summed"""
    equation = call.config.get("subscripts")
    operands = [operand for operand in call.args if isinstance(operand, (Labels, Constant))]
    if equation is None and call.args and isinstance(call.args[0], str):
        equation = call.args[0]
    if not isinstance(equation, str):
        raise CannotTell("has an equation that is not text")
    ranks = [len(call.shape(o)) if isinstance(o, Labels) else o.value.ndim for o in operands]
    letters, output = parse_equation(equation, ranks)
    return product(call, operands, letters, output)


def product(
    call: LayerCall, operands: Sequence[Any], letters: Sequence[str], output: str
) -> Labels:
    """An einsum of which some operands are arrays in the config, which are cut along."""
    given = []
    for operand, own in zip(operands, letters, strict=True):
        if isinstance(operand, Labels):
            given.append((operand, own))
            continue
        sizes = operand.value.shape
        ids = []
        factors = []
        for axis, size in enumerate(sizes):
            fresh = call.anonymous(size)
            ids.append(fresh)
            extents = [1] * len(sizes)
            extents[axis] = size
            factors.append(fresh.reshape(extents))
            meets = any(
                own[axis] in other
                for other in [*(o for i, o in enumerate(letters) if operands[i] is not operand)]
            )
            if not meets:
                call.freeze(fresh, f"are rows of an array in the config of {call.layer.path!r}")
        call.constant(operand, *ids)
        given.append((Labels(sizes, tuple(factors)), own))
    return contract(call, given, output)


@OPERATIONS.rule("Matmul", does="combines")
def matmul(call: LayerCall) -> Labels:
    """the last axis of the first with the last but one of the second; batches meet"""
    one, other = (call.argument(0, "x1"), call.argument(1, "x2"))
    ranks = [len(call.shape(o)) if isinstance(o, Labels) else o.value.ndim for o in (one, other)]
    if min(ranks) == 0:
        raise CannotTell("multiplies scalars")
    first, second = ranks
    batch = string.ascii_lowercase[: max(first, second) - 2] if max(ranks) > 2 else ""
    left = (
        (batch[len(batch) - (first - 2) :] if first > 2 else "") + ("Y" if first > 1 else "") + "K"
    )
    right = (
        (batch[len(batch) - (second - 2) :] if second > 2 else "")
        + "K"
        + ("Z" if second > 1 else "")
    )
    output = batch + ("Y" if first > 1 else "") + ("Z" if second > 1 else "")
    return product(call, [one, other], [left, right], output)


@OPERATIONS.rule("Dot", "Inner", "Tensordot", does="combines")
def tensordot(call: LayerCall) -> Labels:
    """the axes named are multiplied and summed"""
    one, other = call.argument(0, "x1"), call.argument(1, "x2")
    ranks = [len(call.shape(o)) if isinstance(o, Labels) else o.value.ndim for o in (one, other)]
    first, second = ranks
    if call.kind == "Dot":
        axes = ([first - 1], [max(second - 2, 0)])
    elif call.kind == "Inner":
        axes = ([first - 1], [second - 1])
    else:
        value = call.argument(2, "axes", 2)
        if isinstance(value, int):
            axes = (list(range(first - value, first)), list(range(value)))
        else:
            axes = tuple([side] if isinstance(side, int) else list(side) for side in value)  # type: ignore[assignment]
    left = list(string.ascii_lowercase[:first])
    right = list(string.ascii_uppercase[:second])
    for a, b in zip(axes[0], axes[1], strict=True):
        right[b % second] = left[a % first]
    summed = {left[a % first] for a in axes[0]}
    output = "".join(letter for letter in [*left, *right] if letter not in summed)
    return product(call, [one, other], ["".join(left), "".join(right)], output)


@OPERATIONS.rule(
    "Outer",
    "Vdot",
    "Cross",
    "Kron",
    "Correlate",
    does="opaque",
    note="its sizes follow no single axis",
)
def flattened_product(call: LayerCall) -> Any:
    return call.opaque(f"{call.layer.path!r} ({call.kind}) multiplies flattened tensors")


@OPERATIONS.rule("DotProductAttention", does="combines")
def dot_product_attention(call: LayerCall) -> Labels:
    """(batch, time, heads, dim): query and key are summed over dim, heads meet; its scale depends on dim"""
    query, key, value = (
        call.made_tensor(call.argument(place, name))
        for place, name in enumerate(("query", "key", "value"))
    )
    heads = (call.shape(query)[2], call.shape(key)[2])
    mask = call.argument(4, "mask")
    of_heads = isinstance(mask, (Labels, Constant)) and (mask.shape or ())[1:2] != (1,)
    if call.argument(3, "bias") is not None or of_heads or heads[0] != heads[1]:
        for x in call.xs:
            call.freeze(
                x, f"reach {call.layer.path!r} with a bias, a mask, or key heads that are shared"
            )
        return Labels((*call.shape(query)[:-1], call.shape(value)[-1]))
    if call.argument(5, "scale") is None:
        # 1 / sqrt(dim) would change with dim.
        query = call.hold_axes(
            query, [3], f"are a dimension whose number scales the scores of {call.layer.path!r}"
        )
        key = call.hold_axes(
            key, [3], f"are a dimension whose number scales the scores of {call.layer.path!r}"
        )
    scores = contract(call, [(query, "bthd"), (key, "bshd")], "bhts")
    scores = call.hold_axes(scores, [2, 3], f"stand along the time axis of {call.layer.path!r}")
    value = call.hold_axes(value, [1], f"stand along the time axis of {call.layer.path!r}")
    return contract(call, [(scores, "bhts"), (value, "bshd")], "bthd").with_silence(value.silent)
