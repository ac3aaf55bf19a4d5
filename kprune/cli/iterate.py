"""kprune iterate"""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Option

from kprune.cli.options import REPORTED, Common, Json
from kprune.cli.tune import Teacher, Trained, Training, Validation, announce

WRITTEN = "What is written"


def iterate(
    model: Trained,
    plan: Annotated[str, Argument(metavar="PLAN.yaml", help="The schedule, and when to stop.")],
    *,
    data: Training,
    validation: Validation = None,
    teacher: Teacher = None,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Go on after the last finished epoch of an interrupted run, which is kept in "
            "OUTPUT.rounds until the output is written.",
            rich_help_panel=WRITTEN,
        ),
    ] = False,
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Write here, not to NAME.pruned.EXT.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    force: Annotated[
        bool, Option("--force", help="Write over an existing file.", rich_help_panel=WRITTEN)
    ] = False,
    plot: Annotated[
        str | None,
        Option(
            "--plot",
            metavar="FILE",
            help="Draw the metric against the size: an .svg or .png.",
            rich_help_panel=REPORTED,
        ),
    ] = None,
    as_json: Json,
    common: Common,
) -> int:
    """Prune a little, train on, repeat, as a plan says.

    Down to a target, or as long as a metric holds: the last model that held it is written.
    'kprune schema iterate' describes the plan.

    Example: kprune iterate model.keras rounds.yaml --data train.npz
    """
    from kprune.cli.render.console import console, print_json
    from kprune.cli.render.iteration import round_line, show
    from kprune.cli.render.tuning import epoch_line
    from kprune.running.iterating import iterate as run

    progress = console(stderr=True)
    announce(("--data", data), ("--validation", validation))

    def tell_cut(number: int, report: Any) -> None:
        progress.print(round_line(number, report))

    def tell_epoch(epoch: int, epochs: int, figures: dict[str, Any]) -> None:
        progress.print(f"  {epoch_line(epoch, epochs, figures)}")

    found = run(
        model,
        plan,
        data=data,
        validation=validation,
        teacher=teacher,
        output=output,
        force=force,
        resume=resume,
        plot=plot,
        rules=common.rules or (),
        on_cut=tell_cut,
        on_epoch=tell_epoch,
    )
    if as_json.json:
        print_json(found.to_dict())
    else:
        show(found, plot)
    return 0 if found.met else 5
