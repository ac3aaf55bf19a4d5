"""Reshaping a tensor: axes are matched in runs of equal size, from the last one on.

What is left in front once no more runs match is folded together: the batch, windows or time steps
in it, unknown sizes. No unit can stand there on its own; one that stands in several of
its positions stays or goes in all of them.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from kprune.labels.labels import Labels, Shape, fold, require_room
from kprune.tracing.rule_call import RuleCall


class Match(Struct):
    """How two shapes go together.

    Attributes:
        heads: how many axes of each are folded with something unknown.
        runs: (sizes in the old shape, sizes in the new one) of equal product, in order.
        split: (outer, inner) sizes of the last of the old head's axes, where only its inner part
            goes on into the first run; the outer is folded away.
        joined: the same of the new head's last axis: its outer part comes out of the fold.
    """

    heads: tuple[int, int]
    runs: list[tuple[list[int], list[int]]]
    split: tuple[int, int] | None = None
    joined: tuple[int, int] | None = None


def match(old: Shape, new: Shape) -> Match:
    """Match the axes of two shapes. A size that is not known (the batch) is equal to no other."""
    i, j = len(old), len(new)
    found = Match((i, j), [])
    while i > 0 and j > 0:
        before, after, whole = _run(old[:i], new[:j])
        if not whole:
            _match_part(found, before, after)
            break
        found.runs.insert(0, (before, after))
        i, j = i - len(before), j - len(after)
        found.heads = (i, j)
    return found


def _run(old: Shape, new: Shape) -> tuple[list[int], list[int], bool]:
    """The shortest tails of equal product, or the longest known ones that could become such.

    Returns: the sizes of both, and whether their products are equal.
    """
    before: list[int] = []
    after: list[int] = []
    while True:
        p, q = math.prod(before), math.prod(after)
        if before and after and p == q:
            return before, after, True
        side, axes = (before, old) if not before or (after and p < q) else (after, new)
        size = axes[-len(side) - 1] if len(side) < len(axes) else None
        if size is None:
            return before, after, False
        side.insert(0, size)


def _match_part(found: Match, before: list[int], after: list[int]) -> None:
    """A last run, for which one side has too much: the outer part of its first axis is folded."""
    if not before or not after:
        return
    p, q = math.prod(before), math.prod(after)
    large, small = (before, after) if p > q else (after, before)
    rest = math.prod(large[1:])
    total = math.prod(small)
    if total == 0 or total % rest or large[0] % (total // rest) or total == rest:
        return
    inner = total // rest
    parts = (large[0] // inner, inner)
    i, j = found.heads
    if p > q:
        found.split = parts
        found.heads = (i - len(before) + 1, j - len(after))
        found.runs.insert(0, ([inner, *before[1:]], after))
    else:
        found.joined = parts
        found.heads = (i - len(before), j - len(after) + 1)
        found.runs.insert(0, (before, [inner, *after[1:]]))


def regrouped(call: RuleCall, x: Labels, old: Shape, new: Shape) -> Labels:
    """The labels of a tensor that is given another shape.

    Args:
        old: the tensor's shape; None for a batch whose positions are not told apart.
        new: the shape that it gets.
    """
    if not x.factors:
        return Labels(new, (), x.keeps_zero)
    found = match(old, new)
    i, j = found.heads
    inner = [size for sizes, _ in found.runs for size in sizes]
    if found.split is not None:
        head: list[int | None] = [*old[: i - 1], found.split[0]]
    else:
        head = list(old[:i])
    refined = (*head, *inner)
    x = x.with_shape(old).move(lambda f: _refined(f, i, found.split), refined)
    x = call.keep_axes_whole(
        x, range(len(head)), f"stand along an axis that {call.layer.path!r} folds with others"
    )
    factors = tuple(fold(_moved(f, len(head), j, found, new)) for f in x.factors)
    return Labels(new, factors, x.keeps_zero)


def _refined(factor: np.ndarray, head: int, split: tuple[int, int] | None) -> np.ndarray:
    """A factor with the last axis of the head split in two."""
    if split is None:
        return factor
    extents = factor.shape
    parts = split if extents[head - 1] > 1 else (1, 1)
    return factor.reshape(*extents[: head - 1], *parts, *extents[head:])


def _moved(
    factor: np.ndarray, old_head: int, new_head: int, found: Match, new: Shape
) -> np.ndarray:
    """A factor in its new shape: each run spread out where it varies, and reshaped like the data."""
    spread: list[int] = []
    target: list[int] = []
    axis = old_head
    for before, after in found.runs:
        if any(extent > 1 for extent in factor.shape[axis : axis + len(before)]):
            spread += before
            target += after
        else:
            spread += [1] * len(before)
            target += [1] * len(after)
        axis += len(before)
    require_room(*spread)
    laid = np.broadcast_to(factor.reshape(factor.shape[old_head:]), spread).reshape(target)
    return _with_joined(laid, new_head, found.joined)


def _with_joined(laid: np.ndarray, head: int, joined: tuple[int, int] | None) -> np.ndarray:
    """The axes of the head put in front, the last of them holding the first run several times over."""
    if joined is None:
        return laid.reshape([1] * head + list(laid.shape))
    outer, _ = joined
    if laid.shape[0] > 1:
        require_room(outer, laid.size)
        laid = np.broadcast_to(laid[None], (outer, *laid.shape)).reshape(-1, *laid.shape[1:])
    return laid.reshape([1] * (head - 1) + list(laid.shape))
