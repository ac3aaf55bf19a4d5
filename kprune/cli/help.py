"""Help in sections of plain text: the same on a terminal, in a pipe and in a log.

Typer would have rich draw it, which takes longer to import than everything else that `--help` does.
The headings are the `rich_help_panel` of options, as Typer calls them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand

Rows = Iterable[tuple[str, tuple[str, str]]]


class Command(TyperCommand):
    """A command that shows its options under their headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_sections(formatter, parameter_rows(self, ctx))


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
