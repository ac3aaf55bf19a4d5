"""kprune verify"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kprune.cli.options import Common, Json

RUN = "How they are run"


def verify(
    original: Annotated[str, Argument(metavar="ORIGINAL", help="The model as it was.")],
    pruned: Annotated[str, Argument(metavar="PRUNED", help="What kprune made of it.")],
    *,
    data: Annotated[
        str | None,
        Option(
            "--data",
            metavar="FILE.npz",
            help="Inputs x (or by name), and labels y for the accuracy.",
            rich_help_panel=RUN,
        ),
    ] = None,
    samples: Annotated[
        int,
        Option("--samples", metavar="N", help="How many random inputs.", rich_help_panel=RUN),
    ] = 32,
    seed: Annotated[
        int,
        Option(
            "--seed",
            metavar="N",
            help="For random inputs.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = 0,
    tolerance: Annotated[
        float | None,
        Option(
            "--tolerance",
            metavar="T",
            help="Largest error, relative to an output's magnitude [default: 1e-4].",
            rich_help_panel=RUN,
        ),
    ] = None,
    as_json: Json,
    common: Common,
) -> int:
    """Run both models in TensorFlow, and compare.

    The pruned one must compute what the original does with its removed units at 0.

    Example: kprune verify model.keras small.keras --data test.npz
    """
    from kprune.cli.progress import Progress
    from kprune.cli.render.console import print_json
    from kprune.running.verify import verify as run_both

    with Progress("running", bytes_=False) as progress:
        found = run_both(
            original,
            pruned,
            data=data,
            samples=samples,
            seed=seed,
            tolerance=tolerance,
            rules=common.rules or (),
            progress=progress,
        )
    if as_json.json:
        print_json(found.to_dict())
    else:
        from kprune.cli.render.verification import show

        show(found)
    return 0 if found.passed else 5
