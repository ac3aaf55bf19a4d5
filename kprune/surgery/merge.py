"""Units with the same output, or proportional ones, become one.

Two units are equal if every weight that makes them or that works on them alone is: their columns in
kernels and biases, their places in a BatchNormalization, their depthwise filters. What reads them
then may as well read the first, with the weights of both added up. A factor gets from a kernel and
its bias to their readers if everything on the way satisfies f(a x) = a f(x).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.dtypes import as_float, from_float
from kprune.edit import Edit, TensorEdit
from kprune.elementwise.written import written_activation, written_layer
from kprune.formats.source import Source
from kprune.labels.map import LayerRecord, Visit, Weight
from kprune.surgery.compact import Search
from kprune.surgery.constants.constants import Constants
from kprune.surgery.constants.moving_rules import CROPS, MOVES, POOLS, UPSAMPLING
from kprune.surgery.constants.summing_kernels import SummingKernel

LIMIT = 256 << 20
"""Bytes of the largest tensor that is looked at: what is merged is held in memory."""

TOLERANCE = 2e-6
"""How far two columns may be from proportional, relative to their largest entry: rounding."""

# The value of a unit passes through these times a factor as it does without.
LINEAR = frozenset(
    (*POOLS, *CROPS, *UPSAMPLING, *MOVES, "Concatenate", "MaxPool", "AveragePool")
) | {f"ZeroPadding{rank}D" for rank in (1, 2, 3)}
SCALABLE = frozenset(("Dense", "Conv1D", "Conv2D", "Conv3D"))


class Merge(Struct, frozen=True):
    """One unit that becomes part of another.

    Attributes:
        keep, drop: labels of the two, in the order of the labels of their groups.
        factor: the output of the dropped one is this times the output of the other.
    """

    keep: np.ndarray
    drop: np.ndarray
    factor: float = 1.0


class Twins(Struct):
    """The pairs that were found.

    Attributes:
        merges: pairs; no unit is dropped twice, and none that is dropped is kept for another.
        skipped: tensors that were too large to be looked at.
    """

    merges: list[Merge] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def twins(source: Source, analysis: Analysis, constants: Constants, search: Search) -> Twins:
    """Units that can be merged.

    Args:
        search: the units that are removed anyway; merges are chosen among the others.
    """
    found = Twins()
    able = _able(analysis, constants, search)
    digests = _digests(source, analysis, constants, able, found)
    of, owner = analysis.groups.of, analysis.groups.owner
    order = np.flatnonzero(able[of])
    order = order[np.argsort(of[order], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(of[order])) + 1) if order.size else []
    first: dict[tuple[object, ...], np.ndarray] = {}
    single = []
    for labels in groups:
        if not able[of[labels[0]]]:  # a tensor that was too large came to light meanwhile
            continue
        key = tuple((int(owner[label]), digests.get(int(label), b"")) for label in labels)
        if key in first:
            found.merges.append(Merge(first[key], labels))
            continue
        first[key] = labels
        if len(labels) == 1:
            single.append(int(labels[0]))
    found.merges += _proportional(source, analysis, constants, np.array(single, np.int64))
    found.merges = [merge for merge in found.merges if _parallel(constants, merge)]
    return found


def _able(analysis: Analysis, constants: Constants, search: Search) -> np.ndarray:
    """bool (labels,): by its first label, whether a group can be merged with another at all."""
    groups = analysis.groups
    unable = groups.frozen() | groups.mixed() | search.gone | (groups.owner < 0)
    unable[list(constants.held)] = True
    for derived in analysis.map.derived:
        unable[derived.ids] = unable[derived.members.ravel()] = True
    for blocks in analysis.map.blocks:
        for side in blocks.sides:
            unable[side.ravel()] = True
    for labels in analysis.map.tensors.values():
        for factor in labels.factors:
            if sum(extent > 1 for extent in factor.shape) > 1:
                unable[factor.ravel()] = True
    for site in constants.summing_kernels.values():
        if not isinstance(site, SummingKernel):  # the scores of an attention
            unable[site.dims] = unable[site.heads] = True
        elif len(site.axes) != 1 or not site.axes[0].plain:
            for axis in site.axes:
                unable[axis.all_ids()] = True
    able = np.ones(groups.map.count, bool)
    able[groups.of[unable]] = False
    able[0] = False
    return able


def _digests(
    source: Source, analysis: Analysis, constants: Constants, able: np.ndarray, found: Twins
) -> dict[int, bytes]:
    """By label, what tells a unit from others: all weights of its own, none of its readers'."""
    of = analysis.groups.of
    hashes: dict[int, hashlib.blake2b] = {}
    for weight, axis, array in _own_slices(source, analysis, constants, able, found):
        rows = np.ascontiguousarray(np.moveaxis(array, axis, 0)) + 0.0  # -0.0 is 0.0
        for position, label in enumerate(weight.axes[axis].ids):
            if able[of[label]]:
                state = hashes.setdefault(int(label), hashlib.blake2b())
                state.update(f"{weight.path} {axis}".encode() + rows[position].tobytes())
    for constant in analysis.map.arrays:
        if constant.initial:
            continue
        values = constant.array.value.astype(np.float64)
        for number, along in enumerate(constant.axes):
            for position, label in enumerate(along.ids if along.factors else ()):
                state = hashes.setdefault(int(label), hashlib.blake2b())
                state.update(values.take(position, number).tobytes())
    return {label: state.digest() for label, state in hashes.items()}


