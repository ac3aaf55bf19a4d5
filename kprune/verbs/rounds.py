"""What an interrupted iteration leaves, so that it can go on: a folder beside the output.

OUTPUT.rounds/
    state.json                  the plan, and the figures of each finished round
    round-3.keras               what the last finished round came to
    round-4.cut.keras           the round that was interrupted: after its cut,
    round-4.keras.checkpoint/   and the epochs of its training so far
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from kprune.train.work_folder import STATE, WorkFolder
from kprune.verbs.iterate_result import Round


class Rounds(WorkFolder):
    """A folder that holds an iteration's state."""

    work = "iteration"
    ours = re.compile(r"state\.json|round-\d+(\.cut)?\.keras(\.checkpoint)?")

    def keep(self, rounds: list[Round]) -> None:
        """Note finished rounds; their models stand at their places already."""
        self.folder.mkdir(exist_ok=True)
        self.write_state({"rounds": msgspec.to_builtins(rounds)})
        self.keep_only(STATE, self.model(last_held(rounds)).name)

    def model(self, number: int) -> Path:
        """Where the model is that a round comes to."""
        return self.folder / f"round-{number}.keras"

    def cut(self, number: int) -> Path:
        """Where it is between the cut and the training."""
        return self.folder / f"round-{number}.cut.keras"

    def resumed(self) -> list[Round] | None:
        """The finished rounds of an interrupted iteration, the first of them the model as it was.

        Raises: UsageError if it was another iteration, DamagedFileError.
        """
        state = self.read_state()
        if state is None:
            return None
        try:
            found = msgspec.convert(state.get("rounds"), list[Round])
        except msgspec.ValidationError:
            raise self.damaged() from None
        if not found or (last_held(found) and not self.model(last_held(found)).exists()):
            raise self.damaged()
        return found


def last_held(rounds: list[Round]) -> int:
    """The number of the last round that held the floor; 0 is the model as it was."""
    return max(found.number for found in rounds if found.held)
