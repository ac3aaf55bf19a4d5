"""What a verification found, as data and as it is shown: the verdict first."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from kprune.page.figures import counted, duration, shape
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.text import clean


class OutputDifference(Struct, frozen=True):
    """How far one output of the pruned model is from what it should be."""

    name: str
    shape: Annotated[list[int], Meta(description="without the batch; of the pruned model")]
    max_difference: Annotated[
        float | None, Meta(description="largest absolute difference; null if the shapes differ")
    ]
    relative: Annotated[
        float | None, Meta(description="the same over the largest magnitude of the expected output")
    ]
    equal: Annotated[bool, Meta(description="whether `relative` is within the tolerance")]


class ParameterCount(Struct, frozen=True):
    """One model's parameters, as Keras counts them and as kprune does from the file."""

    keras: int
    kprune: int


class Timing(Struct, frozen=True):
    """How long one batch takes in either model, in seconds: medians over pairs of calls."""

    batch_size: int
    original: float
    pruned: float
    ratio: Annotated[float, Meta(description="pruned over original")]
    middle_half: Annotated[
        list[float],
        Meta(description="quartiles of the ratio over the pairs: half of them lie between"),
    ]
    pairs: Annotated[int, Meta(description="timed calls of each model, after the warm-up")]
    device: str


class Verification(Result, frozen=True, kw_only=True):
    """Two models, run side by side.

    Attributes:
        against: what the pruned model was compared with: `masked original`, or `original` where
            the file does not say what was pruned.
        exact: whether the two should be equal to float rounding; if not, differences do not fail.
        passed: whether nothing was found that should not be.
        metrics: with labelled data, `before` and `after`, by name.
        time: an entry a batch size; None if it was not asked for.
    """

    original: str
    pruned: str
    passed: bool
    against: str
    exact: bool
    tolerance: float
    samples: int
    seed: Annotated[int | None, Meta(description="of the random inputs; null if data were given")]
    data: str | None
    outputs: list[OutputDifference]
    parameters: dict[str, ParameterCount]
    metrics: dict[str, dict[str, float]] | None
    time: list[Timing] | None = None
    command: str = "verify"

    def show(self, on: Page) -> None:
        verdict = ("passed", "bold green") if self.passed else ("FAILED", "bold red")
        on.print(f"{verdict[0]}: {_statement(self)}", style=verdict[1], wrap=False)
        on.print()
        on.table(
            ["~output", "shape", ">largest difference", ">relative", ""],
            [
                (
                    clean(output.name),
                    shape(output.shape, batch=False),
                    "" if output.max_difference is None else f"{output.max_difference:.3g}",
                    "" if output.relative is None else f"{output.relative:.3g}",
                    "equal" if output.equal else "differs",
                    None if output.equal else "red" if not self.passed else None,
                )
                for output in self.outputs
            ],
        )
        on.print()
        inputs = (
            f"from {clean(self.data)}" if self.data is not None else f"random, seed {self.seed}"
        )
        rows = [
            ("inputs", f"{self.samples:,}, {inputs}"),
            ("tolerance", f"{self.tolerance:g}, relative to an output's largest magnitude"),
        ]
        for name, count in self.parameters.items():
            agree = "" if count.keras == count.kprune else f"; kprune counts {count.kprune:,}"
            rows.append((name, f"{counted(count.keras, 'parameter')} by Keras's count{agree}"))
        rows += _metrics(self)
        on.texts(rows)
        if self.time:
            on.print()
            _show_times(on, self.time)


def _statement(found: Verification) -> str:
    what = "the original with its pruned units silenced"
    if found.against == "original":
        what = "the original as it is"
    if not found.passed:
        return f"the pruned model does not compute what {what} does"
    if not found.exact:
        return f"the pruned model runs; what {what} gives need not be equal"
    return f"the pruned model computes what {what} does"


def _metrics(found: Verification) -> list[tuple[str, str]]:
    metrics = found.metrics or {}
    before, after = metrics.get("before", {}), metrics.get("after", {})
    return [
        (clean(name), f"{value:.4f} → {after[name]:.4f}")
        for name, value in before.items()
        if name in after
    ]


def _show_times(on: Page, times: list[Timing]) -> None:
    on.table(
        [">batch", ">original", ">pruned", ">ratio", "half of the pairs"],
        [
            (
                f"{timing.batch_size:,}",
                duration(timing.original),
                duration(timing.pruned),
                f"{timing.ratio:.2f}",
                "{:.2f} to {:.2f}".format(*timing.middle_half),
            )
            for timing in times
        ],
    )
    pairs = " and ".join(dict.fromkeys(f"{timing.pairs}" for timing in times))
    on.print(f"\ntime of a batch: medians of {pairs} pairs of calls, on the {times[0].device}")
