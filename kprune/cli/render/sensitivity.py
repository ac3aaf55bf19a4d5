"""What each layer costs when it alone is cut: a table, and a picture."""

from __future__ import annotations

from pathlib import Path

from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table
from kprune.report.plot import Curve, Panel, draw
from kprune.select.sensitivity import Candidate, Curves, Point
from kprune.text import clean, metric_text

AT_ONCE = 6  # ratios in one table, so that it fits 80 columns


def show(found: Curves, written: list[str]) -> None:
    """Show the metric of each candidate at each ratio; and what was not cut, with the reason."""
    on = Page()
    samples = clean(found.data) if found.samples is None else f"{found.samples:,} samples"
    better = "more" if found.higher_is_better else "less"
    on.print(
        f"{clean(found.metric)} when one layer is cut and the others stay whole ({better} is better)",
        wrap=False,
    )
    on.print(
        f"with none cut {metric_text(found.whole)}, on {samples}; the lowest by "
        f"{clean(found.criterion)} go",
        wrap=False,
    )
    measured = [candidate for candidate in found.candidates if candidate.points]
    for start in range(0, len(found.ratios) if measured else 0, AT_ONCE):
        ratios = found.ratios[start : start + AT_ONCE]
        on.print()
        show_table(
            on,
            ["~layer", ">units", *(f">-{100 * ratio:g}%" for ratio in ratios)],
            [_row(candidate, found, ratios) for candidate in measured],
        )
    reasons = [c for c in found.candidates if c.why is not None]
    if reasons:
        on.print()
        show_table(
            on,
            ["~layer", "", "~why"],
            [
                (_name(c), "not cut further" if c.points else "not cut", clean(c.why, 300))
                for c in reasons
            ],
        )
    if written:
        on.print()
    for path in written:
        on.print(f"wrote {clean(path, 300)}", wrap=False)


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


def show_plot(found: Curves, path: str) -> None:
    """Draw the metric by the share of units that went, a curve for each candidate."""
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
    draw(path, [Panel([whole, *curves], "units removed, %", found.metric, title)])
