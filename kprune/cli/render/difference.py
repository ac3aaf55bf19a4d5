"""What differs between two model files."""

from __future__ import annotations

from typing import Any

from kprune.cli.render.figures import arrows, figure
from kprune.cli.render.notes import show_notes
from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table, show_texts
from kprune.cli.render.totals import show_totals
from kprune.report.diff import Difference, LayerDiff, WeightDiff
from kprune.report.fields import FieldChange
from kprune.text import clean

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
IN_THE_TABLE = ("units", "filters", "output_dim")
STYLES = {"added": "green", "removed": "red", "changed": None}


def show(found: Difference) -> None:
    """Show a difference; for equal models, one line."""
    on = Page()
    if found.equal:
        on.print("no difference: the same layers with the same values")
        return
    if found.layers:
        _layers(found, on)
        on.print()
    _fields([*(field for layer in found.layers for field in layer.fields), *found.fields], on)
    show_totals(found.a, found.b, on)
    show_notes(found.notes)


def _layers(found: Difference, on: Page) -> None:
    rows = found.layers
    units = arrows([(figure(row.units_before), figure(row.units_after)) for row in rows])
    parameters = arrows(
        [(figure(row.parameters_before), figure(row.parameters_after)) for row in rows]
    )
    show_table(
        on,
        ["", "~layer", ">units", ">parameters", "~values"],
        [
            (
                SIGNS[row.status],
                clean(row.name) or "(no layer)",
                one,
                other,
                _values(row, found.weights),
                STYLES[row.status],
            )
            for row, one, other in zip(rows, units, parameters, strict=True)
        ],
    )


def _values(row: LayerDiff, weights: list[WeightDiff]) -> str:
    """What became of a layer's values."""
    if row.status != "changed":
        return row.status
    own = [weight for weight in weights if weight.layer == row.name]
    if not own:
        return "same"
    if any(weight.compared == "no" for weight in own):
        return "other shapes"
    different = sum(weight.different for weight in own)
    kept = any(weight.compared == "kept" for weight in own)
    if not different:
        return "same where kept"
    largest = max(weight.largest for weight in own)
    total = sum(weight.values for weight in own)
    return f"{different:,} of {total:,}{' kept' if kept else ''} differ, by up to {largest:.3g}"


def _fields(fields: list[FieldChange], on: Page) -> None:
    told = [field for field in fields if field.field not in IN_THE_TABLE]
    show_texts(
        on,
        [
            (
                f"{clean(field.layer)}.{clean(field.field)}" if field.layer else clean(field.field),
                f"{_value(field.before)} → {_value(field.after)}",
            )
            for field in told
        ],
        style="",
    )
    if told:
        on.print()


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    return clean(value, 60)
