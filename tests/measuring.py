"""A command in a process of its own, with its time and its memory."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kprune.cli.boundary import run
from kprune.errors import KpruneError


@dataclass(frozen=True)
class Measured:
    """What a command did.

    Attributes:
        code: its exit code.
        err: what it said.
        seconds: of processor time.
        megabytes: the most that it held beyond what it began with.
    """

    code: int
    err: str
    seconds: float
    megabytes: float


def measured(*arguments: object, stdin: int | None = None) -> Measured:
    """Run a command line in a fork of this process, which has imported everything.

    Args:
        stdin: a descriptor that the command reads as its standard input.
    """
    return measured_call(lambda: run([str(argument) for argument in arguments]), stdin)


def measured_call(work: Callable[[], object], stdin: int | None = None) -> Measured:
    """The same for a function; what it returns is the exit code, or that of the error that it raises."""
    with tempfile.TemporaryFile() as err:
        before = _resident()
        child = os.fork()
        if child == 0:
            _carry_out(work, err.fileno(), stdin)
        _, status, usage = os.wait4(child, 0)
        err.seek(0)
        return Measured(
            os.waitstatus_to_exitcode(status),
            err.read().decode(errors="replace"),
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss / 1024 - before,
        )


def _carry_out(work: Callable[[], object], err: int, stdin: int | None) -> None:
    code: Any = 99
    try:
        room = 8 << 30  # a case that fails is to fail alone
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
        for number, target in ((os.open(os.devnull, os.O_WRONLY), 1), (err, 2)):
            os.dup2(number, target)
        if stdin is not None:
            os.dup2(stdin, 0)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the process ends
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        code = work() or 0
    except KpruneError as error:
        code = error.exit_code
        print(error, file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)
