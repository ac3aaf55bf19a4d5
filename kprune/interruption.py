"""Signals that end a command, and what can be said of its outputs then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from kprune.types import AnyPath

ENDING = ("SIGTERM", "SIGHUP")  # by name: Windows has not both
_written: list[str] = []


class Terminated(SystemExit):
    """A signal asked the process to end. Not an Exception, so that nothing takes it for an error."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Terminated`, so that what is half-written is taken away.

    A signal for which the program has a handler keeps it, and one that is ignored, as SIGHUP is
    under nohup, stays so.
    """
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()
    ours = [n for n in numbers if main and signal.getsignal(n) is signal.SIG_DFL]
    try:
        for number in ours:
            signal.signal(number, _stop)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


def note_written(path: AnyPath) -> None:
    """Remember that something has its name now, and is whole."""
    _written.append(os.path.realpath(path))


def written() -> list[str]:
    """The real paths of what was written since `forget_written`, work files among them."""
    return list(_written)


def forget_written() -> None:
    """A new command begins."""
    _written.clear()
