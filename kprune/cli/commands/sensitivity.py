"""kprune sensitivity"""

from typing import Annotated

from typer import Argument, Option

from kprune.cli.completion import complete_layer
from kprune.cli.options import SAMPLES, WHICH, WRITTEN, Json, Model, Reading, announce
from kprune.errors import UsageError
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.report.files import show_files

HOW = "How it is measured"


def sensitivity(
    model: Model,
    names: Annotated[
        list[str] | None,
        Argument(
            metavar="LAYER",
            help="Only these layers; * matches anything.",
            autocompletion=complete_layer,
            show_default=False,
        ),
    ] = None,
    *,
    data: Annotated[
        str,
        Option(
            "--data",
            metavar="FILE.npz",
            help=SAMPLES,
            rich_help_panel=HOW,
        ),
    ],
    ratios: Annotated[
        str,
        Option(
            "--ratios", metavar="R,R,…", help="Shares of a layer to remove.", rich_help_panel=HOW
        ),
    ] = "0.1,0.3,0.5,0.7,0.9",
    criterion: Annotated[
        str,
        Option("--criterion", metavar="NAME", help="What ranks the units.", rich_help_panel=HOW),
    ] = "l1",
    metric: Annotated[
        str | None,
        Option(
            "--metric",
            metavar="NAME",
            help="One of the file's metrics; by default the first, or else the loss.",
            rich_help_panel=HOW,
        ),
    ] = None,
    seed: Annotated[
        int,
        Option(
            "--seed",
            metavar="N",
            help="Seed for the criterion random.",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = 0,
    batch_size: Annotated[
        int, Option("--batch-size", metavar="N", help="Samples per batch.", rich_help_panel=HOW)
    ] = 64,
    jobs: Annotated[
        int,
        Option(
            "--jobs",
            "-j",
            metavar="N",
            help="Measure in N processes; -1: one per core.",
            rich_help_panel=HOW,
        ),
    ] = 1,
    layer: Annotated[
        list[str] | None,
        Option(
            "--layer",
            metavar="LAYER",
            help="The same as LAYER; repeatable.",
            autocompletion=complete_layer,
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        Option(
            "--exclude",
            metavar="LAYER",
            help="Leave out this layer and what is tied to it; repeatable.",
            autocompletion=complete_layer,
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="FILE.json",
            help="Write the curves here, for 'kprune plan --sensitivity'.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        Option(
            "--plot", metavar="FILE", help="Plot them, as .svg or .png.", rich_help_panel=WRITTEN
        ),
    ] = None,
    force: Annotated[
        bool, Option("--force", help="Replace an existing file.", rich_help_panel=WRITTEN)
    ] = False,
    as_json: Json,
    common: Reading,
) -> None:
    """Measure what it costs to cut each layer alone.

    Layers whose units are tied are cut together. Each cut model is run in Keras, while all other
    layers stay whole. Ratios combined from such curves are a heuristic: several cuts cost more
    than each alone.

    Example: kprune sensitivity model.keras --data test.npz -o curves.json
    """
    from kprune.cli.output import present, write_text
    from kprune.cli.progress import Progress
    from kprune.verbs.sensitivity import sensitivity as measure

    shares = _numbers(ratios)
    if plot is not None:
        from kprune.page.plot import check_plot

        check_plot(plot, force=force)
    announce("--data", data)
    with Progress("measuring", bytes_=False) as progress:
        found = measure(
            model,
            data=data,
            ratios=shares,
            criterion=criterion,
            layers=[*(names or []), *(layer or [])] or None,
            exclude=exclude or [],
            metric=metric,
            seed=seed,
            batch_size=batch_size,
            jobs=jobs,
            rules=common.rules or (),
            trust=common.trust,
            progress=progress,
        )
    if file == "-":
        as_json, file = Json(json=True), None
    if file is not None:
        write_text(file, found.to_json(), force=force)
    if plot is not None:
        from kprune.page.plot import draw
        from kprune.select.plans.curves import panel

        draw(plot, [panel(found)], force=force)
    written = [path for path in (file, plot) if path is not None]
    present(found, as_json, show=lambda on: _show(found, written, on))


def _show(found: Result, written: list[str], on: Page) -> None:
    found.show(on)
    if written:
        on.print()
    for path in written:
        show_files(on, path)


def _numbers(text: str) -> list[float]:
    """Ratios between commas. Raises: UsageError for anything else."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"--ratios is given {text!r}", do="write numbers between 0 and 1, such as 0.1,0.3,0.5"
        ) from None
