"""What an iteration came to, as data; its JSON is what `kprune iterate --json` prints."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kprune.text import clean

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
        bound: what the floor comes to as a figure; it may be relative to the original.
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
    bound: Annotated[float | None, Meta(description="the figure that the floor comes to")]
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

    @property
    def why(self) -> str:
        """Which round's model was written, and why that one: a sentence."""
        kept, last = self.rounds[self.written], self.rounds[-1]
        left = getattr(kept, self.kind)
        written = f"{f'round {kept.number}' if kept.number else 'the model as it was'} is written"
        if self.stopped == "floor":
            return (
                f"{written}, the last that holds {self._floor}; "
                f"round {last.number} comes to {last.tuned[self.metric]:.4f}"
            )
        if self.stopped == "target":
            holds = f"; it holds {self._floor}" if self.floor else ""
            return f"{written}: {left:,} {self.kind} meet the target of {self.target:,.0f}{holds}"
        wanted = "" if self.target is None else f", where the target is {self.target:,.0f}"
        return f"{written}: no more units may go from {left:,} {self.kind}{wanted}"

    @property
    def _floor(self) -> str:
        """The floor, as a figure."""
        text = clean(self.floor)
        return re.sub(r"original.*", f"{self.bound:.4f}", text)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON, which has no number that is none: null stands for it."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {
            "kprune": found.pop("kprune"),
            "schema": found.pop("schema"),
            "command": "iterate",
            **found,
            "why": self.why,
        }
