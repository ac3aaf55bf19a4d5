"""The Typer app, which makes each command of `kprune.cli.commands` when it is asked for."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kprune.cli.commands import COMMANDS, Entry
from kprune.cli.help import Command, parameter_rows, write_sections
from kprune.cli.values import prepare

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
            "--version", "-V", callback=_version, is_eager=True, help="Show the version and exit."
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


class Commands(TyperGroup):
    """The commands, each of which is made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name == "help":
            return _help()
        if cmd_name not in self.commands:
            for entry in COMMANDS:
                if entry.name == cmd_name:
                    self.commands[cmd_name] = _made(entry)
        return self.commands.get(cmd_name)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_sections(formatter, parameter_rows(self, ctx))
        write_sections(
            formatter, ((entry.heading, (entry.name, entry.summary)) for entry in COMMANDS)
        )


def command() -> Any:
    """The app as a command that can be invoked."""
    app = _app(cls=Commands)
    app.callback(invoke_without_command=True)(kprune)
    return _prepared(app)


def _made(entry: Entry) -> Any:
    from kprune.cli.groups import grouped

    function = getattr(importlib.import_module(f"kprune.cli.commands.{entry.module}"), entry.name)
    app = _app(add_completion=False)
    app.command(entry.name, cls=Command, context_settings={"help_option_names": HELP})(
        grouped(function)
    )
    return _prepared(app)


def _help() -> Any:
    """`kprune help COMMAND` for `kprune COMMAND --help`, as with git; the list of commands does not have it."""

    def show(context: typer.Context, name: Annotated[str | None, typer.Argument()] = None) -> None:
        parent = context.parent
        assert parent is not None
        if name is None:
            typer.echo(parent.get_help())
            return
        _, command, _ = parent.command.resolve_command(parent, [name])  # type: ignore[attr-defined]
        with command.make_context(name, ["--help"], parent=parent):
            pass

    app = _app(add_completion=False)
    app.command("help", cls=Command)(show)
    return _prepared(app)


def _app(**options: Any) -> typer.Typer:
    return typer.Typer(
        name="kprune",
        pretty_exceptions_enable=False,  # the boundary shows them
        rich_markup_mode=None,
        context_settings={"help_option_names": HELP},
        **options,
    )


def _prepared(app: typer.Typer) -> Any:
    made = typer.main.get_command(app)
    for parameter in made.get_params(typer.Context(made, help_option_names=HELP)):  # --help, too
        prepare(parameter)
        _spare(parameter)
    return made


def _spare(parameter: Any) -> None:
    """Leave out of the help what says nothing: that a flag is a bool and a name a str."""
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""
    elif parameter.param_type_name == "argument" and hasattr(parameter, "display_type_rich"):
        parameter.display_type_rich = lambda ctx: None
