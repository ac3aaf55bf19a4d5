"""Removing units physically: every weight axis, config field and optimizer slot keeps only the remaining units."""

from __future__ import annotations

import math

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit, TensorEdit
from kprune.labels.branches import dead_branches
from kprune.labels.closure import Closure
from kprune.labels.map import Blocks, Weight
from kprune.labels.tokens import lines_gone
from kprune.surgery.compile_config.compile_config import recompiled
from kprune.surgery.optimizer import Slots, find_slots
from kprune.surgery.relocate import relocate
from kprune.surgery.rewrite import config_without


def remove(analysis: Analysis, closure: Closure) -> Edit:
    """The edit that removes units. Nothing is read or written here.

    Args:
        analysis: the model.
        closure: what is removed; `kprune.labels.closure.check` has accepted it.
    """
    gone = closure.gone
    cuts = {
        weight.path: cut
        for weight in analysis.weights
        if (cut := cut_weight(weight, gone)) is not None
    }
    slots = find_slots(analysis)
    branches = dead_branches(closure.groups, gone)
    config = config_without(analysis, gone, branches)
    edits = (*cuts.values(), *cut_slots(slots, cuts, gone))
    dropped = tuple(dict.fromkeys((*slots.dropped, *recompiled(analysis, gone).dropped)))
    edits = tuple(
        edit for edit in edits if not edit.path.startswith(tuple(f"{p}/" for p in dropped))
    )
    lines = lines_gone(analysis.map.token_sources, analysis.extras, gone)
    if not branches:
        return Edit(config, analysis.metadata, edits, dropped, without_lines=lines)
    moved = relocate(analysis, config, edits)
    return Edit(
        config,
        analysis.metadata,
        moved.tensors,
        (*dropped, *moved.dropped),
        order=moved.order,
        without_lines=lines,
    )


def cut_weight(weight: Weight, gone: np.ndarray) -> TensorEdit | None:
    """How a weight is cut; None if it stays whole."""
    keep = []
    for axis in weight.axes:
        dead = axis.dead(gone)
        keep.append(np.flatnonzero(~dead) if dead.any() else None)
    blocks = _grouped_inputs(weight.grouped, gone) if weight.grouped is not None else None
    if blocks is None and all(kept is None for kept in keep):
        return None
    scale = 1.0
    if weight.scaled is not None and (kept := keep[weight.scaled]) is not None:
        scale = math.sqrt(len(kept) / (weight.axes[weight.scaled].size or len(kept)))
    return TensorEdit(weight.path, weight.path, tuple(keep), blocks, scale=scale)


def _grouped_inputs(blocks: Blocks, gone: np.ndarray) -> np.ndarray | None:
    """For a grouped kernel, the positions on its input axis that each group keeps: int64 (groups, kept).

    A group that goes as a whole has no columns left that could use its row: it holds zeros.
    Returns: None if every group that stays keeps all its inputs.
    """
    if len(blocks.sides) < 2:
        return None
    alive = ~gone[blocks.sides[0]]
    left = int(alive.sum(axis=1).max())
    if left == alive.shape[1]:
        return None
    rows = np.zeros((len(alive), left), np.int64)
    for group, row in enumerate(alive):
        if row.any():
            rows[group] = np.flatnonzero(row)
    return rows


def cut_slots(slots: Slots, cuts: dict[str, TensorEdit], gone: np.ndarray) -> list[TensorEdit]:
    """The optimizer's state, cut like the variables it belongs to."""
    edits = []
    for slot in slots.found:
        cut = cuts.get(slot.weight.path) or cut_weight(slot.weight, gone)
        if cut is None:
            continue
        keep = tuple(cut.keep[axis] for axis in slot.axes)
        if any(kept is not None for kept in keep) or cut.blocks is not None:
            edits.append(TensorEdit(slot.path, slot.path, keep, cut.blocks))
    return edits
