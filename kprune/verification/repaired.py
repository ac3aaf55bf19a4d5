"""Files whose layers were refitted: how they are recognised, and which weights must be unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.formats import Source
from kprune.labels.map import Weight
from kprune.surgery.provenance import KEY, REPAIR, TRAINED, steps_of
from kprune.surgery.remove import cut_weight
from kprune.text import clean
from kprune.verification.replay import Unexplained, steps_between

Steps = Sequence[Mapping[str, Any]]

REFITTED = frozenset(
    "kernel bias recurrent_kernel depthwise_kernel pointwise_kernel moving_mean moving_variance".split()
)
"""Weights that a repair may change, as the ends of their names: what sums over units, and the statistics behind."""


def steps_after(original: Mapping[str, Any], pruned: Mapping[str, Any]) -> Steps:
    """The steps that a file says it went through since it was the original; all of them, if it never was.

    Args:
        original, pruned: metadata.json of both.
    """
    try:
        return steps_between(original, pruned)
    except Unexplained:
        return steps_of(pruned)


def is_repaired(steps: Steps) -> bool:
    """Whether the model was refitted in one of the steps, by any method."""
    return any(step.get(REPAIR) not in (None, False) for step in steps)


def changed_beyond_repair(
    before: Source,
    analysis: Analysis,
    after: Source,
    left: Analysis,
    gone: np.ndarray,
    steps: Steps,
) -> list[str]:
    """The weights that no repair changes, and that differ from the original's all the same.

    Empty if other backends were used, which set values of their own.

    Args:
        before, analysis: the original.
        after, left: the pruned model.
        gone: bool (labels,), in terms of the original.
        steps: between the two.
    Returns: their paths in the pruned file.
    """
    if any(step.get("backend") != "remove" or step.get("fold") for step in steps):
        return []
    if TRAINED in left.metadata.get(KEY, {}):
        return []  # training changes every weight
    known = dict(_weights(left))
    found = []
    for key, weight in _weights(analysis):
        own = known.get(key)
        if own is None or key[1].rpartition("/")[2] in REFITTED or weight.grouped is not None:
            continue
        if not (analysis.is_stored(weight) and left.is_stored(own)):
            continue
        cut = cut_weight(weight, gone)
        value = before.read(weight.path)
        expected = value if cut is None else cut.applied(value)
        got = after.read(own.path)
        if got.shape != expected.shape or got.tobytes() != expected.tobytes():
            found.append(own.path)
    return found


def _weights(analysis: Analysis) -> Iterator[tuple[tuple[str, str], Weight]]:
    """The weights of a model, each under the path of its layer and what it is called there."""
    for record in analysis.map.records.values():
        for part in record.whole():
            for name, weight in part.weights.items():
                yield (weight.layer.path, name), weight


def changed_text(paths: Sequence[str]) -> str:
    """A sentence that names the weights which differ."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return (
        f"{', '.join(map(clean, paths[:3]))}{more}: no repair changes these weights, and they are "
        "not the original's"
    )
