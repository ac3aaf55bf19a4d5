"""Signals that end a command, and what can be said of its outputs then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from kprune.types import AnyPath

ENDING = ("SIGTERM", "SIGHUP")  # by name: Windows has not both
_written: list[str] = []
_came: list[int] = []
_undisturbed: list[bool] = []


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
    with _terminable() as ours:
        try:
            yield
        finally:
            if ours:  # nobody around it has to know what came
                _came.clear()


@contextmanager
def _terminable() -> Iterator[list[int]]:
    names = [name for name in ENDING if hasattr(signal, name)]
    with _handled(signal.SIG_DFL, [getattr(signal, name) for name in names]) as ours:
        yield ours


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """The same around a whole command, which Ctrl-C ends as well. A new command begins here.

    What is raised within an import may be swallowed, or come out as an ImportError: what came is
    remembered; see `signal_behind`.
    """
    _came.clear()
    _written.clear()
    with _terminable(), _handled(signal.default_int_handler, [signal.SIGINT]):
        yield


@contextmanager
def _handled(usual: Any, numbers: list[int]) -> Iterator[list[int]]:
    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in numbers if main and signal.getsignal(number) is usual]
    try:
        for number in ours:
            signal.signal(number, _stop)
        yield ours
    finally:
        for number in ours:
            signal.signal(number, usual)


def _stop(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if not _undisturbed:
        raise _raised_by(number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a signal wait: between the moment when an output has its name and that when this is known.

    For what takes no time. Raises: what a signal raised that came meanwhile, at the end.
    """
    _undisturbed.append(True)
    try:
        yield
    finally:
        _undisturbed.pop()
    end_if_asked()


def _raised_by(number: int) -> KeyboardInterrupt | Terminated:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def signal_behind(error: BaseException) -> KeyboardInterrupt | Terminated | None:
    """What a signal raised, if that is what ended the work, or what became of it on the way."""
    if isinstance(error, (KeyboardInterrupt, Terminated)):
        return error
    return _raised_by(_came[-1]) if _came else None


def end_if_asked() -> None:
    """Called where long work goes on, and before something is written. Raises: what a signal raised, if
    it was swallowed.
    """
    if _came:
        raise _raised_by(_came[-1])


def note_written(path: AnyPath) -> None:
    """Remember that something has its name now, and is whole."""
    _written.append(os.path.realpath(path))


def written() -> list[str]:
    """The real paths of what was written in this command, work files among them."""
    return list(_written)
