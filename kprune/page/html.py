"""A page as HTML, for notebooks: tables are tables, all else is paragraphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from kprune.page.page import Page
from kprune.page.tables import MARKS, Line, Row

_STYLES = {
    "bold": "font-weight:bold",
    "dim": "opacity:.6",
    "red": "color:#b00020",
    "bold red": "color:#b00020;font-weight:bold",
    "bold green": "color:#0a7a2f;font-weight:bold",
}


class HtmlPage(Page):
    """A page whose parts are kept as HTML, with styles of their own and no script.

    Attributes:
        html: what was printed so far.
    """

    def __init__(self) -> None:
        self.width, self.colours, self.html = 1 << 30, False, ""

    def table(self, columns: Sequence[str], rows: Iterable[Row]) -> None:
        head = "".join(f"<th{_right(name)}>{escape(name.lstrip(MARKS))}</th>" for name in columns)
        body = []
        for row in rows:
            style = row[len(columns)] if len(row) > len(columns) else ""
            cells = "".join(
                f"<td{_right(name)}>{escape(cell or '')}</td>"
                for name, cell in zip(columns, row, strict=False)
            )
            body.append(f"<tr{_style(style or '')}>{cells}</tr>")
        self.html += f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"

    def texts(self, texts: Iterable[tuple[str, str]], style: str = "bold") -> None:
        rows = (
            f"<tr><th style='text-align:left'>{escape(label)}</th>"
            f"<td style='text-align:left'>{escape(text)}</td></tr>"
            for label, text in texts
        )
        self.html += f"<table><tbody>{''.join(rows)}</tbody></table>"

    def write(self, lines: Iterable[Line]) -> None:
        for line, style in lines:
            if line.strip():
                self.html += f"<p{_style(style)}>{escape(line)}</p>"


def _right(column: str) -> str:
    return " style='text-align:right'" if column.startswith(">") else " style='text-align:left'"


def _style(name: str) -> str:
    return f" style='{_STYLES[name]}'" if name in _STYLES else ""
