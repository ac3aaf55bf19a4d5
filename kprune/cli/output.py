"""What is printed as it is, and small files that are written beside a report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kprune.cli.options import Json, Reporting
from kprune.errors import UsageError
from kprune.faults import check_place, file_error, shown
from kprune.page.json_text import json_text
from kprune.page.notes import show_notes
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.page.streams import put, stream_of


def present(
    found: Result,
    how: Json,
    *,
    path: str | None = None,
    show: Callable[[Page], None] | None = None,
) -> None:
    """Write and print a result as the options ask.

    Args:
        path: of the model that was written; `-` where it went to standard output, which the result
            then leaves alone.
        show: by default the result's own table.
    """
    to_stderr = path == "-"
    report, quiet = (how.report, how.quiet) if isinstance(how, Reporting) else (None, False)
    text = found.to_json() if how.json or report else ""
    if report:
        write_text(report, text, force=True)
    if how.json:
        put(text, stream_of(stderr=to_stderr))
    elif quiet:
        if path is not None and not to_stderr:
            put(f"{path}\n")
    else:
        (show or found.show)(Page(stderr=to_stderr))
        show_notes(found.notes)


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
