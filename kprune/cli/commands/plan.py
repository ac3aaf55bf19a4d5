"""kprune plan and apply: choices written down, reviewed, and carried out."""

from typing import Annotated

from typer import Argument, Option

from kprune.cli.commands.change import DropBranches, changed
from kprune.cli.options import (
    WHICH,
    WRITTEN,
    Choosing,
    Json,
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

MEASURED = "Which units, by measured sensitivity (one layer at a time: a heuristic)"


def apply(
    model: Model,
    plan: Annotated[
        str,
        Argument(metavar="PLAN.yaml", help="As 'kprune plan' prints it; - reads standard input."),
    ],
    *,
    drop_branches: DropBranches = False,
    repairing: Repairing,
    memory: Memory,
    data: RepairData = None,
    writing: Writing,
    limiting: Limiting,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Carry out a plan.

    It is read strictly: an error names its line, and nothing is written.

    Example: kprune apply model.keras plan.yaml -o small.keras
    """
    from kprune.verbs.change import apply as carry_out

    announce("--data", data)
    changed(
        carry_out, model, writing, reporting, common, refits=True,
        plan=plan, limits=limiting.limits(), drop_branches=drop_branches, data=data,
        repair=repairing.way, memory=memory.bytes(),
    )  # fmt: skip


def plan(
    model: Model,
    choosing: Choosing,
    *,
    sensitivity: Annotated[
        str | None,
        Option(
            "--sensitivity",
            metavar="FILE",
            help="The largest cuts that 'kprune sensitivity -o' found good enough; with one of:",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        Option(
            "--min-accuracy",
            metavar="A",
            help="The lowest value of its metric with one layer cut.",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        Option(
            "--max-drop",
            metavar="D",
            help="How much worse its metric may become, such as 0.01.",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    backend: Annotated[
        str,
        Option(
            "--backend",
            metavar="NAME",
            help="What the plan does with them: remove, zero or mask.",
            rich_help_panel=WHICH,
        ),
    ] = "remove",
    memory: Memory,
    file: Annotated[
        str | None,
        Option(
            "--output", "-o", metavar="FILE", help="Write the plan here.", rich_help_panel=WRITTEN
        ),
    ] = None,
    force: Annotated[
        bool, Option("--force", help="Replace an existing file.", rich_help_panel=WRITTEN)
    ] = False,
    as_json: Json,
    common: Reading,
) -> None:
    """Choose units, and print the choice as a plan with explicit indices.

    Example: kprune plan model.keras --criterion l1 --ratio 0.25 > plan.yaml
    """
    from kprune.cli.output import print_json, write_text
    from kprune.page.notes import show_notes
    from kprune.page.streams import put
    from kprune.select.plans.plan import plan_to_dict, plan_to_yaml
    from kprune.verbs.change import planned

    made, notes = planned(
        model,
        **choosing.selection(),
        memory=memory.bytes(),
        sensitivity=sensitivity,
        min_accuracy=min_accuracy,
        max_drop=max_drop,
        backend=backend,
        rules=common.rules or (),
        trust=common.trust,
    )
    show_notes(notes)
    if file not in (None, "-"):
        write_text(file, plan_to_yaml(made), force=force)
    elif as_json.json:
        print_json(plan_to_dict(made))
    else:
        put(plan_to_yaml(made))