def _own_slices(
    source: Source, analysis: Analysis, constants: Constants, able: np.ndarray, found: Twins
) -> Iterator[tuple[Weight, int, np.ndarray]]:
    """Weights with units that they make or work on along an axis: (weight, axis, values)."""
    of = analysis.groups.of
    for weight in analysis.weights:
        site = constants.summing_kernels.get(weight.path)
        read = site.kernel.inputs if isinstance(site, SummingKernel) else ()
        axes = [n for n, axis in enumerate(weight.axes) if axis.factors and n not in read]
        for number in axes:
            if not weight.axes[number].plain:
                able[of[weight.axes[number].all_ids()]] = False
        axes = [n for n in axes if able[of[weight.axes[n].all_ids()]].any()]
        stored = analysis.tensors[weight.path]
        large = 4 * math.prod(stored.shape) > LIMIT
        if large:
            for axis in weight.axes:
                able[of[axis.all_ids()]] = False
            found.skipped.append(weight.layer.path)
        if axes and not large:
            array = as_float(source.read(weight.path))
            for number in axes:
                yield weight, number, array


def _parallel(constants: Constants, merge: Merge) -> bool:
    """Whether both units are at the same number of places wherever they are read."""
    for site in constants.summing_kernels.values():
        if isinstance(site, SummingKernel) and site.kernel.grouped is None:
            ids = site.axes[0].all_ids()
            for keep, drop in zip(merge.keep, merge.drop, strict=True):
                if (ids == keep).sum() != (ids == drop).sum():
                    return False
    return True


# -- equal up to a factor ------------------------------------------------------------------------


def _proportional(
    source: Source, analysis: Analysis, constants: Constants, single: np.ndarray
) -> list[Merge]:
    """Units of one kernel whose columns are proportional, and whose factor gets to every reader."""
    merges: list[Merge] = []
    bent = _bent(analysis, constants)
    able = np.zeros(analysis.map.count, bool)
    able[single] = True
    able &= ~bent
    for record in analysis.map.records.values():
        kernel, bias = record.weights.get("kernel"), record.weights.get("bias")
        if record.layer.kind not in SCALABLE or kernel is None or not record.layer.is_builtin:
            continue
        activation = written_activation(record.layer.config.get("activation"))
        if activation is None or not activation.homogeneous or analysis.adapted(record):
            continue
        ids = kernel.axes[-1].ids
        places = np.flatnonzero(able[ids])
        if len(places) < 2:
            continue
        columns = as_float(source.read(kernel.path)).astype(np.float64)
        columns = columns.reshape(-1, columns.shape[-1])
        if bias is not None:
            columns = np.concatenate([columns, as_float(source.read(bias.path))[None]])
        merges += _alike(columns[:, places], ids[places])
    return merges


