"""Where exceptions end: each becomes a message on standard error and an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from kprune.cli.outputs import Stopped
from kprune.errors import (
    FileError,
    InternalError,
    KpruneError,
    KpruneWarning,
    SetupError,
    UsageError,
)
from kprune.faults import FULL
from kprune.interruption import ended_by_signals, signal_behind
from kprune.page.streams import forget_output, let_paths_through, put, say

_LEAST_MEMORY = 160 << 20
COMPLETION = "_KPRUNE_COMPLETE"
INTERRUPTED, BROKEN_PIPE = 130, 141
_ENDED_BY = {129: "hung up", 130: "interrupted", 143: "terminated"}

_MEANT = {
    "prune": "remove",
    "cut": "remove",
    "shrink": "remove",
    "delete": "remove",
    "finetune": "tune",
    "fine-tune": "tune",
    "train": "tune",
    "retrain": "tune",
    "show": "inspect",
    "summary": "inspect",
    "info": "inspect",
    "compare": "verify",
}
"""Commands of other tools, and kprune's own for each."""


def run(arguments: list[str]) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name.
    Returns: the exit code.
    """
    debug = "--debug" in arguments
    let_paths_through()
    try:
        with ended_by_signals(), _warnings_as_notes():
            _require_memory()
            from kprune.cli.app import command

            if os.environ.get(COMPLETION):
                return _complete(command())
            code = _invoke(command(), arguments)
            if code == 0 or sys.stdout is not None:
                put("")  # what was printed past `put`, as Typer's help is, fails here at the latest
            return code
    except BaseException as error:
        return _ended(error, debug)


def _require_memory() -> None:
    """Refuse a limit under which numpy ends the process as it is imported. Raises: SetupError."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_MEMORY:
        raise SetupError(
            "there is not enough memory",
            why=f"this process may use {limit >> 20} MiB of addresses (ulimit -v)",
            do=f"allow at least {_LEAST_MEMORY >> 20} MiB",
        )


def _invoke(command: Any, arguments: list[str]) -> int:
    try:
        with command.make_context("kprune", list(arguments)) as context:
            return int(command.invoke(context) or 0)
    except Exception as error:
        # Typer's own way to end a command; its classes have moved between versions.
        if type(error).__name__ == "Exit" and hasattr(error, "exit_code"):
            return int(error.exit_code)
        raise


def _complete(command: Any) -> int:
    """Answer the shell. It reads standard output, and does not show errors."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            command.main(args=[], prog_name="kprune")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except Exception:  # whatever it is, the shell has no place to show it
            return 1
    return 0


def _ended(error: BaseException, debug: bool) -> int:
    """Say what an exception means to the user; the exit code."""
    if isinstance(error, Stopped):
        assert error.__cause__ is not None
        code = _ended(error.__cause__, debug)
        say(f"{_ENDED_BY.get(code, 'ended')}: {error.line}")
        for note in getattr(error.__cause__, "__notes__", ()):  # what there is to go on with
            say(f"note: {note}")
        return code
    error = signal_behind(error) or error
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        forget_output()
        return BROKEN_PIPE
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    refusal = _refusal(error)
    say(str(refusal))
    if isinstance(error, OSError):
        forget_output()
    return refusal.exit_code


def _refusal(error: BaseException) -> KpruneError:
    if isinstance(error, KpruneError):
        return error
    if hasattr(error, "format_message"):
        return _usage(error)
    if isinstance(error, OSError):
        full = error.errno in FULL
        return FileError(
            f"the system refused: {error.strerror or error}",
            where=str(error.filename) if error.filename else "",
            do="free some space where the output goes, or in the temporary folder (TMPDIR)"
            if full
            else "",
        )
    if isinstance(error, MemoryError):
        return SetupError("there is not enough memory")
    if isinstance(error, RecursionError):
        return FileError("something in the input is nested too deeply")
    from kprune.packages import broken_package, missing_package, not_imported
    from kprune.text import clean

    package = missing_package(error) or broken_package(error)
    if package and isinstance(error, Exception):
        return not_imported(error, package)
    return InternalError(
        "this is a bug in kprune",
        why=f"{type(error).__name__}: {clean(error, 300)}",
        do="run the command again with --debug, and report what it shows",
    )


def _usage(error: Any) -> UsageError:
    """What Typer says about a wrong command line, in the form of kprune's own messages."""
    from kprune.text import clean

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "kprune"
    help_text = f"'{path} --help' shows how it is used"
    option, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
    if type(error).__name__ == "NoSuchOption":
        near = " or ".join(
            f"'{name}'" for name in sorted(getattr(error, "possibilities", None) or [])
        )
        hint = f"; did you mean {near}?" if near else ""
        return UsageError(f"there is no option '{clean(option)}'{hint}", do=help_text)
    wanted = getattr(error, "wanted", None)  # of `kprune.cli.values`
    if wanted and parameter is not None:
        return UsageError(f"{parameter.opts[0]} takes {wanted}", do=help_text)
    text = " ".join(error.format_message().split()).rstrip(".")
    # Typer has no class of its own for this error: its words tell it.
    unknown = re.match("No such command '(.*?)'", text)
    if unknown is not None and context is not None:
        from kprune.pointing import did_you_mean

        hint = did_you_mean(unknown[1], context.command.list_commands(context))
        if (meant := _MEANT.get(unknown[1].lower())) is not None:
            hint = f"did you mean '{meant}'?"
        text = f"there is no command '{clean(unknown[1])}'" + (f"; {hint}" if hint else "")
        return UsageError(text, do=help_text)
    text = clean(text, 300)
    return UsageError(text[:1].lower() + text[1:], do=help_text)


@contextlib.contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print kprune's own warnings as notes, each time; all others as Python does."""
    usual = warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, KpruneWarning):
            say(f"note: {message}")
        else:
            usual(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", KpruneWarning)
        warnings.showwarning = show
        yield
