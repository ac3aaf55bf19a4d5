"""The traced code of a layer, as data: its graph, its weights, and the interface of the tracer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kprune.graph.model import Shape


class Untraceable(Exception):
    """A layer's code cannot be traced; the text goes on after "'gate' is a my_package>Gate layer, ".

    Attributes:
        error: what the code raised; "" if it raised nothing.
    """

    def __init__(self, text: str, error: str = "") -> None:
        super().__init__(text)
        self.error = error


@dataclass(frozen=True)
class Tensor:
    """What a layer is called on: a shape, batch first, and a dtype if it is known."""

    shape: Shape
    dtype: str | None


@dataclass(frozen=True)
class Held:
    """A weight of a traced layer.

    Attributes:
        name: Keras's name.
        path: where it is stored, below the group of the layer: `vars/0`, `dense/vars/1`.
        input: the input of the graph that stands for it; None if it belongs to a layer of the graph.
    """

    name: str
    path: str
    shape: Shape
    trainable: bool
    input: str | None = None


@dataclass(frozen=True)
class Part:
    """The layer, or one inside it, as Keras keeps it.

    Attributes:
        name: the layer's name in the graph if it is one of Keras's own; else what its parent calls it.
        kind: class name.
        own: whether it is Keras's own, and so a layer of the graph; its weights are all that it holds.
        weights: in Keras's order; `parts` come after them.
    """

    name: str
    kind: str
    own: bool
    weights: tuple[Held, ...]
    parts: tuple[Part, ...] = ()

    def all_weights(self) -> Iterator[Held]:
        yield from self.weights
        for part in self.parts:
            yield from part.all_weights()


@dataclass(frozen=True, eq=False)
class TracedCode:
    """What a layer does, as a graph.

    Attributes:
        config: of a Functional model. Its inputs are the tensors, in the order of the call's leaves,
            and then the weights (`Held.input`).
        whole: the layer with the layers inside it.
        masked: the mask of time steps that the code was given is a further input, the last.
        invented: tensors that the code makes by itself, such as noise for a batch of any size; they
            are inputs behind the weights.
        gives: the shapes of its outputs, where the graph does not record them.
    """

    config: dict[str, Any] = field(repr=False)
    whole: Part
    masked: bool = False
    gives: tuple[Shape, ...] = ()
    invented: tuple[Held, ...] = ()


class CodeTracer(Protocol):
    """Has layers traced."""

    def trace(self, spec: dict[str, Any], arguments: Any) -> Sequence[TracedCode]:
        """What a layer does: once for each way in which Keras may call it.

        Args:
            spec: the layer's dict in the config.
            arguments: (args, kwargs) of the call, with a `Tensor` in place of each tensor.
        Raises: Untraceable.
        """


def canonical(config: dict[str, Any]) -> Any:
    """A graph's config with its names numbered and without what Keras works out anew.

    Two traces of one layer differ in the names that Keras makes up.
    """
    names: dict[str, str] = {}

    def number(value: Any) -> None:
        if isinstance(value, dict):
            config = value.get("config")
            name = config.get("name") if isinstance(config, dict) else None
            if isinstance(name, str) and not str(value.get("class_name")).endswith("Policy"):
                names.setdefault(name, f"#{len(names)}")
            for item in value.values():
                number(item)
        elif isinstance(value, list):
            for item in value:
                number(item)

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items() if key != "build_config"}
        if isinstance(value, (list, tuple)):
            return [renamed(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    number(config)
    return renamed(config)
