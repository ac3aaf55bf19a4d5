"""What is printed as it is, and small files that are written beside a report."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from kprune.atomic import check_file, write_bytes
from kprune.cli.options import Json, Reporting
from kprune.errors import UsageError
from kprune.faults import shown
from kprune.interruption import written
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
    force: bool = False,
    show: Callable[[Page], None] | None = None,
) -> None:
    """Write and print a result as the options ask.

    Args:
        path: of the model that was written; `-` where it went to standard output, which the result
            then leaves alone.
        force: whether the report may replace a file.
        show: by default the result's own table.
    """
    to_stderr = path == "-"
    report, quiet = (how.report, how.quiet) if isinstance(how, Reporting) else (None, False)
    text = found.to_json() if how.json or report else ""
    if report:
        write_text(report, text, force=force, option="--report")
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


def write_text(path: str, text: str, *, force: bool, option: str = "-o") -> None:
    """Write a small text file, whole or not at all.

    Args:
        option: what names it.
    Raises: UsageError if it exists and may not be replaced, or is the output of this very command;
        FileError.
    """
    check_file(path, force=force, option=option)
    if os.path.realpath(path) in written():
        raise UsageError(
            f"{shown(path)} was just written by this command", do=f"name another file with {option}"
        )
    write_bytes(path, text.encode(), force=force)
