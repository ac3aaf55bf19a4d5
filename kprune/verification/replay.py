"""Which units were pruned: the steps that a file records, replayed on its original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import KpruneError
from kprune.pruning.pruned_units import PrunedUnits
from kprune.select.plans.backends import BACKENDS
from kprune.surgery.provenance import KEY, WHOLE_LAYERS, left_units, steps_of
from kprune.text import clean


class Unexplained(Exception):
    """It is unknown how a file was pruned, or its record does not fit the original; the text says why."""


def pruned_units(analysis: Analysis, pruned: Mapping[str, Any]) -> PrunedUnits:
    """Replay the steps that a pruned file says it went through since it was the original.

    Args:
        analysis: of the original.
        pruned: metadata.json of the pruned file.
    Raises: Unexplained.
    """
    steps = steps_between(analysis.metadata, pruned)
    try:
        found = replayed(analysis, steps)
        _check_left(analysis, pruned, found.gone)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, KpruneError) as error:
        raise Unexplained(
            "the history recorded in the file does not fit this original "
            f"({type(error).__name__}: {clean(error, 120)})"
        ) from error
    return found


def steps_between(original: Mapping[str, Any], pruned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps that a pruned file went through since it was the original.

    Args:
        original, pruned: metadata.json of both.
    Raises: Unexplained if it was never this original.
    """
    steps, before = steps_of(pruned), steps_of(original)
    if not steps and KEY not in pruned:
        raise Unexplained("the file does not say that kprune made it")
    if steps[: len(before)] != before:
        raise Unexplained("the file was not made from this original: their histories differ")
    return steps[len(before) :]


def replayed(analysis: Analysis, steps: Sequence[Mapping[str, Any]]) -> PrunedUnits:
    """The units that some steps pruned, whole layers aside. Raises: ValueError for an unknown backend."""
    found = PrunedUnits.nothing_of(analysis)
    last = max((n for n, step in enumerate(steps) if WHOLE_LAYERS in step), default=-1)
    for number, step in enumerate(steps):
        if WHOLE_LAYERS not in step:
            backend = BACKENDS.get(step["backend"])
            if backend is None:
                raise ValueError(f"a step of kind {step['backend']!r}")
            left = _of_layers_left(analysis, step, number < last)
            backend.code.replay(analysis, left, found)
    return found


def _of_layers_left(analysis: Analysis, step: Mapping[str, Any], before: bool) -> Mapping[str, Any]:
    """A step without what it did to layers that a later one took out."""
    if not before:
        return step
    paths = {layer.path for layer in analysis.model.walk()}
    known = {
        address: units
        for address, units in step["layers"].items()
        if address in analysis.map.axes or address in paths
    }
    return {**step, "layers": known}


def _check_left(analysis: Analysis, pruned: Mapping[str, Any], gone: np.ndarray) -> None:
    """Compare the recorded steps with the list of units that are left. Raises: ValueError if they differ."""
    listed, earlier = left_units(pruned), left_units(analysis.metadata)
    for address, axis in analysis.map.axes.items():
        alive = np.flatnonzero(~gone[axis.ids])
        known = earlier.get(address, list(range(len(axis))))
        want = [known[i] for i in alive]
        if listed.get(address, list(range(len(known)))) != want and (
            len(alive) < len(axis) or address in listed
        ):
            raise ValueError(f"other units of {address!r} are left than its steps tell")
