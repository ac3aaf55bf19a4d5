"""The door to every model file: what a command starts from is its source and its analysis."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from kprune import formats
from kprune.analysis.analysis import Analysis
from kprune.formats import Source
from kprune.graph.parse import holds_graph


class Opened(Struct, frozen=True):
    """A model file that is open.

    Attributes:
        source: reads and writes it.
        analysis: everything kprune knows of it.
    """

    source: Source
    analysis: Analysis


@contextmanager
def opened(
    path: str | os.PathLike[str], *, rules: Iterable[str] = (), trust: bool = False
) -> Iterator[Opened]:
    """Open a model file of any format and analyse it.

    Args:
        path: of the file or folder; `-` for standard input.
        rules: files with rules for layers that kprune does not know.
        trust: whether code that is not Keras's own may be run to read the model.
    Raises: FileError if it cannot be read.
    """
    with open_model(path, trust=trust) as source:
        yield Opened(source, analyse(source, rules))


def open_model(path: str | os.PathLike[str], *, trust: bool = False) -> Source:
    """Open a model file; one whose graph is only in code is unfolded, if that code may be run.

    Args and errors: as `kprune.formats.open_model`.
    """
    source = formats.open_model(path, trust=trust)
    if trust and source.format in ("keras", "keras-folder") and not holds_graph(source.config):
        from kprune.custom_code.flatten import opened_flat

        source = opened_flat(source)
        source.trusted = True
    return source


def analyse(source: Source, rules: Iterable[str] = ()) -> Analysis:
    """The analysis of an opened file, with rules from further files."""
    from kprune.analysis.user_rules import load_rules

    rules = list(rules)
    own = getattr(source, "analyse", None)  # a SavedModel's graphs are not Keras's
    if source.trusted and rules and own is None:
        # A file with classes imports Keras, which has less to say where kprune imported it.
        from kprune.runtime.keras_import import import_keras

        import_keras()
    known = load_rules(rules)  # with them come criteria, for every format
    old = str(source.metadata.get("keras_version", "3")).startswith(("1.", "2."))
    known = replace(known, traceable=not old)
    if own is not None:
        found: Analysis = own(rules)
        return found
    if source.trusted:
        from kprune.custom_code.code_tracer import KerasDrawer

        known = replace(known, drawer=KerasDrawer(source.metadata))
    found = Analysis.of(
        source.config, source.metadata, source.tensors, known, source.order, source.extras
    )
    if found.map.drawn and known.drawer is not None:
        from kprune.custom_code.rebuild_check import settle

        found.proof = settle(found, known.drawer)
    return found
