"""Where output goes, and how a table looks: 80 columns in a pipe, no colour but on a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kprune.errors import UsageError
from kprune.formats.faults import check_place, file_error, shown
from kprune.report.json_text import json_text
from kprune.text import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

GAP = 2  # columns between two columns of a table
LEAST = 10  # characters that are left of a cell that is cut short
MARKS = ">~…?"


def console(*, stderr: bool = False) -> Console:
    """A console that shows text as it is: a name from a file is no markup."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # for the boundary, which knows the exit code

    stream = sys.stderr if stderr else sys.stdout
    file: Any = stream if stream.isatty() else _Trimmed(stream)
    return Plain(file=file, markup=False, emoji=False, highlight=False, soft_wrap=False)


class _Trimmed:
    """A stream that drops the spaces with which rich fills every line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(r" +(?=\n)", "", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show_table(on: Console, columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Print a table.

    Args:
        columns: headers. One that starts with `>` is a column of figures, set to the right. Where
            the table is too wide, a column that starts with `?` is left out, then one that starts
            with `…` is cut short, then one that starts with `~` is broken into lines.
        rows: a cell a column, and perhaps the style of the row at the end.
    """
    cells = [list(row[: len(columns)]) for row in rows]
    styles = [(row[-1] if len(row) > len(columns) else None) or "" for row in rows]
    shown, widths = _fitted(list(columns), cells, on.width)
    texts = [[row[number] or "" for number in shown] for row in cells]
    names = [columns[number] for number in shown]
    if _needed(widths) <= on.width:
        on.print(_lines(names, widths, texts, styles), end="")
    else:
        on.print(_broken(names, texts, styles))


def _needed(widths: Sequence[int]) -> int:
    """How many characters a table is wide."""
    return sum(widths) + GAP * (len(widths) - 1)


def _lines(
    columns: Sequence[str],
    widths: Sequence[int],
    rows: Iterable[Sequence[str]],
    styles: Iterable[str],
) -> Text:
    """A table in which no cell is broken: a line a row. (rich's Table takes 2 ms for each.)"""
    from rich.cells import cell_len
    from rich.text import Text

    def line(row: Sequence[str]) -> str:
        parts = []
        for column, width, cell in zip(columns, widths, row, strict=True):
            fill = " " * (width - cell_len(cell))
            parts.append(fill + cell if column.startswith(">") else cell + fill)
        return (" " * GAP).join(parts) + "\n"

    made = Text(no_wrap=True)
    made.append(line([column.lstrip(MARKS) for column in columns]), "bold")
    made.append("─" * _needed(widths) + "\n")
    for row, style in zip(rows, styles, strict=True):
        made.append(line(row), style)
    return made


def _broken(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Iterable[str]) -> Table:
    """A table in which cells have to be broken into lines."""
    from rich import box
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
    return made


def _fitted(
    columns: list[str], cells: list[list[str | None]], room: int
) -> tuple[list[int], list[int]]:
    """Which columns to show, and how wide. Cells that may be cut are cut short so that the table fits."""
    from rich.cells import cell_len, set_cell_size

    shown = list(range(len(columns)))
    widths = [
        max([cell_len(name.lstrip(MARKS)), *(cell_len(row[number] or "") for row in cells)])
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
            if cell_len(text) > width:
                row[number] = set_cell_size(text, width - 1).rstrip() + "…"
        widths[number] = width
    return shown, [widths[number] for number in shown]


def show_texts(on: Console, texts: Iterable[tuple[str, str]], style: str = "bold") -> None:
    """Print labels, and beside each a text; all texts begin in the same column."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in texts:
        grid.add_row(Text(label, style=style), Text(text))
    if grid.row_count:
        on.print(grid)


def show_end(on: Console, notes: Iterable[str], output: str | None, plot: str | None) -> None:
    """Print how a training ended: its notes, and the files that it wrote."""
    for note in notes:
        on.print(f"note: {note}", soft_wrap=True)
    for did, path in (("wrote", output), ("drew", plot)):
        if path is not None:
            on.print(f"{did} {clean(path, 300)}", soft_wrap=True)


def print_json(data: Any, *, stderr: bool = False) -> None:
    print_text(json_text(data), stderr=stderr)


def print_text(text: str, *, stderr: bool = False) -> None:
    """Print text as it is, to its last newline."""
    stream = sys.stderr if stderr else sys.stdout
    stream.write(text)
    stream.flush()


def check_new(path: str, *, force: bool) -> None:
    """Refuse a place where a small file cannot be written; before work is done, not after.

    Raises: UsageError if it exists and may not be replaced, FileError if it cannot be written.
    """
    if not force and os.path.lexists(path):
        raise UsageError(
            f"{shown(path)} exists", do="name another file with -o, or write over it with --force"
        )
    check_place(path)


def write_text(path: str, text: str, *, force: bool) -> None:
    """Write a small text file.

    Raises: as `check_new`.
    """
    check_new(path, force=force)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise file_error(error, "write", shown(path)) from error
