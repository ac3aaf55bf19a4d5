"""What training on came to, as data, as it is shown, and as curves."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kprune.page.page import Page
from kprune.page.plot import Curve, Panel
from kprune.page.result import Result
from kprune.report.files import show_files
from kprune.text import clean
from kprune.train.checkpoint import Epoch
from kprune.train.tune_loop import HELD_BACK


class Tuning(Result, frozen=True, kw_only=True):
    """What training came to.

    Attributes:
        samples, held_back: how many; null for a dataset, which does not tell.
        epochs: metrics after each epoch; the first entry is from before training.
        learned: means over each epoch, as Keras reports them while it trains; the first is empty.
        best: which entry of `epochs` the written model is.
        resumed: the epoch after which an interrupted training went on; 0 if it began anew.
        watched: the metric that decided, and whether it was taken on data held back.
        held_zero: how many zeroed units were kept at zero.
        plot: where the curves were drawn, if they were.
    """

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
    plot: str | None = None
    command: str = "tune"

    def show(self, on: Page) -> None:
        before, after = self.epochs[0], self.epochs[self.best]
        on.table(
            ["metric", ">before", ">after"],
            [(clean(name), f"{value:.4f}", f"{after[name]:.4f}") for name, value in before.items()],
        )
        on.print()
        chosen = (
            "no epoch was better than none: the model is as it was"
            if self.best == 0
            else f"epoch {self.best} of {len(self.epochs) - 1}, the best by {self.watched}"
        )
        held = f", {self.held_back:,} held back" if self.held_back else ""
        samples = f"; {self.samples:,} samples{held}" if self.samples is not None else ""
        resumed = f"; resumed after epoch {self.resumed}" if self.resumed else ""
        on.print(f"{chosen}{samples}{resumed}", wrap=False)
        if self.held_zero:
            on.print(f"{self.held_zero:,} zeroed units were held at zero")
        show_files(on, self.output, self.plot)


def epoch_line(epoch: int, epochs: int, figures: Mapping[str, float]) -> str:
    """One line of progress; epoch 0 is from before training."""
    when = "before" if epoch == 0 else f"epoch {epoch} of {epochs}"
    return f"{when:<16}" + "  ".join(
        f"{clean(name)} {value:.4f}" for name, value in figures.items()
    )


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
