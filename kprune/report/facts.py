"""A model file in figures."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class FileFacts(Struct, frozen=True):
    """A model file in figures."""

    path: str | None
    format: str
    bytes: int
    parameters: int
    trainable_parameters: int
    flops: Annotated[int, Meta(description="per sample; a multiply-add counts as 2")]
    units: int
