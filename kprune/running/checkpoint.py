"""What an interrupted training leaves, so that it can go on: a folder beside the output.

    OUTPUT.checkpoint/
        state.json       how it is trained, the figures of each epoch so far, which files count
        epoch-3.keras    the model after the last finished epoch, with the state of its optimizer
        epoch-2.keras    the same after the best one, if that is another

state.json is replaced in one step when all it names is on the disk, so the folder is always that of
a finished epoch. It is there from the first one on, and removed when the output is written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kprune.errors import DamagedFileError, UsageError
from kprune.formats.atomic import write_bytes
from kprune.formats.faults import PARSER_FAULTS, file_error, shown
from kprune.running.keras_runtime import quiet
from kprune.text import clean

Epoch = dict[str, float]
STATE, PARTIAL = "state.json", "partial.keras"
_OURS = re.compile(r"state\.json|(partial|epoch-\d+)\.keras")
VERSION = 1


@dataclass
class History:
    """How a training went.

    Attributes:
        judged: the figures by which an epoch is judged, after each one; the first from before.
        learned: what Keras reports while it trains: means over the epoch; the first is empty.
        best: which of `judged` has the least loss.
    """

    judged: list[Epoch] = field(default_factory=list)
    learned: list[Epoch] = field(default_factory=list)
    best: int = 0

    @property
    def last(self) -> int:
        """The last finished epoch; 0 is before training."""
        return len(self.judged) - 1


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a training's state.

    Attributes:
        folder: made when there is something to hold.
        conditions: what a run that goes on must have in common with the one that was interrupted,
            by option.
    """

    folder: Path
    conditions: Mapping[str, Any]

    def keep(self, model: Any, history: History) -> None:
        """Save the model after its last epoch."""
        self.folder.mkdir(exist_ok=True)
        whole, partial = self.model(history.last), self.folder / PARTIAL
        with quiet():
            model.save(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.rename(whole)
        state = {
            "version": VERSION,
            "conditions": dict(self.conditions),
            "judged": history.judged,
            "learned": history.learned,
            "best": history.best,
        }
        write_bytes(self.folder / STATE, json.dumps(state, indent=1).encode(), force=True)
        named = {STATE, whole.name, self.model(history.best).name}
        for path in self._files():
            if path.name not in named:
                path.unlink()

    def model(self, epoch: int) -> Path:
        """Where the model is after that epoch, if it is the last or the best."""
        return self.folder / f"epoch-{epoch}.keras"

    def resumed(self) -> History | None:
        """The history of an interrupted training; None if there is none.

        Raises: UsageError if it was another training, DamagedFileError.
        """
        path = self.folder / STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            before = state["conditions"]
            found = History(list(state["judged"]), list(state["learned"]), int(state["best"]))
            files = {found.last, found.best} - {0}
            whole = state["version"] == VERSION and all(self.model(n).is_file() for n in files)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise file_error(error, "read", shown(path)) from error
        except PARSER_FAULTS:
            whole = False
        if not whole:
            raise DamagedFileError(
                f"{shown(self.folder)} does not hold an interrupted training any more",
                do="delete it, and start anew without --resume",
            )
        for option, now in self.conditions.items():
            if before.get(option) != now:
                raise UsageError(
                    f"the interrupted training had another {option}",
                    where=f"{_said(before.get(option))} then, {_said(now)} now",
                    do=f"repeat its options, or delete {shown(self.folder)} and start anew",
                )
        return found

    def refuse_if_there(self, *, force: bool) -> None:
        """Called by a training that starts anew.

        Args:
            force: whether what an interrupted one left may be thrown away.
        Raises: UsageError if there is something, and it may not.
        """
        if not os.path.lexists(self.folder):
            return
        ours = self.folder.is_dir() and len(self._files()) == len(list(self.folder.iterdir()))
        if not ours:
            raise UsageError(
                f"{shown(self.folder)} is in the way",
                why="training keeps its state there until its output is written",
                do="name another output with -o",
            )
        if (self.folder / STATE).exists() and not force:
            raise UsageError(
                f"an interrupted training left {shown(self.folder)}",
                do="go on with it (--resume), or throw it away (--force)",
            )
        self.remove()

    def remove(self) -> None:
        """Throw it away: the output is written."""
        for path in self._files():
            path.unlink()
        with suppress(OSError):  # somebody put something else there
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        """What a training puts there, and nothing else."""
        return [path for path in self.folder.glob("*") if _OURS.fullmatch(path.name)]


def _said(value: Any) -> str:
    return "not given" if value is None else clean(value, 200)
