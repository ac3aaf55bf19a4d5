"""JSON from a file is measured before it is parsed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

import kprune
from kprune.errors import DamagedFileError, LimitError
from kprune.formats import bounded_json
from kprune.formats.bounded_json import json_object, json_value

LEAVES = [1, 2.5, None, "a", '[["{', ']}"', "\\", '"', '\\"', 'a\\\\"b,', "\u5b22[", ",,,"]


def some_value(source: random.Random, levels: int) -> Any:
    """Lists and dicts in each other, with signs in texts and keys that are none of JSON's."""
    kind = source.random()
    if levels == 0 or kind < 0.3:
        return source.choice(LEAVES)
    if kind < 0.65:
        return [some_value(source, levels - 1) for _ in range(source.randint(0, 4))]
    keys = (source.choice('a"\\[]{},') + str(number) for number in range(source.randint(0, 4)))
    return {key: some_value(source, levels - 1) for key in keys}


def counted(value: Any, level: int = 1) -> tuple[int, int]:
    """Opening brackets and commas of a value, and how deep it is; the slow way."""
    if not isinstance(value, (list, dict)):
        return 0, 0
    inside = [
        counted(item, level + 1) for item in (value.values() if isinstance(value, dict) else value)
    ]
    commas = max(0, len(inside) - 1)
    return 1 + commas + sum(n for n, _ in inside), max([level, *(deep for _, deep in inside)])


@pytest.mark.parametrize("block", [1 << 20, 7, 1])
def test_items_and_levels_are_those_of_the_value(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_json, "_BLOCK", block)
    source = random.Random(1)
    for _ in range(500):
        value = some_value(source, 6)
        for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
            assert bounded_json._measured(text.encode()) == counted(value)


def test_what_is_too_long_too_deep_or_too_much_is_refused_by_the_name_of_the_limit() -> None:
    with kprune.limit(json_bytes=10), pytest.raises(LimitError, match=r"m\.keras") as refused:
        json_value(b"[1, 2, 3, 4]", "m.keras", "config.json")
    assert refused.value.why == "config.json has 12 bytes; limit json-bytes, 10"
    with kprune.limit(json_items=3), pytest.raises(LimitError, match=r"m\.keras") as refused:
        json_value(b"[1, 2, 3, 4]", "m.keras", "config.json")
    assert refused.value.why == "config.json has 4 items; limit json-items, 3"
    with kprune.limit(json_levels=2), pytest.raises(LimitError, match=r"m\.keras") as refused:
        json_value(b"[[[1]]]", "m.keras", "config.json")
    assert refused.value.why == "config.json has 3 levels; limit json-levels, 2"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_another_encoding_hides_nothing(encoding: str) -> None:
    """U+225B has the bytes of a quotation mark and of a bracket."""
    text = '["≛", ' + "[" * 400 + "]" * 400 + "]"
    with pytest.raises(LimitError):
        json_value(text.encode(encoding), "m.keras", "config.json")
    assert json_value('["≛", [1]]'.encode(encoding), "m.keras", "config.json") == ["≛", [1]]


def test_a_text_that_is_no_json_is_measured_up_to_its_fault() -> None:
    for text in (b"[" * 100_000, b'{"a":' * 100_000, b'\\"' + b"[" * 100_000):
        with pytest.raises(LimitError):
            json_value(text, "m.keras", "config.json")
    with pytest.raises(DamagedFileError, match=r"m\.keras is damaged"):
        json_value(b"]]]]", "m.keras", "config.json")


def test_an_object_is_an_object() -> None:
    with pytest.raises(DamagedFileError) as refused:
        json_object(b"[1]", "m.keras", "config.json")
    assert refused.value.why == "config.json holds a list, not an object"


def test_a_number_that_no_float_holds_is_damage() -> None:
    json_value(b"[" + b"9" * 307 + b', "' + b"a" * 400 + b'"]', "m.keras", "config.json")
    with pytest.raises(DamagedFileError) as refused:
        json_value(b"[1, " + b"9" * 309 + b"]", "m.keras", "config.json")
    assert refused.value.why == "it has a number of more than 308 digits"
