"""What a pruned file lost of its original: its own account, replayed on the original's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import KpruneError
from kprune.labels.closure import close
from kprune.pruning.changes import masks_of
from kprune.sets import distinct
from kprune.surgery.provenance import KEY, WHOLE_LAYERS
from kprune.text import clean

Units = dict[str, np.ndarray]


class Unexplained(Exception):
    """What was done to a file cannot be told, or does not fit the original; its text says why."""


@dataclass
class Mask:
    """One masked layer: which channels of its output, None for all; `below` for a dynamic mask."""

    path: str
    channels: np.ndarray | None
    below: float | None = None


@dataclass
class Lost:
    """What was done between two files.

    Attributes:
        gone: bool (labels,): what was physically removed.
        silent: bool (labels,): what was zeroed with all that belongs to it (`zero --outgoing`).
        zeroed, silenced: by address, units whose incoming weights are 0, or whose bias is very low.
        masks: layers whose output is multiplied.
        kept: bool (labels,): units among the removed ones whose share biases took over: they count.
    """

    gone: np.ndarray
    silent: np.ndarray
    zeroed: Units = field(default_factory=dict)
    silenced: Units = field(default_factory=dict)
    masks: list[Mask] = field(default_factory=list)
    kept: np.ndarray | None = None

    @property
    def silent_weights(self) -> np.ndarray:
        """bool (labels,): the units of which every weight counts as 0."""
        gone = self.gone if self.kept is None else self.gone & ~self.kept
        return gone | self.silent

    @property
    def nothing(self) -> bool:
        return not (self.silent_weights.any() or self.zeroed or self.silenced or self.masks)


def lost(analysis: Analysis, pruned: Mapping[str, Any]) -> Lost:
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
            "what the file says of itself does not fit this original "
            f"({type(error).__name__}: {clean(error, 120)})"
        ) from error
    return found


def steps_between(original: Mapping[str, Any], pruned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps that a pruned file went through since it was the original.

    Args:
        original, pruned: metadata.json of both.
    Raises: Unexplained if it was never this original.
    """
    steps, before = _steps(pruned), _steps(original)
    if not steps and KEY not in pruned:
        raise Unexplained("the file does not say that kprune made it")
    if steps[: len(before)] != before:
        raise Unexplained(
            "the file was not made from this original: the steps that they went through differ"
        )
    return steps[len(before) :]


def replayed(analysis: Analysis, steps: Sequence[Mapping[str, Any]]) -> Lost:
    """What some steps took, but for whole layers."""
    found = Lost(np.zeros(analysis.map.count, bool), np.zeros(analysis.map.count, bool))
    removed: Units = {}
    last = max((n for n, step in enumerate(steps) if WHOLE_LAYERS in step), default=-1)
    for number, step in enumerate(steps):
        if WHOLE_LAYERS not in step:
            _replay(analysis, _of_layers_left(analysis, step, number < last), found, removed)
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


def _steps(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    own = metadata.get(KEY)
    plan = own.get("plan") if isinstance(own, dict) else None
    steps = plan.get("steps") if isinstance(plan, dict) else None
    return list(steps) if isinstance(steps, list) else []


def _replay(analysis: Analysis, step: Mapping[str, Any], found: Lost, removed: Units) -> None:
    backend = step["backend"]
    if backend == "mask":
        for path, indices in step["layers"].items():
            every = indices in ("all", [])  # a list without an index, before there was the word
            channels = None if every else _original_channels(analysis, path, indices, found.gone)
            found.masks.append(Mask(path, channels, step.get("below")))
        return
    units = {
        address: _original_units(analysis, address, indices, found.gone)
        for address, indices in step["layers"].items()
    }
    if backend in ("remove", "compact"):
        before = found.gone
        _add(removed, units)
        found.gone = close(analysis.groups, removed).gone
        if backend == "compact" or step.get("fold"):
            kept = np.zeros_like(before) if found.kept is None else found.kept
            found.kept = kept | (found.gone & ~before)
        if step.get("fold"):
            _add(found.zeroed, units)
    elif backend == "zero" and step.get("outgoing"):
        found.silent = found.silent | close(analysis.groups, units).gone
    elif backend == "zero":
        _add(found.silenced if step.get("silence") else found.zeroed, units)
    else:
        raise ValueError(f"a step of kind {backend!r}")


def _add(into: Units, units: Units) -> None:
    for address, indices in units.items():
        into[address] = distinct(into.get(address, np.zeros(0, np.int64)), indices)


def _original_units(analysis: Analysis, address: str, indices: Any, gone: np.ndarray) -> np.ndarray:
    """A step counts the units of the file that it was applied to."""
    return np.flatnonzero(~gone[analysis.map.axes[address].ids])[np.asarray(indices, np.int64)]


def _original_channels(analysis: Analysis, path: str, indices: Any, gone: np.ndarray) -> np.ndarray:
    masks = masks_of(analysis)
    dead = masks.dead_channels(analysis, masks.layer_at(analysis.model, path), gone)
    return np.flatnonzero(~dead)[np.asarray(indices, np.int64)]


def _check_left(analysis: Analysis, pruned: Mapping[str, Any], gone: np.ndarray) -> None:
    """Hold the plan against the list of units that are left. Raises: ValueError if they differ."""
    listed = pruned[KEY].get("units") or {}
    earlier = (analysis.metadata.get(KEY) or {}).get("units") or {}
    for address, axis in analysis.map.axes.items():
        alive = np.flatnonzero(~gone[axis.ids])
        known = earlier.get(address, list(range(len(axis))))
        want = [known[i] for i in alive]
        if listed.get(address, list(range(len(known)))) != want and (
            len(alive) < len(axis) or address in listed
        ):
            raise ValueError(f"other units of {address!r} are left than its steps tell")
