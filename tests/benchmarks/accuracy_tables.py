"""Tables and plots of what `accuracy` measured. All are means over models and seeds, in percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.accuracy_ways import (
    BEST,
    CUT,
    EPOCHS,
    INPUTS,
    REPAIRED,
    STAGES,
    TRAINED,
    WAYS,
    Row,
    Way,
)


def comparable(rows: Sequence[Row]) -> list[Row]:
    """The figures of those seeds of which a stage has as many as of any; all ways then share their seeds."""
    counts = Counter((row.stage, row.seed) for row in rows)
    most = {stage: max(n for (of, _), n in counts.items() if of == stage) for stage, _ in counts}
    return [row for row in rows if counts[row.stage, row.seed] == most[row.stage]]


def mean(rows: Sequence[Row]) -> float:
    """Models count alike, however many seeds each has."""
    figures: dict[str, list[float]] = {}
    for row in rows:
        if row.accuracy is not None:
            figures.setdefault(row.model, []).append(row.accuracy)
    return 100 * float(np.mean([np.mean(own) for own in figures.values()]))


def means(rows: Sequence[Row], way: Way) -> dict[tuple[float, str], float]:
    """By share removed and stage: where each model that the criterion could cut has a figure."""
    own = [row for row in rows if row.way == way.name and row.accuracy is not None]
    reach = {row.model for row in own}
    found = {}
    for removed, stage in {(row.removed, row.stage) for row in own}:
        here = [row for row in own if (row.removed, row.stage) == (removed, stage)]
        if {row.model for row in here} == reach:  # else it would be another mean
            found[removed, stage] = mean(here)
    return found


def budgets(rows: Sequence[Row]) -> list[float]:
    """The shares of parameters that were removed."""
    return sorted({row.removed for row in rows if row.stage != "whole"})


def _head(first: str, shares: Sequence[float]) -> list[str]:
    cells = [first, *(f"{100 * removed:g} % removed" for removed in shares)]
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]


def trained_table(rows: Sequence[Row]) -> str:
    """As Markdown: `cut → tuned / taught`.

    Those with a teacher are shown if they are of the same seeds as those without.
    """
    rows = [row for row in rows if row.stage in ("whole", CUT, *TRAINED)]
    models = {row.model for row in rows}
    tuned, taught = ({row.seed for row in rows if row.stage == stage} for stage in TRAINED)
    alike = tuned == taught  # else what differs may be the seeds
    lines = _head("criterion", budgets(rows))
    for way in WAYS:
        found = means(rows, way)
        if not alike:
            found = {key: value for key, value in found.items() if key[1] != TRAINED[1]}
        cells = []
        for removed in budgets(rows):
            cut, tuned, taught = (
                f"{found[removed, stage]:.1f}" if (removed, stage) in found else ""
                for stage in (CUT, *TRAINED)
            )
            trained_on = " / ".join(filter(None, (tuned, taught)))
            cells.append(f"{cut} → {trained_on}" if trained_on else cut or "–")
        reach = {row.model for row in rows if row.way == way.name and row.accuracy is not None}
        if reach:
            few = f" ({len(reach)} of the models)" if reach != models else ""
            lines.append(f"| {way.name}{few} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def repaired_table(rows: Sequence[Row]) -> str:
    """As Markdown: a line for each way and stage, accuracy and in parentheses the points lost."""
    whole = [row for row in rows if row.stage == "whole"]
    lines = _head("criterion, and what then", budgets(rows))
    for way in WAYS:
        for stage in (CUT, *REPAIRED):
            own = [row for row in rows if (row.way, row.stage) == (way.name, stage)]
            seeds, found = {row.seed for row in own}, means(own, way)
            if (BEST not in way.stages and not way.apart) or not found:
                continue
            reach = {row.model for row in own if row.accuracy is not None}
            at = mean([row for row in whole if row.seed in seeds and row.model in reach])
            cells = (
                f"{found[removed, stage]:.1f} ({at - found[removed, stage]:.1f})"
                if (removed, stage) in found
                else "–"
                for removed in budgets(rows)
            )
            lines.append(f"| {way.name}: {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_teacher(rows: Sequence[Row]) -> str:
    """What the teacher adds: over all pairs of the same cut tuned without and with one."""
    found = {row.key: row.accuracy for row in rows}
    parts = []
    for removed in budgets(rows):
        pairs = [
            (found[row._replace(stage="tuned").key], row.accuracy)
            for row in rows
            if (row.stage, row.removed) == ("taught", removed) and row.accuracy is not None
        ]
        gains = [100 * (taught - tuned) for tuned, taught in pairs if tuned is not None]
        if gains:
            error = np.std(gains) / len(gains) ** 0.5
            parts.append(f"{100 * removed:g} % removed {np.mean(gains):+.1f} ± {error:.1f}")
    return ", ".join(parts)


def spread(rows: Sequence[Row], stage: str) -> float:
    """The standard deviation over seeds: the mean over all else."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row.stage == stage and row.accuracy is not None:
            groups.setdefault((row.model, row.way, row.removed), []).append(row.accuracy)
    several = [np.std(group, ddof=1) for group in groups.values() if len(group) > 1]
    return 100 * float(np.mean(several)) if several else 0.0


