"""The options of the commands that train."""

from typing import Annotated

from msgspec import Struct
from typer import Argument, Option

from kprune.cli.options import REPORTED, WRITTEN, Placing, announce

DATA = "What it learns from"

Trained = Annotated[str, Argument(metavar="MODEL", help="A .keras file.")]


class Learning(Struct, frozen=True):
    """What a model learns from."""

    data: Annotated[
        str,
        Option(
            "--data",
            metavar="FILE.npz",
            help="x and y (or all by name); or package.module:function, which is run and returns "
            "arrays or a tf.data.Dataset.",
            rich_help_panel=DATA,
        ),
    ]
    validation: Annotated[
        str | None,
        Option(
            "--validation",
            metavar="FILE.npz",
            help="Judge epochs by these; a function as well.",
            rich_help_panel=DATA,
        ),
    ] = None
    teacher: Annotated[
        str | None,
        Option(
            "--teacher",
            metavar="MODEL",
            help="Learn this model's outputs as well (distillation).",
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
            help="Go on after the last finished epoch of an interrupted run, which is kept in a "
            "folder beside the output until that is written.",
            rich_help_panel=WRITTEN,
        ),
    ] = False
    plot: Annotated[
        str | None,
        Option(
            "--plot",
            metavar="FILE",
            help="Draw how it went: an .svg or .png.",
            rich_help_panel=REPORTED,
        ),
    ] = None