def _alike(columns: np.ndarray, ids: np.ndarray) -> list[Merge]:
    """Pairs of proportional columns.

    Args:
        columns: float64 (n, units).
        ids: int64 (units,), their labels.
    """
    sizes = np.abs(columns).max(axis=0)
    merges = []
    first: dict[bytes, int] = {}
    for place in np.flatnonzero((sizes > 0) & np.isfinite(sizes)):
        key = (np.round(columns[:, place] / sizes[place], 4) + 0.0).tobytes()
        kept = first.setdefault(key, int(place))
        if kept == place:
            continue
        factor = sizes[place] / sizes[kept]
        if np.abs(columns[:, place] - factor * columns[:, kept]).max() <= TOLERANCE * sizes[place]:
            merges.append(Merge(ids[kept : kept + 1], ids[place : place + 1], float(factor)))
    return merges


def _bent(analysis: Analysis, constants: Constants) -> np.ndarray:
    """bool (labels,): units that meet anything through which a factor does not pass."""
    bent = np.zeros(analysis.map.count, bool)
    reading = {
        site.kernel.weight.layer
        for site in constants.summing_kernels.values()
        if isinstance(site, SummingKernel)
    }
    for visit in analysis.map.visits:
        if visit.of_model or visit.layer in reading or _passes_factor(analysis, visit):
            continue
        if any(inner.layer in reading for inner in _inside(analysis, visit)):
            continue  # a wrapper: what it holds is visited by itself
        for labels in visit.inputs:
            bent[labels.all_ids()] = True
    for weight in analysis.weights:
        site = constants.summing_kernels.get(weight.path)
        read = site.kernel.inputs if isinstance(site, SummingKernel) else ()
        for number, axis in enumerate(weight.axes):
            if number not in read and weight.name not in ("kernel", "bias"):
                bent[axis.all_ids()] = True
    for array in (array for array in analysis.map.arrays if not array.initial):
        for axis in array.axes:
            bent[axis.all_ids()] = True
    return bent


def _inside(analysis: Analysis, visit: Visit) -> Iterator[LayerRecord]:
    for child in analysis.map.record(visit.layer).children.values():
        yield from child.whole()


def _passes_factor(analysis: Analysis, visit: Visit) -> bool:
    kind, config = visit.layer.kind, visit.layer.config
    if analysis.map.record(visit.layer).values:
        return True
    if not visit.layer.is_builtin:
        return False
    if kind in LINEAR:
        return True
    function = written_layer(kind, config)
    return function is not None and function.homogeneous


# -- the edit ------------------------------------------------------------------------------------


def with_sums(source: Source, constants: Constants, edit: Edit, found: list[Merge]) -> Edit:
    """The edit in which the readers of two units read one, with the weights of both added."""
    tensors = {edited.source: edited for edited in edit.tensors}
    for path, site in constants.summing_kernels.items():
        if not isinstance(site, SummingKernel) or site.kernel.grouped is not None:
            continue
        ids = site.axes[0].all_ids()
        pairs = [
            (np.flatnonzero(ids == keep), np.flatnonzero(ids == drop), merge.factor)
            for merge in found
            for keep, drop in zip(merge.keep, merge.drop, strict=True)
            if (ids == drop).any()
        ]
        if not pairs:
            continue
        raw = source.read(path)
        axis = site.kernel.inputs[0]
        sums = np.moveaxis(as_float(raw).astype(np.float64), axis, 0)
        for keep, drop, factor in pairs:
            sums[keep] += factor * sums[drop]
        cut = tensors.get(path) or TensorEdit(path, path)
        value = cut.cut(np.moveaxis(sums, 0, axis)) * cut.scale
        tensors[path] = replace(cut, value=from_float(value, raw.dtype))
    return replace(edit, tensors=tuple(tensors.values()))
