"""Text that comes from a file, made fit to be shown; numbers, made fit to be read."""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"


def clean(text: object, limit: int = 80) -> str:
    """One printable line, whatever the text.

    A name in a model file is chosen by the author of the file. Escape sequences could repaint the
    terminal, a newline could forge a second message, a bidirectional mark could reverse the rest
    of the line: all of them, and whatever else does not print, are shown as Python writes them.

    Args:
        text: anything; `str` is taken of it.
        limit: the longest text to return, in characters; a longer one ends in `…`.
    """
    shown: list[str] = []
    length = 0
    # Only what can still be seen is looked at: a name may be megabytes long.
    for character in str(text)[: limit + 1]:
        piece = character if character.isprintable() else _escaped(character)
        shown.append(piece)
        length += len(piece)
    if length <= limit:
        return "".join(shown)
    while shown and length > limit - len(ELLIPSIS):
        length -= len(shown.pop())  # whole characters go, so that no escape is cut in two
    return "".join(shown) + ELLIPSIS


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]


def human_bytes(count: int) -> str:
    """A number of bytes with three digits or so: `17 B`, `4.2 kB`, `553 MB`, `1.50 GB`."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} {unit}"


def metric_text(value: float) -> str:
    """A metric with four digits behind the point, as far as they say something: `0.9711`, `1.2e-05`."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def columns(text: str) -> int:
    """How many columns of a terminal the text takes: East Asian characters two, accents none."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def share(value: float | str) -> float:
    """A number, or a text of one, also in percent: 0.3, "0.3", "30%". Raises: ValueError for other texts."""
    if isinstance(value, str) and value.rstrip().endswith("%"):
        return float(value.rstrip()[:-1]) / 100
    return float(value)
