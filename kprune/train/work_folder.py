"""A folder beside the output, from which long work goes on after an interruption.

It is there from the first finished part of the work on, and removed when the output is written. Its
state.json is replaced in one step, when all that it speaks of is on the disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kprune.atomic import HIDDEN, write_bytes
from kprune.errors import DamagedFileError, UsageError
from kprune.faults import PARSER_FAULTS, file_error, shown
from kprune.formats import Source
from kprune.text import clean

STATE = "state.json"
VERSION = 1


@dataclass(frozen=True)
class WorkFolder:
    """What is common to all of them.

    Attributes:
        folder: made when there is something to hold.
        conditions: what a run that goes on must have in common with the one that was interrupted,
            by option.
        work: what messages call the work.
        ours: the names of what the work puts there.
    """

    folder: Path
    conditions: Mapping[str, Any]

    work: ClassVar[str]
    ours: ClassVar[re.Pattern[str]]

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Say how far the work has come."""
        whole = {"version": VERSION, "conditions": dict(self.conditions), **state}
        write_bytes(self.folder / STATE, json.dumps(whole, indent=1).encode(), force=True)

    def read_state(self) -> dict[str, Any] | None:
        """How far an interrupted run came; None if there was none.

        Raises: UsageError if it was under other conditions, DamagedFileError.
        """
        path = self.folder / STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            before = dict(state["conditions"])
            if state["version"] != VERSION:
                raise self.damaged()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise file_error(error, "read", shown(path)) from error
        except PARSER_FAULTS:
            raise self.damaged() from None
        for option, now in self.conditions.items():
            if before.get(option) != now:
                raise UsageError(
                    f"the interrupted {self.work} had another {option}",
                    where=f"{_said(before.get(option))} then, {_said(now)} now",
                    do=f"repeat its options, or delete {shown(self.folder)} and start anew",
                )
        found: dict[str, Any] = state
        return found

    def damaged(self) -> DamagedFileError:
        """The refusal of a folder that contradicts itself."""
        return DamagedFileError(
            f"{shown(self.folder)} does not hold an interrupted {self.work} any more",
            do="delete it, and start anew without --resume",
        )

    def refuse_if_there(self, *, force: bool) -> None:
        """Called by work that starts anew.

        Args:
            force: whether what an interrupted run left may be thrown away.
        Raises: UsageError if there is something, and it may not.
        """
        if not os.path.lexists(self.folder):
            return
        if not self.folder.is_dir() or len(self._entries()) < len(list(self.folder.iterdir())):
            raise UsageError(
                f"{shown(self.folder)} is in the way",
                why=f"{self.work} keeps its state there until its output is written",
                do="name another output with -o",
            )
        if (self.folder / STATE).exists() and not force:
            raise UsageError(
                f"an interrupted {self.work} left {shown(self.folder)}",
                do="continue it (--resume), or discard it (--force)",
            )
        self.remove()

    def keep_only(self, *names: str) -> None:
        """Delete what the work has put there, but for these names."""
        for path in self._entries():
            if path.name not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove(self) -> None:
        """Throw it away: the output is written."""
        self.keep_only()
        with suppress(OSError):  # somebody put something else there
            self.folder.rmdir()

    def _entries(self) -> list[Path]:
        """What the work has put there, also what it was killed at writing."""
        return [
            path
            for path in self.folder.glob("*")
            if self.ours.fullmatch(path.name) or path.name.startswith(HIDDEN)
        ]


def _said(value: Any) -> str:
    return "not given" if value is None else clean(value, 200)


def fingerprint(source: Source) -> str:
    """What tells a model file from another: its size, its config, and what kprune did to it."""
    text = json.dumps([source.config, source.metadata], sort_keys=True)
    return f"{source.bytes} bytes, config {zlib.crc32(text.encode()):08x}"
