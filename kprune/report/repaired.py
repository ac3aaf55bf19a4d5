"""The result of refitting a pruned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from kprune.page.page import Page
from kprune.page.result import result_schema
from kprune.refitting.outcomes import Left, Refitted, Why
from kprune.report.report import Report
from kprune.running.divergence import Divergence
from kprune.text import clean

MANY = 24
"""Rows of the table beyond which the kernels that came out best are left out."""


_WHY: dict[Why, str] = {
    "variables": "which of Keras's variables are its weights cannot be told",
    "adapted": "adapters (LoRA) change its kernel on the way",
    "quantized": "its kernel is quantized",
    "stateful": "it keeps its state from one batch to the next",
    "cell": "it runs a cell other than those of LSTM, GRU and SimpleRNN, or several",
    "class": "no kernel of its class is known",
    "equation": "its equation is not a sum for each place and column",
    "calls": "its calls are not those that the original makes",
    "memory": "its least squares take more memory than may be taken (--memory)",
    "numbers": "what it is given on these data, or makes of them, is not finite",
}


def why_left(why: Why) -> str:
    """The reason in words."""
    return _WHY[why]


class Judged(Struct, frozen=True):
    """How far a pruned model is from the original.

    Attributes:
        divergence: of its outputs.
        metrics: where there are targets.
    """

    divergence: Divergence
    metrics: dict[str, float] = field(default_factory=dict)


class Repaired(Struct, frozen=True):
    """The result of a repair.

    Attributes:
        way: `lstsq`, `noise`, `bias` or `bn`.
        inputs: on how many.
        judged: on how many the models were compared; apart: whether these are different inputs.
        kernels: those that were refitted, in the order of the model.
        left: layers that were not, although some of their units were removed.
        fitted: how far the outputs are on the inputs that were fitted on, which says little of others.
        kept: whether the new weights are written; not where the cut comes nearer without them.
        cut, repaired: how far the outputs are from the original's, before and after.
        metrics: of the original, where there are targets.
    """

    way: str
    inputs: int
    kernels: list[Refitted]
    judged: int
    apart: bool
    cut: Judged
    repaired: Judged
    fitted: Divergence
    kept: bool = True
    metrics: dict[str, float] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)


def _share(error: float) -> str:
    """An error as a share of the variance; where that is next to nothing, no share of it."""
    return f"{error:.1%}" if error < 100 else "–"


def show_repaired(found: Repaired, on: Page) -> None:
    """The table of the kernels, and the effect on the outputs."""
    rows = [row for row in found.kernels if max(row.before, row.after) >= 5e-4]
    rows = sorted(rows, key=lambda row: -row.after)[:MANY]
    shown = [row for row in found.kernels if row in rows]
    if shown:
        on.table(
            ["~refitted", ">error, cut", ">repaired"],
            [(clean(row.name), _share(row.before), _share(row.after), None) for row in shown],
        )
    kind = "made-up inputs" if found.way == "noise" else "inputs"
    others = "others" if found.apart else "of them, held out of a first fit"
    on.print(f"refitted on {found.inputs:,} {kind}, judged on {found.judged:,} {others}")
    if found.metrics:
        on.print(f"original: {', '.join(_figures(found.metrics))}")
    for word, judged in (("cut", found.cut), ("repaired", found.repaired)):
        figures = [judged.divergence.text, *_figures(judged.metrics)]
        on.print(f"{word + ':':<10}{', '.join(figures)}")


def _figures(metrics: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in metrics.items()]


class RepairedReport(Report, frozen=True, kw_only=True):
    """What a command did that also refitted what is left."""

    repaired: Annotated[Repaired, Meta(description="what came of refitting what is left")]

    def show_repair(self, on: Page) -> None:
        show_repaired(self.repaired, on)
        on.print()


def repaired_schema() -> dict[str, Any]:
    """The JSON Schema of a report that tells of a repair."""
    return result_schema(RepairedReport, "kprune report of a repair")
