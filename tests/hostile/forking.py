"""Children of kprune that are forked instead of started: a new Python takes fifty times as long.

What a child runs, its limits and its end stay the same; only where its memory comes from differs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

_started = subprocess.Popen


class Forked:
    """In place of `subprocess.Popen` for `python ... -c PROGRAM`, as far as kprune uses it."""

    def __init__(
        self,
        args: Sequence[str],
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        **_: Any,
    ) -> None:
        self.args, self.returncode = args, None
        place = list(args).index("-c")
        program, arguments = args[place + 1], ["-c", *args[place + 2 :]]
        ends = [_opened(end, number) for number, end in enumerate((stdin, stdout, stderr))]
        self.stdin, self.stdout, self.stderr = (mine for _, mine in ends)
        self.pid = os.fork()
        if self.pid == 0:
            _run(program, arguments, [theirs for theirs, _ in ends], env)
        for (theirs, mine), end in zip(ends, (stdin, stdout, stderr), strict=True):
            if mine is not None or end == subprocess.DEVNULL:
                os.close(theirs)

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        pause = 0.0002
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(pause)
            pause = min(0.01, pause * 1.5)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    terminate = kill

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> Any:
        if self.stdin is not None:
            self.stdin.write(input or b"")
            self.stdin.close()
        found = self.stdout.read() if self.stdout is not None else None
        self.wait(timeout)
        return found, None

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                end.close()
        self.wait()


def _opened(end: Any, number: int) -> tuple[int, Any]:
    """The child's end of a stream, and this process's own if it is a pipe."""
    if end is None:
        return number, None
    if end == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    if end == subprocess.PIPE:
        read, write = os.pipe()
        if number == 0:
            return read, os.fdopen(write, "wb")
        return write, os.fdopen(read, "rb")
    return (end if isinstance(end, int) else end.fileno()), None


def _run(
    program: str, arguments: list[str], ends: list[int], env: Mapping[str, str] | None
) -> NoReturn:
    code = 1
    try:
        signal.alarm(0)
        sys.argv = arguments
        held = [os.dup(end) for end in ends]
        for number, end in enumerate(held):
            os.dup2(end, number)
            os.close(end)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        if env is not None:
            os.environ.update(env)
        exec(program, {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 1
        os._exit(code)


def fork_children() -> None:
    """From here on, what this process starts by `python -c` is forked."""

    def popen(args: Any, *more: Any, **options: Any) -> Any:
        ours = isinstance(args, list) and args[:1] == [sys.executable] and "-c" in args
        return (Forked if ours else _started)(args, *more, **options)

    subprocess.Popen = popen  # type: ignore[assignment, misc]
