"""What kprune records in metadata.json: the plan that was carried out, and which original units are left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.surgery.compile_config.compile_config import recompiled
from kprune.version import __version__

KEY = "kprune"
WHOLE_LAYERS = "whole_layers"
"""The key of a step that takes whole layers out, instead of units."""
REPAIR = "repair"
"""The key of a step after which what was left was refitted: whatever it says, values are no longer the original's."""

TRAINED = "trained"
"""The key that says how many of the steps had been done when a refitted file was last trained."""


def with_provenance(
    analysis: Analysis,
    *,
    backend: str,
    units: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    gone: np.ndarray | None,
) -> dict[str, Any]:
    """metadata.json with this step added.

    Args:
        units: by address, the indices that were named.
        options: further keys of the step, as a plan writes them.
        gone: bool (labels,) if units were physically removed.
    Returns: the old metadata, a legacy file's `training_config` as it is now, and the key `kprune`:
        `version`, `plan` (steps as in a YAML plan, each in terms of the file it was applied to),
        `units`, for each layer that lost any the original indices of those that are left, and
        `trained`, if the file was refitted and then trained.
    """
    before = analysis.metadata.get(KEY)
    before = before if isinstance(before, dict) else {}
    plan = before.get("plan")
    steps = list(plan.get("steps", [])) if isinstance(plan, dict) else []
    # No index stands for all: activations below a threshold are masked wherever they are.
    layers = {
        address: [int(i) for i in indices] if len(indices) else "all"
        for address, indices in units.items()
    }
    named = {} if WHOLE_LAYERS in options else {"layers": layers}
    step: dict[str, Any] = {"backend": backend, **named, **options}
    left = dict(before.get("units") or {}) if isinstance(before.get("units"), dict) else {}
    if gone is not None:
        for address, axis in analysis.map.axes.items():
            alive = np.flatnonzero(~gone[axis.ids])
            if len(alive) == len(axis):
                continue
            known = left.get(address)
            # A second pruning counts from what the first one left.
            if isinstance(known, list) and len(known) == len(axis):
                left[address] = [known[i] for i in alive]
            else:
                left[address] = [int(i) for i in alive]
    metadata = analysis.metadata
    if gone is not None:
        metadata = recompiled(analysis, gone).metadata(metadata)
    return {
        **metadata,
        KEY: {
            "version": __version__,
            "plan": {"version": 1, "steps": [*steps, step]},
            "units": left,
            **{key: before[key] for key in (TRAINED,) if key in before},
        },
    }


def with_repair(metadata: Mapping[str, Any], way: str) -> dict[str, Any]:
    """metadata.json whose last step records that the rest was refitted, as a step of a plan does."""
    own = metadata[KEY]
    *steps, last = own["plan"]["steps"]
    plan = {**own["plan"], "steps": [*steps, {**last, REPAIR: way}]}
    trained = {TRAINED: min(own[TRAINED], len(steps))} if TRAINED in own else {}
    return {**metadata, KEY: {**own, "plan": plan, **trained}}


def is_refitted(metadata: Mapping[str, Any]) -> bool:
    """Whether what a file holds was refitted, and not trained since."""
    own, steps = _steps(metadata)
    trained = own.get(TRAINED)
    later = steps[trained if type(trained) is int else 0 :]
    return any(isinstance(step, dict) and step.get(REPAIR) not in (None, False) for step in later)


def with_training(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """metadata.json of a file that was trained; of one that was refitted before it says so."""
    if not is_refitted(metadata):
        return dict(metadata)
    own, steps = _steps(metadata)
    return {**metadata, KEY: {**own, TRAINED: len(steps)}}


def _steps(metadata: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Any]]:
    """What kprune wrote about itself, and the steps in it; nothing where it is not as kprune writes it."""
    own = metadata.get(KEY)
    plan = own.get("plan") if isinstance(own, dict) else None
    steps = plan.get("steps") if isinstance(plan, dict) else None
    return (own, steps) if isinstance(own, dict) and isinstance(steps, list) else ({}, [])


def left_units(metadata: Mapping[str, Any]) -> Mapping[str, list[int]]:
    """For each layer that lost units the original indices of those that are left, as a file says."""
    own = metadata.get(KEY)
    units = own.get("units") if isinstance(own, dict) else None
    if not isinstance(units, dict):
        return {}
    return {
        address: kept
        for address, kept in units.items()
        if isinstance(kept, list) and kept and all(type(unit) is int for unit in kept)
    }


def without_masks(metadata: Mapping[str, Any], freed: Iterable[str]) -> dict[str, Any]:
    """metadata.json as if some layers had never been masked.

    A mask changes no shape, so the steps before and after it stay true without it.

    Args:
        freed: paths of the layers whose masks were taken out.
    Returns: the old metadata; without the key `kprune` if nothing else was done to the file.
    """
    own, steps = _steps(metadata)
    if not own:
        return dict(metadata)
    gone = set(freed)
    kept = []
    trained = own.get(TRAINED, 0)
    for number, step in enumerate(steps):
        if step.get("backend") == "mask":
            layers = {path: units for path, units in step["layers"].items() if path not in gone}
            if not layers:
                trained -= number < own.get(TRAINED, 0)
                continue
            step = {**step, "layers": layers}
        kept.append(step)
    rest = {key: value for key, value in metadata.items() if key != KEY}
    if not kept and not own.get("units"):
        return rest
    since = {TRAINED: trained} if TRAINED in own else {}
    return {**rest, KEY: {**own, "plan": {**own["plan"], "steps": kept}, **since}}
