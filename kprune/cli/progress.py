"""A progress bar on standard error: only on a terminal, and only if the work takes a while."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

PATIENCE = 0.5
"""Seconds before a bar appears."""


class Progress:
    """A context manager to be called with (done, total), as the library's functions do.

    Attributes:
        doing: the word beside the bar.
        bytes: whether what is counted are bytes.
    """

    def __init__(self, doing: str, *, bytes_: bool = True) -> None:
        self.doing, self.bytes = doing, bytes_
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._visible = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        if not self._visible or time.monotonic() - self._began < PATIENCE:
            return
        if self._bar is None:
            self._start(total)
        self._bar.update(self._task, completed=done)

    def _start(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn() if self.bytes else MofNCompleteColumn(),
            console=Console(stderr=True),
            transient=True,  # what stays on the screen is the report
        )
        self._task = self._bar.add_task(self.doing, total=total)
        self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
