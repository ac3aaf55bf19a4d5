"""The report of one change: what was requested, what was done, what it saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kprune.page.figures import arrows, counted, figure, short
from kprune.page.page import Page
from kprune.page.result import Result, result_schema
from kprune.report.facts import FileFacts
from kprune.report.totals import show_totals
from kprune.text import clean

MANY = 48
"""Rows of a table beyond which those are left out whose units stay: they only read fewer inputs."""

Kept = Sequence[int | list[int]] | None
"""What is left along one axis of a weight; see `WeightChange.kept`."""


class LayerChange(Struct, frozen=True):
    """One layer that changed. Units are null for a layer without units of its own."""

    name: str
    class_: str = msgspec.field(name="class")
    units_before: int | None
    units_after: int | None
    parameters_before: int
    parameters_after: int
    flops_before: int
    flops_after: int


class WeightChange(Struct, frozen=True):
    """One weight whose shape or values changed."""

    path: Annotated[str, Meta(description="dataset path in the weights file of the input")]
    shape_before: list[int]
    shape_after: list[int]
    kept: Annotated[
        list[Kept],
        Meta(
            description="an entry an axis: null where it is whole, else the original indices that are left; "
            "for the input axis of a grouped kernel, where each group keeps inputs of its own, "
            "a list of them for each group that is left"
        ),
    ]


class Report(Result, frozen=True):
    """What a command did (or would do, on a dry run)."""

    backend: str
    exact: Annotated[
        bool,
        Meta(
            description="false if a statistic was taken over a unit that went, or what is left was refitted"
        ),
    ]
    input: FileFacts
    output: FileFacts
    selected: dict[str, list[int]]
    changed: dict[str, list[int]]
    layers: list[LayerChange]
    weights: list[WeightChange]

    def show(self, on: Page) -> None:
        if any(row.parameters_before != row.parameters_after for row in self.layers):
            _removed(self, on)
        elif self.command == "unmask":
            on.print(f"unmasked: {', '.join(clean(name) for name in self.changed)}")
        elif self.changed:
            _chosen(self, on)
        if self.changed or self.layers:
            on.print()
        show_totals(self.input, self.output, on)
        on.print()
        self.show_repair(on)
        if self.output.path is None:
            on.print("dry run: nothing was written")
        elif self.output.path != "-":
            # Where there was nothing to do, a file that was to be changed in place stays untouched.
            idle = self.output.path == self.input.path and not self.changed
            done = "left as it is:" if idle and not self.layers else "wrote"
            on.print(f"{done} {clean(self.output.path, 500)}", wrap=False)

    @property
    def repaired(self) -> Any:
        """What came of refitting what is left: a `Repaired`; None without a repair, and not in the JSON then."""
        return None

    def show_repair(self, on: Page) -> None:
        """Write what came of a repair: nothing, where there was none."""


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
    on.table(
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
        on.print("* named   + also removed, tied unit by unit to what was named", style="dim")


def _layers_of(units: dict[str, list[int]]) -> set[str]:
    """Layers that some addresses belong to: `mha.heads` is a part of `mha`."""
    return {*units, *(address.rpartition(".")[0] for address in units)}


def _style(mark: str) -> str | None:
    return {"*": "bold", "": "dim"}.get(mark)


# -- zeroed and masked units: which ---------------------------------------------------------------


def _chosen(report: Report, on: Page) -> None:
    from kprune.select.naming.indices import compact_text
    from kprune.select.plans.backends import BACKENDS

    backend = BACKENDS.get(report.backend)  # a plan may have had several
    done = "changed" if backend is None else backend.done
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
    on.table(["", "~layer", f">{done}", "~units"], rows)
    if any(row[0] == "+" for row in rows):
        on.print("* named   + also changed, tied unit by unit to what was named", style="dim")


def report_schema() -> dict[str, Any]:
    """The JSON Schema of the report."""
    return result_schema(Report, "kprune report")
