"""Standard output and standard error: closed, full, closed by their reader, or unable to encode "→"."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import TextIO

from kprune.errors import FileError

ASCII = {"→": ">", "×": "x", "…": ".", "─": "-", "│": "|", "’": "'", "µ": "u"}


def stream_of(*, stderr: bool) -> TextIO:
    """Standard output or standard error. Raises: FileError if the process was started without it."""
    stream: TextIO | None = sys.stderr if stderr else sys.stdout
    if stream is None:
        raise FileError(f"standard {'error' if stderr else 'output'} is closed")
    return stream


def put(text: str, stream: TextIO | None = None) -> None:
    """Print text as it is, to its last newline.

    Args:
        stream: by default standard output.
    Raises: FileError if the stream is full, BrokenPipeError if the reader has closed the pipe.
    """
    stream = stream_of(stderr=False) if stream is None else stream
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        from kprune.faults import file_error

        name = "standard error" if stream is sys.stderr else "standard output"
        raise file_error(error, "write", name) from error


def say(message: str) -> None:
    """Print a message on standard error, its labels in colour on a terminal."""
    lines = message.splitlines()
    if shows_colours(sys.stderr):
        colours = {"error:": "\x1b[1;31m", "note:": "\x1b[33m"}
        for number, line in enumerate(lines):
            label = line.split(" ", 1)[0]
            if label in ("error:", "note:", "where:", "why:", "do:"):
                lines[number] = (
                    colours.get(label, "\x1b[2m") + label + "\x1b[0m" + line[len(label) :]
                )
    with contextlib.suppress(OSError, ValueError):  # the reader has closed the pipe
        print("\n".join(lines), file=sys.stderr, flush=True)


def shows_colours(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal on which colours are wanted (https://no-color.org)."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def let_paths_through() -> None:
    """Allow printing of paths with bytes that are not text, and of characters that the encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if not hasattr(stream, "reconfigure"):
            continue
        utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        if not utf8:
            codecs.register_error("kprune", _in_ascii)
        if stream is sys.stdout or not utf8:
            stream.reconfigure(errors="surrogateescape" if utf8 else "kprune")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replacements for characters that an encoding lacks: one character each, to keep columns aligned."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(ASCII.get(sign, "?") for sign in missing), error.end


def forget_output() -> None:
    """Discard what standard output still buffers; otherwise Python complains at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
