"""Folders for work: in the system's temporary folder, or beside what is to come of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kprune.atomic.hidden import (
    lock,
    new_hidden_folder,
    open_folder,
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
        self._lock = -1
        with temporary("a temporary folder"):
            remove_abandoned(Path(tempfile.gettempdir()), START)
            while True:
                super().__init__(prefix=START)
                self._lock = open_folder(Path(self.name))
                if lock(self._lock, lambda: os.stat(self.name)):
                    return
                self.cleanup()

    def cleanup(self) -> None:
        """Remove it with all that is in it."""
        super().cleanup()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


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
        path, fd = new_hidden_folder(target)
    try:
        yield path
    finally:
        remove(path)
        os.close(fd)
