"""YAML for plans: text to plain data that knows its lines, and plain data to text.

Scalars are read as YAML 1.2 does, so that `no`, `on` and `1e-3` mean what they seem to; keys are
text whatever they look like. Tags are refused, and so is whatever grows without bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from kprune.errors import PlanError
from kprune.limits import PLAN_BYTES, PLAN_ITEMS
from kprune.pointing import point_at, quoted
from kprune.text import clean
from kprune.types import KeyPath

Event = Any  # of yaml: which attributes it has depends on its kind, and the kinds on libyaml

MAX_ALIASED = 100_000  # values that aliases may add to those that are written out
MAX_DEPTH = 32
COLUMNS = 100
TOO_DEEP = f"more than {MAX_DEPTH} levels of nesting"
SPECIAL = "put text that starts with a special character between quotes"

_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A YAML document as plain data.

    Attributes:
        data: dicts with text keys, lists, and scalars.
        places: (line, column) from 0 of each key and list item, by its path; () is the top.
        name: what messages call the file.
        text: the whole text, to show a line of it.
    """

    data: Any
    places: Mapping[KeyPath, tuple[int, int]]
    name: str
    text: str

    def line(self, *path: str | int) -> int:
        """The line, from 1, of what stands at `path`, or of the nearest thing around it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path][0] + 1

    def error(self, what: str, *path: str | int, then: str = "", do: str = "") -> PlanError:
        """A PlanError for the place at `path`: `what in plan.yaml, line 2; then`."""
        while path not in self.places:
            path = path[:-1]
        return plan_error(what, self.name, self.text, self.places[path], then=then, do=do)


def plan_error(
    what: str, name: str, text: str, place: tuple[int, int], *, then: str = "", do: str = ""
) -> PlanError:
    """`what in NAME, line N; then Nothing was written.`, with a caret below the line."""
    line, column = place
    lines = text.split("\n")
    shown = lines[line].rstrip("\r") if line < len(lines) else ""
    end = then if then.endswith("?") else then + "."
    return PlanError(
        f"{what} in {name}, line {line + 1}{'; ' * bool(then)}{end} Nothing was written.",
        where=f"{name}, line {line + 1}\n{point_at(shown, column)}" if shown.strip() else "",
        do=do,
    )


def read_yaml(text: str, name: str, *, as_text: Callable[[KeyPath], bool]) -> Document:
    """Read one YAML document.

    Args:
        text: the document.
        name: what messages call the file.
        as_text: tells the paths whose plain scalars stay text, whatever they look like.
    Raises: PlanError for a syntax error, a duplicate key, a tag, a second document, an alias to
        itself, and a document that is nested too deeply; LimitError for one that is too long.
    """
    PLAN_BYTES.check(len(text), "it", name)
    text = text.removeprefix("\ufeff")
    return _Reader(_events(text, name), name, text, as_text).document()


def _events(text: str, name: str) -> list[Event]:
    try:
        return _shallow(text, name, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        pass
    try:  # once more with the Python parser, whose errors are the same with and without libyaml
        return _shallow(text, name, yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = (before.count("\n"), len(before) - before.rfind("\n") - 1)
        what = f"the character U+{ord(text[error.position]):04X} is not allowed"
        raise plan_error(what, name, text, place) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line, mark.column) if mark else (0, 0)
        lines = text.split("\n")
        line = lines[place[0]] if place[0] < len(lines) else ""
        found, before = line[place[1] : place[1] + 1], line[: place[1]][-1:]
        do = ""
        if found in "@`%*&!>|=" and found:
            do = SPECIAL
        elif found == "\t":
            do = "indent with spaces: YAML does not take tabs"
        elif before and before in "*&":
            do = SPECIAL
        elif found == ":":
            do = "put text that contains ': ' between quotes"
        problem = (error.problem or "malformed").replace("found character '\\t' that", "a tab")
        raise plan_error(f"not YAML: {clean(problem)}", name, text, place, do=do) from None


def _shallow(text: str, name: str, loader: Any) -> list[Event]:
    """All events.

    Raises: PlanError as soon as the nesting is too deep: the parser's time grows with its square;
        LimitError as soon as there are too many.
    """
    events: list[Event] = []
    depth, most = 0, PLAN_ITEMS.value
    event: Event
    for event in yaml.parse(text, Loader=loader):
        depth += _is(event, "MappingStart", "SequenceStart")
        depth -= _is(event, "MappingEnd", "SequenceEnd")
        if depth > MAX_DEPTH:
            mark = event.start_mark
            raise plan_error(TOO_DEEP, name, text, (mark.line, mark.column))
        events.append(event)
        if len(events) > most:
            raise PLAN_ITEMS.exceeded(None, "it", name)
    return events


class _Reader:
    """Builds the data from the events, which still have the lines, duplicate keys and aliases."""

    def __init__(
        self, events: list[Event], name: str, text: str, as_text: Callable[[KeyPath], bool]
    ) -> None:
        self.events, self.name, self.text, self.as_text = events, name, text, as_text
        self.places: dict[KeyPath, tuple[int, int]] = {(): (0, 0)}
        self.anchors: dict[str, int] = {}  # at which event each stands
        self.nodes = 0

    def document(self) -> Document:
        starts = [i for i, event in enumerate(self.events) if _is(event, "DocumentStart")]
        if not starts:
            raise PlanError(f"{self.name} is empty. Nothing was written.")
        if len(starts) > 1:
            raise self.error("a second YAML document", self.events[starts[1]])
        self._find_anchors()
        data, _ = self.node(starts[0] + 1, (), frozenset())
        return Document(data, self.places, self.name, self.text)

    def error(self, what: str, event: Event, **more: str) -> PlanError:
        mark = event.start_mark
        return plan_error(what, self.name, self.text, (mark.line, mark.column), **more)

    def _find_anchors(self) -> None:
        """Notes where the anchors stand: an alias reads the events from there again."""
        for position, event in enumerate(self.events):
            if _is(event, "Scalar", "MappingStart", "SequenceStart"):
                anchor = event.anchor
                if anchor in self.anchors:
                    raise self.error(f"a second anchor {quoted('&' + anchor)}", event)
                if anchor is not None:
                    self.anchors[anchor] = position

    def node(self, position: int, path: KeyPath, inside: frozenset[str]) -> tuple[Any, int]:
        """The data that starts at event `position`, and the position behind it.

        Args:
            inside: the anchors that are being read, to notice one that contains itself.
        """
        event = self.events[position]
        self.nodes += 1
        if self.nodes > len(self.events) + MAX_ALIASED:
            raise self.error(f"more than {MAX_ALIASED} values through aliases", event)
        if len(path) > MAX_DEPTH:
            raise self.error(TOO_DEEP, event)
        anchor = getattr(event, "anchor", None)
        if _is(event, "Alias"):
            assert anchor is not None
            if anchor in inside:
                raise self.error(f"the alias {quoted('*' + anchor)} stands inside itself", event)
            if self.anchors.get(anchor, position) >= position:
                raise self.error(f"no anchor before the alias {quoted('*' + anchor)}", event)
            return self.node(self.anchors[anchor], path, inside)[0], position + 1
        if anchor is not None:
            inside |= {anchor}
        tag = event.tag
        if tag is not None and tag != "!":
            shown = re.sub("^tag:yaml.org,2002:", "!!", tag)
            raise self.error(
                f"a YAML tag, {quoted(shown)},", event, do=f'put it between quotes: "{shown}"'
            )
        if _is(event, "Scalar"):
            plain = event.implicit[0] and not self.as_text(path)
            value = event.value
            return (self.scalar(value, event) if plain else value), position + 1
        if _is(event, "SequenceStart"):
            return self.sequence(position + 1, path, inside)
        return self.mapping(position + 1, path, inside)

    def sequence(
        self, position: int, path: KeyPath, inside: frozenset[str]
    ) -> tuple[list[Any], int]:
        items: list[Any] = []
        while not _is(self.events[position], "SequenceEnd"):
            here = (*path, len(items))
            self.note(here, position)
            item, position = self.node(position, here, inside)
            items.append(item)
        return items, position + 1

    def mapping(
        self, position: int, path: KeyPath, inside: frozenset[str]
    ) -> tuple[dict[str, Any], int]:
        result: dict[str, Any] = {}
        while not _is(event := self.events[position], "MappingEnd"):
            if not _is(event, "Scalar"):
                raise self.error("a key that is not text", event)
            key = event.value
            here = (*path, key)
            if key in result:
                first = self.places[here][0] + 1
                raise self.error(
                    f"a second key {quoted(key)}", event, then=f"the first is in line {first}"
                )
            self.note(here, position)
            result[key], position = self.node(position + 1, here, inside)
        return result, position + 1

    def note(self, path: KeyPath, position: int) -> None:
        mark = self.events[position].start_mark
        self.places[path] = (mark.line, mark.column)

    def scalar(self, text: str, event: Event) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > 100:
                raise self.error("a number of more than 100 digits", event)
            return int(text.replace("_", ""))
        return float(text) if _FLOAT.fullmatch(text) else text


def _is(event: Event, *kinds: str) -> bool:
    return type(event).__name__.removesuffix("Event") in kinds


# What stands unquoted in the plans we print: nothing that any version of YAML reads otherwise.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*-]*")
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def write_scalar(value: str | int | float | bool) -> str:
    """One scalar on one line: text between double quotes unless it is a plain word."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def write_key(key: str, indent: int) -> str:
    """`key:`, indented; a key too long for YAML's short form gets the long one."""
    shown = write_scalar(key)
    if len(shown) < 1000:  # a simple key has at most 1024 characters (YAML 1.2, 7.4.2)
        return f"{' ' * indent}{shown}:"
    return f"{' ' * indent}? {shown}\n{' ' * indent}:"


def write_flow(values: Sequence[Any] | Mapping[str, Any]) -> str:
    """`[a, b]` or `{a: b}` on one line."""
    if isinstance(values, Mapping):
        inner = (f"{write_scalar(key)}: {write_scalar(value)}" for key, value in values.items())
        return "{" + ", ".join(inner) + "}"
    return "[" + ", ".join(map(write_scalar, values)) + "]"


def wrap_flow(head: str, values: Sequence[Any], indent: int) -> Iterator[str]:
    """The lines of `head [a, b, …]`, none longer than COLUMNS unless one value is."""
    line = f"{head} ["
    for position, value in enumerate(values):
        text = write_scalar(value) + ("," if position + 1 < len(values) else "]")
        if len(line) + 1 + len(text) > COLUMNS and not line.endswith("["):
            yield line
            line = " " * indent + text
        else:
            line += text if line.endswith("[") else " " + text
    yield line if values else line + "]"
