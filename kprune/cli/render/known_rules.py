"""The classes that kprune knows."""

from __future__ import annotations

from collections.abc import Sequence

from kprune.cli.render.page import Page
from kprune.cli.render.tables import show_table, show_texts
from kprune.report.known_rules import KnownRule
from kprune.text import clean

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
    ("mixes", "takes a statistic over units: removing one changes the others"),
    ("opaque", "nothing can be removed through it"),
)


def show(rules: Sequence[KnownRule], *, whole: bool) -> None:
    """Show rules, custom ones first, a line for each class.

    Args:
        whole: say all of what each does, if need be in several lines.
    """
    on = Page()
    for kind, title in TITLES.items():
        rows = [
            (clean(rule.name), rule.does, clean(rule.note, 300))
            for rule in rules
            if rule.kind == kind
        ]
        if rows:
            on.print(title, style="bold")
            show_table(on, ["~class", "does", "~what exactly" if whole else "…what exactly"], rows)
            on.print()
    show_texts(on, WORDS)
    on.print("A class that is not here freezes the units that reach it.")
