"""How a table looks, and texts with labels: in as many columns as the page has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kprune.cli.render.page import Page, cut, wrapped
from kprune.select.pointing import columns as columns_of

GAP = 2  # columns between two columns of a table
LEAST = 10  # characters that are left of a cell that is cut short
MARKS = ">~…?"


def show_table(on: Page, columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Print a table.

    Args:
        columns: headers. One that starts with `>` is a column of figures, set to the right. Where
            the table is too wide, a column that starts with `?` is left out, then one that starts
            with `…` is cut short, then one that starts with `~` is broken into lines. Where even
            that is too wide, each row becomes a few lines of text.
        rows: a cell a column, and perhaps the style of the row at the end.
    """
    rows = list(rows)
    cells = [list(row[: len(columns)]) for row in rows]
    styles = [(row[-1] if len(row) > len(columns) else None) or "" for row in rows]
    shown, widths = _fitted(list(columns), cells, on.width)
    texts = [[row[number] or "" for number in shown] for row in cells]
    names = [columns[number] for number in shown]
    if _needed(widths) > on.width:
        least = [
            min(w, LEAST) if name[:1] == "~" else w for w, name in zip(widths, names, strict=True)
        ]
        if _needed(least) <= on.width:
            _show_broken(on, names, texts, styles)
        else:
            whole = [[row[number] or "" for number in shown] for row in rows]
            _show_each(on, names, whole, styles)
        return
    head, *lines = aligned([[name.lstrip(MARKS) for name in names], *texts], names)
    on.write([(head, "bold"), ("─" * _needed(widths), ""), *zip(lines, styles, strict=True)])


def _needed(widths: Sequence[int]) -> int:
    """How many characters a table is wide."""
    return sum(widths) + GAP * (len(widths) - 1)


def aligned(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> list[str]:
    """A line a row, cells one below the other.

    Args:
        columns: for each one a text, which starts with `>` where its cells are set to the right.
    """
    sizes = [[columns_of(cell) for cell in row] for row in rows]
    widths = [max(column) for column in zip(*sizes, strict=True)]
    lines = []
    for row, own in zip(rows, sizes, strict=True):
        parts = []
        for column, width, cell, size in zip(columns, widths, row, own, strict=True):
            fill = " " * (width - size)
            parts.append(fill + cell if column.startswith(">") else cell + fill)
        lines.append((" " * GAP).join(parts))
    return lines


def _show_broken(
    on: Page, columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Iterable[str]
) -> None:
    """Print a table in which cells have to be broken into lines."""
    from io import StringIO

    from rich import box
    from rich.console import Console
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for column in columns:
        made.add_column(
            column.lstrip(MARKS),
            justify="right" if column.startswith(">") else "left",
            no_wrap=not column.startswith("~"),
            overflow="fold",
        )
    for row, style in zip(rows, styles, strict=True):
        made.add_row(*row, style=style)
    drawn = StringIO()
    # A name from a file is no markup.
    Console(
        file=drawn,
        width=on.width,
        force_terminal=on.colours,
        markup=False,
        emoji=False,
        highlight=False,
    ).print(made)
    on.write((line, "") for line in drawn.getvalue().splitlines())


def _show_each(
    on: Page, columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Iterable[str]
) -> None:
    """Print what each row is about, and below that its other cells, each with its header."""
    names = [column.lstrip(MARKS) for column in columns]
    first = next(number for number, name in enumerate(names) if name)
    for row, style in zip(rows, styles, strict=True):
        head = " ".join(cell for cell in row[: first + 1] if cell)
        cells = zip(names[first + 1 :], row[first + 1 :], strict=True)
        words = (f"{name} {cell}".split() for name, cell in cells if cell)
        text = ", ".join(" ".join(pair) for pair in words)
        if head:  # else it is one more line about the same
            on.print(head, style)
        on.write((f"  {line}", style) for line in wrapped(text, max(on.width - 2, 1)) if line)


def _fitted(
    columns: list[str], cells: list[list[str | None]], room: int
) -> tuple[list[int], list[int]]:
    """Which columns to show, and how wide. Cells that may be cut are cut short so that the table fits."""
    shown = list(range(len(columns)))
    widths = [
        max([columns_of(name.lstrip(MARKS)), *(columns_of(row[number] or "") for row in cells)])
        for number, name in enumerate(columns)
    ]

    def excess() -> int:
        return _needed([widths[number] for number in shown]) - room

    shown = [n for n in shown if not (columns[n].startswith("?") and excess() > 0)]
    for number in shown:
        if not columns[number].startswith("…") or excess() <= 0:
            continue
        width = max(widths[number] - excess(), LEAST)
        for row in cells:
            text = row[number] or ""
            if columns_of(text) > width:
                row[number] = cut(text, width - 1).rstrip() + "…"
        widths[number] = width
    return shown, [widths[number] for number in shown]


def show_texts(on: Page, texts: Iterable[tuple[str, str]], style: str = "bold") -> None:
    """Print labels, and beside each a text; all texts begin in the same column."""
    rows = list(texts)
    indent = max((columns_of(label) for label, _ in rows), default=0) + GAP
    for label, text in rows:
        head = on.styled(label, style) + " " * (indent - columns_of(label))
        lines = [
            line
            for part in text.split("\n")
            for line in wrapped(part, max(on.width - indent, LEAST))
        ]
        for line in lines:
            on.write([(head + line, "")])
            head = " " * indent
