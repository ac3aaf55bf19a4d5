"""What an interrupted training leaves, so that it can go on: a folder beside the output.

OUTPUT.checkpoint/
    state.json       how it is trained, the figures of each epoch so far
    epoch-3.keras    the model after the last finished epoch, with the state of its optimizer
    epoch-2.keras    the same after the best one, if that is another
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kprune.faults import PARSER_FAULTS
from kprune.runtime.keras_import import quiet
from kprune.train.work_folder import STATE, WorkFolder

Epoch = dict[str, float]
PARTIAL = "partial.keras"


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


class Checkpoint(WorkFolder):
    """A folder that holds a training's state."""

    work = "training"
    ours = re.compile(r"state\.json|(partial|epoch-\d+)\.keras")

    def keep(self, model: Any, history: History) -> None:
        """Save the model after its last epoch."""
        self.folder.mkdir(exist_ok=True)
        whole, partial = self.model(history.last), self.folder / PARTIAL
        with quiet():
            model.save(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.rename(whole)
        self.write_state(asdict(history))
        self.keep_only(STATE, whole.name, self.model(history.best).name)

    def model(self, epoch: int) -> Path:
        """Where the model is after that epoch, if it is the last or the best."""
        return self.folder / f"epoch-{epoch}.keras"

    def resumed(self) -> History | None:
        """The history of an interrupted training; None if there is none.

        Raises: UsageError if it was another training, DamagedFileError.
        """
        state = self.read_state()
        if state is None:
            return None
        try:
            found = History(list(state["judged"]), list(state["learned"]), int(state["best"]))
            whole = all(self.model(epoch).is_file() for epoch in {found.last, found.best} - {0})
        except PARSER_FAULTS:
            whole = False
        if not whole:
            raise self.damaged()
        return found
