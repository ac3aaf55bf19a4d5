"""A page of lines: standard output or standard error, a text, or HTML for a notebook.

kprune's output needs only plain strings, styles for whole lines, and wrapping at words. This is
done here because importing rich takes a seventh of the time of a whole command; rich breaks the
cells of tables that do not fit, and draws the progress bar.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from typing import TextIO

from kprune.page.streams import put, shows_colours, stream_of
from kprune.page.tables import Line, Row, label_lines, table_lines, wrapped

PIPE = 80
STYLES = {"bold": "1", "dim": "2", "red": "31", "bold red": "1;31", "bold green": "1;32"}


class Page:
    """A page whose lines are written to a stream as they come.

    Args:
        stderr: write to standard error, where standard output holds something else.

    Attributes:
        width: how many columns a line may take.
        colours: whether styles are to be seen.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self.stream = stream_of(stderr=stderr)
        self.width = _width(self.stream)
        self.colours = shows_colours(self.stream)

    def print(self, text: str = "", style: str = "", *, wrap: bool = True) -> None:
        """Print a text.

        Args:
            style: one of `STYLES`, or none.
            wrap: break lines that are too long, between words if that helps. A path is to stay whole.
        """
        lines = text.split("\n")
        if wrap:
            lines = [piece for line in lines for piece in wrapped(line, self.width)]
        self.write((line, style) for line in lines)

    def table(self, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Print a table; see `table_lines`."""
        self.write(table_lines(columns, rows, self.width, colours=self.colours))

    def texts(self, texts: Iterable[tuple[str, str]], style: str = "bold") -> None:
        """Print labels in a style, and beside each a text."""
        for label, lines in label_lines(texts, self.width):
            head = self.styled(label.rstrip(" "), style) + label[len(label.rstrip(" ")) :]
            self.write([(head + lines[0], ""), *((line, "") for line in lines[1:])])

    def write(self, lines: Iterable[Line]) -> None:
        """Print lines as they are, each in its style."""
        text = "".join(f"{self.styled(line.rstrip(' '), style)}\n" for line, style in lines)
        self.put(text)

    def put(self, text: str) -> None:
        put(text, self.stream)

    def styled(self, text: str, style: str) -> str:
        if not (style and text and self.colours):
            return text
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


class TextPage(Page):
    """A page whose lines are kept.

    Attributes:
        text: what was printed so far.
    """

    def __init__(self, width: int = PIPE) -> None:
        self.width, self.colours, self.text = width, False, ""

    def put(self, text: str) -> None:
        self.text += text


def _width(stream: TextIO) -> int:
    """The width of the terminal, or COLUMNS, or 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    if not stream.isatty():
        return PIPE
    return shutil.get_terminal_size((PIPE, 24)).columns
