"""What training on came to, as data, and its curves; its JSON is what `kprune tune --json` prints."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from kprune.report.plot import Curve, Panel
from kprune.running.checkpoint import Epoch
from kprune.running.training import HELD_BACK


class Tuning(msgspec.Struct, frozen=True):
    """What training came to.

    Attributes:
        samples, held_back: how many; null for a dataset, which does not tell.
        epochs: metrics after each epoch; the first entry is from before training.
        learned: means over each epoch, as Keras reports them while it trains; the first is empty.
        best: which entry of `epochs` the written model is.
        resumed: the epoch after which an interrupted training went on; 0 if it began anew.
        watched: the metric that decided, and whether it was taken on data held back.
        held_zero: how many zeroed units were kept at zero.
    """

    kprune: str
    input: str
    output: str
    samples: int | None
    held_back: int | None
    epochs: list[Epoch]
    learned: list[Epoch]
    best: int
    resumed: int
    watched: str
    held_zero: int
    notes: list[str]
    schema: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON, which has no number that is none: null stands for it."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return found


def panels(found: Tuning) -> list[Panel]:
    """The curves of a training: a panel for the loss, and one for each metric."""
    names = [name.removeprefix(HELD_BACK) for name in found.epochs[0]]
    judged = "data held back" if found.watched.startswith(HELD_BACK) else "data learned from"
    made = []
    for name in names:
        curves = [
            Curve(
                judged,
                range(len(found.epochs)),
                [
                    figures.get(HELD_BACK + name, figures.get(name, math.nan))
                    for figures in found.epochs
                ],
            )
        ]
        if any(name in figures for figures in found.learned):
            learned = [figures.get(name) for figures in found.learned]
            curves.append(Curve("while learning", range(len(learned)), learned, dashed=True))
        mark = (float(found.best), "written") if name == "loss" else None
        made.append(Panel(curves, "epoch", name, mark=mark))
    return made
