"""What the rounds of an iteration came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprune.cli.render.figures import figure
from kprune.cli.render.output import show_end
from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.report.report import Report
    from kprune.running.iteration import Iteration, Round


def round_line(number: int, report: Report) -> str:
    """One line of progress, after a cut."""
    left = report.output
    return f"round {number}: {left.units:,} units and {left.parameters:,} parameters are left"


def show(found: Iteration, plot: str | None, *, to_stderr: bool) -> None:
    """Show a row a round, why it ended, and what was written."""
    on = Page(stderr=to_stderr)
    metric = clean(found.metric)
    third = "bytes" if found.kind == "bytes" else "FLOPs"
    columns = [">round", ">units", ">parameters", f">{third}", f">{metric}: cut", ">tuned", ""]
    if found.metric != "loss":
        columns.insert(-1, ">loss")
    show_table(on, columns, [_row(found, round_) for round_ in found.rounds])
    on.print()
    on.print(found.why, wrap=False)
    if found.resumed:
        on.print(f"resumed after round {found.resumed}")
    show_end(on, found.notes, None if to_stderr else found.output, plot)


def _row(found: Iteration, round_: Round) -> list[str]:
    size = round_.bytes if found.kind == "bytes" else round_.flops
    cut = "" if round_.cut is None else f"{round_.cut[found.metric]:.4f}"
    loss = [f"{round_.tuned['loss']:.4f}"] if found.metric != "loss" else []
    mark = "written" if round_.number == found.written else "" if round_.held else "not held"
    return [
        str(round_.number),
        figure(round_.units),
        figure(round_.parameters),
        figure(size),
        cut,
        f"{round_.tuned[found.metric]:.4f}",
        *loss,
        mark,
    ]
