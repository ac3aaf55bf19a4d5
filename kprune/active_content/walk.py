"""Everything active in a config, wherever it stands: also in layers that no output reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from kprune.active_content.active import Active
from kprune.active_content.objects import is_object, is_own, of_entries, of_object, opened_by

_LONGEST = 400  # of a place: deeper layers are told by the path of those around them
_COMPILE_CONFIG, _TRAINING_CONFIG = "compile_config", "training_config"


def active_in_keras_file(
    config: Mapping[str, Any], metadata: Mapping[str, Any]
) -> tuple[Active, ...]:
    """What is active in a `.keras` or `.h5` file.

    Args:
        config: of the model, as the file has it.
        metadata: `training_config` of an `.h5` stands in it.
    """
    model = {key: value for key, value in config.items() if key != _COMPILE_CONFIG}
    compiled = [config.get(_COMPILE_CONFIG), metadata.get(_TRAINING_CONFIG)]
    found = active_in(compiled, _COMPILE_CONFIG)
    return (*active_in(model), *(replace(item, compiled=True) for item in found))


def active_in(value: Any, place: str = "") -> tuple[Active, ...]:
    """What is active in any part of a config, in the order in which it stands there, each once.

    Args:
        value: plain JSON.
        place: where the part stands: path of a layer; "" for the model; `compile_config`.
    """
    return tuple(dict.fromkeys(_walk(value, place)))


def _walk(value: Any, place: str) -> Iterator[Active]:
    # Each with its place and whether it belongs to a class that is not Keras's own.
    waiting: list[tuple[Any, str, bool]] = [(value, place, False)]
    outermost = not place  # the model itself has no place
    while waiting:
        item, where, foreign = waiting.pop()
        if isinstance(item, str):
            if foreign:
                yield from opened_by(item, where)
            continue
        if isinstance(item, dict):
            if is_object(item):
                where = where if outermost else _inside(where, item)
                outermost = False
                yield from of_object(item, where)
                foreign = not is_own(item)
            yield from of_entries(item, where)
            inner = list(item.values())
        elif isinstance(item, list):
            inner = item
        else:
            continue
        waiting.extend((part, where, foreign) for part in reversed(inner) if _holds(part, foreign))


def _holds(part: Any, foreign: bool) -> bool:
    return isinstance(part, (dict, list)) or (foreign and isinstance(part, str))


def _inside(place: str, item: Mapping[str, Any]) -> str:
    """The place of an object: one with a name, such as a layer, has a place of its own."""
    config = item.get("config")
    name = item.get("name") or (config.get("name") if isinstance(config, dict) else None)
    if place == _COMPILE_CONFIG or not isinstance(name, str) or len(place) > _LONGEST:
        return place
    return f"{place}/{name}" if place else name
