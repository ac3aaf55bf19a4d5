"""The report of a change: which layers changed, and what it saved."""

from __future__ import annotations

import os
from typing import Any

from kprune.cli.options import Reporting
from kprune.cli.render.figures import arrows, counted, figure, short
from kprune.cli.render.notes import show_notes
from kprune.cli.render.output import reported
from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table
from kprune.cli.render.totals import show_totals
from kprune.report.report import Report
from kprune.text import clean

MANY = 48
"""Rows of a table beyond which those are left out whose units stay: they only read fewer inputs."""


def show(report: Report, how: Reporting, *, to_stderr: bool) -> None:
    """Show a report in the way that was asked for.

    Args:
        how: the options.
        to_stderr: whether standard output holds the model itself.
    """
    path = report.output.path
    place = None if path is None else os.fspath(path)
    if reported(report.to_dict, place, how, to_stderr=to_stderr):
        return
    _show_tables(report, Page(stderr=to_stderr))
    show_notes(report.notes)


def _show_tables(report: Report, on: Page) -> None:
    if any(row.parameters_before != row.parameters_after for row in report.layers):
        _removed(report, on)
    elif report.command == "unmask":
        on.print(f"unmasked: {', '.join(clean(name) for name in report.changed)}")
    elif report.changed:
        _chosen(report, on)
    if report.changed or report.layers:
        on.print()
    show_totals(report.input, report.output, on)
    on.print()
    if report.output.path is None:
        on.print("dry run: nothing was written")
    elif report.output.path != "-":
        # Where there was nothing to do, a file that was to be changed in place stays untouched.
        idle = report.output.path == report.input.path and not report.changed
        done = "left as it is:" if idle and not report.layers else "wrote"
        on.print(f"{done} {clean(report.output.path, 500)}", wrap=False)


# -- removed units: sizes before and after --------------------------------------------------------


def _removed(report: Report, on: Page) -> None:
    named, along = _layers_of(report.selected), _layers_of(report.changed)
    rows = report.layers
    if len(rows) > MANY:
        rows = [row for row in rows if row.name in along]
    units = arrows([(figure(row.units_before), figure(row.units_after)) for row in rows])
    parameters = arrows(
        [(figure(row.parameters_before), figure(row.parameters_after)) for row in rows]
    )
    flops = arrows([(short(row.flops_before), short(row.flops_after)) for row in rows])
    marks = ["*" if row.name in named else "+" if row.name in along else "" for row in rows]
    show_table(
        on,
        ["", "~layer", ">units", ">parameters", ">FLOPs"],
        [
            (mark, clean(row.name), *cells, _style(mark))
            for mark, row, *cells in zip(marks, rows, units, parameters, flops, strict=True)
        ],
    )
    if len(rows) < len(report.layers):
        rest = len(report.layers) - len(rows)
        on.print(f"and {counted(rest, 'layer')} that read fewer inputs (--json lists them)")
    if "+" in marks:
        on.print("* named   + goes along, tied unit by unit to what was named", style="dim")


def _layers_of(units: dict[str, list[int]]) -> set[str]:
    """Layers that some addresses belong to: `mha.heads` is a part of `mha`."""
    return {*units, *(address.rpartition(".")[0] for address in units)}


def _style(mark: str) -> str | None:
    return {"*": "bold", "": "dim"}.get(mark)


# -- zeroed and masked units: which ---------------------------------------------------------------


def _chosen(report: Report, on: Page) -> None:
    from kprune.select.indices import compact_text

    done = {"zero": "zeroed", "mask": "masked"}.get(report.backend, "changed")
    widths = {row.name: row.units_before for row in report.layers}
    rows: list[tuple[Any, ...]] = []
    for address, indices in report.changed.items():
        mark = "*" if address in report.selected else "+"
        many = figure(len(indices)) if indices else "all"
        of = widths.get(address)
        rows.append(
            (mark, clean(address), f"{many} of {of}" if of and indices else many,
             clean(compact_text(indices), 200) if indices else "below the threshold", _style(mark))
        )  # fmt: skip
    show_table(on, ["", "~layer", f">{done}", "~units"], rows)
    if any(row[0] == "+" for row in rows):
        on.print("* named   + goes along, tied unit by unit to what was named", style="dim")
