"""The shapes that the config of a Lambda declares: they describe its outputs, and follow what is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kprune.graph.model import Shape, as_shape, leaves
from kprune.labels.labels import Labels
from kprune.tracing.layer_call import LayerCall

FIELD = "output_shape"


def declared_outputs(config: dict[str, Any], batch: int | None) -> list[Shape]:
    """The shape of each output, batch first; [] if none is declared, or all by a function."""
    return [(batch, *shape) for _, shape in _entries(config.get(FIELD))]


def follow_declared(call: LayerCall, outputs: Any) -> None:
    """Have what a Lambda declares follow what is left of its outputs.

    A function that declares shapes cannot: only tracing it shows whether it goes by those that come in.
    """
    field = call.config.get(FIELD)
    given = [labels for labels in leaves(outputs) if isinstance(labels, Labels)]
    if isinstance(field, dict) and call.traced is None:
        for labels in given:
            call.freeze(labels, f"leave {call.layer.path!r}, whose output_shape is a function")
    for labels, (path, shape) in zip(given, _entries(field), strict=False):
        if labels.shape is None or len(labels.shape) != len(shape) + 1:
            continue
        for place, size in enumerate(shape):
            if size is not None and labels.varies(place + 1):
                call.size((*path, place), labels.axis(place + 1))


def _entries(field: Any) -> Iterator[tuple[tuple[str | int, ...], Shape]]:
    """Each declared shape, and where in the config it stands."""
    one = as_shape(field)
    if one is not None:
        yield (FIELD,), one
    elif isinstance(field, list):
        for index, item in enumerate(field):
            shape = as_shape(item)
            if shape is not None:
                yield (FIELD, index), shape
