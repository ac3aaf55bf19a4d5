"""Which units of one layer: `3,7,12`, `0-99/2`, `-1`, `!3,7`, `@drop.txt`, `where(…)`, or a list.

Text is parsed without knowing the layer; `resolve` then says which units that is, of so many.

    INDICES   ITEMS | !ITEMS | @FILE | !@FILE | where(EXPRESSION)
    ITEMS     ITEM,ITEM,...
    ITEM      NUMBER | NUMBER-NUMBER | NUMBER-NUMBER/STEP

A negative number counts from the end, in ranges too: `-3--1` is the last three, `8--1` is 8 to the
last. Ranges include both ends and run upwards. Spaces mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from kprune.errors import IndexRangeError, SpecError, UsageError
from kprune.pointing import Source, quoted
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.select.naming.expressions import Expression

HOW_TO_WRITE = "write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)"

ITEM = re.compile(r"\s*(-?[0-9]+)(?:\s*-\s*(-?[0-9]+)(?:\s*/\s*([0-9]+))?)?\s*")
WHERE = re.compile(r"\s*where\s*\(")
_FAR = 10**18  # what a number too long to be a unit counts as; it fits in an int64


class Indices(Struct, frozen=True, kw_only=True):
    """A choice of units, before it is known how many there are. Immutable; see the kinds below.

    Attributes:
        source: the text, for messages; for a Python value, a description of it.
        expression: what `where(...)` holds; None for all other kinds.
    """

    source: Source
    expression: Expression | None = None

    def resolve(
        self,
        size: int,
        *,
        what: str,
        env: Mapping[str, np.ndarray] | None = None,
        allow_empty: bool = False,
    ) -> np.ndarray:
        """Say which units these are.

        Args:
            size: how many units the layer has.
            what: how a message calls the layer, such as `layer 'dense_1'`.
            env: the statistics that `expression.names` asks for, if there is an expression.
            allow_empty: whether no unit is an answer, as for one of several layers that match.
        Returns: sorted unique int64 (k,), each in [0, size).
        Raises: IndexRangeError for a unit the layer does not have, UsageError for an empty choice,
            ExpressionError for an expression that cannot be evaluated, FileError and SpecError for
            a file of indices.
        """
        chosen = self._chosen(size, what, env)
        if not chosen.any() and not allow_empty:
            raise UsageError(
                f"no unit of {what} is chosen",
                where=self.source.at(0, len(self.text)),
                why=self._why_empty(size),
            )
        return np.flatnonzero(chosen).astype(np.int64)

    @property
    def text(self) -> str:
        return self.source.text[self.source.offset :]

    def __str__(self) -> str:
        return self.text

    def _chosen(
        self, size: int, what: str, env: Mapping[str, np.ndarray] | None
    ) -> np.ndarray:  # bool (size,)
        raise NotImplementedError  # each way of writing indices has its own

    def _why_empty(self, size: int) -> str:
        return "it names none"


class Item(Struct, frozen=True):
    """`FIRST-LAST/STEP` as written (one number is FIRST and LAST), and where it stands."""

    first: int
    last: int
    step: int
    source: Source
    width: int


class Listed(Indices, frozen=True):
    """`3,7,12` and `0-99/2`; with `!` all but these."""

    items: tuple[Item, ...]
    complement: bool

    def _chosen(self, size: int, what: str, env: Mapping[str, np.ndarray] | None) -> np.ndarray:
        chosen = np.zeros(size, dtype=bool)
        for item in self.items:
            first, last = (
                _from_start(end, size, what, item.source, item.width)
                for end in (item.first, item.last)
            )
            if first > last:
                would = "" if item.source.hidden else f"it would be {first} down to {last}"
                raise IndexRangeError(
                    f"the range runs backwards in {what}",
                    where=item.source.at(0, item.width),
                    why=would and f"of {units_text(size)} {would}",
                )
            chosen[first : last + 1 : item.step] = True
        return ~chosen if self.complement else chosen

    def _why_empty(self, size: int) -> str:
        return f"it leaves out all {units_text(size)}" if self.complement else "it names none"


class Numbers(Indices, frozen=True):
    """Indices given as a Python value, or read from a file."""

    numbers: tuple[int, ...]

    def _chosen(self, size: int, what: str, env: Mapping[str, np.ndarray] | None) -> np.ndarray:
        for end in (min(self.numbers, default=0), max(self.numbers, default=0)):
            _from_start(end, size, what, self.source)
        chosen = np.zeros(size, dtype=bool)
        chosen[np.array(self.numbers, dtype=np.int64)] = True
        return chosen

    def _why_empty(self, size: int) -> str:
        return "the list is empty"


class Mask(Indices, frozen=True):
    """One yes or no per unit."""

    mask: tuple[bool, ...]

    def _chosen(self, size: int, what: str, env: Mapping[str, np.ndarray] | None) -> np.ndarray:
        if len(self.mask) != size:
            raise IndexRangeError(
                f"the mask has {len(self.mask)} entries, and {what} has {units_text(size)}",
                where=self.source.shown(),
            )
        return np.array(self.mask, dtype=bool)

    def _why_empty(self, size: int) -> str:
        return "the mask is false everywhere"


class Where(Indices, frozen=True):
    """`where(EXPRESSION)`: the units for which it holds."""

    expression: Expression

    def _chosen(self, size: int, what: str, env: Mapping[str, np.ndarray] | None) -> np.ndarray:
        return self.expression.evaluate(env or {}, size=size, what=what)

    def _why_empty(self, size: int) -> str:
        return f"the expression holds for none of its {units_text(size)}"


def from_list(values: list[Any], source: Source | None = None) -> Indices:
    """Numbers or a mask from a list. Raises: SpecError if it is neither."""
    bools = sum(isinstance(entry, (bool, np.bool_)) for entry in values)
    if values and bools == len(values):
        mask = tuple(map(bool, values))
        return Mask(mask, source=source or Source(f"mask of {len(mask)}, {sum(mask)} true"))
    for entry in values:
        if not isinstance(entry, (int, np.integer)) or isinstance(entry, bool):
            held = "something else" if source and source.hidden else clean(repr(entry), 60)
            raise not_indices(f"a list with {held} in it", source)
    numbers = tuple(map(int, values))
    return Numbers(numbers, source=source or Source(_describe(numbers)))


def item_of(match: re.Match[str], source: Source) -> Item:
    """The item that a regular expression of three groups matched in the text of `source`.

    Raises: SpecError for a range that no layer can have.
    """
    first, last, step = (None if digits is None else _int(digits) for digits in match.groups())
    assert first is not None
    position = match.start(1)
    width = max(match.end(1), match.end(2), match.end(3)) - position
    if last is None:
        return Item(first, first, 1, source.piece(position), width)
    if (first < 0) == (last < 0) and first > last:
        raise SpecError(
            "the range runs backwards",
            where=source.at(position, width),
            do="" if source.hidden else f"write {last}-{first}",
        )
    if step == 0:
        raise SpecError("the step of a range is 1 or more", where=source.at(match.start(3)))
    return Item(first, last, step or 1, source.piece(position), width)


def malformed(text: str, position: int, source: Source) -> SpecError:
    """The error for a list that makes no sense from `position` on, with the likely remedy."""
    why, do = "", HOW_TO_WRITE
    found = text[position : position + 1]
    if found == "!":
        why = "'!' stands before the whole list: it means all but these"
    elif found == "-" and (before := re.search("[0-9]+ *$", text[:position])):
        do = f"write {before.group().strip()}--1 for a range that runs to the last unit"
    elif ":" in text:
        do = "a range is written 0-7; a layer name that contains ':' goes between quotes"
    elif re.search("[<>=]", text):
        do = "put an expression into where(...)"
    elif source.offset and re.match(r"\s*[^\W\d]", text):  # behind a layer's name and a colon
        do = f"{HOW_TO_WRITE}; a layer name that contains ':' goes between quotes"
    called = quoted(text.strip())
    if source.hidden:
        called, why, do = "what stands there", "", HOW_TO_WRITE
    return SpecError(f"{called} is not a list of units", where=source.at(position), why=why, do=do)


def not_indices(received: str, source: Source | None = None) -> SpecError:
    return SpecError(
        f"units are whole numbers, and this is {received}",
        where=source.shown() if source else "",
        do="give a list of ints, a range, a numpy array of ints or bools, or text such as '0-7'",
    )


def _int(digits: str) -> int:
    """The number; one with more digits than any index has stands for 'far out of range'."""
    if len(digits) <= 18:
        return int(digits)
    return -_FAR if digits.startswith("-") else _FAR


def _from_start(index: int, size: int, what: str, source: Source, width: int = 0) -> int:
    """`index` counted from the start.

    Args:
        source: where it is written.
        width: of what is written there; 0 if it is one of a list.
    Raises: IndexRangeError if the layer does not have it.
    """
    counted = index + size if index < 0 else index
    if not 0 <= counted < size:
        shown = f"unit {index}" if abs(index) < _FAR else "unit with so many digits"
        raise IndexRangeError(
            f"there is no {'such unit' if source.hidden else shown} in {what}",
            where=source.at(0, width) if width else source.shown(),
            why=f"it has {units_text(size)}: 0" + (f" to {size - 1}" if size > 1 else ""),
        )
    return counted


def units_text(size: int) -> str:
    return f"{size} unit" if size == 1 else f"{size} units"


def _describe(numbers: tuple[int, ...]) -> str:
    """A short text for a list from Python; the last units of a long one are left out."""
    shown = ", ".join(map(str, numbers[:20]))
    return f"[{shown}, … {len(numbers)} in all]" if len(numbers) > 20 else f"[{shown}]"


def compact_text(numbers: list[int]) -> str:
    """INDICES text for sorted unique numbers: `0-7,12,14-16`. Runs of 3 and more fold."""
    parts: list[str] = []
    start = 0
    for position in range(1, len(numbers) + 1):
        if position < len(numbers) and numbers[position] == numbers[position - 1] + 1:
            continue
        run = numbers[start:position]
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
        start = position
    return ",".join(parts)
