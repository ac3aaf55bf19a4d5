"""What text is written on: standard output or standard error, 80 columns and no colour in a pipe.

Plain strings, a style for whole lines, and wrapping at words is all that kprune's output needs. It is
done here since rich takes a seventh of the time of a whole command to import; rich breaks the
cells of tables that do not fit, and draws the progress bar.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import TextIO

from kprune.cli.streams import put, stream_of
from kprune.select.pointing import columns as columns_of

PIPE = 80
STYLES = {"bold": "1", "dim": "2", "red": "31", "bold red": "1;31", "bold green": "1;32"}


class Page:
    """A stream of text.

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

    def write(self, lines: Iterable[tuple[str, str]]) -> None:
        """Print lines as they are, each in its style."""
        text = "".join(f"{self.styled(line.rstrip(' '), style)}\n" for line, style in lines)
        put(text, self.stream)

    def styled(self, text: str, style: str) -> str:
        if not (style and text and self.colours):
            return text
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def wrapped(line: str, width: int) -> list[str]:
    """The line in pieces of so many columns, broken between words; the empty line stays a line."""
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
    """As much of the beginning as fits into so many columns, but one character at the least."""
    while columns_of(text) > room and len(text) > 1:
        text = text[: max(room, 1) if len(text) > room else -1]
    return text


def _width(stream: TextIO) -> int:
    """Of the terminal, or what COLUMNS says, or 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    if not stream.isatty():
        return PIPE
    return shutil.get_terminal_size((PIPE, 24)).columns


def shows_colours(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal on which colours are wanted (https://no-color.org)."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))
