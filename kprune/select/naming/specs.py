"""Specs: `LAYER[.AXIS]:INDICES`, as on the command line; and the same in two parts.

Which layer a spec means cannot be told from the text alone: Keras allows dots in layer names, so
`mha.heads` may be a layer of that name, or the axis `heads` of the layer `mha`. A parsed spec
therefore offers `candidates()`, and the code that knows the model takes the first that exists. Quotes
settle it: what stands between them is the name and nothing else.

    conv:0-3            the layer conv
    stem/conv:0-3       conv in the nested model stem
    conv2d_*:0-7        every layer that matches
    mha.heads:2         the layer mha.heads; failing that, the axis heads of mha
    "mha.x".heads:2     the axis heads of the layer mha.x
    "my layer: x":0-3   a name with a colon; a quote or backslash in it is written \\" and \\\\
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from msgspec import Struct

from kprune.errors import SpecError
from kprune.pointing import Source, point_at, quoted
from kprune.select.naming.index_text import indices_from, parse_indices
from kprune.select.naming.indices import HOW_TO_WRITE, Indices

_AXIS = r"\s*\.\s*([^\W\d]\w*)\s*"
_ESCAPED = r"""\\(["'\\])"""


class LayerName(Struct, frozen=True, kw_only=True):
    """The part of a spec that names a layer or an axis of one.

    Attributes:
        layer: a layer's name, or a glob; quotes removed. With dots, as written, unless `axis`.
        axis: the axis, where quotes around the layer's name make clear that it is one; else None.
        exact: whether the name stood between quotes, so that its dots are its own.
        text: what the user wrote.
    """

    layer: str
    axis: str | None = None
    exact: bool = False
    text: str

    def candidates(self) -> list[tuple[str, str | None]]:
        """What (layer, axis) may be meant, best first: take the first layer that the model has.

        An axis is an identifier, so `conv.0` and `conv.*` have no second reading.
        """
        found: list[tuple[str, str | None]] = [(self.layer, self.axis)]
        before, dot, after = self.layer.rpartition(".")
        if not self.exact and before and dot and after.isidentifier():
            found.append((before, after))
        return found

    def where(self, position: int = 0, width: int | None = None) -> str:
        """The text with a caret under a place in it; by default under all of the name."""
        return point_at(self.text, position, self._name_width() if width is None else width)

    def _name_width(self) -> int:
        return len(self.text)


class Spec(LayerName, frozen=True, kw_only=True):
    """A layer and which of its units: `LAYER[.AXIS]:INDICES`.

    Attributes:
        indices: which units, before it is known how many there are.
    """

    indices: Indices

    def _name_width(self) -> int:
        return _name(self.text, need_colon=True)[1]


def parse_spec(text: str, *, base: Path | None = None) -> Spec:
    """Parse one spec.

    Args:
        text: `LAYER[.AXIS]:INDICES`.
        base: the folder that `@FILE` starts from; None for the current one.
    Raises: SpecError or ExpressionError, with a caret under the place.
    """
    name, stop = _name(text, need_colon=True)
    start = stop + 1
    indices = parse_indices(text[start:], source=Source(text, start), base=base)
    return Spec(layer=name.layer, axis=name.axis, exact=name.exact, text=text, indices=indices)


def parse_layer(text: str) -> LayerName:
    """Parse LAYER[.AXIS] alone, as in `--layer`, a plan's keys and its `exclude`.

    Quotes are not needed here, so a text that merely starts with one is a name like any other.
    Raises: SpecError if it is empty.
    """
    if text[:1] in ('"', "'"):
        try:
            return _name(text, need_colon=False)[0]
        except SpecError:
            return LayerName(layer=text, text=text)
    if not text.strip():
        raise SpecError("no layer is named")
    return LayerName(layer=text, text=text)


def spec_from_pair(layer: str, indices: Any, *, base: Path | None = None) -> Spec:
    """A spec from its two parts: `--layer NAME --units INDICES`, or an item of a dict or a plan.

    Args:
        layer: LAYER[.AXIS].
        indices: text, or a Python value (see `indices_from`).
        base: the folder that `@FILE` starts from; None for the current one.
    Raises: SpecError or ExpressionError.
    """
    name = parse_layer(layer)
    chosen = indices_from(indices, base=base)
    text = f"{quote_layer(name)}:{chosen.text}"
    return Spec(layer=name.layer, axis=name.axis, exact=name.exact, text=text, indices=chosen)


def quote_layer(name: LayerName) -> str:
    """The name as it is written in a spec: between quotes where it has to be."""
    plain = not name.exact and name.axis is None and not re.search(r"""[:\s]|^["']""", name.layer)
    if plain:
        return name.layer
    escaped = re.sub(r'(["\\])', r"\\\1", name.layer)
    return f'"{escaped}"' + (f".{name.axis}" if name.axis else "")


def _name(text: str, *, need_colon: bool) -> tuple[LayerName, int]:
    """The layer's name at the start of `text`, and where it ends: at the colon, or at the end."""
    if not text.strip():
        raise SpecError("the spec is empty", do=f"write LAYER:INDICES; as INDICES, {HOW_TO_WRITE}")
    start = len(text) - len(text.lstrip())
    quote = text[start : start + 1]
    axis = None
    if quote in ('"', "'"):
        closing = re.compile(rf"(?:[^{quote}\\]|\\.)*({quote})", re.DOTALL).match(text, start + 1)
        if closing is None:
            raise SpecError(
                "the quotes around the layer name are not closed", where=point_at(text, start)
            )
        layer = re.sub(_ESCAPED, r"\1", text[start + 1 : closing.start(1)])
        stop = closing.end()
        if dotted := re.compile(_AXIS).match(text, stop):
            axis, stop = dotted.group(1), dotted.end()
        stop += len(text[stop:]) - len(text[stop:].lstrip())
        if stop < len(text) and not (need_colon and text[stop] == ":"):
            raise SpecError(
                "after the quoted layer name comes ':' or '.AXIS:'", where=point_at(text, stop)
            )
    else:
        colon = text.find(":")
        stop = colon if colon >= 0 else len(text)
        layer = text[:stop].strip()
    if need_colon and stop == len(text):
        raise SpecError(
            f"{quoted(text.strip())} names no units",
            where=point_at(text, stop),
            do=f"after the layer's name and ':' {HOW_TO_WRITE}",
        )
    if not layer.strip():
        raise SpecError("no layer is named", where=point_at(text, start), do="write LAYER:INDICES")
    return LayerName(layer=layer, axis=axis, exact=quote in ('"', "'"), text=text), stop
