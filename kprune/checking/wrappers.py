"""Layers that hold other layers: what is inside, what it is called on, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from kprune.checking.configs import Config, first, plain_name
from kprune.checking.shapes import MaybeShape
from kprune.graph.order import storage_names


class Part(Struct, frozen=True):
    """A layer inside another one.

    Attributes:
        at: the attribute that holds it, as its weights' path says it.
        spec: its dict in the config.
        inputs: shapes of what it is called on.
    """

    at: str
    spec: dict[str, Any]
    inputs: Sequence[MaybeShape]


def parts(kind: str, config: Config, inputs: Sequence[MaybeShape]) -> list[Part]:
    """The layers inside a layer; [] for one that holds none."""
    find = {
        "TimeDistributed": _each_step,
        "Bidirectional": _both_ways,
        "SpectralNormalization": _normalised,
        "RNN": _cells,
    }.get(plain_name(kind))
    return find(config, inputs) if find is not None else []


def wrapped_shapes(
    kind: str, config: Config, inputs: Sequence[MaybeShape], made: Sequence[Sequence[MaybeShape]]
) -> list[MaybeShape]:
    """What a layer gives whose parts give `made`; [None] if that is not known."""
    shape, inside = first(inputs), made[0][0]
    if kind == "SpectralNormalization":
        return list(made[0])
    if not shape or (inside is None and kind != "RNN"):
        return [None]
    if kind == "TimeDistributed":
        assert inside is not None
        return [(inside[0], shape[1], *inside[1:])]
    if kind == "RNN":
        return _unrolled(config, inputs)
    return _merged_ways(config, made)


def _each_step(config: Config, inputs: Sequence[MaybeShape]) -> list[Part]:
    return [Part("layer", config["layer"], [_step(inputs)])]


def _step(inputs: Sequence[MaybeShape]) -> MaybeShape:
    """One position of the time axis."""
    shape = first(inputs)
    return (shape[0], *shape[2:]) if shape else None


def _both_ways(config: Config, inputs: Sequence[MaybeShape]) -> list[Part]:
    # Keras 2 leaves the backward layer out where it mirrors the forward one.
    backward = config.get("backward_layer") or config["layer"]
    return [
        Part("forward_layer", config["layer"], inputs[:1]),
        Part("backward_layer", backward, inputs[:1]),
    ]


def _merged_ways(config: Config, made: Sequence[Sequence[MaybeShape]]) -> list[MaybeShape]:
    (ahead, *states), (back, *others) = made
    mode = config.get("merge_mode", "concat")
    if ahead is None or back is None:
        return [None]
    if mode is None:
        return [ahead, back, *states, *others]
    wide = None if ahead[-1] is None or back[-1] is None else ahead[-1] + back[-1]
    return [(*ahead[:-1], wide) if mode == "concat" else ahead, *states, *others]


def _normalised(config: Config, inputs: Sequence[MaybeShape]) -> list[Part]:
    return [Part("layer", config["layer"], inputs[:1])]


def _cell_specs(config: Config) -> list[dict[str, Any]]:
    cell: dict[str, Any] = config["cell"]
    return list(cell["config"]["cells"]) if cell["class_name"] == "StackedRNNCells" else [cell]


def _cells(config: Config, inputs: Sequence[MaybeShape]) -> list[Part]:
    specs, step = _cell_specs(config), _step(inputs)
    names = storage_names(spec["class_name"] for spec in specs)
    stacked = config["cell"]["class_name"] == "StackedRNNCells"
    found = []
    for spec, name in zip(specs, names, strict=True):
        found.append(Part(f"cell/cells/{name}" if stacked else "cell", spec, [step]))
        units = spec["config"].get("units")
        step = (step[0], units) if step and units else None
    return found


def _unrolled(config: Config, inputs: Sequence[MaybeShape]) -> list[MaybeShape]:
    shape, units = first(inputs), _cell_specs(config)[-1]["config"].get("units")
    if units is None or config.get("return_state"):
        return [None]
    return [(*shape[:2], units) if config.get("return_sequences") else (shape[0], units)]
