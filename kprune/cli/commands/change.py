"""kprune remove, zero, mask, unmask: the commands that write another model."""

from typing import Annotated, Any

from typer import Argument, Option

from kprune.cli.completion import complete_layer
from kprune.cli.options import (
    WHICH,
    Choosing,
    Limiting,
    Memory,
    Model,
    Reading,
    Repairing,
    Reporting,
    Writing,
)

HOW = "How it is done"

DropBranches = Annotated[
    bool,
    Option(
        "--drop-branches",
        help="Allow a layer to vanish with its branch even if only units tied to its own are named.",
        rich_help_panel=HOW,
    ),
]
NoCoupled = Annotated[
    bool,
    Option(
        "--no-coupled",
        help="Refuse if units tied to these would also be removed.",
        rich_help_panel=HOW,
    ),
]


def remove(
    model: Model,
    choosing: Choosing,
    *,
    keep_tokens: Annotated[
        str | None,
        Option(
            "--keep-tokens",
            metavar="FILE",
            help="Remove all rows of an embedding except those of these tokens (or ids): one "
            "per line, JSON or .npy; --layer names the embedding.",
            rich_help_panel=WHICH,
        ),
    ] = None,
    fold: Annotated[
        bool,
        Option(
            "--fold",
            help="Fold the units' remaining output into biases: computes what 'zero' does.",
            rich_help_panel=HOW,
        ),
    ] = False,
    whole_layers: Annotated[
        list[str] | None,
        Option(
            "--layers",
            metavar="GLOB",
            help="Remove whole layers instead of units: a residual branch that ends in an Add, or a chain "
            "that keeps the shape; repeatable.",
            autocompletion=complete_layer,
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None,
    no_coupled: NoCoupled = False,
    allow_output_change: Annotated[
        bool,
        Option(
            "--allow-output-change",
            help="Allow the model's inputs and outputs to change.",
            rich_help_panel=HOW,
        ),
    ] = False,
    drop_branches: DropBranches = False,
    repairing: Repairing,
    memory: Memory,
    writing: Writing,
    limiting: Limiting,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Remove units physically: smaller layers, in a smaller file.

    The result computes what the model computes with every weight of these units
    at 0; with --fold, what the output of 'kprune zero' computes.

    Example: kprune remove model.keras dense_1:3,7,12 -o small.keras
    """
    from kprune.verbs.change import remove as carry_out

    changed(
        carry_out, model, writing, reporting, common, refits=True,
        **choosing.selection(
            bare=keep_tokens is not None, criterion="obs" if repairing.repair else None
        ),
        keep_tokens=keep_tokens,
        limits=limiting.limits(),
        fold=fold,
        whole_layers=whole_layers or None,
        coupled=not no_coupled,
        allow_output_change=allow_output_change,
        drop_branches=drop_branches,
        repair=repairing.way,
        memory=memory.bytes(),
    )  # fmt: skip


def zero(
    model: Model,
    choosing: Choosing,
    *,
    outgoing: Annotated[
        bool,
        Option(
            "--outgoing",
            help="Also zero the weights that consumers have for them: computes what 'remove' does.",
            rich_help_panel=HOW,
        ),
    ] = False,
    silence: Annotated[
        bool,
        Option(
            "--silence",
            help="Classes of an output layer get probability 0.",
            rich_help_panel=HOW,
        ),
    ] = False,
    no_coupled: NoCoupled = False,
    memory: Memory,
    writing: Writing,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Set the units' incoming weights and biases to 0; shapes stay.

    Example: kprune zero model.keras conv2d_1:0-7
    """
    from kprune.verbs.change import zero as carry_out

    changed(
        carry_out, model, writing, reporting, common,
        **choosing.selection(), outgoing=outgoing, silence=silence, coupled=not no_coupled,
        memory=memory.bytes(),
    )  # fmt: skip


def mask(
    model: Model,
    choosing: Choosing,
    *,
    below: Annotated[
        float | None,
        Option(
            "--below",
            metavar="T",
            help="At run time, set activations of magnitude below T to 0.",
            rich_help_panel=HOW,
        ),
    ] = None,
    memory: Memory,
    writing: Writing,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Multiply the units' outputs by 0 with stock Keras layers; reversible.

    Layers without weights can be masked as well. 'kprune unmask' removes the masks.

    Example: kprune mask model.keras dense_1:3,7,12
    """
    from kprune.verbs.change import mask as carry_out

    selection = choosing.selection(bare=below is not None)
    changed(
        carry_out,
        model,
        writing,
        reporting,
        common,
        **selection,
        below=below,
        memory=memory.bytes(),
    )


def unmask(
    model: Model,
    *,
    layers: Annotated[
        list[str] | None,
        Argument(
            metavar="LAYER",
            help="Masked layers; by default all of them.",
            autocompletion=complete_layer,
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        Option(
            "--layer",
            metavar="LAYER",
            help="The same, as an option.",
            autocompletion=complete_layer,
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None,
    writing: Writing,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Remove masks: the model is what it was before.

    Example: kprune unmask model.pruned.keras -o model.keras
    """
    from kprune.verbs.change import unmask as carry_out

    named = [*(layers or []), *(layer or [])] or None
    changed(carry_out, model, writing, reporting, common, layers=named)


def changed(
    carry_out: Any,
    model: str,
    writing: Writing,
    reporting: Reporting,
    common: Reading,
    *,
    refits: bool = False,
    **options: Any,
) -> None:
    """Carry out a change to a model file, and report it.

    Args:
        refits: whether the function can refit what is left, and tells how far it is.
    """
    from kprune.cli.progress import Progress

    with Progress("writing") as progress, Progress("refitting", bytes_=False) as refitting:
        if refits:
            options["on_refit"] = refitting
        report = carry_out(
            model,
            output=writing.output,
            in_place=writing.in_place,
            force=writing.force,
            dry_run=writing.dry_run,
            drop_optimizer=writing.drop_optimizer,
            rules=common.rules or (),
            trust=common.trust,
            progress=progress,
            **options,
        )
    from kprune.cli.output import present

    present(report, reporting, path=report.output.path, force=writing.force)
