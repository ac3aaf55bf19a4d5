"""Fuzzing: inputs by the thousand, each in a process that may crash, hang or eat memory.

    python -m tests.hostile.fuzz --minutes 5
    python -m tests.hostile.fuzz --inputs 100000 --kinds hdf5,zip --seed 3

Inputs are good files changed at random (`mutations`), of every kind in turn (`targets`). Those of one
batch share a process, which a crash or a limit ends; the next input starts a new one. What fails is
tried again on its own, made as small as it still fails, and saved to `regressions/`, which the tests
run again for ever. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import io
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.hostile.forking import fork_children
from tests.hostile.mutations import Op, minimised
from tests.hostile.sandbox import ADDRESS_SPACE, forked, warm_up
from tests.hostile.seeds import good
from tests.hostile.targets import KEPT, TARGETS, WHERE, Ended, Target

REGRESSIONS = Path(__file__).parent / "regressions"
SECONDS, MEGABYTES = 10, 400
"""More than this for one input is a failure; seconds are of CPU time, megabytes count libraries of a child."""
PATIENCE = 6
"""So many times as long may pass, on a busy machine, before a process is ended."""
BATCH = 200
OTHERS = 4
"""On every fourth input all commands of its kind are tried, on the others only the one that writes."""
TRIES = 60
"""How often at most a failing input is run again to make it smaller."""
STATE = struct.Struct("<qq")


class Failure(Exception):
    """What is wrong with how an input ended."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code = code


