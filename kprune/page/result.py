"""What every result of a command has in common: its JSON, its table, its notes."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from kprune.page.json_text import json_text
from kprune.page.page import Page, TextPage
from kprune.version import __version__

SCHEMA = 1


class Note(Struct, frozen=True):
    """A note for the reader; `kind` is for programs."""

    kind: str
    layer: str
    text: str

    @property
    def sentence(self) -> str:
        """The note as a sentence; with the layer, if the text does not name it."""
        if self.kind == "skipped":
            return f"nothing of '{self.layer}' is chosen: {self.text}"
        return self.text


class Result(Struct, frozen=True, kw_only=True):
    """What a command found or did.

    `print` shows the table that the command line shows, a notebook shows it as HTML, and `to_json`
    is what `--json` prints.

    Attributes:
        kprune: the version that made it.
        command: the verb.
        notes: what a reader should know about it.
        schema: counts changes of the JSON other than additions.
    """

    command: str
    notes: list[Note] = field(default_factory=list)
    kprune: str = __version__
    schema: Annotated[int, Meta(description="counts changes that are no additions")] = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the keys of the JSON; null stands for NaN and infinity."""
        found: dict[str, Any] = _finite(msgspec.to_builtins(self))
        first = {key: found.pop(key) for key in ("kprune", "schema", "command")}
        notes = found.pop("notes")
        return {**first, **found, "notes": notes}

    def to_json(self) -> str:
        """The JSON that `--json` prints."""
        return json_text(self.to_dict())

    def show(self, on: Page) -> None:
        """Write the table that the command line shows; notes go elsewhere."""
        raise NotImplementedError  # each command's result says how it looks

    def __repr__(self) -> str:
        return f"<kprune {self.command}: {type(self).__name__}>"

    def __str__(self) -> str:
        page = TextPage()
        self.show(page)
        for note in self.notes:
            page.print(f"note: {note.sentence}")
        return page.text.rstrip("\n")

    def _repr_html_(self) -> str:
        from kprune.page.html import HtmlPage

        page = HtmlPage()
        self.show(page)
        for note in self.notes:
            page.print(f"note: {note.sentence}")
        return page.html


def _finite(value: Any) -> Any:
    """Plain data without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        # Long lists are of indices.
        return value if value and type(value[0]) is int else [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def result_schema(kind: type[Result], title: str) -> dict[str, Any]:
    """The JSON Schema of a result."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    top = components.pop(schema["$ref"].rpartition("/")[2])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "title": title,
        "$defs": components,
    }
