"""Arguments of operations as the config holds them."""

from __future__ import annotations

from typing import Any

from kprune.graph.dialects import is_keras3_node, legacy_kwargs
from kprune.labels.labels import Labels
from kprune.labels.sizes import Number
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.rule_call import CannotTell


def axes_of(value: Any, rank: int) -> list[int]:
    """Axes from an int, a list or None (all), from 0, in order."""
    if value is None:
        return list(range(rank))
    listed = [value] if isinstance(value, int) else list(value)
    if not all(isinstance(axis, int) and -rank <= axis < rank for axis in listed):
        raise CannotTell(f"has the axes {value!r}")
    return sorted({axis % rank for axis in listed})


def one_axis(value: Any, rank: int) -> int:
    """One axis, from 0."""
    (axis,) = axes_of(value, rank) if value is not None else (None,)
    if axis is None:
        raise CannotTell("works on the flattened tensor")
    return axis


def tensors_of(call: LayerCall) -> list[Labels]:
    """The tensors of an operation on a list, such as Concatenate.

    Raises: CannotTell if anything else is among them.
    """
    items = (
        call.args[0]
        if len(call.args) == 1 and isinstance(call.args[0], (list, tuple))
        else call.args
    )
    if not items or not all(isinstance(item, Labels) for item in items):
        raise CannotTell("is given something other than tensors")
    return list(items)


def raw_argument(call: LayerCall, position: int, name: str) -> tuple[Any, Any]:
    """An argument as it stands in the config: (the dict or list that holds it, its key there).

    Raises: CannotTell if the dialect has no place for it.
    """
    nodes = call.layer.spec.get("inbound_nodes")
    if call.graph_call is None or not nodes:
        raise CannotTell("has arguments that the config does not spell out")
    data = nodes[call.graph_call.node]
    if not is_keras3_node(data):
        held = legacy_kwargs(data)
        if name in call.renamed:
            return held, call.renamed[name]
        raise CannotTell("has arguments that the config does not spell out")
    if position < len(data["args"]):
        return data["args"], position
    if name in data["kwargs"]:
        return data["kwargs"], name
    return call.config, name


def sizes_of(call: LayerCall, position: int, name: str) -> list[Number]:
    """An argument that is a list of sizes, and where the config has each of them."""
    holder, key = raw_argument(call, position, name)
    listed = holder[key] if isinstance(holder[key], list) else None
    return [
        Number(None if size is None else int(size), None if listed is None else (listed, index))
        for index, size in enumerate(call.argument(position, name))
    ]
