"""The report of one change: what was asked, what happened, what it saved."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kprune.report.json_text import json_text

SCHEMA = 1


class FileFacts(Struct, frozen=True):
    """A model file in figures."""

    path: str | None
    format: str
    bytes: int
    parameters: int
    trainable_parameters: int
    flops: Annotated[int, Meta(description="per sample; a multiply-add counts as 2")]
    units: int


class LayerChange(Struct, frozen=True):
    """One layer that changed. Units are null for a layer that makes none of its own."""

    name: str
    class_: str = msgspec.field(name="class")
    units_before: int | None
    units_after: int | None
    parameters_before: int
    parameters_after: int
    flops_before: int
    flops_after: int


class WeightChange(Struct, frozen=True):
    """One weight whose shape or values changed."""

    path: Annotated[str, Meta(description="dataset path in the weights file of the input")]
    shape_before: list[int]
    shape_after: list[int]
    kept: Annotated[
        list[list[int] | None],
        Meta(
            description="an entry an axis: null where it is whole, else the original indices that are left"
        ),
    ]


class Note(Struct, frozen=True):
    """Something a reader should know; `kind` is for programs."""

    kind: str
    layer: str
    text: str


class Report(Struct, frozen=True):
    """What a command did (or would do, on a dry run)."""

    kprune: str
    command: str
    backend: str
    exact: Annotated[bool, Meta(description="false if a statistic was taken over a unit that went")]
    input: FileFacts
    output: FileFacts
    selected: dict[str, list[int]]
    changed: dict[str, list[int]]
    layers: list[LayerChange]
    weights: list[WeightChange]
    notes: list[Note]
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the keys of the JSON report."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {"kprune": found.pop("kprune"), "schema": found.pop("schema"), **found}

    def to_json(self) -> str:
        """The JSON report, as `--json` prints it."""
        return json_text(self.to_dict())


def report_schema() -> dict[str, Any]:
    """The JSON Schema of the report."""
    (schema,), components = msgspec.json.schema_components([Report], ref_template="#/$defs/{name}")
    name = schema["$ref"].rpartition("/")[2]
    top = components.pop(name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kprune report",
        **top,
        "$defs": components,
    }
