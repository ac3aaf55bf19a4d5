"""Why units go together, what that cuts, or why they cannot go."""

from __future__ import annotations

from typing import Any

from kprune.cli.render.figures import counted
from kprune.cli.render.notes import show_notes
from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table, show_texts
from kprune.report.explanation import Explanation
from kprune.select.indices import compact_text
from kprune.text import clean


def show(found: Explanation) -> None:
    """Show an explanation."""
    on = Page()
    chosen = ", ".join(_spec(address, indices) for address, indices in found.selected.items())
    number = sum(map(len, found.selected.values()))
    if found.refusal is not None:
        on.print(f"{chosen}: {'this unit' if number == 1 else 'these units'} cannot be removed")
        on.print()
        rows = [
            ("what", found.refusal.what),
            ("where", found.refusal.where),
            ("why", found.refusal.why),
            ("do", found.refusal.do),
        ]
        if found.nearest is not None:
            specs = " ".join(_spec(address, indices) for address, indices in found.nearest.items())
            rows.append(("nearest", f"{specs} can be removed"))
        show_texts(on, [(label, text) for label, text in rows if text])
        _along(found, on)
        return
    on.print(f"{chosen}: {counted(number, 'unit')}, which can be removed")
    _along(found, on)
    _cuts(found, on)
    show_notes(found.notes)


def _spec(address: str, indices: list[int]) -> str:
    return f"{clean(address)}:{clean(compact_text(indices), 120)}"


def _along(found: Explanation, on: Page) -> None:
    if not found.along:
        if found.refusal is None:
            on.print("no other units go along")
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
    show_table(on, ["~goes along", "~units", "~by the road"], rows)


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
        show_table(on, ["~layer", "weight", "~shape", "~config"], rows)
