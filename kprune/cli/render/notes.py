"""Notes: what a reader of a result should know beside it. They go to standard error."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from kprune.cli.boundary import say
from kprune.report.report import Note

WIDTH = 80


def show_notes(notes: Iterable[Note]) -> None:
    """Print each note once."""
    for text in dict.fromkeys(note_text(note) for note in notes):
        say(textwrap.fill(text, WIDTH, initial_indent="note: ", subsequent_indent="      ",
                          break_long_words=False, break_on_hyphens=False))  # fmt: skip


def note_text(note: Note) -> str:
    """A note as a sentence; where it does not name its layer, with the layer."""
    if note.kind == "skipped":
        return f"nothing of '{note.layer}' is chosen: {note.text}"
    return note.text
