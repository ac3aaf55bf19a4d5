"""The tensors of a model file, as its config finds them: by path, or by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from kprune.graph.model import Shape


class Outline(Struct, frozen=True):
    """A model file without its numbers.

    Attributes:
        config: config.json.
        shapes: of every tensor, by dataset path.
        order: in a legacy `.h5`, for each layer of the outermost model its datasets, in order.
    """

    config: dict[str, Any]
    shapes: Mapping[str, Shape]
    order: Mapping[str, Sequence[str]] | None = None
