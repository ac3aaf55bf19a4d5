"""What every result has in common: JSON, a table as text and as HTML, notes."""

from __future__ import annotations

import json
import math

import pytest

from kprune.page.page import Page
from kprune.page.result import Note, Result


class Finding(Result, frozen=True, kw_only=True):
    figures: dict[str, float]
    command: str = "find"

    def show(self, on: Page) -> None:
        on.print("what was <found>", style="bold")
        on.table(
            ["~name", ">figure"],
            [(name, f"{value:g}", "dim") for name, value in self.figures.items()],
        )
        on.texts([("total", "two of & three")])


FOUND = Finding(figures={"a": 1.5, "b": math.nan}, notes=[Note("odd", "b", "b is none")])


def test_json_starts_with_who_made_it_and_ends_with_the_notes():
    data = FOUND.to_dict()
    assert list(data) == ["kprune", "schema", "command", "figures", "notes"]
    assert (data["schema"], data["command"]) == (1, "find")
    assert json.loads(FOUND.to_json()) == data


def test_a_number_that_is_none_is_null():
    assert FOUND.to_dict()["figures"] == {"a": 1.5, "b": None}


def test_print_shows_the_table_and_the_notes():
    assert str(FOUND).splitlines() == [
        "what was <found>",
        "name  figure",
        "────────────",
        "a        1.5",
        "b        nan",
        "total  two of & three",
        "note: b is none",
    ]


def test_repr_is_one_line():
    assert repr(FOUND) == "<kprune find: Finding>"


def test_a_notebook_shows_tables_and_escapes_what_a_file_says():
    html = FOUND._repr_html_()
    assert "<th style='text-align:right'>figure</th>" in html
    assert "what was &lt;found&gt;" in html and "two of &amp; three" in html
    assert html.count("<table>") == html.count("</table>") == 2 and "<script" not in html


@pytest.mark.parametrize("verb", ["inspect", "explain", "remove", "diff"])
def test_what_a_command_gives_is_such_a_result(verb, samples):
    import kprune

    model = samples / "digits_mlp.keras"
    found = {
        "inspect": lambda: kprune.inspect(model),
        "explain": lambda: kprune.explain(model, {"hidden_1": [1]}),
        "remove": lambda: kprune.remove(model, {"hidden_1": [1]}, dry_run=True),
        "diff": lambda: kprune.diff(model, model),
    }[verb]()
    assert found.command == verb and found.to_dict()["command"] == verb
    assert "hidden_1" in str(found) or verb == "diff"
