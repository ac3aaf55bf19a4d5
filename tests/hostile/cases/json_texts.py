"""config.json and metadata.json that are no JSON, too much of it, or of other types than are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.hostile.case import add, add_all
from tests.hostile.seeds import COMPILED, Config, changed_config, config, keras, layer

TEXT = json.dumps(config())
CONFIG, METADATA = "config.json", "metadata.json"


def text(changed: str | bytes) -> Callable[[], bytes]:
    """A file whose config.json is this text."""
    return lambda: keras(config=changed if isinstance(changed, bytes) else changed.encode())


def described(changed: str | bytes) -> Callable[[], bytes]:
    """A file whose metadata.json is this text."""
    return lambda: keras(metadata=changed if isinstance(changed, bytes) else changed.encode())


def nested(depth: int, start: str = "[", end: str = "]") -> str:
    return start * depth + end * depth


def units(value: str) -> Callable[[], bytes]:
    """A file whose layer `a` has these units, as JSON writes them."""
    return text(TEXT.replace('"units": 6', f'"units": {value}'))


add_all("json", {
    "config.json is empty": (text(""), CONFIG),
    "config.json is blank": (text(" \n"), CONFIG),
    "config.json is cut short": (text(TEXT[:-50]), CONFIG),
    "config.json is YAML": (text("class_name: Sequential\n"), CONFIG),
    "config.json is a list": (text("[]"), CONFIG),
    "config.json is a text": (text('"model"'), CONFIG),
    "config.json is a number": (text("3"), CONFIG),
    "config.json is null": (text("null"), CONFIG),
    "config.json is binary": (text(bytes(range(256))), CONFIG),
    "config.json is Latin-1": (text(TEXT.replace("model", "modèle").encode("latin-1")), CONFIG),
    "config.json has two documents": (text(TEXT + TEXT), CONFIG),
    "config.json has a comment": (text(TEXT + "// the end"), CONFIG),
    "config.json has a comma too many": (text(TEXT[:-1] + ",}"), CONFIG),
    "config.json has single quotes": (text(TEXT.replace('"', "'")), CONFIG),
    "config.json is nested 900 deep": (
        text('{"class_name": "Sequential", "config": ' + nested(900) + "}"), CONFIG),
    "config.json is nested a million deep": (text(nested(1_000_000)), CONFIG),
    "objects nested 50,000 deep": (text(nested(50_000, '{"a":', "}")), CONFIG),
    "a layer's config nested 5,000 deep": (
        units('{"a":' * 5000 + "6" + "}" * 5000), CONFIG),
    "a list of ten million numbers": (
        text('{"config": [' + "0," * 10_000_000 + "0]}"), CONFIG),
    "a number of 100,000 digits": (units("1" * 100_000), CONFIG),
    "units of 1e400": (units("1e400"), "'a'"),
    "units that are no number (NaN)": (units("NaN"), "'a'"),
    "infinite units": (units("Infinity"), "'a'"),
    "units given twice": (units('6, "units": 7'), "'a'"),
    "metadata.json is empty": (described(""), METADATA),
    "metadata.json is a list": (described("[]"), METADATA),
    "metadata.json is no JSON": (described("keras 3"), METADATA),
    "metadata.json is nested a million deep": (described(nested(1_000_000)), METADATA),
    "metadata.json is binary": (described(b"\xff\xfe\0"), METADATA),
})  # fmt: skip


# -- other types than are read -------------------------------------------------------------------

OTHERS: dict[str, Any] = {
    "null": None, "a flag": True, "a number": 3, "a fraction": 2.5, "a text": "x", "a list": [1],
    "an object": {"k": 1},
}  # fmt: skip


def put(*path: str | int, value: Any) -> Callable[[], bytes]:
    """A file whose config has another value at a path; a layer's begins with its name."""

    def change(made: Config) -> None:
        head, *rest = path
        place: Any = layer(made, head[1:]) if str(head).startswith("@") else made
        keys = rest if str(head).startswith("@") else [head, *rest]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return lambda: changed_config(change)


# By key: the values that are wrong there.
WRONG: dict[tuple[str | int, ...], str] = {
    ("class_name",): "null, a number, a list, an object",
    ("config",): "a number, a text, a list",
    ("config", "layers"): "null, a number, a text, a list, an object",
    ("config", "input_layers"): "a number, a text, a list, an object",
    ("config", "output_layers"): "a number, a text, a list, an object",
    ("config", "layers", 1): "null, a number, a text, a list",
    ("@a", "class_name"): "null, a number, a list, an object",
    ("@a", "config"): "null, a number, a text, a list",
    ("@a", "inbound_nodes"): "a number, a text, a list, an object",
    ("@a", "inbound_nodes", 0, "args"): "a number, a text",
    ("@a", "inbound_nodes", 0, "kwargs"): "a number, a text, a list",
    ("@a", "config", "units"): "null, a flag, a fraction, a text, a list, an object",
    ("@in", "config", "batch_shape"): "a number, a text, an object",
}
for path, kinds in WRONG.items():
    called = " ".join(str(part) for part in path)
    for kind in kinds.split(", "):
        add(f"types/{called} is {kind}", put(*path, value=OTHERS[kind]))

# What a layer does with such a value only Keras knows: its units stay where they are.
UNKNOWN: dict[tuple[str | int, ...], str] = {
    ("@a", "config", "activation"): "a number, a list",
    ("@a", "inbound_nodes", 0, "args"): "a list",
    ("@bn", "config", "axis"): "a text, an object",
}
for path, kinds in UNKNOWN.items():
    called = " ".join(str(part) for part in path)
    for kind in kinds.split(", "):
        make = put(*path, value=OTHERS[kind])
        add(f"types/{called} is {kind}", make, code=3, inspect_code=0)

# compile_config and the like say what a model was trained with: a wrong one hinders no cut.
for kind in ("a number", "a text", "a list"):
    add(
        f"types/compile_config is {kind}",
        put("compile_config", value=OTHERS[kind]),
        code=0,
        inspect_code=0,
    )
    add(
        f"types/compile_config's optimizer is {kind}",
        put("compile_config", value=COMPILED | {"optimizer": OTHERS[kind]}),
        code=0,
        inspect_code=0,
    )
