"""A model file in figures."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from kprune.analysis.counts import Counts
from kprune.opened import Opened


class FileFacts(Struct, frozen=True):
    """A model file in figures."""

    path: str | None
    format: str
    bytes: int
    parameters: int
    trainable_parameters: int
    flops: Annotated[int, Meta(description="per sample; a multiply-add counts as 2")]
    units: int


def facts(it: Opened, counts: Counts) -> FileFacts:
    """The figures of an opened file."""
    return figures(counts, it.path, it.source.format, it.source.bytes)


def figures(counts: Counts, path: str | None, format_name: str, size: int) -> FileFacts:
    """The figures of a file, from their counts."""
    return FileFacts(
        path, format_name, size, counts.parameters, counts.trainable, counts.flops, counts.units
    )
