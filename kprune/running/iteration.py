"""What an iteration came to, as data; its JSON is what `kprune iterate --json` prints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Figures = dict[str, float]
End = Literal["target", "floor", "exhausted"]


class Round(Struct, frozen=True):
    """One cut and the training after it; round 0 is the model as it was."""

    number: int
    goal: Annotated[float | None, Meta(description="what the schedule allowed; null in round 0")]
    units: int
    parameters: int
    flops: int
    bytes: int
    cut: Annotated[Figures | None, Meta(description="the metrics straight after the cut")]
    tuned: Annotated[Figures, Meta(description="the same after training")]
    epochs: int
    best: Annotated[int, Meta(description="the epoch that was kept; 0 is from before training")]
    held: Annotated[bool, Meta(description="whether the floor held")]


class Iteration(Struct, frozen=True):
    """All rounds.

    Attributes:
        rounds: in order; the last one did not hold where `stopped` is `floor`.
        written: the number of the round whose model was written.
        stopped: by the target, by the floor, or because no more units may go (`exhausted`).
        metric: the one that the floor is about, or else the first that is no loss.
        resumed: how many rounds an interrupted run had finished.
    """

    kprune: str
    input: str
    output: str
    kind: Annotated[str, Meta(description="what is counted: parameters, flops or bytes")]
    target: Annotated[float | None, Meta(description="what may be left in the end")]
    floor: str | None
    rounds: list[Round]
    written: int
    stopped: End
    metric: str
    resumed: int
    notes: list[str]
    schema: int = 1

    @property
    def met(self) -> bool:
        """Whether the plan was carried out: to its target, or until its floor was in the way."""
        return self.target is None or self.stopped != "exhausted"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON, which has no number that is none: null stands for it."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {
            "kprune": found.pop("kprune"),
            "schema": found.pop("schema"),
            "command": "iterate",
            **found,
        }
