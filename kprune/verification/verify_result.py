"""The result of a verification, as data and as text: the verdict first."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from kprune.page.figures import counted, duration, shape
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.running.divergence import Divergence, OutputDivergence
from kprune.text import clean
from kprune.verification.gates import Gate


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
    """The parameters of one model, as Keras counts them and as kprune counts them from the file."""

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
        against: what the pruned model was compared with: `masked original`, or `original` if it was
            repaired or the file does not record what was pruned.
        exact: whether the two should be equal up to float rounding; if not, differences are no failure.
        passed: whether no problem was found and every gate passed.
        repaired: whether the model was refitted; it is then judged by `divergence`.
        divergence: by output, how far the pruned model is from the unchanged original; None if that
            was not run.
        gates: the limits that were given, and whether each one passed.
        metrics: with targets, `before` and `after`, by name.
        time: one entry per batch size; None if it was not requested.
    """

    original: str
    pruned: str
    passed: bool
    computes: Annotated[
        bool,
        Meta(description="whether it gives what it should; it passes if all gates hold as well"),
    ]
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
    repaired: bool = False
    divergence: dict[str, OutputDivergence] | None = None
    gates: list[Gate] = field(default_factory=list)
    command: str = "verify"

    @property
    def failures(self) -> list[Gate]:
        """The limits that failed."""
        return [gate for gate in self.gates if not gate.passed]

    def show(self, on: Page) -> None:
        verdict = ("passed", "bold green") if self.passed else ("FAILED", "bold red")
        said = [gate.text for gate in self.failures] + [_statement(self)]
        on.print(f"{verdict[0]}: {said[0]}", style=verdict[1], wrap=False)
        for text in said[1:]:
            on.print(f"        {text}", wrap=False)
        on.print()
        if self.repaired and self.divergence is not None:
            _show_divergence(on, self)
        else:
            _show_differences(on, self)
        on.print()
        inputs = (
            f"from {clean(self.data)}" if self.data is not None else f"random, seed {self.seed}"
        )
        rows = [
            ("inputs", f"{self.samples:,}, {inputs}"),
        ]
        if not self.repaired:
            text = f"{self.tolerance:g}, relative to an output's largest magnitude"
            rows.append(("tolerance", text))
        for name, count in self.parameters.items():
            agree = "" if count.keras == count.kprune else f"; kprune counts {count.kprune:,}"
            rows.append((name, f"{counted(count.keras, 'parameter')} by Keras's count{agree}"))
        rows += _metrics(self)
        if not self.repaired:
            rows += _distances(self)
        on.texts(rows)
        if self.time:
            on.print()
            _show_times(on, self.time)


def _show_differences(on: Page, found: Verification) -> None:
    on.table(
        ["~output", "shape", ">largest difference", ">relative", ""],
        [
            (
                clean(output.name),
                shape(output.shape, batch=False),
                "" if output.max_difference is None else f"{output.max_difference:.3g}",
                "" if output.relative is None else f"{output.relative:.3g}",
                "equal" if output.equal else "differs",
                None if output.equal else "red" if not found.passed else None,
            )
            for output in found.outputs
        ],
    )


def _show_divergence(on: Page, found: Verification) -> None:
    apart = found.divergence or {}
    on.table(
        ["~output", "shape", ">agreement", ">KL", ">relative error"],
        [
            (
                clean(output.name),
                shape(output.shape, batch=False),
                "" if own.agreement is None else f"{100 * own.agreement:.2f} %",
                "" if own.kl is None else f"{own.kl:.3g}",
                f"{own.relative_error:.3g}",
                None,
            )
            for output, own in zip(found.outputs, apart.values(), strict=True)
        ],
    )


def _statement(found: Verification) -> str:
    if found.repaired:
        if found.divergence is None:
            return "the repaired model does not give outputs like the original's"
        if not found.computes:
            return "the repaired model is not what a repair of the original can be"
        text = Divergence(found.divergence).text
        if found.data is None:
            return f"the repaired model runs; on random inputs: {text}"
        return f"repaired, and so not equal to the original: {text}"
    what = "the original with its pruned units masked"
    if found.against == "original":
        what = "the original as it is"
    if not found.computes:
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


def _distances(found: Verification) -> list[tuple[str, str]]:
    """How far a model that was not repaired is from the unchanged original."""
    apart = found.divergence or {}
    rows = []
    for name, output in apart.items():
        of = f" of '{clean(name)}'" if len(apart) > 1 else ""
        if output.agreement is None or output.kl is None:
            text = f"{output.relative_error:.3g}{of}, relative to the original as it is"
            rows.append(("error", text))
        else:
            share = f"{100 * output.agreement:.2f} %{of}"
            rows.append(("agreement", f"{share} with the original as it is, KL {output.kl:.3g}"))
    return rows


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
