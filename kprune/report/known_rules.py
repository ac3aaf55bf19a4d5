"""Which layer classes and operations have a rule, and what it does with their units."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct

from kprune.rules.registry import Rule


class KnownRule(Struct, frozen=True):
    """One class that kprune knows."""

    name: str
    kind: Annotated[
        str, Meta(description="layer, operation, package for a layer of KerasHub, or custom")
    ]
    does: Annotated[str, Meta(description="issues, passes, combines, mixes or opaque")]
    note: str
    source: Annotated[str, Meta(description="for a custom rule, the file that holds it")]


def known_rules(files: Iterable[str | os.PathLike[str]] = ()) -> list[KnownRule]:
    """Every rule, by kind and name; those of installed packages, too.

    Args:
        files: Python files with further rules.
    Raises: FileError or UsageError if one cannot be read.
    """
    from kprune.rules.loading import load_packages, load_rules

    rules = load_rules(files)
    load_packages()
    tables = (
        ("layer", rules.layers),
        ("operation", rules.operations),
        ("package", rules.packages),
        ("custom", rules.custom),
    )
    return [
        _known(kind, rule)
        for kind, table in tables
        for rule in sorted(table.values(), key=lambda rule: rule.name)
    ]


def _known(kind: str, rule: Rule) -> KnownRule:
    return KnownRule(rule.name, kind, rule.does, rule.note, "" if rule.builtin else rule.source)
