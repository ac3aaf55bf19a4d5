"""Dead units of a SavedModel: removing them leaves every output unchanged.

A unit is dead if nothing reads it: all that its consumers hold for it is 0. It is dead as well if it
gives nothing: all that makes it is 0, and every operation behind it leaves 0 at 0.
"""

from __future__ import annotations

import numpy as np

from kprune.formats import Source, as_float
from kprune.saved_model.analysis import GraphAnalysis


def dead_units(source: Source, analysis: GraphAnalysis) -> np.ndarray:
    """bool (labels,): what can be removed without any effect; each layer keeps at least one unit."""
    groups, traced = analysis.groups, analysis.tracer.traced
    count = analysis.map.count
    # By group: whether there are slices of a kind, and whether one of them is not 0.
    read, read_alive = np.zeros(count, bool), np.zeros(count, bool)
    made, made_alive = np.zeros(count, bool), np.zeros(count, bool)
    for parameter in analysis.held.values():
        if not any(ids is not None for ids in parameter.ids):
            continue
        value = as_float(source.read(parameter.path))
        for axis, ids in enumerate(parameter.ids):
            if ids is None:
                continue
            others = tuple(other for other in range(value.ndim) if other != axis)
            alive = (value != 0).any(axis=others)
            of = groups.of[ids]
            there, some = (
                (read, read_alive) if (parameter, axis) in traced.consumed else (made, made_alive)
            )
            there[of] = True
            some[of[alive]] = True
    held = groups.frozen() | groups.mixed()
    nonzero = _groups(analysis, traced.nonzero)
    summed = _groups(analysis, traced.summed)
    roots = np.arange(count) == groups.of
    named = np.zeros(count, bool)
    named[groups.of[groups.owner >= 0]] = True
    ignored = read & ~read_alive & ~summed
    always_zero = made & ~made_alive & ~nonzero
    chosen = roots & named & ~held & (ignored | always_zero)
    chosen[0] = False
    return _that_can_go(analysis, chosen)


def _groups(analysis: GraphAnalysis, ids: list[np.ndarray]) -> np.ndarray:
    found = np.zeros(analysis.map.count, bool)
    if ids:
        found[analysis.groups.of[np.concatenate(ids)]] = True
    return found[analysis.groups.of]


def _that_can_go(analysis: GraphAnalysis, chosen: np.ndarray) -> np.ndarray:
    """What goes with the chosen groups, except those that would take others along."""
    groups = analysis.groups
    for factors in analysis.map.tensors.values():
        for factor in factors.factors:
            if sum(extent > 1 for extent in factor.shape) > 1:
                chosen[groups.of[factor]] = False  # it goes with whole rows only
    for blocks in analysis.map.blocks:
        for side in blocks.sides:
            chosen[groups.of[side]] = False  # as many have to go from each run
    gone = groups.spread(np.flatnonzero(chosen))
    beyond = gone & ~chosen[groups.of]
    if beyond.any():
        return np.zeros(len(chosen), bool)
    for axis in analysis.map.axes.values():
        if len(axis) and gone[axis.ids].all():
            chosen[groups.of[axis.ids[0]]] = False
            gone = groups.spread(np.flatnonzero(chosen))
    return gone
