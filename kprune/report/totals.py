"""The figures of two files, one above the other."""

from __future__ import annotations

from collections.abc import Iterator

from kprune.page.figures import figure, percent
from kprune.page.page import Page
from kprune.page.tables import aligned
from kprune.report.facts import FileFacts


def show_totals(before: FileFacts, after: FileFacts, on: Page) -> None:
    """Print what each figure was and is."""
    rows = [
        (name, f"{old} → {new}" if old.strip() != new.strip() else new, percentage)
        for name, old, new, percentage in _rows(before, after)
    ]
    lines = aligned(rows, ["", ">", ">"])
    on.write((line, "" if row[-1] else "dim") for line, row in zip(lines, rows, strict=True))


def _rows(before: FileFacts, after: FileFacts) -> Iterator[tuple[str, str, str, str]]:
    """Name, before, after, and the change in percent of each figure of a file, in equal widths."""
    rows = [
        ("units", before.units, after.units),
        ("parameters", before.parameters, after.parameters),
        ("FLOPs", before.flops, after.flops),
        ("bytes", before.bytes, after.bytes),
    ]
    left = max(len(figure(old)) for _, old, _ in rows)
    right = max(len(figure(new)) for _, _, new in rows)
    for name, old, new in rows:
        yield name, f"{figure(old):>{left}}", f"{figure(new):>{right}}", percent(old, new)
