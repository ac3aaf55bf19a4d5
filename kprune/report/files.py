"""The files that a command wrote."""

from __future__ import annotations

from kprune.page.page import Page
from kprune.text import clean


def show_files(on: Page, output: str | None, plot: str | None = None) -> None:
    """Print which files were written; standard output is none."""
    for did, path in (("wrote", output), ("drew", plot)):
        if path is not None and path != "-":
            on.print(f"{did} {clean(path, 300)}", wrap=False)
