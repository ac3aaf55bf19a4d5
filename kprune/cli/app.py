"""The Typer app: which commands there are, in the order and the groups in which help shows them."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

from kprune.cli.groups import grouped
from kprune.cli.values import prepare

LOOK, CHANGE, CHECK, REFERENCE = "Look", "Change", "Check and train", "Reference"

# Each command with the module that holds it, imported when it is called or its help is shown.
COMMANDS = (
    (LOOK, "inspect", "kprune.cli.inspect"),
    (LOOK, "explain", "kprune.cli.explain"),
    (LOOK, "diff", "kprune.cli.diff"),
    (CHANGE, "remove", "kprune.cli.change"),
    (CHANGE, "zero", "kprune.cli.change"),
    (CHANGE, "mask", "kprune.cli.change"),
    (CHANGE, "unmask", "kprune.cli.change"),
    (CHANGE, "compact", "kprune.cli.compact"),
    (CHANGE, "plan", "kprune.cli.plan"),
    (CHANGE, "apply", "kprune.cli.plan"),
    (CHANGE, "flatten", "kprune.cli.flat"),
    (CHECK, "verify", "kprune.cli.verify"),
    (CHECK, "tune", "kprune.cli.tune"),
    (CHECK, "iterate", "kprune.cli.iterate"),
    (CHECK, "sensitivity", "kprune.cli.sensitivity"),
    (REFERENCE, "rules", "kprune.cli.reference"),
    (REFERENCE, "schema", "kprune.cli.reference"),
)

HELP = ["--help", "-h"]


def _version(wanted: bool) -> None:
    if wanted:
        from kprune.version import __version__

        typer.echo(f"kprune {__version__}")
        raise typer.Exit


def kprune(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Remove units from saved Keras models: name them, get a smaller file that plain Keras loads.

    Example: kprune remove model.keras dense_1:3,7,12 -o small.keras
    """
    if context.invoked_subcommand is not None:
        return 0
    typer.echo(context.get_help())
    return 2


def command(called: str | None = None) -> Any:
    """The app as a command that can be invoked.

    Args:
        called: the first word of the command line. If it names a command, only that one is made,
            which halves the time until it starts.
    """
    app = typer.Typer(
        name="kprune",
        add_completion=True,
        pretty_exceptions_enable=False,  # the boundary shows them
        rich_markup_mode="rich",
        context_settings={"help_option_names": HELP},
    )
    app.callback(invoke_without_command=True)(kprune)
    alone = called in {name for _, name, _ in COMMANDS}
    for panel, name, module in COMMANDS:
        if not alone or name == called:
            function = getattr(importlib.import_module(module), name)
            app.command(name, rich_help_panel=panel)(grouped(function))
    group = typer.main.get_command(app)
    for made in (group, *group.commands.values()):  # type: ignore[attr-defined]
        context = typer.Context(made, help_option_names=HELP)
        for parameter in made.get_params(context):  # --help among them
            prepare(parameter)
            _spare(parameter)
    return group


def _spare(parameter: Any) -> None:
    """Leave out of the help what says nothing: that a flag is a bool and a name a str."""
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""
    elif parameter.param_type_name == "argument" and hasattr(parameter, "display_type_rich"):
        parameter.display_type_rich = lambda ctx: None
