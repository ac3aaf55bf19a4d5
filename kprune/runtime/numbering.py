"""Names in the graphs of traced code: numbered from 0, as Keras counts on over all that it ever built."""

from __future__ import annotations

from typing import Any

_TENSORFLOW = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")


def numbered(config: dict[str, Any]) -> dict[str, Any]:
    """A graph's config, its operations renamed in place.

    Args:
        config: of a Functional model, as Keras 3 or Keras 2 writes it.
    """
    counts: dict[str, int] = {}
    names: dict[str, str] = {}
    for entry in config["config"]["layers"]:
        own = str(entry.get("module", "")).startswith("keras.src.ops")
        if not own and entry["class_name"] not in _TENSORFLOW:
            continue
        kind = str(entry["name"]).rstrip("0123456789").rstrip("_")
        counts[kind] = counts.get(kind, -1) + 1
        kind_name = f"ops.{kind}" if own else kind
        names[entry["name"]] = f"{kind_name}_{counts[kind]}" if counts[kind] else kind_name
    for entry in config["config"]["layers"]:
        _rename(entry.get("inbound_nodes", []), names)
        if entry["name"] in names:
            entry["config"]["name"] = entry["name"] = names[entry["name"]]
    _rename(config["config"]["output_layers"], names)
    config["config"]["name"] = config["name"] = "code"
    return config


def _rename(value: Any, names: dict[str, str]) -> None:
    """Rename the operations in rows [name, call, output], of which Keras 2's may hold arguments too."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return
    if len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int):
        value[0] = names.get(value[0], value[0])
        value = value[3:]
    for item in value:
        _rename(item, names)
