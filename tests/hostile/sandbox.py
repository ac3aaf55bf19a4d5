"""Commands run in processes that are forked, limited and measured.

A process that has imported everything is forked for each command, so that hundreds of files take
seconds, and a file that crashes, hangs or eats memory ends its own process only.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

SECONDS = 60
"""After so many, a process is ended, however busy the machine is with others."""
ADDRESS_SPACE = 8 << 30
"""Beyond what the forking process has: so that no file takes the machine down."""
ROOT = Path(__file__).resolve().parents[2]


class Outcome(Struct):
    """What became of a process.

    Attributes:
        code: its exit code; negative for the signal that ended it, as in `subprocess`.
        out, err: what it printed.
        seconds: of CPU time, which do not depend on what else the machine does.
        megabytes: the most that it, or a process that it started, held beyond what it began with.
    """

    code: int
    out: str
    err: str
    seconds: float
    megabytes: float


def forked(work: Callable[[], int], seconds: int = SECONDS) -> Outcome:
    """Run a function in a fork of this process; what it returns is the exit code."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = _resident()
        child = os.fork()
        if child == 0:
            _be_the_child(work, seconds, out.fileno(), err.fileno())
        _, status, usage = os.wait4(child, 0)
        with _nobody_there():
            os.killpg(child, signal.SIGKILL)  # what it started and left behind
        out.seek(0)
        err.seek(0)
        return Outcome(
            os.waitstatus_to_exitcode(status),
            out.read(1 << 20).decode(errors="replace"),
            err.read(1 << 20).decode(errors="replace"),
            usage.ru_utime + usage.ru_stime,
            max(0.0, usage.ru_maxrss / 1024 - before),
        )


def _nobody_there() -> Any:
    from contextlib import suppress

    return suppress(ProcessLookupError, PermissionError)


def _resident() -> float:
    """Megabytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def _be_the_child(work: Callable[[], int], seconds: int, out: int, err: int) -> None:
    code = 99
    try:
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for name, fd in (("stdout", 1), ("stderr", 2)):
            setattr(sys, name, os.fdopen(fd, "w", encoding="utf-8", closefd=False))
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + ADDRESS_SPACE, own + ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def kprune(folder: Path, arguments: list[str]) -> int:
    """Run a command line of kprune in a folder; its exit code."""
    from kprune.cli.boundary import run

    os.chdir(folder)
    return run(arguments)


class Sandbox:
    """A process that forks for each request; a context manager.

    Args:
        tensorflow: whether it imports TensorFlow first.
    """

    def __init__(self, *, tensorflow: bool = False) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.sandbox", *["tensorflow"] * tensorflow],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def run(self, folder: Path, *arguments: str) -> Outcome:
        """Run `kprune` with these arguments in a folder."""
        return self._ask({"folder": str(folder), "arguments": arguments})

    def make(self, folder: Path, case: str) -> Outcome:
        """Make the file of a case there."""
        return self._ask({"folder": str(folder), "case": case})

    def _ask(self, request: dict[str, Any]) -> Outcome:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Outcome(**json.loads(self.server.stdout.readline()))

    def close(self) -> None:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def warm_up(*, tensorflow: bool) -> None:
    """Import what commands need, by running some on good files, so that a fork finds it there."""
    from tests.hostile.seeds import SAVED, good

    if tensorflow:
        import tensorflow as tf  # noqa: F401 - nothing of it may run before a fork

        place = tempfile.mkdtemp(prefix="kprune-tests-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        made = forked(lambda: int(good("good_saved", Path(place)) is None), 120)
        assert made.code == 0, made.err
        os.environ[SAVED] = str(Path(place) / "good_saved")
    with tempfile.TemporaryDirectory() as folder:
        shown, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        for name in ("good.keras", "good.h5"):
            good(name, Path(folder))
            for arguments in (["inspect", name], ["remove", name, "a:1", "-q"]):
                os.dup2(nowhere, 1)
                code = _in(folder, arguments)
                sys.stdout.flush()
                os.dup2(shown, 1)
                assert code == 0, arguments
        os.close(shown)
        os.close(nowhere)


def _in(folder: str, arguments: list[str]) -> int:
    here = os.getcwd()
    try:
        return kprune(Path(folder), arguments)
    finally:
        os.chdir(here)


def _serve() -> None:
    warm_up(tensorflow="tensorflow" in sys.argv[1:])
    from tests.hostile.corpus import CASES

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(request["folder"])
        if "case" in request:
            case = CASES[request["case"]]

            def work(case: Any = case, folder: Path = folder) -> int:
                case.make(folder)
                return 0
        else:

            def work(folder: Path = folder, arguments: list[str] = request["arguments"]) -> int:
                return kprune(folder, arguments)

        outcome = forked(work)
        answers.write(
            json.dumps({f: getattr(outcome, f) for f in outcome.__struct_fields__}) + "\n"
        )
        answers.flush()


if __name__ == "__main__":
    _serve()
