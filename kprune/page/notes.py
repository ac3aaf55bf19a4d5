"""Notes on a result, for its reader. They go to standard error."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from kprune.page.result import Note
from kprune.page.streams import say

WIDTH = 80


def show_notes(notes: Iterable[Note]) -> None:
    """Print each note once."""
    for text in dict.fromkeys(note.sentence for note in notes):
        say(textwrap.fill(text, WIDTH, initial_indent="note: ", subsequent_indent="      ",
                          break_long_words=False, break_on_hyphens=False))  # fmt: skip
