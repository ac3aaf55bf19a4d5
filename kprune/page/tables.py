"""Tables and labelled texts as lines, in as many columns as there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kprune.text import columns as columns_of

Line = tuple[str, str]
"""A line, and its style."""

Row = Sequence["str | None"]
"""A cell a column, and perhaps the style of the row at the end."""

GAP = 2  # columns between two columns of a table
LEAST = 10  # characters that are left of a cell that is cut short
MARKS = ">~…?"


def table_lines(
    columns: Sequence[str], rows: Iterable[Row], room: int, *, colours: bool = False
) -> list[Line]:
    """The lines of a table.

    Args:
        columns: headers. `>` marks a right-aligned column of figures. If the table is too wide,
            columns marked `?` are left out, then columns marked `…` are cut short, then columns
            marked `~` are broken into lines. If it is still too wide, each row becomes a few lines
            of text.
        rows: see `Row`.
        room: how many columns of text there are.
        colours: whether styles are to be seen.
    """
    rows = list(rows)
    cells = [list(row[: len(columns)]) for row in rows]
    styles = [(row[-1] if len(row) > len(columns) else None) or "" for row in rows]
    shown, widths = _fitted(list(columns), cells, room)
    texts = [[row[number] or "" for number in shown] for row in cells]
    names = [columns[number] for number in shown]
    if _needed(widths) > room:
        least = [
            min(w, LEAST) if name[:1] == "~" else w for w, name in zip(widths, names, strict=True)
        ]
        if _needed(least) <= room:
            return _broken(names, texts, styles, room, colours)
        whole = [[row[number] or "" for number in shown] for row in rows]
        return list(_one_by_one(names, whole, styles, room))
    head, *lines = aligned([[name.lstrip(MARKS) for name in names], *texts], names)
    return [(head, "bold"), ("─" * _needed(widths), ""), *zip(lines, styles, strict=True)]


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


def _broken(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    styles: Iterable[str],
    room: int,
    colours: bool,
) -> list[Line]:
    """A table in which cells have to be broken into lines."""
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
        width=room,
        force_terminal=colours,
        markup=False,
        emoji=False,
        highlight=False,
    ).print(made)
    return [(line, "") for line in drawn.getvalue().splitlines()]


def _one_by_one(
    columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Iterable[str], room: int
) -> Iterator[Line]:
    """What each row is about, and below that its other cells, each with its header."""
    names = [column.lstrip(MARKS) for column in columns]
    first = next(number for number, name in enumerate(names) if name)
    for row, style in zip(rows, styles, strict=True):
        head = " ".join(cell for cell in row[: first + 1] if cell)
        cells = zip(names[first + 1 :], row[first + 1 :], strict=True)
        words = (f"{name} {cell}".split() for name, cell in cells if cell)
        text = ", ".join(" ".join(pair) for pair in words)
        if head:  # else it is one more line about the same
            yield from ((piece, style) for piece in wrapped(head, room))
        yield from ((f"  {line}", style) for line in wrapped(text, max(room - 2, 1)) if line)


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


def label_lines(texts: Iterable[tuple[str, str]], room: int) -> Iterator[tuple[str, list[str]]]:
    """Labels, and beside each a text; all texts begin in the same column.

    Returns: for each the label, filled up to that column, and the lines of its text; all but the
        first are indented.
    """
    rows = list(texts)
    indent = max((columns_of(label) for label, _ in rows), default=0) + GAP
    for label, text in rows:
        lines = [
            line for part in text.split("\n") for line in wrapped(part, max(room - indent, LEAST))
        ]
        head = label + " " * (indent - columns_of(label))
        yield head, [lines[0], *(" " * indent + line for line in lines[1:])]


def wrapped(line: str, width: int) -> list[str]:
    """The line in pieces of at most this many columns, broken between words; an empty line stays a line."""
    if columns_of(line) <= width:
        return [line]
    pieces, here = [], None
    for word in line.split(" "):
        joined = word if here is None else f"{here} {word}"
        if columns_of(joined) <= width:
            here = joined
            continue
        if here and not here.isspace():
            pieces.append(here.rstrip(" "))
        here = word
        while columns_of(here) > width:  # longer than a line: it is broken anywhere
            piece = cut(here, width)
            pieces.append(piece)
            here = here[len(piece) :]
    return [*pieces, here] if here else pieces


def cut(text: str, room: int) -> str:
    """As much of the beginning as fits into this many columns, but at least one character."""
    while columns_of(text) > room and len(text) > 1:
        text = text[: max(room, 1) if len(text) > room else -1]
    return text
