"""The figures of two files, one above the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kprune.cli.render.figures import figure, percent
from kprune.report.report import FileFacts

if TYPE_CHECKING:
    from rich.console import Console


def show_totals(before: FileFacts, after: FileFacts, on: Console) -> None:
    """Print what each figure was and is."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    for _ in range(2):
        grid.add_column(justify="right")
    for name, old, new, percentage in _rows(before, after):
        changed = f"{old} → {new}" if old.strip() != new.strip() else new
        grid.add_row(name, changed, percentage, style=None if percentage else "dim")
    on.print(grid)


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