_AXES = "parameters removed, %", "accuracy, %"


def plot_by_criterion(rows: Sequence[Row], path: Path) -> None:
    """The mean accuracy by the share of parameters removed: a panel a stage, a curve a criterion."""
    from kprune.page.plot import Panel, draw

    titles = {
        CUT: "right after the cut",
        "tuned": f"after {EPOCHS} epochs",
        "taught": f"after {EPOCHS} epochs with the original as teacher",
    }
    draw(
        path,
        [
            Panel(_curves(rows, [(way.name, way, stage) for way in WAYS]), *_AXES, title)
            for stage, title in titles.items()
        ],
    )


def plot_repaired(rows: Sequence[Row], path: Path) -> None:
    """The same: what a repair keeps of what a criterion chose, without and with data."""
    from kprune.page.plot import Panel, draw

    ways = {way.name: way for way in WAYS}
    criteria = [ways[name] for name in ("l1", "lamp", "obs")]
    said = {"noise": "repaired without data"}
    said |= {stage: f"{count:,} inputs without targets" for stage, count in INPUTS.items() if count}
    said[BEST] = f"{INPUTS['lstsq-256']} inputs, then {EPOCHS} epochs with targets"
    draw(
        path,
        [
            Panel(
                [
                    *_curves(rows, [(f"{way.name}: cut", way, CUT) for way in criteria]),
                    *_curves(
                        rows,
                        [(f"{way.name}: repaired", way, "lstsq-256") for way in criteria],
                        whole=False,
                    ),
                ],
                *_AXES,
                "right after the cut, and repaired on 256 inputs without targets",
            ),
            Panel(
                _curves(rows, [(text, ways["obs"], stage) for stage, text in said.items()]),
                *_AXES,
                "units chosen by obs, repaired",
            ),
        ],
    )


def _curves(
    rows: Sequence[Row], wanted: Sequence[tuple[str, Way, str]], *, whole: bool = True
) -> list[Any]:
    """A curve each for (name, way, stage), where there are figures; and that of the whole models."""
    from kprune.page.plot import Curve

    shares, curves = budgets(rows), []
    if whole:
        level = mean([row for row in rows if row.stage == "whole"])
        x = [100 * removed for removed in shares]
        curves.append(Curve("whole", x, [level] * len(shares), dashed=True))
    for name, way, stage in wanted:
        found = means(rows, way)
        at = [removed for removed in shares if (removed, stage) in found]
        if at:
            y = [found[removed, stage] for removed in at]
            curves.append(Curve(name, [100 * removed for removed in at], y))
    return curves


def show(rows: Sequence[Row], folder: Path) -> None:
    """Print all, and draw it into a folder."""
    rows = comparable(rows)
    models = list(dict.fromkeys(row.model for row in rows))
    stages = {row.stage for row in rows}
    kinds = [
        (trained_table, plot_by_criterion, TRAINED, "accuracy.svg"),
        (repaired_table, plot_repaired, REPAIRED, "repaired.svg"),
    ]
    kinds = [kind for kind in kinds if stages.intersection(kind[2])]
    for model in models:
        own = [row for row in rows if row.model == model]
        whole = [row for row in own if row.stage == "whole"]
        print(f"\n{model}, {len(whole)} seeds: {mean(whole):.1f} % whole")
        for table, *_ in kinds:
            print(f"\n{table(own)}")
    if not models:
        return
    level = mean([row for row in rows if row.stage == "whole"])
    print(f"\nmean of {len(models)} models, {level:.1f} % whole")
    for table, *_ in kinds:
        print(f"\n{table(rows)}")
    if "taught" in stages:
        print(f"\nwhat a teacher adds (with the standard error): {by_teacher(rows)}")
    print()
    for stage in STAGES:
        seeds = len({row.seed for row in rows if row.stage == stage})
        if seeds:
            print(f"{stage}: {seeds} seeds, standard deviation {spread(rows, stage):.1f}")
    for _, plot, _, name in kinds:
        plot(rows, folder / name)
        print(f"\nwrote {folder / name}")
