"""Folders for work: in the system's temporary folder, or beside what is to come of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kprune.atomic.hidden import (
    locked_folder,
    new_hidden_folder,
    put_right,
    remove,
    remove_abandoned,
)
from kprune.faults import shown, temporary, writing

START = "kprune-tmp-"


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A `TemporaryDirectory` that is locked while its process lives.

    What killed processes of the same user left is removed when the next one is made.
    """

    def __init__(self) -> None:
        self._lock: int | None = None
        with temporary("a temporary folder"):
            remove_abandoned(Path(tempfile.gettempdir()), START)
            while self._lock is None:
                super().__init__(prefix=START, ignore_cleanup_errors=True)
                self._lock = locked_folder(Path(self.name))

    def cleanup(self) -> None:
        """Remove it with all that is in it."""
        super().cleanup()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextmanager
def work_folder(target: Path | None) -> Iterator[Path]:
    """A folder for what leads to `target`, on the same disk: hidden beside it, and removed afterwards.

    Args:
        target: None for a folder in the system's temporary one.
    """
    if target is None:
        with TemporaryFolder() as folder:
            yield Path(folder)
        return
    target = Path(os.path.realpath(target))
    put_right(target)
    with writing(shown(target)):
        path, fd = new_hidden_folder(target, private=True)
    try:
        yield path
    finally:
        remove(path)
        os.close(fd)
