"""What running both models showed."""

from __future__ import annotations

from kprune.cli.render.figures import counted, duration, shape
from kprune.cli.render.notes import show_notes
from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table, show_texts
from kprune.running.verification import Timing, Verification
from kprune.text import clean


def show(found: Verification) -> None:
    """Show a verification: the verdict first."""
    on = Page()
    verdict = ("passed", "bold green") if found.passed else ("FAILED", "bold red")
    on.print(f"{verdict[0]}: {_statement(found)}", style=verdict[1], wrap=False)
    on.print()
    show_table(
        on,
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
    on.print()
    inputs = f"from {clean(found.data)}" if found.data is not None else f"random, seed {found.seed}"
    rows = [
        ("inputs", f"{found.samples:,}, {inputs}"),
        ("tolerance", f"{found.tolerance:g}, relative to an output's largest magnitude"),
    ]
    for name, count in found.parameters.items():
        agree = "" if count.keras == count.kprune else f"; kprune counts {count.kprune:,}"
        rows.append((name, f"{counted(count.keras, 'parameter')} by Keras's count{agree}"))
    rows += _metrics(found)
    show_texts(on, rows)
    if found.time:
        on.print()
        _show_times(on, found.time)
    show_notes(found.notes)


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
    show_table(
        on,
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
