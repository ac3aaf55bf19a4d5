"""Commands that write a model while one system call fails, or is the last that the process does.

    python -m tests.hostile.injection faults FOLDER FORMAT WAY VARIANT [ERRNO,ERRNO...]
    python -m tests.hostile.injection kills FOLDER FORMAT WAY VARIANT [COUNT]

prints what became of each. Calls are caught as Python makes them, or, where the process was started
with `injection.c` in LD_PRELOAD, all that go through the C library, TensorFlow's among them.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from kprune.atomic import folders
from kprune.cli.boundary import run
from kprune.formats import stream

FORMATS = ("keras", "keras-folder", "h5", "savedmodel")
WAYS = ("new", "force", "in-place")
VARIANTS = ("usual", "bare")  # bare: a system without unnamed files and without renameat2
SHORT, KILL = -1, -2
FAULTS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EINTR, SHORT)
MODEL = Path(__file__).parents[2] / "sample_models" / "digits_mlp.keras"

CALLS = (
    "open write pwrite pwritev sendfile copy_file_range fsync ftruncate rename link unlink rmdir "
    "mkdir chmod chown"
).split()
TAKES_LESS = ("write", "pwrite", "pwritev", "sendfile", "copy_file_range")


class Injector(Protocol):
    """What makes the call `at` (from 0 on, since it was armed) fail with an errno, take less, or kill."""

    def arm(self, at: int, what: int) -> None: ...

    def disarm(self) -> list[str]:
        """The names of the calls since then."""


class InPython:
    """Functions of `os`, replaced."""

    def __init__(self) -> None:
        self._armed = False
        self._calls: list[str] = []
        for name in CALLS:
            setattr(os, name, self._watched(name, getattr(os, name)))
        self._exchange = folders.exchange
        folders.exchange = self._watched("renameat2", folders.exchange)

    def arm(self, at: int, what: int) -> None:
        self._at, self._what, self._calls, self._armed = at, what, [], True

    def disarm(self) -> list[str]:
        self._armed = False
        return self._calls

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if (
                not self._armed
                or (name == "write" and arguments[0] <= 2)
                or _reads(name, arguments)
            ):
                return call(*arguments, **options)
            self._calls.append(name)
            if len(self._calls) - 1 != self._at:
                return call(*arguments, **options)
            if self._what == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            # Python itself repeats what a signal interrupts.
            if self._what == errno.EINTR or (self._what == SHORT and name not in TAKES_LESS):
                return call(*arguments, **options)
            if self._what == SHORT:
                return call(*_shorter(name, arguments), **options)
            raise OSError(self._what, os.strerror(self._what))

        return watched


def _reads(name: str, arguments: tuple[Any, ...]) -> bool:
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY
    return name == "open" and (
        not arguments[1] & writing or str(arguments[0]).startswith("/dev/")  # for a child process
    )


def _shorter(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if name in ("sendfile", "copy_file_range"):
        return (*arguments[:3], 1) if name == "sendfile" else (*arguments[:2], 1)
    fd, data, *rest = arguments
    part = bytes(data[0] if name == "pwritev" else data)
    part = part[: len(part) // 2 or 1]
    return (fd, [part] if name == "pwritev" else part, *rest)


class InTheLibrary:
    """`injection.c`, which this process was started with."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self.arm = library.injection_arm
        self._disarm = library.injection_disarm
        self._disarm.restype = ctypes.c_char_p

    def disarm(self) -> list[str]:
        return str(self._disarm().decode()).split()


