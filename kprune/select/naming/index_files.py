"""Files of unit indices, as `@drop.txt` names them: text, JSON or .npy, told apart by content.

text     numbers and ranges between spaces, commas or line ends; `#` starts a comment
JSON     a list of numbers, or of true and false, one per unit
.npy     an array of integers, or of bools, one per unit

A plan or a spec may come from elsewhere and name any file, so messages say where in it something is
wrong, and nothing of what stands there.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np

from kprune.errors import DamagedFileError, FileError, LimitError, SpecError
from kprune.faults import PARSER_FAULTS, shown
from kprune.formats.bounded_json import check_json
from kprune.limits import LIST_BYTES, LIST_ITEMS
from kprune.pointing import Source, quoted
from kprune.select.naming.indices import (
    ITEM,
    Indices,
    Item,
    Listed,
    from_list,
    item_of,
    malformed,
    units_text,
)
from kprune.text import clean

# What separates items in a list as text, and what does not, as one sign each; for counting.
_SIGNS = bytes(32 if byte in b" ,\t\n\r\f\v" else 120 for byte in range(256))


class FromFile(Indices, frozen=True):
    """`@FILE`, read when it is first needed; with `!` all but these.

    Attributes:
        name: the path as written, `-` for standard input.
        base: the folder that a relative path starts from; None for the current one.
    """

    name: str
    base: Path | None
    complement: bool

    def _chosen(self, size: int, what: str, env: Mapping[str, np.ndarray] | None) -> np.ndarray:
        chosen = read_indices(self.name, self.base)._chosen(size, what, env)
        return ~chosen if self.complement else chosen

    def _why_empty(self, size: int) -> str:
        called = "standard input" if self.name == "-" else quoted(self.name)
        return f"{called} names {f'all {units_text(size)}' if self.complement else 'none'}"


def read_indices(name: str, base: Path | None = None) -> Indices:
    """Read a file of indices.

    Args:
        name: its path, or `-` for standard input.
        base: the folder that a relative path starts from; None for the current one.
    Raises: FileError if it cannot be read, SpecError if it does not hold indices.
    """
    called = "standard input" if name == "-" else shown(name)
    content = content_of(
        name, base, what="units", do="" if name == "-" else "check the path after '@'"
    )
    if content.startswith(b"\x93NUMPY") or name.endswith(".npy"):
        return _from_npy(content, called)
    text = text_of(content, called, what="units")
    if name.endswith(".json") or text.lstrip().startswith("["):
        return _from_json(text, called)
    signs = content.translate(_SIGNS)
    LIST_ITEMS.check(signs.count(b" x") + signs.startswith(b"x"), "it", called)
    return _from_text(text, called)


def content_of(name: str, base: Path | None = None, *, what: str, do: str = "") -> bytes:
    """The content of a small file, or of standard input for `-`.

    Args:
        name, base: see `read_indices`.
        what, do: what it is read for and how a reader may help, for messages.
    Raises: FileError if it cannot be read, LimitError if it is too long.
    """
    called = "standard input" if name == "-" else shown(name)
    try:
        if name == "-":
            content = _rest_of_standard_input()
        else:
            with open((base or Path()) / name, "rb") as stream:
                content = LIST_BYTES.read(stream, called)
    except LimitError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or a closed stream
        raise FileError(
            f"cannot read the {what} from {called}",
            why=getattr(error, "strerror", None) or str(error),
            do=do,
        ) from None
    return content


def text_of(content: bytes, called: str, *, what: str, encoding: str = "utf-8-sig") -> str:
    """The text of such a file, by default without a byte order mark.

    Args:
        called: how messages name the file.
        what: what it lists.
        encoding: `utf-8` leaves a byte order mark where it is.
    Raises: DamagedFileError if it is not UTF-8.
    """
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DamagedFileError(
            f"{called} is not a list of {what}", why=f"byte {error.start} is not UTF-8 text"
        ) from None


def json_of(text: str, called: str) -> Any:
    """The JSON value in such a file. Raises: SpecError if it is not JSON, LimitError."""
    check_json(text.encode(errors="surrogatepass"), called)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{called} is not JSON", why=clean(str(error), 200)) from None


def _rest_of_standard_input() -> bytes:
    if sys.stdin is None:  # closed by the process that started kprune
        raise OSError("it is closed")
    return _rest_of(sys.stdin.buffer)


@cache
def _rest_of(stream: BinaryIO) -> bytes:
    # Cached: two specs that say @- mean the same list, and a stream can be read only once.
    return LIST_BYTES.read(stream, "standard input")


def _from_text(text: str, called: str) -> Indices:
    items: list[Item] = []
    for count, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0]
        source = Source(line, place=f"{called}, line {count}", hidden=True)
        for word in re.finditer(r"[^\s,]+", content):
            # No spaces inside an item here: in `3 -1` they separate two.
            match = ITEM.match(content, word.start(), word.end())
            if match is None or match.end() != word.end():
                raise malformed(content, match.end() if match else word.start(), source)
            items.append(item_of(match, source))
    return Listed(tuple(items), False, source=Source(called))


def _from_json(text: str, called: str) -> Indices:
    check_json(text.encode(errors="surrogatepass"), called)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        raise SpecError(
            f"{called} is not JSON: {error.msg}",
            where=Source(line, place=f"{called}, line {error.lineno}", hidden=True).at(
                error.colno - 1
            ),
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, a thousand brackets
        raise SpecError(f"{called} is not a list of units") from None
    if not isinstance(value, list):
        raise SpecError(f"{called} does not hold a JSON list of units", do="write [3, 7, 12]")
    LIST_ITEMS.check(len(value), "it", called)
    return from_list(value, Source(called, place=called, hidden=True))


def _from_npy(content: bytes, called: str) -> Indices:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (*PARSER_FAULTS, SyntaxError, TokenError):  # a header is Python source
        raise DamagedFileError(
            f"{called} is not a readable .npy file",
            why="its header or its values are cut off, or hold Python objects",
        ) from None
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iub":
        is_array = isinstance(array, np.ndarray)
        held = f"{_kind(array.dtype)} of shape {array.shape}" if is_array else "a zip archive"
        raise SpecError(
            f"{called} does not hold a list of units",
            why=f"it holds {held}",
            do="save integers, or one bool per unit, on one axis",
        )
    LIST_ITEMS.check(len(array), "it", called)
    return from_list(array.tolist(), Source(called, place=called, hidden=True))


def _kind(dtype: np.dtype) -> str:
    """A number type as messages give it, without the names of its fields, which the file chose."""
    return str(dtype) if dtype.fields is None else "a structure"
