"""The Typer app: which commands there are, in the order and the groups in which help shows them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kprune.cli import change, compact, diff, explain, flat, inspect, plan, reference, tune, verify
from kprune.cli.groups import grouped
from kprune.cli.values import prepare

LOOK, CHANGE, CHECK, REFERENCE = "Look", "Change", "Check and train", "Reference"

COMMANDS = (
    (LOOK, "inspect", inspect.inspect),
    (LOOK, "explain", explain.explain),
    (LOOK, "diff", diff.diff),
    (CHANGE, "remove", change.remove),
    (CHANGE, "zero", change.zero),
    (CHANGE, "mask", change.mask),
    (CHANGE, "unmask", change.unmask),
    (CHANGE, "compact", compact.compact),
    (CHANGE, "plan", plan.plan),
    (CHANGE, "apply", plan.apply),
    (CHANGE, "flatten", flat.flatten),
    (CHECK, "verify", verify.verify),
    (CHECK, "tune", tune.tune),
    (REFERENCE, "rules", reference.rules),
    (REFERENCE, "schema", reference.schema),
)

HELP = ["--help", "-h"]

app = typer.Typer(
    name="kprune",
    add_completion=True,
    pretty_exceptions_enable=False,  # the boundary shows them
    rich_markup_mode="rich",
    context_settings={"help_option_names": HELP},
)


def _version(wanted: bool) -> None:
    if wanted:
        from kprune.version import __version__

        typer.echo(f"kprune {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
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


for panel, name, function in COMMANDS:
    app.command(name, rich_help_panel=panel)(grouped(function))


def command() -> Any:
    """The app as a command that can be invoked."""
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