def build(folder: Path) -> Path | None:
    """The library to put in LD_PRELOAD; None without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    made = folder / "injection.so"
    source = Path(__file__).with_name("injection.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made


def injector() -> Injector:
    return InTheLibrary() if "injection.so" in os.environ.get("LD_PRELOAD", "") else InPython()


@dataclass
class Case:
    """A command that writes, and a folder that it works in.

    Attributes:
        before, whole: what is in the folder before it, and after it when nothing happens.
    """

    folder: Path
    format: str
    way: str
    before: dict[str, bytes] = field(default_factory=dict)
    whole: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        suffix = {"keras": ".keras", "h5": ".h5"}.get(self.format, "")
        self.work, self.template = self.folder / "work", self.folder / "template"
        self.model, self.output = f"model{suffix}", f"small{suffix}"
        self.template.mkdir(parents=True)
        make(self.template / self.model, self.format)
        if self.way == "force":
            _copy(self.template / self.model, self.template / self.output)
        if self.way == "in-place":
            self.output = self.model
        os.environ["TMPDIR"] = str(self.folder / "tmp")
        (self.folder / "tmp").mkdir()

    @property
    def arguments(self) -> list[str]:
        place = {
            "new": ["-o", self.output],
            "force": ["-o", self.output, "--force"],
            "in-place": ["--in-place"],
        }[self.way]
        return ["remove", self.model, "hidden_1:0-9", *place]

    def fresh(self) -> None:
        """The folder as it is before the command, which becomes the current one."""
        os.chdir(self.folder)
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp").mkdir()
        shutil.copytree(self.template, self.work)
        os.chdir(self.work)

    def learn(self, injected: Injector) -> list[str]:
        """See what the command does when nothing happens; the calls that it makes."""
        self.fresh()
        assert command(self.arguments)[0] == 0  # and all that it needs is imported now
        self.fresh()
        self.before = tree(self.work)
        injected.arm(-1, 0)
        code, said = command(self.arguments)
        calls = injected.disarm()
        assert code == 0, said
        self.whole = tree(self.work)
        assert self.whole != self.before
        return calls

    def problems(self, code: int, said: str) -> list[str]:
        """What is wrong after a command that was disturbed and ended with a code of its own."""
        found = []
        now = tree(self.work)
        if now != (self.whole if code == 0 else self.before):
            found.append("not whole" if code == 0 else "not as it was")
        if code not in (0, 4):
            found.append(f"exit code {code}")
        named = any(name in said for name in (self.output, self.model, os.environ["TMPDIR"]))
        if "Traceback" in said or (code and not ("error: " in said and named)):
            found.append("message")
        return found

    def left(self) -> list[str]:
        """What stands under hidden names, or in the temporary folder."""
        return [*hidden(self.work), *os.listdir(self.folder / "tmp")]

    def left_after_the_next_run(self) -> list[str]:
        code, said = command([*self.arguments, "--force"] if self.way == "new" else self.arguments)
        return [f"exit code {code}: {said}"] if code else hidden(self.work)


def command(arguments: list[str]) -> tuple[int, str]:
    """Run a command line in this process; its exit code, and what it says on standard error."""
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = run(arguments)
    return code, said.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    """All that stands under names that are not hidden."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.relative_to(folder).parts[0].startswith(".")
    }


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


# -- models ---------------------------------------------------------------------------------------


def make(path: Path, kind: str) -> None:
    """A model of a format, made of a sample one."""
    if kind == "keras":
        shutil.copy(MODEL, path)
    elif kind == "keras-folder":
        with zipfile.ZipFile(MODEL) as archive:
            archive.extractall(path)
        (path / "assets").mkdir()
        (path / "assets" / "words.txt").write_text("one\ntwo\n" * 1000)
    elif kind == "h5":
        _make_h5(path)
    else:
        import keras

        keras.models.load_model(MODEL).export(str(path), verbose=False)


def _make_h5(path: Path) -> None:
    """The legacy file, as Keras 3 writes it, uncompiled."""
    with zipfile.ZipFile(MODEL) as archive:
        config = json.loads(archive.read("config.json"))
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "3.15.1", "tensorflow"
        kept = {
            name: config[name] for name in ("module", "class_name", "config", "registered_name")
        }
        file.attrs["model_config"] = json.dumps(kept)
        group = file.create_group("model_weights")
        names = [layer["config"]["name"] for layer in config["config"]["layers"]]
        group.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            own = group.create_group(name)
            variables = weights.get(f"layers/{_stored(config, name)}/vars", {})
            paths = []
            for number, value in enumerate(variables.values()):
                paths.append(f"{name}/{('kernel', 'bias')[number]}")
                own[paths[-1]] = np.asarray(value)
            own.attrs["weight_names"] = [path.encode() for path in paths]


