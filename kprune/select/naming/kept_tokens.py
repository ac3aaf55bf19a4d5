"""Which rows of an embedding go when the tokens are listed that stay (`--keep-tokens`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import SpecError, UsageError
from kprune.faults import shown
from kprune.formats import Source
from kprune.labels.map import TOKENS, TokenSource, UnitAxis
from kprune.labels.tokens import tokens_of
from kprune.page.result import Note
from kprune.pointing import quoted
from kprune.select.naming.index_files import content_of, json_of, read_indices, text_of
from kprune.select.naming.indices import Numbers
from kprune.select.naming.layer_names import axes_named
from kprune.select.naming.specs import LayerName, parse_layer
from kprune.text import clean
from kprune.types import AnyPath

Kept = AnyPath | Sequence[str] | Sequence[int] | np.ndarray
"""The path of a file, or tokens (or ids) themselves."""


def rows_left_out(
    analysis: Analysis, source: Source, kept: Kept, layer: str | None = None
) -> tuple[UnitAxis, np.ndarray, list[Note]]:
    """The embedding that is meant, which of its rows go, sorted int64, and what a reader should know.

    Rows for what is out of vocabulary, for a mask and the like stay, listed or not.

    Args:
        kept: tokens as they stand in the vocabulary, or ids where no vocabulary stands in front.
            In a file: a token a line, a JSON list, or an .npy file of ids.
        layer: which embedding, if there are several.
    Raises: UsageError, SpecError, FileError.
    """
    axis = _axis(analysis, layer)
    lookup, tokens = _vocabulary(analysis, source, axis)
    stays = np.zeros(len(axis), bool)
    notes = []
    if lookup is None or tokens is None:
        stays[_listed_ids(kept, axis)] = True
    else:
        listed = _listed(kept, numbers=lookup.layer.kind == "IntegerLookup")
        if not listed:
            raise _none_listed()
        if all(isinstance(item, int) for item in listed) and lookup.layer.kind != "IntegerLookup":
            stays[_within(listed, axis)] = True
        else:
            ids = {token: number for number, token in enumerate(tokens)}
            known = [ids[item] for item in listed if item in ids]
            if not known:
                raise UsageError(
                    f"none of the tokens to keep is known to '{clean(lookup.layer.path)}'",
                    why=f"its vocabulary has tokens such as {', '.join(quoted(str(it)) for it in tokens[-3:])}",
                    do="list tokens as they are written in the vocabulary, one per line",
                )
            if len(known) < len(listed):
                text = f"{len(listed) - len(known):,} of {len(listed):,} listed tokens are not in the vocabulary"
                notes.append(Note("tokens", lookup.layer.path, text))
            stays[known] = True
    held = analysis.groups.frozen(("rule",))[axis.ids]
    if not held.all():  # else the refusal says why
        stays |= held
    gone = np.flatnonzero(~stays)
    if not gone.size:
        raise UsageError(f"all {len(axis)} rows of '{clean(axis.layer.path)}' are to stay")
    return axis, gone, notes


def _vocabulary(
    analysis: Analysis, source: Source, axis: UnitAxis
) -> tuple[TokenSource | None, list[Any] | None]:
    """The lookup in front of an embedding, if there is one, and the token of each id, if it tells."""
    of = analysis.groups.of
    for one in analysis.map.token_sources:
        if one.lookup and of[one.ids[-1]] == of[axis.ids[-1]]:
            return one, tokens_of(one.layer, analysis.extras, source.extra)
    return None, None


def rows_of_tokens(
    analysis: Analysis, source: Source, axis: UnitAxis, name: str, base: Path | None
) -> np.ndarray | None:
    """The rows of the tokens that a file lists (`emb.tokens:@unused.txt`), sorted int64.

    Args:
        name, base: of the file; see `kprune.select.naming.index_files.read_indices`.
    Returns: None where no vocabulary stands in front: then the file can only list rows.
    Raises: UsageError if a token is not in the vocabulary; SpecError, FileError.
    """
    lookup, tokens = _vocabulary(analysis, source, axis)
    if lookup is None or tokens is None:
        return None
    called = "standard input" if name == "-" else shown(name)
    content = content_of(name, base, what="tokens")
    listed = _of_text(content, called, is_json=name.endswith(".json"))
    ids = {str(token): number for number, token in enumerate(tokens)}
    unknown = next((at for at, token in enumerate(listed, 1) if str(token) not in ids), None)
    if unknown is not None:  # a plan may name any file: what stands in it is not told
        raise UsageError(
            f"entry {unknown} of {called} is not a token that '{clean(lookup.layer.path)}' knows",
            why=f"its vocabulary has tokens such as {', '.join(quoted(str(it)) for it in tokens[-3:])}",
            do="list tokens as they are written in the vocabulary, one per line; or rows by their numbers",
        )
    return np.unique(np.array([ids[str(token)] for token in listed], np.int64))


def _none_listed() -> UsageError:
    return UsageError("no token to keep is listed", do="list those to keep, one per line")


def _axis(analysis: Analysis, layer: str | None) -> UnitAxis:
    if layer is not None:
        name = parse_layer(layer)
        if name.axis is None and not name.layer.endswith("." + TOKENS):
            name = LayerName(layer=name.layer, axis=TOKENS, exact=name.exact, text=layer)
        return axes_named(analysis, name)[0]
    analysis.require("tokens")
    of = analysis.groups.of
    found: dict[int, UnitAxis] = {}
    for axis in analysis.map.axes.values():
        if axis.name == TOKENS:
            found.setdefault(int(of[axis.ids[-1]]), axis)
    if not found:
        raise UsageError(
            "the model has no embedding, so it has no rows for tokens",
            do="'kprune inspect' lists the layers",
        )
    free = [
        axis for axis in found.values() if not analysis.groups.frozen(("rule",))[axis.ids].all()
    ] or list(found.values())
    if len(free) > 1:
        names = ", ".join(f"'{clean(axis.layer.path)}'" for axis in free)
        raise UsageError(
            "--keep-tokens does not say which embedding it is for",
            why=f"there are {names}",
            do="name one: --layer NAME",
        )
    return free[0]


def _listed_ids(kept: Kept, axis: UnitAxis) -> np.ndarray:
    if isinstance(kept, (str, os.PathLike)):
        what = f"embedding '{clean(axis.layer.path)}'"
        return read_indices(os.fspath(kept)).resolve(len(axis), what=what)
    return _within(kept, axis)


def _within(ids: Iterable[Any], axis: UnitAxis) -> np.ndarray:
    """Ids as an array. Raises: UsageError for ids that the embedding does not have."""
    array = np.asarray(list(ids))
    if not array.size:
        raise _none_listed()
    if array.dtype.kind not in "iu":
        raise UsageError(
            f"'{clean(axis.layer.path)}' takes ids, and tokens are listed by name",
            why="there is no layer with a vocabulary in front of it",
            do="list ids",
        )
    wrong = array[(array < 0) | (array >= len(axis))]
    if wrong.size:
        raise UsageError(
            f"'{clean(axis.layer.path)}' has no row {int(wrong[0])}", why=f"it has {len(axis)}"
        )
    return array.astype(np.int64)


def _listed(kept: Kept, *, numbers: bool) -> list[Any]:
    """The tokens of a file, or those given; ids as int.

    Args:
        numbers: whether the tokens themselves are whole numbers.
    """
    if isinstance(kept, (str, os.PathLike)):
        name = os.fspath(kept)
        called = "standard input" if name == "-" else shown(name)
        content = content_of(name, what="tokens")
        if content.startswith(b"\x93NUMPY"):
            found = read_indices(name)
            if not isinstance(found, Numbers):
                raise SpecError(f"{called} does not hold a list of tokens", do="save integers")
            return list(found.numbers)
        items = _of_text(content, called, is_json=name.endswith(".json"))
    else:
        items = np.asarray(kept).tolist()
    if not numbers:
        return [item if type(item) is int else str(item) for item in items]
    try:
        return [int(item) for item in items]
    except ValueError:
        raise SpecError("the tokens to keep are not whole numbers") from None


def _of_text(content: bytes, called: str, *, is_json: bool) -> list[Any]:
    text = text_of(content, called, what="tokens")
    if not is_json:
        return [line for line in text.splitlines() if line]
    value = json_of(text, called)
    if not isinstance(value, list) or not all(type(item) in (str, int) for item in value):
        raise SpecError(f"{called} does not hold a list of tokens", do='write ["cat", "dog"]')
    return value
