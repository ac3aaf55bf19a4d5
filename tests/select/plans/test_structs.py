"""The JSON Schema of plans accepts and refuses what the parser does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given

from kprune.select.plans.plan import plan_schema, plan_to_yaml
from kprune.select.plans.yaml_text import read_yaml
from tests.select.plan_texts import REFUSED
from tests.select.random_plans import plans

TEXTS = (("exclude",), ("classes",), ("class_layer",), ("keep_tokens",))


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """JSON Schema, as much of it as `plan_schema` uses; an unknown keyword is an error."""
    if isinstance(schema, bool):
        return schema
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    for keyword, said in schema.items():
        match keyword:
            case "$schema" | "title" | "description" | "default" | "$defs" | "then" | "else":
                holds = True
            case "allOf":
                holds = all(conforms(value, one, root) for one in said)
            case "if":
                branch = "then" if conforms(value, said, root) else "else"
                holds = conforms(value, schema.get(branch, {}), root)
            case "const":
                holds = value == said
            case "$ref":
                holds = conforms(value, root["$defs"][said.removeprefix("#/$defs/")], root)
            case "type" if said == "number":
                holds = isinstance(value, (int, float)) and not isinstance(value, bool)
            case "type":
                holds = isinstance(value, types[said]) and (
                    said != "integer" or not isinstance(value, bool)
                )
            case "enum":
                holds = value in said
            case "anyOf":
                holds = any(conforms(value, one, root) for one in said)
            case "oneOf":
                holds = sum(conforms(value, one, root) for one in said) == 1
            case "required":
                holds = not isinstance(value, dict) or set(said) <= set(value)
            case "properties":
                holds = not isinstance(value, dict) or all(
                    conforms(value[key], said[key], root) for key in said if key in value
                )
            case "additionalProperties":
                rest = set(value) - set(schema.get("properties", {})) if type(value) is dict else ()
                holds = all(said is not False and conforms(value[key], said, root) for key in rest)
            case "dependentRequired":
                holds = not isinstance(value, dict) or all(
                    set(said[key]) <= set(value) for key in said if key in value
                )
            case "items":
                holds = not isinstance(value, list) or all(conforms(v, said, root) for v in value)
            case "minItems" | "minProperties":
                holds = not isinstance(value, (list, dict)) or len(value) >= said
            case "maxProperties":
                holds = len(value) <= said
            case "minimum":
                holds = not isinstance(value, (int, float)) or value >= said
            case "exclusiveMinimum":
                holds = not isinstance(value, (int, float)) or value > said
            case "exclusiveMaximum":
                holds = not isinstance(value, (int, float)) or value < said
            case "pattern":
                holds = not isinstance(value, str) or re.search(said, value) is not None
            case _:
                raise AssertionError(f"this test does not know {keyword!r}")
        if not holds:
            return False
    return True


@given(plans)
def test_the_schema_accepts_what_the_parser_accepts(plan):
    schema = json.loads(json.dumps(plan_schema()))
    text = plan_to_yaml(plan)
    data = read_yaml(text, "p", as_text=lambda path: path[2:3] in TEXTS).data
    assert conforms(data, schema, schema)


BEYOND_A_SCHEMA = (
    "outgoing: true", ".nan", '"": [1]', "a: 3,x", "meen", "oops", "below: 0.1", "compact, exclude", "a lot",
    "global: true", "target_bytes: 9k", "target_flops: 5M", "classes: cat",
)  # fmt: skip


@pytest.mark.parametrize(
    "text", [text for text in REFUSED if not any(part in text for part in BEYOND_A_SCHEMA)]
)
def test_the_schema_refuses_what_the_parser_refuses(text):
    schema = plan_schema()
    data = read_yaml(text, "p", as_text=lambda path: path[2:3] in TEXTS).data
    assert not conforms(data, schema, schema)


def test_the_schema_describes_its_keys_for_an_editor():
    schema = plan_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in ("Step", "LayerChoice"):
        for name, field in schema["$defs"][part]["properties"].items():
            assert field.get("description"), f"{part}.{name}"
    assert "null" not in json.dumps(schema)
