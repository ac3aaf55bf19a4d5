"""What an iteration came to, as data, as it is shown, and as curves."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kprune.page.figures import figure
from kprune.page.page import Page
from kprune.page.plot import Curve, Panel
from kprune.page.result import Result, result_schema
from kprune.report.files import show_files
from kprune.report.report import Report
from kprune.text import clean

Figures = dict[str, float]
End = Literal["target", "floor", "exhausted"]


class Round(Struct, frozen=True):
    """One cut, and the repair and the training after it, if there are any; round 0 is the model as it was."""

    number: int
    goal: Annotated[float | None, Meta(description="what the schedule allowed; null in round 0")]
    units: int
    parameters: int
    flops: int
    bytes: int
    cut: Annotated[Figures | None, Meta(description="the metrics straight after the cut")]
    tuned: Annotated[
        Figures,
        Meta(description="the same after training; after the repair if nothing was trained"),
    ]
    epochs: int
    best: Annotated[int, Meta(description="the epoch that was kept; 0 is from before training")]
    held: Annotated[bool, Meta(description="whether the floor held")]
    repaired: Annotated[
        Figures | None, Meta(description="the metrics straight after the repair, if there was one")
    ] = None


class Iteration(Result, frozen=True, kw_only=True):
    """All rounds.

    Attributes:
        rounds: in order; the last one did not hold where `stopped` is `floor`.
        written: the number of the round whose model was written.
        bound: what the floor comes to as a figure; it may be relative to the original.
        stopped: by the target, by the floor, or because no more units may go (`exhausted`).
        metric: the one that the floor is about, or else the first that is no loss.
        resumed: how many rounds an interrupted run had finished.
        plot: where the curves were drawn, if they were.
    """

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
    repair: Annotated[
        str | None, Meta(description="how what each cut left was refitted: lstsq, noise, bias, bn")
    ] = None
    trained: Annotated[bool, Meta(description="whether rounds trained")] = True
    plot: str | None = None
    command: str = "iterate"

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
    def after_cut(self) -> list[str]:
        """What is done to each cut: a column of the table each."""
        return [*["repaired"] * (self.repair is not None), *["tuned"] * self.trained]

    @property
    def tells_loss(self) -> bool:
        """Whether the table has a column for the loss: where it is no other one, and there is room."""
        return self.metric != "loss" and len(self.after_cut) == 1

    @property
    def _floor(self) -> str:
        """The floor, as a figure."""
        text = clean(self.floor)
        return re.sub(r"original.*", f"{self.bound:.4f}", text)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "why": self.why}

    def show(self, on: Page) -> None:
        metric = clean(self.metric)
        third = "bytes" if self.kind == "bytes" else "FLOPs"
        columns = [">round", ">units", ">parameters", f">{third}", f">{metric}: cut"]
        columns += [f">{word}" for word in self.after_cut]
        columns += [">loss"] * self.tells_loss
        on.table([*columns, ""], [_row(self, round_) for round_ in self.rounds])
        on.print()
        on.print(self.why, wrap=False)
        if self.resumed:
            on.print(f"resumed after round {self.resumed}")
        show_files(on, self.output, self.plot)


def round_line(number: int, report: Report) -> str:
    """One line of progress, after a cut."""
    left = report.output
    return f"round {number}: {left.units:,} units and {left.parameters:,} parameters are left"


def panel(found: Iteration) -> Panel:
    """The metric against what is left: straight after each cut, after its repair, and after training."""
    sizes = [float(getattr(round_, found.kind)) for round_ in found.rounds]
    tuned = [round_.tuned[found.metric] for round_ in found.rounds]
    early = {"after the repair": [round_.repaired for round_ in found.rounds]}
    early = early if found.repair and found.trained else {}
    early["straight after the cut"] = [round_.cut for round_ in found.rounds]
    curves = [
        Curve("after training" if found.trained else "after the repair", sizes, tuned),
        *(
            Curve(name, sizes, [_of(one, found.metric) for one in figures], dashed=True)
            for name, figures in early.items()
        ),
    ]
    mark = (float(getattr(found.rounds[found.written], found.kind)), "written")
    return Panel(curves, found.kind, found.metric, mark=mark)


def _of(figures: Figures | None, metric: str) -> float | None:
    return None if figures is None else figures[metric]


def _row(found: Iteration, round_: Round) -> list[str]:
    size = round_.bytes if found.kind == "bytes" else round_.flops
    sofar = [round_.cut, round_.repaired][: len(found.after_cut)]
    loss = [f"{round_.tuned['loss']:.4f}"] if found.tells_loss else []
    mark = "written" if round_.number == found.written else "" if round_.held else "not held"
    return [
        str(round_.number),
        figure(round_.units),
        figure(round_.parameters),
        figure(size),
        *("" if figures is None else f"{figures[found.metric]:.4f}" for figures in sofar),
        f"{round_.tuned[found.metric]:.4f}",
        *loss,
        mark,
    ]


def iterate_schema() -> dict[str, Any]:
    """The JSON Schema of the report."""
    schema = result_schema(Iteration, "kprune iterate report")
    schema["properties"]["why"] = {
        "type": "string",
        "description": "why there was no further round",
    }
    schema["required"] = [*schema["required"], "why"]
    return schema
