"""Removing units whose output is constant; the constant is added to their consumers' biases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.dtypes import as_float, from_float
from kprune.edit import Edit, TensorEdit
from kprune.errors import CannotPruneError
from kprune.formats.source import Source
from kprune.labels.closure import Closure, Units
from kprune.labels.groups import Groups
from kprune.sets import distinct, without
from kprune.surgery.constants.constants import Constants, border
from kprune.surgery.constants.summing_kernels import Reader
from kprune.surgery.remove import cut_weight
from kprune.surgery.remove import remove as remove_edit
from kprune.surgery.zero import zero
from kprune.text import clean


def reader(source: Source, edit: Edit | None = None) -> Reader:
    """Tensors as they are after an edit that only fills in values."""
    overlay: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {}
    for edited in edit.tensors if edit is not None else ():
        overlay[edited.path] = edited.filled
    return Reader(source.read, source.blocks, overlay)


def fold(source: Source, analysis: Analysis, closure: Closure) -> tuple[Edit, list[str], Units]:
    """The edit that removes units so that the model computes what `zero` would make it compute.

    Units that are removed with the chosen ones are used as they are where that is enough (a
    depthwise filter of a zeroed channel gives a constant by itself); otherwise they count as zeroed
    too (the other summand of a residual sum).

    Args:
        closure: what is removed; `check` has accepted it.
    Returns: the edit, the layers whose biases absorbed a constant, and the coupled units that count
        as zeroed.
    Raises: CannotPruneError if the constant of a unit cannot be folded.
    """
    constants, coupled = _zeroed(source, analysis, closure.chosen), {}
    try:
        require_no_trace(constants, closure)
    except CannotPruneError:
        coupled = {
            address: indices
            for address, indices in closure.coupled.items()
            if not analysis.map.axes[address].layer.kind.startswith("Depthwise")
        }
        if not coupled:
            raise
        constants = _zeroed(source, analysis, together(closure.chosen, coupled))
        require_no_trace(constants, closure)
    edit, layers = removal_with_shares(source, analysis, closure, constants)
    return edit, layers, coupled


def _zeroed(source: Source, analysis: Analysis, units: Units) -> Constants:
    return Constants(analysis, reader(source, zero(analysis, units)))


def together(one: Units, other: Units) -> dict[str, np.ndarray]:
    """Two choices in one."""
    none = np.zeros(0, np.int64)
    return {key: distinct(one.get(key, none), other.get(key, none)) for key in {**one, **other}}


def missed(constants: Constants, site: Any, gone: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Units that a layer needs: pairs (labels, why).

    Args:
        site: a `SummingKernel`, or what stands among them.
    """
    rows = site.in_the_way(gone)
    if not rows.size:
        return
    padded, known = site.padded[rows], ~np.isnan(site.values[rows])
    if padded.any():
        yield site.labels_at(rows[padded]), border(site.at)
    if known.any():
        yield site.labels_at(rows[known]), str(site.room.why)
    rest = distinct(site.labels_at(rows[~padded & ~known]))
    rest = rest[gone[rest]]
    told: dict[str, list[int]] = {}
    for label in constants.lost.keys() & set(rest.tolist()):
        told.setdefault(constants.lost[label], []).append(label)
    for why, labels in sorted(told.items()):
        yield np.array(sorted(labels), np.int64), why
    rest = without(rest, np.array(sorted(constants.lost), np.int64))
    if rest.size:
        yield rest, f"what they give is not constant where '{site.at}' sums over it"


def require_no_trace(constants: Constants, closure: Closure) -> None:
    """Raises: CannotPruneError for the first removed unit that a layer needs."""
    for labels, why in _all_missed(constants, closure):
        address, index = named(closure.groups, labels)
        raise CannotPruneError(
            f"the constant output of unit {index} of '{clean(address)}' cannot be folded into biases",
            why=clean(why, 300),
            do="leave this unit out; or leave out --fold, and its constant output is lost",
        )


def _all_missed(constants: Constants, closure: Closure) -> Iterator[tuple[np.ndarray, str]]:
    gone = closure.gone
    for mix in closure.groups.map.mixes:
        hit = mix.ids[gone[mix.ids]]
        if hit.size:
            yield hit, f"the units there {mix.why}, which no bias can make up for"
    for label, why in constants.held.items():
        if gone[label]:
            yield np.array([label]), f"the units there {why}"
    for site in constants.summing_kernels.values():
        yield from missed(constants, site, gone)


def named(groups: Groups, labels: np.ndarray) -> tuple[str, int]:
    """A unit that a user can name, in the groups of some labels: (address, index)."""
    hit = np.zeros(groups.map.count, bool)
    hit[groups.of[labels]] = True
    for address, axis in groups.map.axes.items():
        found = np.flatnonzero(hit[groups.of[axis.ids]])
        if found.size:
            return address, int(found[0])
    return "", -1


def removal_with_shares(
    source: Source, analysis: Analysis, closure: Closure, constants: Constants
) -> tuple[Edit, list[str]]:
    """The edit of a removal in which biases absorb the constants of the units.

    Returns: the edit, and the paths of the layers whose biases changed.
    """
    gone = closure.gone
    shares: dict[str, np.ndarray] = {}
    for site in constants.summing_kernels.values():
        share = site.share(constants.read, gone)
        if share is None:
            continue
        for path, function in site.room.targets:
            part = function(share)
            shares[path] = shares[path] + part if path in shares else part
    edit = remove_edit(analysis, closure)
    weights = {weight.path: weight for weight in analysis.weights}
    tensors = {edited.source: edited for edited in edit.tensors}
    layers = []
    for path, share in shares.items():
        weight = weights[path]
        cut = tensors.get(path) or cut_weight(weight, gone) or TensorEdit(path, path)
        raw = source.read(path)
        # The zeroed biases of a fold are among what goes, so the source's own values are right.
        value = as_float(raw).astype(np.float64) + share
        tensors[path] = replace(cut, value=from_float(cut.cut(value) * cut.scale, raw.dtype))
        layers.append(weight.layer.path)
    return replace(edit, tensors=tuple(tensors.values())), layers
