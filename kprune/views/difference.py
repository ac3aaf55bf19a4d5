"""What differs between two model files, as data and as text."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kprune.page.figures import arrows, figure
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.report.facts import FileFacts
from kprune.report.totals import show_totals
from kprune.text import clean
from kprune.views.fields import FieldChange

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
IN_THE_TABLE = ("units", "filters", "output_dim")
STYLES = {"added": "green", "removed": "red", "changed": None}


class WeightDiff(Struct, frozen=True):
    """One weight that differs, in shape or in values."""

    layer: str
    weight: str
    path_before: str | None
    path_after: str | None
    shape_before: list[int] | None
    shape_after: list[int] | None
    compared: Annotated[
        str,
        Meta(
            description="all: value by value; kept: those of the units that are left, as kprune "
            "noted which; no: the shapes differ and nothing tells what became of what"
        ),
    ]
    values: Annotated[int, Meta(description="how many were compared")]
    different: int
    largest: Annotated[float, Meta(description="the largest absolute difference")]


class LayerDiff(Struct, frozen=True):
    """One layer that differs. Its figures are null where it is not there."""

    name: str
    class_: str = msgspec.field(name="class")
    status: Annotated[str, Meta(description="added, removed or changed")]
    units_before: int | None
    units_after: int | None
    parameters_before: int | None
    parameters_after: int | None
    flops_before: int | None
    flops_after: int | None
    values_different: int
    fields: list[FieldChange]


class Difference(Result, frozen=True, kw_only=True):
    """What `kprune diff A B` shows."""

    equal: bool
    a: FileFacts
    b: FileFacts
    layers: list[LayerDiff]
    weights: list[WeightDiff]
    fields: Annotated[list[FieldChange], Meta(description="entries that belong to no single layer")]
    command: str = "diff"

    def show(self, on: Page) -> None:
        if self.equal:
            on.print("no difference: the same layers with the same values")
            return
        if self.layers:
            _layers(self, on)
            on.print()
        _fields([*(field for layer in self.layers for field in layer.fields), *self.fields], on)
        show_totals(self.a, self.b, on)


def _layers(found: Difference, on: Page) -> None:
    rows = found.layers
    units = arrows([(figure(row.units_before), figure(row.units_after)) for row in rows])
    parameters = arrows(
        [(figure(row.parameters_before), figure(row.parameters_after)) for row in rows]
    )
    on.table(
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
    on.texts(
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
