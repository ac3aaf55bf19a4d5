"""How a message shows the place in what a user wrote, and the words that were probably meant.

These may be keywords of a public function: an unknown one is refused as Python does it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from msgspec import Struct

from kprune.text import clean, columns

WIDTH = 72

P = ParamSpec("P")
R = TypeVar("R")


class Source(Struct, frozen=True):
    """A piece of a text that a user wrote, for messages that put a caret under a place in it.

    Attributes:
        text: the whole, as it was written.
        offset: where the piece starts in it; positions below count from there.
        place: where the text stands (`drop.txt, line 3`), shown above it; "" for the command.
        hidden: whether messages give the place alone: a plan may name a file that is not its
            author's to read, and what stands there is nobody else's business.
    """

    text: str
    offset: int = 0
    place: str = ""
    hidden: bool = False

    def __eq__(self, other: object) -> bool:
        """Where a value was written is no part of the value: all are equal."""
        return isinstance(other, Source)

    def __hash__(self) -> int:
        return 0

    def at(self, position: int, width: int = 1) -> str:
        """The text, and below it a caret under `position` of the piece."""
        if self.hidden:
            return f"{self.place}, column {self.offset + position + 1}" if self.text else self.place
        shown = point_at(self.text, self.offset + position, width)
        return f"{self.place}\n{shown}" if self.place else shown

    def shown(self) -> str:
        """The text without a caret, for a message that is about all of it."""
        if self.hidden:
            return self.place
        text = printable(self.text)
        text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
        return f"{self.place}\n{text}" if self.place else text

    def piece(self, position: int) -> Source:
        """The same text, for a piece that starts `position` characters further on."""
        return Source(self.text, self.offset + position, self.place, self.hidden)


def point_at(text: str, position: int, width: int = 1) -> str:
    """Two lines: the text, cut around the place where it is long, and carets under the place.

    Args:
        text: what the user wrote. Characters that do not print are shown as `�`, since a text from
            a file may hold escape sequences.
        position: the place, from 0; `len(text)` is just behind the end.
        width: how many characters the place covers.
    """
    start = max(0, position - WIDTH // 2) if position + width > WIDTH else 0
    stop = min(len(text), start + WIDTH)
    head = "…" if start else ""
    tail = "…" if stop < len(text) else ""
    line = head + printable(text[start:stop]) + tail
    before = len(head) + columns(text[start:position])
    under = max(1, columns(text[position : min(position + width, stop)]))
    return f"{line}\n{' ' * before}{'^' * under}"


def printable(text: str) -> str:
    """The text with one `�` for each character that a terminal might obey instead of show.

    White space becomes a space, so that a text of several lines stays on one. Unlike `clean`, it
    keeps every character in its place, for the caret below.
    """
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


def quoted(text: str, limit: int = 60) -> str:
    """The text between quotes for a sentence: printable, and cut where it is long."""
    return f"'{clean(text, limit)}'"


def nearest(word: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known words that look most like `word`, best first, whatever their case.

    One of the same letters in another order is meant for certain, and stands alone, as does a layer
    of that very name inside another.
    """
    import difflib  # only where something went wrong

    spellings: dict[str, str] = {}
    for name in known:
        spellings.setdefault(name.lower(), name)
    inside = [name for key, name in spellings.items() if key.rpartition("/")[2] == word.lower()]
    if inside:
        return inside[:limit]
    found = difflib.get_close_matches(word[:100].lower(), list(spellings), n=limit, cutoff=0.6)
    swapped = [name for name in found if sorted(name) == sorted(word.lower())]
    return [spellings[name] for name in swapped or found]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'a' or 'b'?`, or "" where nothing known looks like `word`."""
    words = [quoted(name) for name in nearest(word, known)]
    if not words:
        return ""
    listed = " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
    return f"did you mean {listed}?"


def refuse_unknown(function: Callable[..., Any], given: Iterable[str], more: type | None) -> None:
    """Raises: TypeError for a keyword that a function does not have.

    Args:
        more: the TypedDict of its further keywords, if it takes any.
    """
    code = function.__code__
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    further: Mapping[str, Any] = more.__annotations__ if more is not None else {}
    for name in given:
        if name not in own and name not in further:
            hint = did_you_mean(name, (*own, *further))
            text = f"{function.__name__}() got an unexpected keyword argument '{name}'"
            raise TypeError(text + (f"; {hint}" if hint else ""))


def checked(more: type | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: an unknown keyword is answered with those that look like it.

    Args:
        more: see `refuse_unknown`.
    """

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse_unknown(function, kwargs, more)
            return function(*args, **kwargs)

        return called

    return decorator
