"""Which layer classes and operations have a rule, and what it does with their units: as data and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from kprune.page.page import Page
from kprune.text import clean
from kprune.tracing.registry import Rule
from kprune.types import AnyPath

TITLES = {
    "custom": "Layers from your own rules",
    "layer": "Keras layers",
    "operation": "Operations (keras.ops in a Functional model)",
    "package": "Layers of KerasHub",
}
WORDS = (
    ("issues", "makes units of its own"),
    ("passes", "hands units on, wherever it moves them"),
    ("combines", "brings tensors together, which ties or joins their units"),
    ("mixes", "computes a statistic over units: removing one changes the others"),
    ("opaque", "nothing can be removed through it"),
)


class KnownRule(Struct, frozen=True):
    """One class that kprune knows."""

    name: str
    kind: Annotated[
        str, Meta(description="layer, operation, package for a layer of KerasHub, or custom")
    ]
    does: Annotated[str, Meta(description="issues, passes, combines, mixes or opaque")]
    note: str
    source: Annotated[str, Meta(description="for a custom rule, the file that holds it")]


def known_rules(files: Iterable[AnyPath] = ()) -> list[KnownRule]:
    """Every rule, by kind and name; those of installed packages, too.

    Args:
        files: Python files with further rules.
    Raises: FileError or UsageError if one cannot be read.
    """
    from kprune.analysis.user_rules import load_packages, load_rules

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


def show(rules: Sequence[KnownRule], on: Page, *, whole: bool) -> None:
    """Show rules, custom ones first, a line for each class.

    Args:
        whole: say all of what each does, if need be in several lines.
    """
    for kind, title in TITLES.items():
        rows = [
            (clean(rule.name), rule.does, clean(rule.note, 300))
            for rule in rules
            if rule.kind == kind
        ]
        if rows:
            on.print(title, style="bold")
            on.table(["~class", "does", "~what exactly" if whole else "…what exactly"], rows)
            on.print()
    on.texts(WORDS)
    on.print("A class that is not here freezes the units that reach it.")