@contextlib.contextmanager
def _quiet() -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Standard output and error in memory."""
    held = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    sys.stdout, sys.stderr = (io.TextIOWrapper(s, "utf-8", "backslashreplace") for s in (out, err))
    try:
        yield out, err
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):
                stream.flush()
                stream.detach()
        sys.stdin, sys.stdout, sys.stderr = held


def run(arguments: Sequence[str]) -> Ended:
    """One command line, in this process."""
    from kprune.cli.boundary import run as command

    with _quiet() as (out, err):
        code = command(list(arguments))
    return Ended(code, *(s.getvalue().decode(errors="replace") for s in (out, err)))


def try_one(target: Target, ops: list[Op], folder: Path, commands: int = 9) -> int:
    """Make an input in an empty folder and run commands on it.

    Args:
        commands: how many of the target's at most, the last ones.
    Returns: the exit code of the last command.
    Raises: Failure.
    """
    output = folder / target.output
    code = 0
    target.write(ops, folder)
    for command in target.commands(ops)[-commands:]:
        writes = WHERE in command
        if writes and not target.tensorflow:
            output.write_bytes(KEPT)
        before = _listed(folder)
        ended = run(command)
        code = ended.code
        if fault := target.fault(command, ended, folder):
            raise Failure(code, f"{command[0]}: {fault}")
        if ended.code and _listed(folder) != before:
            raise Failure(
                code, f"{command[0]}: exit {ended.code}, and the folder is not what it was"
            )
        if ended.code and writes and not target.tensorflow and output.read_bytes() != KEPT:
            raise Failure(
                code, f"{command[0]}: exit {ended.code}, and the output is not what it was"
            )
    return code


def _listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def draw(target: Target, seed: int, number: int) -> list[Op]:
    """The changes of an input; they follow from the seed, the kind and the number."""
    return target.draw(random.Random(f"{seed} {target.name} {number}"))


# -- batches ---------------------------------------------------------------------------------------


class Fuzzer:
    """A run.

    Attributes:
        done: inputs by kind.
        ended: how they ended, by kind and exit code.
        failures: by kind, what is wrong.
    """

    def __init__(self, seed: int, kinds: Sequence[str], save: Path | None) -> None:
        self.seed, self.kinds, self.save = seed, list(kinds), save
        self.next: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.ended: Counter[tuple[str, int]] = Counter()
        self.failures: list[tuple[str, str, list[Op]]] = []
        self._seen: set[tuple[str, str]] = set()

    def run(self, *, seconds: float, inputs: int, batch: int = BATCH) -> None:
        """Until time is up or so many inputs are done; kinds by their weight."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.done.total() < inputs:
            kind = min(self.kinds, key=lambda k: self.next[k] / TARGETS[k].weight)
            count = min(batch, inputs - self.done.total())
            self._batch(TARGETS[kind], count, end)

    def _batch(self, target: Target, count: int, end: float) -> None:
        """Run the next inputs of a kind, in as many processes as it takes."""
        first = self.next[target.name]
        self.next[target.name] += count
        number = first
        while number < first + count and time.monotonic() < end:
            number = self._stretch(target, number, first + count, end)

    def _stretch(self, target: Target, number: int, stop: int, end: float) -> int:
        """Inputs from `number` on in one process, until it ends; the number after the last."""
        state = mmap.mmap(-1, 4096)
        state[: STATE.size] = STATE.pack(number, 0)
        answers, sent = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(answers)
            _be_the_worker(target, self.seed, number, stop, state, sent, end)
        os.close(sent)
        try:
            with os.fdopen(answers) as lines:
                for line in lines:
                    if line.endswith("\n"):
                        at, code, fault = json.loads(line)
                        self._note(target, at, code, fault)
            _, status = os.waitpid(child, 0)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
        last, finished = STATE.unpack(state[: STATE.size])
        state.close()
        code = os.waitstatus_to_exitcode(status)
        if code < 0 or not finished:
            self._note(target, last, code, _end(code))
            return int(last) + 1
        return int(last)

    def _note(self, target: Target, number: int, code: int, fault: str) -> None:
        self.done[target.name] += 1
        self.ended[target.name, code] += 1
        if not fault:
            return
        ops = draw(target, self.seed, number)
        key = target.name, "".join(c for c in fault if not c.isdigit())[:70]
        self.failures.append((target.name, fault, ops))
        if key in self._seen:
            return
        self._seen.add(key)
        print(f"  {target.name} {number}: {fault}", flush=True)
        self._saved(target, ops, fault)

    def _saved(self, target: Target, ops: list[Op], fault: str) -> None:
        """Save an input, made small, where the tests find it."""
        if self.save is None:
            return
        left = TRIES
        kind = fault.split(":")[0][:12]

        def still(fewer: list[Op]) -> bool:
            nonlocal left
            left -= 1
            return left > 0 and alone(target, fewer).startswith(kind)

        if target.name and ops and alone(target, ops).startswith(kind):
            head = [op for op in ops if op[0] == "of"]
            rest = [op for op in ops if op[0] != "of"]
            ops = head + minimised(rest, lambda some: still(head + some))
        text = json.dumps({"kind": target.name, "was": fault, "ops": ops}, indent=1)
        digest = hashlib.sha256(json.dumps(ops).encode()).hexdigest()[:10]
        self.save.mkdir(exist_ok=True)
        (self.save / f"{target.name}-{digest}.json").write_text(text + "\n")

    def table(self) -> str:
        """Counts by kind."""
        codes = sorted({code for _, code in self.ended})
        rows = [["kind", "inputs", *[f"exit {code}" for code in codes], "failures"]]
        failed = Counter(kind for kind, _, _ in self.failures)
        for kind in self.kinds:
            counts = [self.ended[kind, code] for code in codes]
            rows.append([kind, *(f"{n:,}" for n in (self.done[kind], *counts, failed[kind]))])
        total = [self.done.total(), *(sum(self.ended[k, c] for k in self.kinds) for c in codes)]
        rows.append(["all", *(f"{n:,}" for n in (*total, len(self.failures)))])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


