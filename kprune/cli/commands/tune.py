"""kprune tune"""

from typing import Annotated, Any

from msgspec.structs import asdict
from typer import Option

from kprune.cli.options import Reading, Reporting
from kprune.cli.training import DATA, Learning, Result, Trained

HOW = "How it is trained (by default as the file says)"


def tune(
    model: Trained,
    *,
    learning: Learning,
    validation_split: Annotated[
        float | None,
        Option(
            "--validation-split",
            metavar="R",
            help="Otherwise hold back this share [default: 0.1 of a file].",
            rich_help_panel=DATA,
        ),
    ] = None,
    epochs: Annotated[
        int, Option("--epochs", metavar="N", help="Passes over the data.", rich_help_panel=HOW)
    ] = 5,
    batch_size: Annotated[
        int,
        Option("--batch-size", metavar="N", help="Samples per step.", rich_help_panel=HOW),
    ] = 32,
    learning_rate: Annotated[
        float | None,
        Option(
            "--learning-rate",
            metavar="R",
            help="Such as 1e-4; after a repair a small one by default.",
            rich_help_panel=HOW,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        Option(
            "--optimizer",
            metavar="NAME",
            help="Override the file's optimizer; its state starts anew.",
            rich_help_panel=HOW,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        Option("--loss", metavar="NAME", help="Override the file's loss.", rich_help_panel=HOW),
    ] = None,
    metric: Annotated[
        str | None,
        Option("--metric", metavar="NAME", help="Also report this metric.", rich_help_panel=HOW),
    ] = None,
    patience: Annotated[
        int | None,
        Option(
            "--patience",
            metavar="N",
            help="Stop after N epochs without improvement.",
            rich_help_panel=HOW,
        ),
    ] = None,
    keep_zeros: Annotated[
        bool,
        Option("--keep-zeros", help="Hold zeroed units at zero.", rich_help_panel=HOW),
    ] = False,
    sparsify: Annotated[
        float | None,
        Option(
            "--sparsify",
            metavar="L",
            help="Penalize groups of units, so that those the model does not need approach zero: 1e-4 to 1e-2.",
            rich_help_panel=HOW,
        ),
    ] = None,
    seed: Annotated[
        int,
        Option(
            "--seed",
            metavar="N",
            help="Seed for the order of samples.",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = 0,
    result: Result,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Fine-tune what is left, in Keras; the best epoch is written.

    Loss, metrics, optimizer and its state are the file's own.

    Example: kprune tune small.keras --data train.npz --learning-rate 1e-4
    """
    from kprune.cli.output import present
    from kprune.page.page import Page
    from kprune.train.tune import tune as train
    from kprune.train.tune_result import epoch_line

    progress = Page(stderr=True)
    learning.announce()

    def tell(epoch: int, epochs: int, figures: dict[str, Any]) -> None:
        progress.print(epoch_line(epoch, epochs, figures))

    found = train(
        model,
        **asdict(learning),
        **asdict(result),
        rules=common.rules or (),
        trust=common.trust,
        on_epoch=None if reporting.quiet else tell,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        loss=loss,
        metric=metric,
        validation_split=validation_split,
        patience=patience,
        keep_zeros=keep_zeros,
        sparsify=sparsify,
        seed=seed,
    )
    present(found, reporting, path=found.output, force=result.force)
