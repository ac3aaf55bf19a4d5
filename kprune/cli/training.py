"""The options of the commands that train."""

from typing import Annotated

from msgspec import Struct
from typer import Argument, Option

from kprune.cli.options import REPORTED, SAMPLES, WRITTEN, Placing, announce

DATA = "What it learns from"

Trained = Annotated[str, Argument(metavar="MODEL", help="A .keras file.")]


class Learning(Struct, frozen=True):
    """What a model learns from."""

    data: Annotated[
        str,
        Option(
            "--data",
            metavar="FILE.npz",
            help=SAMPLES,
            rich_help_panel=DATA,
        ),
    ]
    validation: Annotated[
        str | None,
        Option(
            "--validation",
            metavar="FILE.npz",
            help="Judge epochs by these data; may be a function, too.",
            rich_help_panel=DATA,
        ),
    ] = None
    teacher: Annotated[
        str | None,
        Option(
            "--teacher",
            metavar="MODEL",
            help="Also learn this model's outputs (distillation).",
            rich_help_panel=DATA,
        ),
    ] = None

    def announce(self) -> None:
        """Say which options run code of the user's."""
        announce("--data", self.data)
        announce("--validation", self.validation)


class Result(Placing, frozen=True):
    """Where what was trained goes."""

    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Continue an interrupted run after its last finished epoch, which is kept "
            "in a folder beside the output until the output is written.",
            rich_help_panel=WRITTEN,
        ),
    ] = False
    plot: Annotated[
        str | None,
        Option(
            "--plot",
            metavar="FILE",
            help="Plot the training, as .svg or .png.",
            rich_help_panel=REPORTED,
        ),
    ] = None
