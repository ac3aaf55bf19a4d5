"""Several tensors element by element: which units stay or go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from kprune.labels.labels import Factors, Labels, Shape, fold, require_room

Derive = Callable[[np.ndarray], np.ndarray]


class Combined(Struct):
    """The result of combining tensors element by element.

    Attributes:
        labels: those of the result.
        derive: makes labels for positions at which several units stand; see `LabelMap.derive`.
        ties: pairs of equally shaped id arrays; the two ids of each pair stay or go together.
        stuck: ids that cannot be removed, because another operand has no unit that could be removed with them.
    """

    labels: Labels
    derive: Derive
    ties: list[tuple[np.ndarray, np.ndarray]]
    stuck: list[np.ndarray]


def broadcast_shape(shapes: Sequence[Shape]) -> Shape:
    """NumPy's rule, with None for sizes that are not known.

    Raises: ValueError if two sizes do not go together.
    """
    rank = max(len(shape) for shape in shapes)
    result: list[int | None] = []
    for sizes in zip(
        *(((1,) * (rank - len(shape)) + tuple(shape)) for shape in shapes), strict=True
    ):
        known = {size for size in sizes if size is not None and size != 1}
        if len(known) > 1:
            raise ValueError(f"sizes {sorted(known)} do not broadcast")
        if known:
            result.append(known.pop())
        else:
            result.append(None if None in sizes else 1)
    return tuple(result)


def combine(operands: Sequence[Labels], derive: Derive) -> Combined:
    """The labels of `operands[0] + operands[1] + …`, or any other element-wise function of them.

    Args:
        operands: labels of tensors of known shapes that broadcast together.
        derive: from int64 (n, m), labels of n positions at which m units stand each.
    Raises: ValueError if they do not broadcast.
    """
    shapes = [operand.shape for operand in operands if operand.shape is not None]
    shape = broadcast_shape(shapes)
    if len(operands) > 1 and len(operands) == len(shapes):
        simple = _same_single_support(operands, shape, derive)
        if simple is not None:
            return simple
    rank = len(shape)
    result = Combined(Labels(shape), derive, [], [])
    aligned = [_standing(_align(operand, rank), result) for operand in operands]
    factors: list[np.ndarray] = []
    for support in _components(aligned):
        factors.extend(_combine_along(support, aligned, shape, result))
    result.labels = Labels(shape, tuple(factors), _silent(operands, shape))
    return result


def _same_single_support(
    operands: Sequence[Labels], shape: Shape, derive: Derive
) -> Combined | None:
    """The common case, for speed: equal shapes, one factor each, all varying along the same axes."""
    first = operands[0]
    if any(operand.shape != first.shape or len(operand.factors) != 1 for operand in operands):
        return None
    extents = first.factors[0].shape
    if any(operand.factors[0].shape != extents for operand in operands):
        return None
    if any((operand.factors[0] == 0).any() for operand in operands):
        return None
    ties = [(first.factors[0], other.factors[0]) for other in operands[1:]]
    return Combined(Labels(shape, first.factors, _silent(operands, shape)), derive, ties, [])


def _align(operand: Labels, rank: int) -> Labels:
    """The operand with axes of size 1 put in front, as broadcasting does."""
    if operand.shape is None:
        return operand
    extra = (1,) * (rank - len(operand.shape))
    return operand.move(lambda factor: factor.reshape(extra + factor.shape), extra + operand.shape)


def _standing(operand: Labels, result: Combined) -> Labels:
    """The operand without factors that stand on no axis: one unit everywhere, which cannot go, or none."""
    nowhere = [factor for factor in operand.factors if not operand.support(factor)]
    if not nowhere:
        return operand
    result.stuck.extend(factor.ravel() for factor in nowhere)
    kept = tuple(factor for factor in operand.factors if operand.support(factor))
    return Labels(operand.shape, kept, operand.keeps_zero)


def units_stand_on(operand: Labels, shape: Shape) -> frozenset[int]:
    """The axes of a result, counted from its end, on which an operand has units of its own at each position.

    Args:
        shape: of the result; along an axis that the operand is spread on, its one unit is no position's own.
    """
    if operand.shape is None:
        return frozenset()
    axes = {axis for factor in operand.factors for axis in operand.support(factor)}
    return frozenset(
        axis - operand.rank
        for axis in axes
        if operand.shape[axis] != 1 or shape[axis - operand.rank] == 1
    )


def _silent(operands: Sequence[Labels], shape: Shape) -> bool:
    """Whether all operands give 0 where a unit is gone, so that most functions of them do."""
    axes = [units_stand_on(operand, shape) for operand in operands]
    everywhere = frozenset().union(*axes)
    return all(
        operand.keeps_zero and own == everywhere
        for operand, own in zip(operands, axes, strict=True)
    )


def _components(operands: Sequence[Labels]) -> list[frozenset[int]]:
    """Sets of axes that belong together because some factor varies along all of them."""
    components: list[frozenset[int]] = []
    for operand in operands:
        for factor in operand.factors:
            axes = frozenset(operand.support(factor))
            touching = [component for component in components if component & axes]
            components = [component for component in components if not component & axes]
            components.append(axes.union(*touching))
    return components


def _combine_along(
    axes: frozenset[int], operands: Sequence[Labels], shape: Shape, result: Combined
) -> Factors:
    held = [
        [factor for factor in operand.factors if axes & set(operand.support(factor))]
        for operand in operands
    ]
    bearers = [factors for factors in held if factors]
    counts = {len(factors) for factors in bearers}
    several = max(counts) > 1
    if several:
        # Units along one axis in one operand, jointly along two in another: tied only where the
        # operands agree factor by factor.
        supports = [[f.shape for f in factors] for factors in bearers]
        if len(counts) > 1 or any(s != supports[0] for s in supports):
            result.stuck.extend(f.ravel() for factors in bearers for f in factors)
            return tuple(bearers[0])
    for operand, factors in zip(operands, held, strict=True):
        if factors or operand.shape is None:
            continue
        if any(operand.shape[axis] != 1 and shape[axis] != 1 for axis in axes):
            # Full size along the axis, and no unit there that could go with the others'.
            result.stuck.extend(f.ravel() for other in bearers for f in other)
    if not several:
        spread = [factors[0] for factors in bearers]
        sizes = [operand.shape for operand, factors in zip(operands, held, strict=True) if factors]
        extents = {tuple(extent > 1 for extent in factor.shape) for factor in spread}
        if len(extents) > 1:
            return _combine_nested(spread, sizes, shape, result)
    first = bearers[0]
    out = []
    for index, leader in enumerate(first):
        for factors in bearers[1:]:
            leader = _tie(leader, factors[index], shape, result)
        out.append(leader)
    return tuple(out)


def _combine_nested(
    factors: list[np.ndarray], shapes: list[Shape | None], shape: Shape, result: Combined
) -> Factors:
    """Units along some axes in one operand, along more of them in another.

    Where an operand is spread (its size is 1) along the axes that it does not know, a position of the
    common axes goes with the other operand's units there as a whole: the head of a score with all
    dimensions of that head's values. Where it has its full size there, each of them is tied to it.
    """
    widest = max(factors, key=lambda factor: sum(extent > 1 for extent in factor.shape))
    wide_axes = {axis for axis, extent in enumerate(widest.shape) if extent > 1}
    for factor, size in zip(factors, shapes, strict=True):
        if factor is widest:
            continue
        axes = {axis for axis, extent in enumerate(factor.shape) if extent > 1}
        missing = wide_axes - axes
        spread = size is not None and all(size[axis] == 1 for axis in missing)
        if (
            axes <= wide_axes
            and axes
            and missing
            and spread
            and (factor != 0).all()
            and (widest != 0).all()
        ):
            order = sorted(axes)
            moved = np.moveaxis(widest, order, range(len(order)))
            members = moved.reshape(int(np.prod([widest.shape[axis] for axis in order])), -1)
            result.ties.append((result.derive(members), factor.ravel()))
        else:
            widest = _tie(widest, factor, shape, result)
    return (widest,)


def _tie(a: np.ndarray, b: np.ndarray, shape: Shape, result: Combined) -> np.ndarray:
    """Tie two factors where they meet; gives the one that stands for both."""
    require_room(*np.broadcast_shapes(a.shape, b.shape))
    wide_a, wide_b = np.broadcast_arrays(a, b)
    for narrow, wide in ((a, wide_a), (b, wide_b)):
        if narrow.size == 1 and wide.size > 1:
            # A single unit spread over many positions (a gate of width 1): it is no position's own.
            result.stuck.append(narrow.ravel())
            return wide_b if narrow is a else wide_a
    pairs = (wide_a != 0) & (wide_b != 0)
    result.ties.append((wide_a[pairs], wide_b[pairs]))
    lonely = ~pairs
    if lonely.any():
        result.stuck.append(wide_a[lonely])
        result.stuck.append(wide_b[lonely])
    return fold(np.where(wide_a != 0, wide_a, wide_b))