def _stored(config: dict[str, Any], name: str) -> str:
    """What the weights file calls a layer: its class, numbered."""
    kinds = [layer["class_name"].lower() for layer in config["config"]["layers"]]
    names = [layer["config"]["name"] for layer in config["config"]["layers"]]
    at = names.index(name)
    before = kinds[:at].count(kinds[at])
    return f"{kinds[at]}_{before}" if before else kinds[at]


# -- the grid -------------------------------------------------------------------------------------


@contextmanager
def variant(name: str) -> Iterator[None]:
    """One thread, so that calls come in the same order each time; perhaps a system that has less."""
    cores, unnamed, exchange = stream._cores, getattr(os, "O_TMPFILE", None), folders.exchange
    stream._cores = lambda: 1
    try:
        if name == "bare":
            folders.exchange = lambda one, other: False
            if unnamed is not None:
                tempfile._O_TMPFILE_WORKS = False  # type: ignore[attr-defined]
                del os.O_TMPFILE
        yield
    finally:
        stream._cores, folders.exchange = cores, exchange
        if unnamed is not None:
            os.O_TMPFILE = unnamed


def faults(case: Case, only: tuple[int, ...] = FAULTS) -> Counter[str]:
    """Disturb each call in turn, with each fault; what became of it, counted."""
    injected = injector()
    calls = case.learn(injected)
    found: Counter[str] = Counter()
    for at, name in enumerate(calls):
        for fault in only:
            case.fresh()
            injected.arm(at, fault)
            code, said = command(case.arguments)
            injected.disarm()
            found["faults"] += 1
            found["refused" if code else "written"] += 1
            what = f"{name} {at} {errno.errorcode.get(fault, 'short')}"
            for problem in case.problems(code, said):
                found[f"{problem}: {what}: {said!r}"] += 1
                found["broken"] += 1
            if case.left():
                found["left"] += 1
                if rest := case.left_after_the_next_run():
                    found[f"left after the next run: {what}: {rest}"] += 1
                    found["broken"] += 1
    return found


def kills(case: Case, random_ones: int = 0, limit: float = 60) -> Counter[str]:
    """Kill the process at each call in turn, and then at random times."""
    injected = injector()
    calls = len(case.learn(injected))
    case.fresh()
    start = time.monotonic()
    command(case.arguments)
    usual = time.monotonic() - start
    found: Counter[str] = Counter()
    rng = random.Random(0)
    for number in range(calls + random_ones):
        at = number if number < calls else -1
        case.fresh()
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                if at >= 0:
                    injected.arm(at, KILL)
                os._exit(command(case.arguments)[0])
            os._exit(99)
        if at < 0:
            time.sleep(rng.uniform(0, usual))
            os.kill(child, signal.SIGKILL)
        ended = _wait(child, limit)
        found["kills"] += 1
        if ended != -signal.SIGKILL:
            found["ended before" if ended == 0 else f"ended with {ended}"] += 1
        what = f"call {at}"
        now = tree(case.work)
        found["old" if now == case.before else "new" if now == case.whole else "neither"] += 1
        found["left"] += bool(case.left())
        first = command(["inspect", case.output]) if case.way != "new" else (0, "")
        if first[0] or tree(case.work) not in (case.before, case.whole):
            found["broken"] += 1
            found[f"broken: {what}: {first}"] += 1
        if rest := case.left_after_the_next_run():
            found["broken"] += 1
            found[f"left after the next run: {what}: {rest}"] += 1
    return found


def _wait(child: int, limit: float) -> int:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def main() -> None:
    task, folder, kind, way, which, *more = sys.argv[1:]
    with variant(which):
        case = Case(Path(folder), kind, way)
        if task == "faults":
            found = faults(case, tuple(map(int, more[0].split(","))) if more else FAULTS)
        else:
            found = kills(case, *map(int, more))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
