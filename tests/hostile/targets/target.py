"""A kind of input: how one is drawn and made, what is run on it, and what is right."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

from tests.hostile.mutations import (
    Op,
    Seed,
    apply_bytes,
    busy,
    draw_bytes,
    numbers_in,
)

KEPT = b"what stood here before"
CODES = {0, 2, 3, 4, 5}
WHERE = "-o"


class Ended:
    """How a command ended: its exit code and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Target(ABC):
    """A kind of input.

    Attributes:
        name: of the kind.
        file: what the input is called in its folder.
        weight: how many of these, compared with others.
        tensorflow: whether TensorFlow is needed.
        beside: good files that commands are given as well.
        says_file: whether what is wrong with the file is said with its name.
    """

    name: str
    file = "bad.keras"
    weight = 1.0
    tensorflow = False
    beside: tuple[str, ...] = ()
    says_file = True

    @abstractmethod
    def draw(self, rng: random.Random) -> list[Op]:
        """Changes, drawn at random."""

    @abstractmethod
    def write(self, ops: list[Op], folder: Path) -> None:
        """Make the file that they lead to."""

    def commands(self, ops: list[Op]) -> list[list[str]]:
        """What is run on it."""
        return [
            ["inspect", self.file],
            ["remove", self.file, "a:1", "-o", self.output, "--force"],
        ]

    @property
    def output(self) -> str:
        return "out" + Path(self.file).suffix

    def fault(self, command: list[str], ended: Ended, folder: Path) -> str:
        """What is wrong with how a command ended; nothing if nothing is."""
        if ended.code not in CODES:
            return f"exit {ended.code}: {_reason(ended.err)}"
        if ended.code and "Traceback" in ended.err:
            return f"traceback: {ended.err[-200:]}"
        if ended.code == 4 and self.says_file and self.file not in ended.err:
            return f"message without the file's name: {ended.err.splitlines()[0][:100]}"
        if ended.code == 0 and WHERE in command:
            return self.judged(folder)
        return ""

    def judged(self, folder: Path) -> str:
        """What is wrong with an output that was written."""
        return ""


def _reason(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("why:")]
    return (lines or err.splitlines() or ["nothing said"])[-1][:160]


class Bytes(Target):
    """An input that is a good file with bytes changed; the first change says which of several."""

    @cached_property
    def sources(self) -> list[Seed]:
        return [self.seed(data) for data in self.files()]

    @abstractmethod
    def files(self) -> list[bytes]:
        """The good files."""

    def seed(self, data: bytes) -> Seed:
        return Seed(data, busy(data), numbers_in(data))

    def draw(self, rng: random.Random) -> list[Op]:
        number = rng.randrange(len(self.sources))
        return [["of", number], *draw_bytes(rng, self.sources[number])]

    def changed(self, ops: list[Op]) -> bytes:
        (_, number), *changes = ops if ops and ops[0][0] == "of" else [["of", 0], *ops]
        return apply_bytes(self.sources[number].data, changes)

    def write(self, ops: list[Op], folder: Path) -> None:
        (folder / self.file).write_bytes(self.changed(ops))
