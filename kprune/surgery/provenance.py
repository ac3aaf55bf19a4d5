"""What kprune writes about itself into metadata.json: the plan carried out, and which original units are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kprune.analysis import Analysis
from kprune.version import __version__

KEY = "kprune"


def with_provenance(
    analysis: Analysis, *, backend: str, units: Mapping[str, np.ndarray], options: Mapping[str, Any], gone: np.ndarray | None
) -> dict[str, Any]:
    """metadata.json with this step added.

    Args:
        units: by address, the indices that were named.
        options: further keys of the step, as a plan writes them.
        gone: bool (labels,) if units were physically removed.
    Returns: the old metadata with the key `kprune`: `version`, `plan` (steps as in a YAML plan, each
        in terms of the file it was applied to) and `units`, for each layer that lost any the
        original indices of those that are left.
    """
    before = analysis.metadata.get(KEY)
    before = before if isinstance(before, dict) else {}
    plan = before.get("plan")
    steps = list(plan.get("steps", [])) if isinstance(plan, dict) else []
    step: dict[str, Any] = {
        "backend": backend,
        "layers": {address: [int(i) for i in indices] for address, indices in units.items()},
        **options,
    }
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
    return {
        **analysis.metadata,
        KEY: {"version": __version__, "plan": {"version": 1, "steps": [*steps, step]}, "units": left},
    }
