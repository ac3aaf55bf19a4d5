"""What is left of each weight, axis by axis, in terms of the original positions.

The rows of a grouped kernel stand for different inputs in each run of its columns, so they are
listed for each group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard, cast

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit, Fill, TensorEdit
from kprune.graph.weight_groups import is_state
from kprune.report.report import Kept, WeightChange
from kprune.sets import without


def weight_changes(analysis: Analysis, edit: Edit) -> list[WeightChange]:
    """A row for each weight whose shape or values an edit changes; the optimizer's state has none."""
    groups = {
        weight.path: len(weight.grouped.sides[0])
        for weight in analysis.weights
        if weight.grouped is not None
    }
    return [
        _change(analysis, edited, groups)
        for edited in edit.tensors
        if edited.source is not None and not edited.copies and not is_state(edited.source)
    ]


def _change(analysis: Analysis, edited: TensorEdit, groups: Mapping[str, int]) -> WeightChange:
    assert edited.source is not None
    shape = analysis.tensors[edited.source].shape
    kept: list[Kept] = [
        None if keep is None else keep.tolist() for keep in edited.keep or [None] * len(shape)
    ]
    after = list(edited.shape_after(shape))
    if edited.blocks is not None:
        kept[-2] = _left_groups(edited.blocks.tolist(), shape[-1], kept[-1])
    for fill in edited.fills:
        if not fill.within:
            rest = without(np.arange(shape[fill.axis]), fill.positions).tolist()
            kept[fill.axis] = _common(kept[fill.axis], rest)
    rows = _filled_rows(edited.fills, shape, groups.get(edited.source, 0))
    if rows is not None:
        kept[-2] = _common(kept[-2], rows)
    return WeightChange(edited.source, list(shape), after, kept)


def _filled_rows(fills: Sequence[Fill], shape: tuple[int, ...], groups: int) -> Kept:
    """The rows of a grouped kernel that were not zeroed, for each group; None if none was."""
    if not groups:
        return None
    width = shape[-1] // groups
    zeroed: dict[int, list[int]] = {}
    for fill in fills:
        if fill.axis == len(shape) - 2 and len(fill.within) == 1:
            _, columns = fill.within[0]
            zeroed.setdefault(int(columns[0]) // width, []).extend(fill.positions.tolist())
    if not zeroed:
        return None
    return [
        [row for row in range(shape[-2]) if row not in zeroed.get(group, ())]
        for group in range(groups)
    ]


def kept_of_both(early: WeightChange, late: WeightChange) -> list[Kept]:
    """What two steps left of one weight, as positions in the first step's input.

    Args:
        early, late: what the first step and the second did to it.
    """
    kept = []
    for axis, (was, now) in enumerate(zip(early.kept, late.kept, strict=True)):
        if axis == len(early.kept) - 2 and is_grouped(was):
            was = _left_groups(was, early.shape_after[-1], late.kept[-1])
        cut = early.shape_before[axis] != early.shape_after[axis]
        kept.append(_picked(was, now) if cut else _common(was, now))
    return kept


def _left_groups(groups: list[list[int]], columns: int, left: Kept) -> list[list[int]]:
    """The rows of those groups of which a column is left."""
    if left is None:
        return groups
    width = columns // len(groups)
    return [groups[group] for group in sorted({column // width for column in flat(left)})]


def _picked(was: Kept, now: Kept) -> Kept:
    """What was left, and of that what stands at the positions `now`."""
    return _joined(was, now, lambda own, positions: [own[at] for at in positions])


def _common(one: Kept, other: Kept) -> Kept:
    """The positions in both."""
    return _joined(one, other, lambda a, b: sorted({*a} & {*b}))


def _joined(one: Kept, other: Kept, join: Callable[[list[int], list[int]], list[int]]) -> Kept:
    """Both joined, group by group if either tells groups apart; where one is whole, the other."""
    if one is None or other is None:
        return other if one is None else one
    if not is_grouped(one) and not is_grouped(other):
        return join(flat(one), flat(other))
    groups = max(len(kept) for kept in (one, other) if is_grouped(kept))
    pairs = zip(_by_group(one, groups), _by_group(other, groups), strict=True)
    return [join(a, b) for a, b in pairs]


def is_grouped(kept: Kept) -> TypeGuard[list[list[int]]]:
    """Whether what is left is told for each group."""
    return kept is not None and bool(kept) and isinstance(kept[0], list)


def flat(kept: Sequence[int | list[int]]) -> list[int]:
    """What is left along an axis that no group divides. Raises: TypeError if groups divide it."""
    if is_grouped(kept):
        raise TypeError("what is left is told for each group")
    return cast("list[int]", kept)


def _by_group(kept: Sequence[int | list[int]], groups: int) -> list[list[int]]:
    return kept if is_grouped(kept) else [flat(kept)] * groups
