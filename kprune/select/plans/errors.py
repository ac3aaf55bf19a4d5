"""Errors of msgspec about a plan, as sentences with the line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from kprune.errors import PlanError
from kprune.pointing import did_you_mean, quoted
from kprune.select.plans.structs import (
    Backend,
    Expect,
    InvalidPlan,
    LayerChoice,
    LayerValue,
    ModelCheck,
    Plan,
    Step,
)
from kprune.select.plans.yaml_text import Document
from kprune.select.ranking.options import WORDS as RANKED
from kprune.text import clean
from kprune.types import KeyPath

Part = tuple[KeyPath, Any, type[msgspec.Struct]]


def refuse_nothing(document: Document) -> None:
    """Raises: PlanError for a key without a value, which the schema would take for its default."""

    def look(data: Any, path: KeyPath) -> None:
        if data is None:
            raise document.error(f"no value for {called(path)}", *path)
        if isinstance(data, (dict, list)):
            for key, value in data.items() if isinstance(data, dict) else enumerate(data):
                look(value, (*path, key))

    look(document.data, ())


def refuse_unknown_keys(
    document: Document, parts: Iterable[Part], elsewhere: Mapping[str, str]
) -> None:
    """Raises: PlanError for a key that the schema does not have, with the one that was meant.

    Args:
        parts: what stands for a struct if it is a mapping, where it is and which one.
        elsewhere: keys of the whole that belong to another kind of plan, and what to do with such.

    Not left to msgspec, whose message would mix the key, which may be any text, with its path.
    """
    for path, mapping, struct in parts:
        for key in mapping if isinstance(mapping, dict) else ():
            if key not in struct.__struct_encode_fields__:
                do = "" if path else elsewhere.get(key, "")
                then = "" if do else did_you_mean(key, struct.__struct_encode_fields__)
                raise document.error(f"unknown key {quoted(key)}", *path, key, then=then, do=do)


def parts_of_plan(data: Any) -> list[Part]:
    """What stands for a struct in a plan of steps."""
    steps = data.get("steps") if isinstance(data, dict) else None
    found: list[Part] = [((), data, Plan)]
    for key, struct in (("model", ModelCheck), ("expect", Expect)):
        if isinstance(data, dict):
            found.append(((key,), data.get(key), struct))
    for count, step in enumerate(steps if isinstance(steps, list) else ()):
        found.append((("steps", count), step, Step))
        layers = step.get("layers") if isinstance(step, dict) else None
        for name, value in layers.items() if isinstance(layers, dict) else ():
            found.append((("steps", count, "layers", name), value, LayerChoice))
    return found


_WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
    "object": "a mapping", "array": "a list", "null": "nothing",
}  # fmt: skip
_MISSING = re.compile(r"Object missing required field `(?P<key>\w+)`")
_TYPE = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")
_BOUND = re.compile(r"Expected `(?P<wanted>int|float)` (?P<sign>[<>]=?) (?P<bound>[-.\de]+)")
_ENUM = re.compile(r"Invalid enum value (?P<got>.*)", re.DOTALL)


WORDS: dict[str, Any] = {"backend": Backend, **RANKED}
"""The keys whose value is one of a few words."""


def explained(
    error: msgspec.ValidationError, document: Document, words_of: Mapping[str, Any] = WORDS
) -> PlanError:
    """msgspec's message, as a sentence about a line of the plan.

    Args:
        words_of: the keys whose value is one of a few words, and the type that lists them.

    The wording matched here is that of msgspec 0.19 to 0.22; any other is passed on as it is.
    """
    message, path = _place(error, document.data)
    if isinstance(error.__cause__, InvalidPlan):
        cause = error.__cause__
        return document.error(cause.what, *path, *cause.path, do=cause.do)
    if found := _MISSING.fullmatch(message):
        inside = f" in {called(path)}" if path else ""
        return document.error(f"no {quoted(found['key'])}{inside}", *path)
    if found := _TYPE.fullmatch(message):
        wanted = _either([_WORDS.get(word, word) for word in found["wanted"].split(" | ")])
        got = _WORDS.get(found["got"], found["got"])
        return document.error(f"{called(path)} is {got}", *path, then=f"it must be {wanted}")
    if found := _BOUND.fullmatch(message):
        bound = f"{float(found['bound']):.10g}"
        sign = {"<=": "at most ", ">=": "at least ", ">": "more than ", "<": "less than "}
        limit = sign[found["sign"]] + bound
        return document.error(f"{called(path)} is out of range", *path, then=f"it must be {limit}")
    if found := _ENUM.fullmatch(message):
        if path == ("version",):
            then = "this kprune reads version 1"
            return document.error(f"'version' is {found['got']}", *path, then=then)
        words = get_args(words_of[str(path[-1])])
        then = did_you_mean(found["got"].strip("'"), words)
        then = then or f"there are {', '.join(words)}"
        return document.error(f"{called(path)} is {clean(found['got'])}", *path, then=then)
    # msgspec has one class for all of these: its words tell them apart.
    if "of length >= 1" in message:
        return document.error(f"{called(path)} is empty", *path)
    if "matching regex" in message:
        then = 'write a number, or a comparison such as "<= 1300000"'
        return document.error(f"{called(path)} is not a comparison", *path, then=then)
    return document.error(message, *path)


def _place(error: msgspec.ValidationError, data: Any) -> tuple[str, KeyPath]:
    """The message without msgspec's path, and that path with the layer's name, which it omits."""
    message, _, shown = str(error).rpartition(" - at `$")
    if not message:
        return str(error), ()
    path: list[str | int] = []
    for key, position, _any in re.findall(r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])", shown):
        if key or position:
            path.append(key or int(position))
        else:
            layers = data["steps"][path[1]]["layers"]
            path.append(next(name for name, value in layers.items() if _fails_with(message, value)))
    return message, tuple(path)


def _fails_with(message: str, value: Any) -> bool:
    try:
        msgspec.convert(value, LayerValue)
    except msgspec.ValidationError as error:
        return str(error).partition(" - at `$")[0] == message
    return False


def called(path: KeyPath) -> str:
    """What a sentence calls the part at `path`."""
    if not path:
        return "the plan"
    last = path[-1]
    if isinstance(last, str):
        return quoted(last)
    return (
        f"step {last + 1}" if path[:-1] == ("steps",) else f"item {last + 1} of {called(path[:-1])}"
    )


def _either(words: list[str]) -> str:
    words = [word for word in words if word != _WORDS["null"]]
    return ", ".join(words[:-1]) + " or " + words[-1] if words[1:] else words[0]
