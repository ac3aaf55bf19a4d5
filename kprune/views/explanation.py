"""What is removed with some units and why, as data and as text."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from kprune.page.figures import counted
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.select.naming.indices import compact_text
from kprune.text import clean
from kprune.views.fields import FieldChange


class Along(Struct, frozen=True):
    """Units of one layer that are removed with the chosen ones."""

    layer: Annotated[str, Meta(description="LAYER[.AXIS]")]
    units: list[int]
    road: Annotated[list[str], Meta(description="layers from a chosen unit to these")]
    tied_by: Annotated[list[str], Meta(description="layers that combine them element by element")]


class WeightCut(Struct, frozen=True):
    """One axis of one weight that gets shorter."""

    layer: str
    weight: Annotated[str, Meta(description="Keras's name: kernel, bias, gamma …")]
    path: Annotated[str, Meta(description="dataset path in the weights file")]
    shape: list[int]
    axis: Annotated[int, Meta(description="from 0")]
    before: int
    after: int


class Refusal(Struct, frozen=True):
    """Why the units cannot go: what `kprune remove` would say."""

    kind: str
    what: str
    where: str
    why: str
    do: str


class Explanation(Result, frozen=True, kw_only=True):
    """What `kprune explain` says about a choice of units."""

    possible: bool
    exact: Annotated[
        bool, Meta(description="whether the rest computes what it did, up to rounding")
    ]
    selected: dict[str, list[int]]
    changed: Annotated[
        dict[str, list[int]], Meta(description="all that goes, the selected included")
    ]
    along: list[Along]
    weights: list[WeightCut]
    fields: Annotated[list[FieldChange], Meta(description="entries of config.json that change")]
    refusal: Refusal | None
    command: str = "explain"
    nearest: Annotated[
        dict[str, list[int]] | None,
        Meta(description="where they cannot go, the part of the choice that can, or more that can"),
    ]

    def show(self, on: Page) -> None:
        chosen = ", ".join(_spec(address, indices) for address, indices in self.selected.items())
        number = sum(map(len, self.selected.values()))
        if self.refusal is not None:
            on.print(f"{chosen}: {'this unit' if number == 1 else 'these units'} cannot be removed")
            on.print()
            rows = [
                ("what", self.refusal.what),
                ("where", self.refusal.where),
                ("why", self.refusal.why),
                ("do", self.refusal.do),
            ]
            if self.nearest is not None:
                specs = " ".join(
                    _spec(address, indices) for address, indices in self.nearest.items()
                )
                rows.append(("nearest", f"{specs} can be removed"))
            on.texts([(label, text) for label, text in rows if text])
            _along(self, on)
            return
        on.print(f"{chosen}: {counted(number, 'unit')}, which can be removed")
        _along(self, on)
        _cuts(self, on)


def _spec(address: str, indices: list[int]) -> str:
    return f"{clean(address)}:{clean(compact_text(indices), 120)}"


def _along(found: Explanation, on: Page) -> None:
    if not found.along:
        if found.refusal is None:
            on.print("no other units are removed with them")
        return
    on.print()
    rows = []
    for along in found.along:
        rows.append(
            [
                clean(along.layer),
                clean(compact_text(along.units), 120),
                " → ".join(clean(step) for step in along.road),
            ]
        )
    on.table(["~also removed", "~units", "~via"], rows)


def _cuts(found: Explanation, on: Page) -> None:
    fields = {
        field.layer: f"{field.field} {field.before} → {field.after}"
        for field in reversed(found.fields)
        if isinstance(field.before, int) and isinstance(field.after, int)
    }
    rows: list[list[Any]] = []
    seen: set[str] = set()
    for cut in found.weights:
        sizes = [
            f"{cut.before} → {cut.after}" if axis == cut.axis else str(size)
            for axis, size in enumerate(cut.shape)
        ]
        first = cut.layer not in seen
        seen.add(cut.layer)
        rows.append(
            [
                clean(cut.layer) if first else "",
                clean(cut.weight),
                f"({', '.join(sizes)})",
                fields.get(cut.layer, "") if first else "",
            ]
        )
    if rows:
        on.print()
        on.table(["~layer", "weight", "~shape", "~config"], rows)
