"""What is removed with some units and why, which weights that cuts, or why they cannot be removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError, FrozenUnitsError, LastUnitError
from kprune.graph.parse import parse_model
from kprune.labels.closure import Closure, Units, check, close
from kprune.labels.groups import FIXED, FREEZES
from kprune.labels.map import UnitAxis
from kprune.labels.nearest import completed
from kprune.labels.paths import path_between
from kprune.opened import LiveModel, opened
from kprune.pointing import checked
from kprune.report.build import lists, removal_notes
from kprune.sets import distinct
from kprune.surgery.remove import cut_weight
from kprune.surgery.rewrite import config_without
from kprune.types import AnyPath
from kprune.views.explanation import Along, Explanation, Refusal, WeightCut
from kprune.views.fields import FieldChange, field_changes


@checked()
def explain(
    model: AnyPath | LiveModel,
    units: Any = None,
    *,
    layers: Sequence[str] | None = None,
    where: str | None = None,
    allow_output_change: bool = False,
    rules: Iterable[str] = (),
    trust: bool = False,
) -> Explanation:
    """Say what is removed with some units and why, or why they cannot be removed. Nothing is written.

    Args:
        model: path of a model file; `-` for standard input; or a Keras model.
        units: a mapping from LAYER[.AXIS] to indices, or specs ("dense_1:3,7").
        layers, where: as in `kprune.remove`.
        allow_output_change: whether the model's inputs and outputs may change.
        rules: files with rules for layers that kprune does not know.
        trust: whether code that is not Keras's own may be run to read the model.
    Raises: UsageError if the choice makes no sense, FileError if the file cannot be read.
    """
    from kprune.pruning.selection import Selection
    from kprune.select.ranking.statistics import Statistics

    with opened(model, rules=rules, trust=trust) as found:
        selection = Selection(units, layers, where)
        chosen, _ = selection.resolve(found.analysis, Statistics(found.analysis, found.source))
        return explanation(found.analysis, chosen, allow_output_change=allow_output_change)


def explanation(
    analysis: Analysis, chosen: Units, *, allow_output_change: bool = False
) -> Explanation:
    """The same for an analysed model.

    Args:
        chosen: by address, sorted int64 indices.
    """
    closure = close(analysis.groups, chosen)
    refusal = _refusal(closure, allow_output_change)
    notes = removal_notes(analysis, closure)
    return Explanation(
        possible=refusal is None,
        exact=not any(note.kind == "inexact" for note in notes),
        selected=lists(closure.chosen),
        changed=lists(closure.affected),
        along=[_along(closure, address, indices) for address, indices in closure.coupled.items()],
        weights=[] if refusal else list(_cuts(analysis, closure)),
        fields=[] if refusal else _fields(analysis, closure),
        notes=notes,
        refusal=None if refusal is None else _as_struct(refusal),
        nearest=None
        if refusal is None
        else _nearest(analysis, closure, refusal, allow_output_change),
    )


def _refusal(closure: Closure, allow_output_change: bool) -> CannotPruneError | None:
    try:
        check(closure, allow_output_change=allow_output_change)
    except CannotPruneError as error:
        return error
    return None


def _as_struct(error: CannotPruneError) -> Refusal:
    return Refusal(type(error).__name__, error.what, error.where, error.why, error.do)


def _along(closure: Closure, address: str, indices: np.ndarray) -> Along:
    groups = closure.groups
    end = groups.map.axes[address]
    of = distinct(groups.of[end.ids[indices]])
    start, index = _partner(closure, of)
    here = np.zeros(groups.map.count, bool)
    here[of] = True
    here[0] = False
    steps = path_between(groups, start, index, end)
    ties = [tie.at for tie in groups.map.ties if here[groups.of[tie.a]].any()]
    met = [layer for layer in dict.fromkeys(ties) if layer in steps]
    return Along(address, [int(i) for i in indices], steps, met or list(dict.fromkeys(ties)))


def _partner(closure: Closure, of: np.ndarray) -> tuple[UnitAxis, int]:
    """A chosen unit in one of some groups; if there is none, the first that was chosen."""
    axes = closure.groups.map.axes
    for address, indices in closure.chosen.items():
        hit = np.flatnonzero(np.isin(closure.groups.of[axes[address].ids[indices]], of))
        if hit.size:
            return axes[address], int(indices[hit[0]])
    address, indices = next(iter(closure.chosen.items()))
    return axes[address], int(indices[0])


def _cuts(analysis: Analysis, closure: Closure) -> Iterable[WeightCut]:
    named = Counter((weight.layer.path, weight.name) for weight in analysis.weights)
    for weight in analysis.weights:
        cut = cut_weight(weight, closure.gone)
        if cut is None:
            continue
        name = weight.name
        if named[weight.layer.path, name] > 1:  # the four kernels of attention
            inside = weight.path.removeprefix(f"{weight.layer.store}/").rpartition("/vars/")[0]
            name = f"{inside}/{name}" if inside else name
        shape = analysis.tensors[weight.path].shape
        after = [
            size if kept is None else len(kept) for size, kept in zip(shape, cut.keep, strict=True)
        ]
        if cut.blocks is not None:
            after[-2] = cut.blocks.shape[1]
        for axis, (old, new) in enumerate(zip(shape, after, strict=True)):
            if old != new:
                yield WeightCut(weight.layer.path, name, weight.path, list(shape), axis, old, new)


def _fields(analysis: Analysis, closure: Closure) -> list[FieldChange]:
    if not analysis.layered:
        return []
    return field_changes(analysis.model, parse_model(config_without(analysis, closure.gone)))


def _nearest(
    analysis: Analysis, closure: Closure, refusal: CannotPruneError, allow_output_change: bool
) -> dict[str, list[int]] | None:
    """The part of a choice that can go, or the choice with what it lacks, where that is easily told."""
    groups = analysis.groups
    if not isinstance(refusal, (FrozenUnitsError, LastUnitError)):
        whole = completed(closure, allow_output_change=allow_output_change)
        return None if whole is None else lists(whole.chosen)
    left = dict(closure.chosen)
    if isinstance(refusal, FrozenUnitsError):
        frozen = groups.frozen(FIXED if allow_output_change else FREEZES)
        left = {
            address: indices[~frozen[groups.map.axes[address].ids[indices]]]
            for address, indices in left.items()
        }
    left = {address: indices for address, indices in left.items() if indices.size}
    # A layer that would lose its last unit keeps one. Where others follow, it takes a few rounds.
    for _ in range(8):
        if not left:
            return None
        now = close(groups, left)
        error = _refusal(now, allow_output_change)
        if error is None:
            return lists(left)
        if not isinstance(error, LastUnitError):
            return None
        left = {
            address: rest
            for address, indices in left.items()
            if (rest := _keep_one(now, address, indices)).size
        }
    return None


def _keep_one(closure: Closure, address: str, indices: np.ndarray) -> np.ndarray:
    """The chosen units of one layer, except the last if they would leave some layer with none."""
    axes = closure.groups.map.axes
    ids = axes[address].ids[indices]
    for other in axes.values():
        if closure.gone[other.ids].all() and np.isin(
            closure.groups.of[ids[-1]], closure.groups.of[other.ids]
        ):
            return indices[:-1]
    return indices
