"""kprune compact"""

import sys
from typing import Annotated

from typer import Option

from kprune.cli.commands.change import HOW, changed
from kprune.cli.options import (
    Limiting,
    Memory,
    Model,
    Reading,
    RepairData,
    Repairing,
    Reporting,
    Writing,
    announce,
)


def compact(
    model: Model,
    *,
    merge: Annotated[
        bool,
        Option(
            "--merge",
            help="Merge units that are equal, or equal up to a factor.",
            rich_help_panel=HOW,
        ),
    ] = False,
    no_check: Annotated[
        bool,
        Option(
            "--no-check",
            help="Do not run both models in TensorFlow first.",
            rich_help_panel=HOW,
        ),
    ] = False,
    repairing: Repairing,
    memory: Memory,
    data: RepairData = None,
    writing: Writing,
    limiting: Limiting,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Remove what is dead or constant: the same outputs, a smaller file.

    It removes units whose incoming or outgoing weights are 0, masked units, and units
    whose output is constant; the constant is then added to biases. A unit whose removal
    would change the outputs stays, and a note says why.

    Example: kprune compact zeroed.keras -o small.keras
    """
    from kprune.verbs.change import compact as carry_out

    announce("--data", data)
    if not (no_check or writing.dry_run) and sys.stderr is not None and sys.stderr.isatty():
        from kprune.page.streams import say

        say("checking in TensorFlow that the result computes the same …")
    changed(
        carry_out, model, writing, reporting, common, refits=True,
        limits=limiting.limits(), merge=merge, check=not no_check, data=data,
        repair=repairing.way, memory=memory.bytes(),
    )  # fmt: skip
