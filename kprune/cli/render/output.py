"""What is printed as it is, and small files that are written beside a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kprune.cli.render.page import Page
from kprune.cli.streams import put, stream_of
from kprune.errors import UsageError
from kprune.formats.faults import check_place, file_error, shown
from kprune.report.json_text import json_text
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.cli.options import Reporting


def show_end(on: Page, notes: Iterable[str], output: str | None, plot: str | None) -> None:
    """Print how a training ended: its notes, and the files that it wrote."""
    for note in notes:
        on.print(f"note: {note}", wrap=False)
    for did, path in (("wrote", output), ("drew", plot)):
        if path is not None:
            on.print(f"{did} {clean(path, 300)}", wrap=False)


def reported(data: Callable[[], Any], path: str | None, how: Reporting, *, to_stderr: bool) -> bool:
    """Write and print a report as the options ask; whether that is all there is to show.

    Args:
        data: gives the report, for JSON.
        path: of the output; None on a dry run.
        to_stderr: whether standard output holds the model itself.
    """
    text = json_text(data()) if how.json or how.report else ""
    if how.report:
        write_text(how.report, text, force=True)
    if how.json:
        put(text, stream_of(stderr=to_stderr))
    elif how.quiet and path is not None and not to_stderr:
        put(f"{path}\n")
    return how.json or how.quiet


def print_json(data: Any, *, stderr: bool = False) -> None:
    put(json_text(data), stream_of(stderr=stderr))


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
