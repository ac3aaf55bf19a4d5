"""What training came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kprune.cli.render.output import show_end
from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.running.tuned import Tuning


def epoch_line(epoch: int, epochs: int, figures: Mapping[str, float]) -> str:
    """One line of progress; epoch 0 is from before training."""
    when = "before" if epoch == 0 else f"epoch {epoch} of {epochs}"
    return f"{when:<16}" + "  ".join(
        f"{clean(name)} {value:.4f}" for name, value in figures.items()
    )


def show(found: Tuning, plot: str | None, *, to_stderr: bool) -> None:
    """Show the figures before training and of the epoch that was written, and where all that is."""
    on = Page(stderr=to_stderr)
    before, after = found.epochs[0], found.epochs[found.best]
    show_table(
        on,
        ["metric", ">before", ">after"],
        [(clean(name), f"{value:.4f}", f"{after[name]:.4f}") for name, value in before.items()],
    )
    on.print()
    chosen = (
        "no epoch was better than none: the model is as it was"
        if found.best == 0
        else f"epoch {found.best} of {len(found.epochs) - 1}, the best by {found.watched}"
    )
    held = f", {found.held_back:,} held back" if found.held_back else ""
    samples = f"; {found.samples:,} samples{held}" if found.samples is not None else ""
    resumed = f"; resumed after epoch {found.resumed}" if found.resumed else ""
    on.print(f"{chosen}{samples}{resumed}", wrap=False)
    if found.held_zero:
        on.print(f"{found.held_zero:,} zeroed units were held at zero")
    show_end(on, found.notes, None if to_stderr else found.output, plot)
