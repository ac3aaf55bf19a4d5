"""Indices from text, and from whatever else a caller may give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kprune.errors import SpecError
from kprune.pointing import Source
from kprune.select.naming.indices import (
    HOW_TO_WRITE,
    ITEM,
    WHERE,
    Indices,
    Item,
    Listed,
    Where,
    from_list,
    item_of,
    malformed,
    not_indices,
)


def indices_from(value: Any, *, base: Path | None = None) -> Indices:
    """Indices from whatever a caller of the library, a plan or the command line may give.

    Args:
        value: text as on the command line; an int; a list, tuple, set, range or numpy array of
            ints; a list or numpy array of bools, one per unit; or Indices already.
        base: the folder that `@FILE` starts from.
    Raises: SpecError for anything else.
    """
    if isinstance(value, Indices):
        return value
    if isinstance(value, str):
        return parse_indices(value, base=base)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, (set, frozenset)):
        value = list(value)
    kind = type(value).__name__
    if hasattr(value, "__array__"):  # numpy, and whatever converts itself to it
        value = np.asarray(value)
        if value.ndim != 1:
            raise not_indices(f"an array of {value.ndim} axes; there must be one")
        if value.size and value.dtype.kind not in "iub":
            raise not_indices(f"an array of {value.dtype}")
        value = value.tolist()
    if not isinstance(value, (list, tuple, range)):
        raise not_indices(f"a value of type {kind}")
    return from_list(list(value))


def parse_indices(text: str, *, source: Source | None = None, base: Path | None = None) -> Indices:
    """Parse INDICES as written in a spec, in `--units` or in a plan.

    Args:
        text: such as `3,7,12`; see the top of this file.
        source: the text it stands in, from the place where the indices start.
        base: the folder that `@FILE` starts from; None for the current one.
    Raises: SpecError or ExpressionError, with a caret under the place.
    """
    source = source or Source(text)
    if not text.strip():
        raise SpecError("no unit is named", where=source.at(0), do=HOW_TO_WRITE)
    if opening := WHERE.match(text):
        if not text.rstrip().endswith(")"):
            raise SpecError(
                "'where(' has no closing bracket at the end", where=source.at(len(text.rstrip()))
            )
        from kprune.select.naming.expressions import parse_expression

        start = opening.end()
        inner = text.rstrip()[start:-1]
        return Where(parse_expression(inner, source=source.piece(start)), source=source)
    start = len(text) - len(text.lstrip())
    complement = text.startswith("!", start)
    start += complement
    rest = text[start:].strip()
    if rest.startswith("@"):
        if rest == "@":
            raise SpecError(
                "no file is named after '@'",
                where=source.at(start + 1),
                do="write @drop.txt, or @- for standard input",
            )
        from kprune.select.naming.index_files import FromFile

        return FromFile(rest[1:], base, complement, source=source)
    return Listed(tuple(_items(text, start, source)), complement, source=source)


def _items(text: str, start: int, source: Source) -> Iterator[Item]:
    """The items of a list, whose commas are all there is between them."""
    while True:
        match = ITEM.match(text, start)
        stop = match.end() if match else len(text) - len(text[start:].lstrip())
        if match is None or (stop < len(text) and text[stop] != ","):
            raise malformed(text, stop, source)
        yield item_of(match, source)
        if stop == len(text):
            return
        start = stop + 1