def _be_the_worker(
    target: Target, seed: int, number: int, stop: int, state: Any, sent: int, end: float
) -> None:
    """Run inputs one after another, and tell how each ended."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = _now(0) + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        base = max(_now(1) / (1 << 20), _peak())
        with os.fdopen(sent, "w") as lines, tempfile.TemporaryDirectory(dir=_place()) as place:
            while number < stop and time.monotonic() < end:
                state[: STATE.size] = STATE.pack(number, 0)
                # The command that writes reads all that another would.
                count = 9 if number % OTHERS == 0 else 1
                code, fault = _limited(target, draw(target, seed, number), Path(place), count)
                if _peak() > base + MEGABYTES:
                    fault = fault or f"memory: {_peak() - base:.0f} MB"
                lines.write(json.dumps([number, code, fault]) + "\n")
                lines.flush()
                number += 1
                if fault.startswith("memory"):
                    break
            state[: STATE.size] = STATE.pack(number, 1)
        os._exit(0)
    except BaseException:
        import traceback

        os.dup2(1, 2)
        traceback.print_exc()
        os._exit(98)


def _limited(target: Target, ops: list[Op], place: Path, commands: int = 9) -> tuple[int, str]:
    """Exit code and fault of one input, in a new folder, in limited time."""
    folder = place / "input"
    folder.mkdir()
    os.chdir(folder)
    for name in target.beside:
        good(name, folder)
    signal.alarm(SECONDS * PATIENCE)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    code, fault = -1, ""
    try:
        code = try_one(target, ops, folder, commands)
    except Failure as failure:
        code, fault = failure.code, str(failure)
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    os.chdir(place)
    shutil.rmtree(folder, ignore_errors=True)
    return code, fault


def alone(target: Target, ops: list[Op]) -> str:
    """What is wrong with one input, tried in a process of its own; nothing if nothing is."""
    with tempfile.TemporaryDirectory(dir=_place()) as place:

        def work() -> int:
            _, fault = _limited(target, ops, Path(place))
            print(fault, end="")
            return 0

        outcome = forked(work, SECONDS * PATIENCE + 5)
    if outcome.code < 0:
        return _end(outcome.code)
    if outcome.megabytes > MEGABYTES:
        return f"memory: {outcome.megabytes:.0f} MB"
    return (
        outcome.out
        if outcome.code == 0
        else f"worker ended with {outcome.code}: {outcome.err[-300:]}"
    )


def _end(code: int) -> str:
    """How a process ended that told nothing itself."""
    if code in (-signal.SIGALRM, -signal.SIGPROF):
        return "timeout"
    return f"ended by signal {-code}" if code < 0 else f"worker ended with {code}"


def _now(field: int) -> int:
    """Bytes of address space (0) or of memory (1) that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()


def _peak() -> float:
    """The most megabytes that this process, or one that it started, has held."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in both) / 1024


def _place() -> str | None:
    """A folder in memory, where there is one: files come and go by the thousand."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def prepare(kinds: Sequence[str]) -> None:
    """Import and make what the processes share."""
    tensorflow = any(TARGETS[kind].tensorflow for kind in kinds)
    warm_up(tensorflow=tensorflow)
    fork_children()
    _keep_the_command()
    gc.disable()
    gc.freeze()
    for kind in kinds:
        draw(TARGETS[kind], 0, 0)  # its good files, made once for all processes


def _keep_the_command() -> None:
    """Have the command line made once for all inputs, which is a third of their time."""
    from kprune.cli import app

    made = app.command()
    app.command = lambda: made


def main() -> int:
    """The command line; 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Run kprune on inputs changed at random.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--inputs", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=None, help="by default another each time")
    parser.add_argument("--kinds", default=",".join(TARGETS), help="by default all")
    parser.add_argument("--batch", type=int, default=BATCH, help="inputs of a kind in turn")
    parser.add_argument("--save", type=Path, default=REGRESSIONS, help="where failures are kept")
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    prepare(kinds)
    import h5py

    print(f"seed {seed}, HDF5 {h5py.version.hdf5_version}", flush=True)
    fuzzer = Fuzzer(seed, kinds, given.save)
    started = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        fuzzer.run(seconds=given.minutes * 60, inputs=given.inputs, batch=given.batch)
    print(fuzzer.table())
    took = time.monotonic() - started
    print(f"{fuzzer.done.total():,} inputs in {took:.0f} s, {len(fuzzer.failures):,} failures")
    return 1 if fuzzer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
