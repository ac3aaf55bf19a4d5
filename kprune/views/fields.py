"""Which entries differ between the configs of two models, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from kprune.graph.model import Layer, Model

# A memory address from when it was saved: new after each load and save.
_MEANINGLESS = frozenset({"shared_object_id"})
# What a model's config says of its layers, or repeats from them.
_OF_LAYERS = frozenset({"layers", "build_input_shape"})


class FieldChange(Struct, frozen=True):
    """One entry of a layer's config."""

    layer: str
    field: Annotated[str, Meta(description="keys joined by dots: units, layer.config.units")]
    before: Any
    after: Any


def field_changes(old: Model, new: Model) -> list[FieldChange]:
    """What differs in the configs of layers that both models have.

    Layers are matched by path; how they are connected is not compared (see `connections`).
    """
    after = {layer.path: layer for layer in _leaves(new)}
    return [
        FieldChange(layer.path, field, before, now)
        for layer in _leaves(old)
        if layer.path in after
        for field, before, now in _differences(_own(layer), _own(after[layer.path]), "")
    ]


def _own(layer: Layer) -> dict[str, Any]:
    """A layer's config without the model that it wraps, whose layers are compared by themselves."""
    if layer.inside is None:
        return layer.config
    return {key: value for key, value in layer.config.items() if key != "layer"}


def connections(model: Model) -> dict[str, list[str]]:
    """For each layer, the paths of the layers whose tensors it is called on, call by call."""
    found: dict[str, list[str]] = {}

    def walk(model: Model) -> None:
        for call in model.calls:
            sources = [
                f"{model.path}{ref.layer}" + (f"[{ref.index}]" if ref.index else "")
                for ref in call.inputs
            ]
            found.setdefault(call.layer.path or model.path + call.layer.name, []).append(
                ", ".join(sources)
            )
        for layer in model.layers.values():
            if layer.inside is not None:
                walk(layer.inside)

    walk(model)
    return found


def _leaves(model: Model) -> Iterator[Layer]:
    return (layer for layer in model.walk() if layer.model is None and layer.twin is None)


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            if key not in _MEANINGLESS:
                yield from _differences(
                    old.get(key), new.get(key), f"{path}.{key}" if path else str(key)
                )
    elif (
        isinstance(old, list)
        and isinstance(new, list)
        and len(old) == len(new)
        and _holds_dicts(old)
    ):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif old != new and not (old != old and new != new):  # NaN, which JSON here may hold
        yield path, old, new


def _holds_dicts(values: list[Any]) -> bool:
    return any(isinstance(value, dict) for value in values)


def model_changes(old: dict[str, Any], new: dict[str, Any]) -> list[FieldChange]:
    """What differs besides the layers: the model's own entries, and how it is compiled.

    Args:
        old, new: whole config.json.
    """
    parts = []
    for config in (old, new):
        own = {key: value for key, value in config["config"].items() if key not in _OF_LAYERS}
        rest = {
            key: value for key, value in config.items() if key in ("class_name", "compile_config")
        }
        parts.append({**own, **rest})
    return [FieldChange("", *change) for change in _differences(parts[0], parts[1], "")]
