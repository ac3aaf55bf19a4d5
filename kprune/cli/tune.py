"""kprune tune"""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Option

from kprune.cli.options import REPORTED, Common, Json
from kprune.text import clean

DATA = "What it learns from"
HOW = "How it is trained (by default as the file says)"
WRITTEN = "What is written"

Trained = Annotated[str, Argument(metavar="MODEL", help="A .keras file.")]
Training = Annotated[
    str,
    Option(
        "--data",
        metavar="FILE.npz",
        help="x (or by name) and y; or package.module:function, which is run and returns a "
        "tf.data.Dataset.",
        rich_help_panel=DATA,
    ),
]
Validation = Annotated[
    str | None,
    Option(
        "--validation",
        metavar="FILE.npz",
        help="Judge epochs by these; a function as well.",
        rich_help_panel=DATA,
    ),
]
Teacher = Annotated[
    str | None,
    Option(
        "--teacher",
        metavar="MODEL",
        help="Learn this model's outputs as well (distillation).",
        rich_help_panel=DATA,
    ),
]


def tune(
    model: Trained,
    *,
    data: Training,
    validation: Validation = None,
    validation_split: Annotated[
        float | None,
        Option(
            "--validation-split",
            metavar="R",
            help="Else hold back this share [default: 0.1 of a file].",
            rich_help_panel=DATA,
        ),
    ] = None,
    teacher: Teacher = None,
    epochs: Annotated[
        int, Option("--epochs", metavar="N", help="How often over the data.", rich_help_panel=HOW)
    ] = 5,
    batch_size: Annotated[
        int,
        Option("--batch-size", metavar="N", help="Samples of one step.", rich_help_panel=HOW),
    ] = 32,
    learning_rate: Annotated[
        float | None,
        Option("--learning-rate", metavar="R", help="Such as 1e-4.", rich_help_panel=HOW),
    ] = None,
    optimizer: Annotated[
        str | None,
        Option(
            "--optimizer",
            metavar="NAME",
            help="Another than the file's; its state starts anew.",
            rich_help_panel=HOW,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        Option("--loss", metavar="NAME", help="Another than the file's.", rich_help_panel=HOW),
    ] = None,
    metric: Annotated[
        str | None,
        Option("--metric", metavar="NAME", help="What is shown beside it.", rich_help_panel=HOW),
    ] = None,
    patience: Annotated[
        int | None,
        Option(
            "--patience",
            metavar="N",
            help="Stop after N epochs without a better one.",
            rich_help_panel=HOW,
        ),
    ] = None,
    keep_zeros: Annotated[
        bool,
        Option("--keep-zeros", help="Hold zeroed units at zero.", rich_help_panel=HOW),
    ] = False,
    seed: Annotated[
        int,
        Option(
            "--seed",
            metavar="N",
            help="Of the order of samples.",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = 0,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Go on after the last finished epoch of an interrupted run, which is kept in "
            "OUTPUT.checkpoint until the output is written.",
            rich_help_panel=WRITTEN,
        ),
    ] = False,
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Write here, not to NAME.tuned.EXT.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    in_place: Annotated[
        bool, Option("--in-place", help="Write over the input.", rich_help_panel=WRITTEN)
    ] = False,
    force: Annotated[
        bool, Option("--force", help="Write over an existing file.", rich_help_panel=WRITTEN)
    ] = False,
    plot: Annotated[
        str | None,
        Option(
            "--plot",
            metavar="FILE",
            help="Draw the curves of loss and metrics: an .svg or .png.",
            rich_help_panel=REPORTED,
        ),
    ] = None,
    as_json: Json,
    common: Common,
) -> None:
    """Train on what is left, in Keras; the best epoch is written.

    Loss, metrics, optimizer and its state are the file's own.

    Example: kprune tune small.keras --data train.npz --learning-rate 1e-4
    """
    from kprune.cli.render.console import console, print_json
    from kprune.cli.render.tuning import epoch_line, show
    from kprune.running.tuning import tune as train

    progress = console(stderr=True)
    announce(("--data", data), ("--validation", validation))

    def tell(epoch: int, epochs: int, figures: dict[str, Any]) -> None:
        progress.print(epoch_line(epoch, epochs, figures))

    found = train(
        model,
        data=data,
        validation=validation,
        teacher=teacher,
        output=output,
        in_place=in_place,
        force=force,
        resume=resume,
        plot=plot,
        rules=common.rules or (),
        on_epoch=tell,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        loss=loss,
        metric=metric,
        validation_split=validation_split,
        patience=patience,
        keep_zeros=keep_zeros,
        seed=seed,
    )
    if as_json.json:
        print_json(found.to_dict())
    else:
        show(found, plot)


def announce(*given: tuple[str, str | None]) -> None:
    """Say which options run code of the user's."""
    from kprune.cli.boundary import say
    from kprune.running.examples import is_function

    for option, value in given:
        if value is not None and is_function(value):
            module, _, function = clean(value, 200).partition(":")
            say(f"note: {option} runs your code: it imports {module} and calls {function}()")
