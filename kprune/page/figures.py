"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

UNITS = " kMGTP"


def figure(number: int | None) -> str:
    """With separators; empty for None."""
    return "" if number is None else f"{number:,}"


def short(number: int | None) -> str:
    """With about three digits: `640`, `18.4 k`, `4.11 G`; empty for 0 and None."""
    if not number:
        return ""
    if number < 1000:
        return str(number)
    size, power = number / 1000, 1
    while size >= 999.5 and power < len(UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{_three_digits(size)} {UNITS[power]}"


def percent(before: int, after: int) -> str:
    """The change in percent: `-27.4%`; empty if nothing changed."""
    if before == after or not before:
        return ""
    change = 100 * (after - before) / before
    return f"{change:+.1f}%" if abs(change) >= 0.05 else f"{'-' if change < 0 else '+'}<0.1%"


def duration(seconds: float) -> str:
    """With three digits: `412 µs`, `3.07 ms`, `1.20 s`."""
    unit, size = "µs", 1e-6
    if seconds >= 0.9995e-3:
        unit, size = ("ms", 1e-3) if seconds < 0.9995 else ("s", 1.0)
    return f"{_three_digits(seconds / size)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def arrows(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """`before → after` for each pair, with aligned arrows; only one figure if both are equal."""
    moved = [(before, after) for before, after in pairs if before != after and before and after]
    left = max((len(before) for before, _ in moved), default=0)
    right = max((len(after) for _, after in moved), default=0)
    return [
        f"{before:>{left}} → {after:>{right}}" if (before, after) in moved else after or before
        for before, after in pairs
    ]


def shape(sizes: Sequence[int | None] | None, *, batch: bool = True) -> str:
    """`28×28×3` for a shape whose first size is the batch's; `?` for a size that is not known."""
    if sizes is None:
        return "?"
    return "×".join("?" if size is None else str(size) for size in sizes[1 if batch else 0 :])


def counted(number: int, word: str) -> str:
    """`1 unit`, `3 units`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def some(items: Sequence[str], limit: int) -> str:
    """The first few, and how many more there are."""
    listed = ", ".join(items[:limit])
    return listed if len(items) <= limit else f"{listed} and {len(items) - limit:,} more"
