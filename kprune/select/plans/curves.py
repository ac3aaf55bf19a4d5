"""How much of a metric each group of layers costs, as data and as text.

`kprune.verbs.sensitivity` measures it. The file that holds it names every unit that was cut, so
that choosing from it needs neither the data nor TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kprune.errors import FileError
from kprune.faults import file_error, shown
from kprune.limits import JSON_BYTES
from kprune.page.page import Page
from kprune.page.plot import Curve, Panel
from kprune.page.result import Result, result_schema
from kprune.text import clean, metric_text
from kprune.types import AnyPath

AT_ONCE = 6  # ratios in one table, so that it fits 80 columns


class Point(Struct, frozen=True, forbid_unknown_fields=True):
    """One cut: how much was removed, and what it cost."""

    ratio: Annotated[float, Meta(gt=0, lt=1, description="The share of each layer asked for.")]
    removed: Annotated[
        dict[str, list[int]],
        Meta(description="Every unit that went, by layer, tied ones included."),
    ]
    parameters: Annotated[int, Meta(description="How many were left in the whole model.")]
    metrics: Annotated[dict[str, float], Meta(description="Of the model so cut.")]


class Candidate(Struct, frozen=True, forbid_unknown_fields=True):
    """Layers whose units are tied together, cut while every other layer stayed whole.

    Attributes:
        layers: how many units each has, by address.
        points: by rising ratio; a ratio that the layers could not lose, or that is less than one
            unit, has none.
        why: what kept it from being cut, at all or further.
    """

    layers: dict[str, int]
    points: list[Point]
    why: str | None = None


class Curves(Result, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric as a function of the ratio, one candidate at a time.

    In every measurement one candidate is cut and the rest of the model is whole. The curves do not
    show what several cuts cost together: usually more than the sum, because the layers that
    compensated for one cut are cut themselves. Combining ratios from such curves is a heuristic, to
    be checked on the whole model (`kprune verify --data`).

    Attributes:
        model, parameters: the file, and how many parameters it has.
        metric: the one of `metrics` that tables and plans go by.
        higher_is_better: whether a higher value of that metric is better.
        samples: how many; null for a dataset, whose size is unknown.
        baseline: the metrics of the model as it is.
    """

    model: str
    parameters: int
    data: str
    samples: int | None
    criterion: str
    seed: int
    ratios: list[float]
    metric: str
    higher_is_better: bool
    baseline: dict[str, float]
    candidates: list[Candidate]
    command: str = "sensitivity"

    @property
    def whole(self) -> float:
        """The metric of the model as it is."""
        return self.baseline[self.metric]

    def show(self, on: Page) -> None:
        samples = clean(self.data) if self.samples is None else f"{self.samples:,} samples"
        better = "more" if self.higher_is_better else "less"
        on.print(
            f"{clean(self.metric)} when one layer is cut and the others stay whole ({better} is better)",
            wrap=False,
        )
        on.print(
            f"with none cut {metric_text(self.whole)}, on {samples}; the lowest by "
            f"{clean(self.criterion)} go",
            wrap=False,
        )
        measured = [candidate for candidate in self.candidates if candidate.points]
        for start in range(0, len(self.ratios) if measured else 0, AT_ONCE):
            ratios = self.ratios[start : start + AT_ONCE]
            on.print()
            on.table(
                ["~layer", ">units", *(f">-{100 * ratio:g}%" for ratio in ratios)],
                [_row(candidate, self, ratios) for candidate in measured],
            )
        reasons = [c for c in self.candidates if c.why is not None]
        if reasons:
            on.print()
            on.table(
                ["~layer", "", "~why"],
                [
                    (_name(c), "not cut further" if c.points else "not cut", clean(c.why, 300))
                    for c in reasons
                ],
            )


def _name(candidate: Candidate) -> str:
    return " + ".join(clean(address) for address in candidate.layers)


def _short(candidate: Candidate) -> str:
    """The first layer, and how many are tied to it."""
    first, *others = candidate.layers
    return f"{first} +{len(others)}" if others else first


def _gone(candidate: Candidate, point: Point) -> float:
    """The share of units that really went: a ratio takes whole units."""
    removed = sum(len(point.removed.get(address, ())) for address in candidate.layers)
    return removed / sum(candidate.layers.values())


def _row(candidate: Candidate, found: Curves, ratios: list[float]) -> list[str]:
    at = {point.ratio: metric_text(point.metrics[found.metric]) for point in candidate.points}
    units = list(dict.fromkeys(f"{units:,}" for units in candidate.layers.values()))
    return [_name(candidate), " + ".join(units), *(at.get(ratio, "") for ratio in ratios)]


def panel(found: Curves) -> Panel:
    """The metric by the share of units that went, a curve for each candidate."""
    whole = Curve("none cut", [0, 100], [found.whole, found.whole], dashed=True)
    curves = [
        Curve(
            _short(candidate),
            [0.0, *(100 * _gone(candidate, point) for point in candidate.points)],
            [found.whole, *(point.metrics[found.metric] for point in candidate.points)],
        )
        for candidate in found.candidates
        if candidate.points
    ]
    title = f"{Path(found.model).name}, one layer cut at a time by {found.criterion}"
    return Panel([whole, *curves], "units removed, %", found.metric, title)


def read_curves(path: AnyPath) -> Curves:
    """Read what `kprune sensitivity -o` wrote.

    Raises: FileError if it cannot be read, or is something else.
    """
    name = shown(path)
    try:
        with open(path, "rb") as stream:
            text = JSON_BYTES.read(stream, name)
    except OSError as error:
        raise file_error(error, "read", name) from error
    try:
        curves = msgspec.json.decode(text, type=Curves)
    except msgspec.DecodeError as error:  # of text that is no JSON, and of JSON that is no curves
        raise FileError(
            f"{name} was not written by 'kprune sensitivity'",
            why=clean(error, 200),
            do="make one: kprune sensitivity MODEL --data FILE.npz -o FILE.json",
        ) from error
    every = [curves.baseline, *(p.metrics for c in curves.candidates for p in c.points)]
    if any(curves.metric not in metrics for metrics in every):
        raise FileError(f"{name} has no values of its own metric, '{clean(curves.metric)}'")
    return curves


def curves_schema() -> dict[str, Any]:
    """The JSON Schema of the file."""
    return result_schema(Curves, "kprune sensitivity")
