"""Files of class names: one name a line in the order of the model's outputs, or a JSON list of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import SpecError, UnknownLayerError, UsageError
from kprune.faults import shown
from kprune.labels.map import UnitAxis
from kprune.pointing import did_you_mean, quoted
from kprune.select.naming.index_files import content_of, json_of, text_of
from kprune.select.naming.layer_names import axes_named
from kprune.select.naming.specs import parse_layer
from kprune.text import clean
from kprune.types import AnyPath

_BLANK = "\ufeff \t\r\n"
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

Names = AnyPath | Sequence[str]


@dataclass(frozen=True)
class ClassNames:
    """The classes of a model, by name.

    Attributes:
        names: in the order of the units of the output layer.
        file: where they stand; None for standard input and for names given in Python.
        lines: the same as they stand there, line ends included; empty for JSON.
        indent: how a JSON list is laid out; None on one line.
        hidden: whether messages show none of the names: a plan may name any file.
    """

    names: tuple[str, ...]
    file: Path | None = None
    lines: tuple[str, ...] = ()
    indent: int | None = None
    hidden: bool = False

    @property
    def called(self) -> str:
        """What messages call the whole."""
        return "the class names" if self.file is None else shown(self.file)

    def indices(self, wanted: Iterable[str]) -> np.ndarray:
        """Which classes are meant, sorted int64.

        Args:
            wanted: names, or several with commas between them; after `!`, all but these.
        Raises: UsageError for a name that is not there, or stands there twice.
        """
        chosen = np.zeros(len(self.names), bool)
        for text in wanted:
            others = text.startswith("!") and text not in self.names
            named = np.zeros(len(self.names), bool)
            for name in self._split(text.removeprefix("!") if others else text):
                named[self._index(name)] = True
            chosen |= ~named if others else named
        if not chosen.any():
            raise UsageError("no class is named", do="write names from it, such as cat,dog")
        return np.flatnonzero(chosen)

    def _split(self, text: str) -> list[str]:
        """Several names; a name may itself have commas in it, as those of ImageNet have."""
        if text.strip() in self.names:
            return [text.strip()]
        return [name for part in text.split(",") if (name := part.strip())]

    def _index(self, name: str) -> int:
        found = [index for index, known in enumerate(self.names) if known == name]
        if not found:
            hint = "" if self.hidden else did_you_mean(name, self.names)
            raise UsageError(
                f"there is no class {quoted(name)} in {self.called}{'; ' + hint if hint else ''}"
            )
        if len(found) > 1:
            twice = ", ".join(map(str, found))
            raise UsageError(
                f"{len(found)} classes in {self.called} are called {quoted(name)}",
                why=f"they are classes {twice}, counted from 0",
                do="name the units by index, LAYER:INDICES",
            )
        return found[0]

    def text_without(self, gone: Iterable[int]) -> str:
        """The file's text without some classes."""
        gone = set(gone)
        if self.lines:
            kept = [line for index, line in enumerate(self.lines) if index not in gone]
            return "".join(kept)
        left = [name for index, name in enumerate(self.names) if index not in gone]
        return json.dumps(left, ensure_ascii=False, indent=self.indent) + "\n"

    def axis(self, analysis: Analysis, layer: str | None = None) -> UnitAxis:
        """The units whose names these are: those of the model's output layer.

        Args:
            layer: its name; None where there is only one.
        Raises: UsageError if that cannot be told, or if it has not as many units as there are names.
        """
        outputs = output_axes(analysis)
        if layer is None:
            if len(outputs) != 1:
                names = ", ".join(quoted(axis.address) for axis in outputs)
                raise UsageError(
                    f"the model has {len(outputs)} output layers: {names}"
                    if outputs
                    else "the units of no layer are the model's outputs",
                    do="say which of them the class names belong to: --layer, or class_layer in a plan"
                    if outputs
                    else "name the units by index, LAYER:INDICES",
                )
            (axis,) = outputs
        else:
            (axis, *_) = axes_named(analysis, parse_layer(layer))
            if axis not in outputs:
                raise UnknownLayerError(
                    f"'{clean(layer)}' is not an output layer, so its units are not classes",
                    do="name one of " + ", ".join(quoted(axis.address) for axis in outputs)
                    if outputs
                    else "",
                )
        if len(axis) != len(self.names):
            count = len(self.names)
            raise UsageError(
                f"{self.called} has {count} name{'s' * (count != 1)},"
                f" and layer '{clean(axis.address)}' {len(axis)} units",
                do="give one name per line, in the order of the model's outputs",
            )
        return axis


def output_axes(analysis: Analysis) -> list[UnitAxis]:
    """The axes whose units are the model's outputs; of those that are tied to each other, the first."""
    answers = np.zeros(analysis.map.count, bool)
    for freeze in analysis.map.freezes:
        if freeze.kind == "output":
            answers[freeze.ids] = True
    answers[0] = False
    found: dict[bytes, UnitAxis] = {}
    for axis in analysis.map.axes.values():
        if axis.name != "features" and len(axis) and answers[axis.ids].all():
            found.setdefault(analysis.groups.of[axis.ids].tobytes(), axis)
    return list(found.values())


def class_names(given: Names, *, hidden: bool = False) -> ClassNames:
    """Class names from a file, or from a list.

    Args:
        hidden: see `ClassNames`.
    Raises: FileError if the file cannot be read, SpecError if it does not hold names.
    """
    if not isinstance(given, (str, os.PathLike)):
        return ClassNames(tuple(map(str, given)))
    file = None if os.fspath(given) == "-" else Path(given)
    called = "standard input" if file is None else shown(file)
    content = content_of(os.fspath(given), what="class names")
    text = text_of(content, called, what="class names", encoding="utf-8")  # written back as it is
    if (file is not None and file.suffix == ".json") or text.lstrip(_BLANK).startswith("["):
        return replace(_from_json(text, file, called), hidden=hidden)
    lines = tuple(line for line in _LINE.findall(text) if line.strip(_BLANK))
    names = tuple(line.strip(_BLANK) for line in lines)
    return ClassNames(names, file, lines, hidden=hidden)


def _from_json(text: str, file: Path | None, called: str) -> ClassNames:
    value = json_of(text.removeprefix("\ufeff"), called)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SpecError(f"{called} does not hold a list of class names", do='write ["cat", "dog"]')
    laid_out = "\n" in text.strip()
    return ClassNames(tuple(value), file, indent=2 if laid_out else None)
