"""The command line: parse, call a function of the library, render what it returns, exit.

    app.py         which commands there are
    commands/      a module for each of them
    options.py     what they share: which units, what is written, what is reported
    values.py      texts of options become numbers
    groups.py      makes the fields of such a group the options of a command
    help.py        the help, in plain sections
    boundary.py    every exception becomes a message and an exit code here
    training.py    options of the commands that train
    outputs.py     where a command writes, checked before the work; what it had written when a signal came
    output.py      what is printed as it is, and small files beside a report
    completion.py  layer names for the shell's completion
    progress.py    a bar on standard error, where that is a terminal

Nothing heavy is imported before it is needed: `kprune --help` takes a tenth of a second.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `kprune` command.

    Args:
        arguments: without the program's name; by default those of the process, which ends.
    Raises: SystemExit, with the exit code.
    """
    # Imports and a model's graph make many objects that live to the end; looking through them for
    # circles, as Python does after every few hundred more, finds none.
    gc.set_threshold(100_000, 20, 20)
    try:
        from kprune.cli.boundary import run
    except KeyboardInterrupt:
        sys.exit(130)
    if arguments is not None:
        sys.exit(run(list(arguments)))
    _leave(run(sys.argv[1:]))


def _leave(code: int) -> NoReturn:
    """End the process.

    Python takes every object down before it ends, one by one, which is a twelfth of the time of
    `kprune inspect`, and of no use: what was registered to be done at the end is done here.
    """
    if threading.active_count() > 1:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        # It may be closed, or take no more: that was said before.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
