"""What can be done to units: the table of backends.

A backend is a line here and a module of its own, which holds what carries it out:

    of_step(asked) -> Change                 the change of one step of a plan (`kprune.pruning.steps`)
    replay(analysis, step, pruned) -> None   the units that it pruned (`kprune.pruning.pruned_units`), for verify

The line stands in a low room, since plans, reports and the command line read it; the module is
imported when its backend is at work, since it needs everything below it.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from msgspec import Struct

from kprune.select.ranking.options import BUDGETS


class Backend(Struct, frozen=True):
    """One way to be without units.

    Attributes:
        name: as plans, reports and the metadata of a pruned file have it.
        module: which carries it out.
        options: of a step, those that only some backends have and this one has.
        by_unit: whether a step says which units; else the backend finds them itself.
        removes: whether the units are physically gone.
        done: what the report says was done to units whose layers keep their sizes.
        writing: `module:function` that writes a step's change, given the opened model, the change, the
            target and the step; "" for what writes all others (`kprune.pruning.writing.write`).
    """

    name: str
    module: str
    options: tuple[str, ...]
    by_unit: bool = True
    removes: bool = False
    done: str = "changed"
    writing: str = ""

    @property
    def code(self) -> ModuleType:
        """The module, imported."""
        return importlib.import_module(self.module)


_BY_UNIT = ("classes", "class_names", "class_layer", "global", "data", "exclude")
_ALL = (
    Backend("zero", "kprune.pruning.zero", (*_BY_UNIT, "outgoing", "silence"), done="zeroed"),
    Backend("mask", "kprune.pruning.mask", (*_BY_UNIT, "below"), done="masked"),
    Backend(
        "remove", "kprune.pruning.remove",
        (*_BY_UNIT, "fold", "keep_tokens", "drop_branches", "whole_layers", "repair", *BUDGETS),
        removes=True,
    ),
    Backend(
        "compact", "kprune.pruning.compact", ("merge", "check", "repair", "data"), by_unit=False, removes=True,
        writing="kprune.verbs.compact:write_step",
    ),
)  # fmt: skip
BACKENDS = {backend.name: backend for backend in _ALL}


def backends_with(option: str) -> list[str]:
    """The backends that have an option which only some have."""
    return [backend.name for backend in _ALL if option in backend.options]
