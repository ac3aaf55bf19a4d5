"""The units that can be removed at a target metric, by what `kprune sensitivity` measured.

`kprune.verbs.sensitivity` measures it. The file that holds it names every unit that was cut, so
that choosing from it needs neither the data nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import CheckError, UsageError
from kprune.page.result import Note
from kprune.select.plans.curves import Candidate, Curves, Point
from kprune.text import clean, metric_text

ROUNDING = 1e-9  # 0.97 - 0.01 is not quite 0.96


@dataclass(frozen=True)
class Wanted:
    """How good a model must stay with any one candidate cut.

    Attributes:
        min_accuracy: the least that a metric may come to of which more is better.
        max_drop: how much worse than the whole model's the metric may become, whatever its direction.
    Raises: UsageError unless exactly one of them is given.
    """

    min_accuracy: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if (self.min_accuracy is None) == (self.max_drop is None):
            raise UsageError(
                "a plan from --sensitivity needs a target accuracy",
                do="give one of --min-accuracy A and --max-drop D",
            )
        if self.max_drop is not None and not self.max_drop >= 0:
            raise UsageError(
                f"--max-drop must be at least 0, got {self.max_drop:g}",
                why="it is how much worse the metric may become",
                do="give a number such as 0.01",
            )  # fmt: skip

    def floor(self, curves: Curves) -> float:
        """The worst value of the curves' metric that will do.

        Raises: UsageError if less of that metric is better, and it was to have a least.
        """
        if self.max_drop is not None:
            return curves.whole + (-self.max_drop if curves.higher_is_better else self.max_drop)
        assert self.min_accuracy is not None
        if not curves.higher_is_better:
            raise UsageError(
                f"the curves measure '{clean(curves.metric)}', for which lower is better",
                do="say how much it may rise with --max-drop, or measure an accuracy "
                "(kprune sensitivity --metric)",
            )
        return self.min_accuracy


def within(
    curves: Curves, wanted: Wanted, analysis: Analysis, left_out: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], list[Note]]:
    """Of each candidate the largest cut that was measured to be good enough.

    A cut counts only if every smaller one of the same candidate is good enough too: where a curve
    dips and recovers, the recovery may be luck.

    Args:
        analysis: the model, which must be the one that was measured.
        left_out: addresses; candidates with any of them stay whole.
    Returns: sorted int64 indices by address; and for each candidate what to expect of it.
    Raises: UsageError if the curves were measured on another model, CheckError if nothing may go.
    """
    _check_same(curves, analysis)
    floor = wanted.floor(curves)
    chosen: dict[str, np.ndarray] = {}
    notes = []
    for candidate in curves.candidates:
        if candidate.layers.keys() & set(left_out) or not candidate.points:
            continue
        best = _largest(curves, candidate, floor)
        for address, indices in {} if best is None else best.removed.items():
            chosen[address] = np.asarray(indices, np.int64)
        notes.append(_expected(curves, candidate, best))
    if not chosen:
        first = [c.points[0].metrics[curves.metric] for c in curves.candidates if c.points]
        closest = (max if curves.higher_is_better else min)(first, default=curves.whole)
        raise CheckError(
            f"no layer can lose units at {clean(curves.metric)} {metric_text(floor)}",
            why=f"the whole model has {metric_text(curves.whole)}, and {metric_text(closest)} at best "
            "with a layer cut by the smallest ratio that was measured",
            do="ask for less, or measure smaller ratios (kprune sensitivity --ratios)",
        )
    notes.append(
        Note(
            "expected",
            "",
            f"{clean(curves.metric)} {metric_text(curves.whole)} with none cut; together the cuts "
            "usually cost more than each alone: check with 'kprune verify --data'",
        )
    )
    return chosen, notes


def _expected(curves: Curves, candidate: Candidate, best: Point | None) -> Note:
    name = " + ".join(clean(address) for address in candidate.layers)
    shown = best or min(candidate.points, key=lambda point: point.ratio)
    figure = f"{clean(curves.metric)} {metric_text(shown.metrics[curves.metric])}"
    share = f"{100 * shown.ratio:g} %"
    text = f"stays whole: {figure} with {share} of it gone"
    if best is not None:
        text = f"loses {share}: {figure} expected of that alone"
    return Note("expected", next(iter(candidate.layers)), f"{name} {text}")


def _largest(curves: Curves, candidate: Candidate, floor: float) -> Point | None:
    best = None
    for point in sorted(candidate.points, key=lambda point: point.ratio):
        value = point.metrics[curves.metric]
        worse = floor - value if curves.higher_is_better else value - floor
        if not worse <= ROUNDING:  # what is not a number is never good enough
            break
        best = point
    return best


def _check_same(curves: Curves, analysis: Analysis) -> None:
    from kprune.analysis.counts import count

    have = count(analysis).parameters
    if have != curves.parameters:
        raise _another(curves, f"that one had {curves.parameters:,} parameters, this one {have:,}")
    for candidate in curves.candidates:
        sizes = {address: len(axis) for address, axis in analysis.map.axes.items()}
        removed = [pair for point in candidate.points for pair in point.removed.items()]
        for address, units in candidate.layers.items():
            if sizes.get(address) != units:
                raise _another(curves, f"it has no '{clean(address)}' of {units} units")
        for address, indices in removed:
            if not all(0 <= index < sizes.get(address, 0) for index in indices):
                raise _another(curves, f"it lacks units of '{clean(address)}' that were cut")


def _another(curves: Curves, why: str) -> UsageError:
    return UsageError(
        "the curves were measured on another model",
        where=clean(curves.model, 300),
        why=why,
        do="measure this model: kprune sensitivity MODEL --data FILE.npz -o FILE.json",
    )
