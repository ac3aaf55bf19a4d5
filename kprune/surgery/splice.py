"""Layers inserted into the config of a Functional model, and removed from it.

In both dialects every reader of a tensor spells where it comes from: a row [layer, node, tensor]. A
layer that comes in between changes the rows of all readers of the layer in front of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kprune.graph.dialects import is_keras3_node, legacy_rows


def insert_behind(
    config: dict[str, Any],
    name: str,
    spec: dict[str, Any],
    nodes: list[int],
    unread: dict[str, Any],
) -> None:
    """Put a layer behind every tensor that another one gives; the readers of those read the new layer's.

    Args:
        config: of the model.
        name: of the layer.
        spec: of the new one.
        nodes: the numbers of the layer's calls.
        unread: shape and dtype of its first output, for one that no call reads: the model's outputs
            record none.
    """
    _count_outputs(config, -1)
    new = spec["config"]["name"]
    shapes: dict[tuple[int, int], dict[str, Any]] = {}
    tensors = {(node, 0) for node in nodes or [0]}
    for history, record in _histories(config, name):
        if record.get("shape") is not None:
            shapes.setdefault((history[1], history[2]), record)
        tensors.add((history[1], history[2]))
    order = {
        key: number for number, key in enumerate(sorted(tensors, key=lambda key: (key[1], key[0])))
    }
    for history, _ in _histories(config, name):
        history[:3] = [new, order[history[1], history[2]], 0]
    inbound: list[Any] = []
    keras3 = _has_keras3_nodes(config)
    for node, index in order:
        if not keras3:
            inbound.append([[name, node, index, {}]])
            continue
        record = shapes.get((node, index)) or next(iter(shapes.values()), unread)
        inbound.append(
            {
                "args": [
                    {
                        "class_name": "__keras_tensor__",
                        "config": {**record, "keras_history": [name, node, index]},
                    }
                ],
                "kwargs": {},
            }
        )
    at = next(i for i, entry in enumerate(config["layers"]) if entry_name(entry) == name)
    config["layers"].insert(at + 1, {**spec, "name": new, "inbound_nodes": inbound})
    _count_outputs(config, +1)


def take_out(config: dict[str, Any], entry: dict[str, Any]) -> None:
    """Take a layer of one input out of a model; its readers then read its input."""
    _count_outputs(config, -1)
    sources = [_first_source(node) for node in entry["inbound_nodes"]]
    for history, _ in _histories(config, entry_name(entry)):
        history[:3] = sources[history[1]]
    config["layers"].remove(entry)
    _count_outputs(config, +1)


def rewire(
    config: dict[str, Any],
    gone: Collection[str],
    instead: Mapping[tuple[str, int, int], tuple[str, int, int]],
    addends: Mapping[tuple[str, int], Collection[int]],
) -> None:
    """Take layers out of a model; the readers of these tensors read others.

    Args:
        config: of the model.
        gone: names of the layers.
        instead: by [layer, node, tensor] that is read no more, the one that is read in its place.
        addends: by call (layer, node) of an Add that stays, which of its inputs it loses.
    """
    layers = config["layers"]
    for (name, node), places in addends.items():
        entry = next(entry for entry in layers if entry_name(entry) == name)
        if name not in gone:
            data = entry["inbound_nodes"][node]
            listed = data["args"][0] if is_keras3_node(data) else data
            listed[:] = [item for place, item in enumerate(listed) if place not in places]
            entry.pop("build_config", None)  # it lists a shape for each input
    if "input_layers" in config:
        _count_outputs(config, -1)
        for name in {key[0] for key in instead}:
            for history, _ in _histories(config, name):
                history[:3] = instead.get((history[0], history[1], history[2]), history[:3])
        layers[:] = [entry for entry in layers if entry_name(entry) not in gone]
        _count_outputs(config, +1)
    else:
        layers[:] = [entry for entry in layers if entry_name(entry) not in gone]


def entry_name(entry: dict[str, Any]) -> str:
    """The name of a layer in the list of a model's layers."""
    return str(entry.get("name") or entry["config"]["name"])


def _count_outputs(config: dict[str, Any], step: int) -> None:
    """Count calls of nested Functional models among the outputs as calls do (-1), or as Keras 3 does (+1).

    See `kprune.graph.parse`: from 1 in this one place.
    """
    nested = {
        entry_name(entry): len(entry["inbound_nodes"])
        for entry in config["layers"]
        if "input_layers" in entry["config"]
        and is_keras3_node((entry.get("inbound_nodes") or [None])[0])
    }

    def count(value: Any) -> None:
        if isinstance(value, list) and len(value) == 3 and isinstance(value[1], int):
            if value[0] in nested:
                # Keras takes 0 for the last.
                value[1] = nested[value[0]] - 1 if value[1] + step < 0 else value[1] + step
            return
        for item in value.values() if isinstance(value, dict) else value:
            count(item)

    count(config["output_layers"])


def _histories(config: dict[str, Any], name: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """Every place in a Functional config that reads a layer: the [layer, node, tensor] rows, with their tensors' dicts.

    Rows of the model's outputs come with a dict of no shape, for they record none.
    """
    found: list[tuple[list[Any], dict[str, Any]]] = []

    def search(value: Any) -> None:
        if isinstance(value, dict):
            inner = value.get("config")
            if value.get("class_name") == "__keras_tensor__" and isinstance(inner, dict):
                if inner["keras_history"][0] == name:
                    shape = {key: item for key, item in inner.items() if key != "keras_history"}
                    found.append((inner["keras_history"], shape))
                return
            for item in value.values():
                search(item)
        elif isinstance(value, list):
            # Keras 2 adds the other arguments to a row, which may name tensors as well.
            if len(value) in (3, 4) and value[0] == name and isinstance(value[1], int):
                found.append((value, {"shape": None, "dtype": "float32"}))
            for item in value:
                search(item)

    for entry in config["layers"]:
        search(entry.get("inbound_nodes"))
    search(config["output_layers"])
    found.sort(key=lambda item: item[1].get("shape") is None)
    return found


def _has_keras3_nodes(config: dict[str, Any]) -> bool:
    nodes = [node for entry in config["layers"] for node in entry.get("inbound_nodes") or ()]
    return not nodes or is_keras3_node(nodes[0])


def _first_source(node: Any) -> list[Any]:
    """[layer, node, tensor] of what a call reads first, in either dialect."""
    row = (
        node["args"][0]["config"]["keras_history"] if is_keras3_node(node) else legacy_rows(node)[0]
    )
    return list(row[:3])
