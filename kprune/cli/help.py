"""Help in sections of plain text: the same on a terminal, in a pipe and in a log.

Typer would have rich draw it, which takes longer to import than everything else that `--help` does.
The headings are the `rich_help_panel` of options, as Typer calls them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand

ALONE = ("--repair",)
"""Options that take a word, or stand without one."""

Rows = Iterable[tuple[str, tuple[str, str]]]


class Command(TyperCommand):
    """A command that shows its options under their headings, and knows options that may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, with_words(args)))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_sections(formatter, parameter_rows(self, ctx))


def with_words(arguments: list[str]) -> list[str]:
    """Arguments in which an option that stands alone has the word that it then means.

    What follows it is its word only if it is one, so that it may stand in front of a file.
    """
    found: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            return [*found, argument, *waiting]
        if argument not in ALONE:
            found.append(argument)
            continue
        words = _words()
        following = next(waiting, None)
        if following in words:
            found.append(f"{argument}={following}")
        else:
            rest = [] if following is None else [following]
            return [*found, f"{argument}={words[0]}", *with_words([*rest, *waiting])]
    return found


def _words() -> tuple[str, ...]:
    """What `--repair` means without a word, and the words that it takes."""
    from kprune.select.ranking.options import WAYS

    return ("best", *WAYS)


def parameter_rows(command: Any, ctx: Any) -> Rows:
    """The heading, and the two columns, of every argument and option that is to be seen."""
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is not None:
            plain = "Arguments" if parameter.param_type_name == "argument" else "Options"
            yield getattr(parameter, "rich_help_panel", None) or plain, row


def write_sections(formatter: Any, rows: Rows) -> None:
    """Write the rows of each heading together, headings in the order in which they first come."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for heading, row in rows:
        sections.setdefault(heading, []).append(row)
    for heading, own in sections.items():
        with formatter.section(heading):
            formatter.write_dl(own)
