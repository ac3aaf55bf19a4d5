"""What one step of a plan asks for: its units, and where the plan names them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from kprune.errors import UsageError
from kprune.opened import Opened
from kprune.page.result import Note
from kprune.pruning.selection import Selection, statistics_of
from kprune.running.sources import is_function
from kprune.select.naming.specs import spec_from_pair
from kprune.select.plans.structs import EVERY, LayerChoice, Step
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.options import BUDGETS
from kprune.sets import distinct
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.select.ranking.statistics import Statistics


class Asked(Struct, eq=False, dict=True):
    """One step, and the model that it is to be carried out on.

    Attributes:
        base: the folder that the files it names are relative to.
        drop_branches: whether units may take branches with them, whatever the step says.
        place: where the step says what is being looked at, such as ("layers", "dense_1").
        selection: what is being looked at.
    """

    it: Opened
    step: Step
    base: Path | None = None
    drop_branches: bool = False
    place: tuple[str, ...] = ()
    selection: Selection | None = None

    @cached_property
    def statistics(self) -> Statistics:
        """What is known of each unit."""
        return statistics_of(self.it, self.data)

    @property
    def data(self) -> Path | None:
        """The file of data that the step names. Raises: UsageError for a function: a plan runs no code."""
        data = self.step.data
        if data is None:
            return None
        if is_function(data):
            raise UsageError(
                f"{clean(data)} names a function, and a plan runs no code",
                do="save samples of it, and name the file: np.savez(FILE, x=…, y=…)",
            )
        return (self.base or Path()) / data

    def selections(self) -> Iterator[Selection]:
        """Everything that the step selects, classes by name last."""
        for place, selection in _selections(self.step, self.base):
            self.place, self.selection = place, selection
            yield selection

    def units(self) -> tuple[dict[str, np.ndarray], list[Note]]:
        """By address, the units that the step selects; and what was left out."""
        chosen: dict[str, np.ndarray] = {}
        notes: list[Note] = []
        statistics = self.statistics
        for selection in self.selections():
            found, more = selection.resolve(self.it.analysis, statistics)
            notes += more
            for address, indices in found.items():
                chosen[address] = distinct(chosen.get(address, np.zeros(0, np.int64)), indices)
        return chosen, notes


def _selections(step: Step, base: Path | None) -> Iterator[tuple[tuple[str, ...], Selection]]:
    """Everything that a step selects, classes by name last; and where it says so."""
    for name in [step.whole] if step.whole else step.layers:
        yield (name,) if step.whole else ("layers", name), selection_of(step, name, base)
    for layer, file in (step.keep_tokens or {}).items():
        yield (
            ("keep_tokens", layer),
            Selection(layers=[layer], keep_tokens=(base or Path()) / file, exclude=step.exclude),
        )
    if step.classes is not None and step.class_names is not None:
        yield (
            ("classes",),
            Selection(
                layers=None if step.class_layer is None else [step.class_layer],
                classes=step.classes,
                class_names=(base or Path()) / step.class_names,
                by_plan=True,
                exclude=step.exclude,
            ),
        )


def selection_of(step: Step, name: str, base: Path | None) -> Selection:
    """What one line of a step selects.

    Args:
        name: a layer's, or the option that makes one list of all layers.
    """
    if name == step.whole:
        value = next(iter(step.layers.values()))
        assert isinstance(value, LayerChoice)
        budget = Budget(BUDGETS[step.target[0]], step.target[1]) if step.target else None
        choice = Choice(**value.options(), target=budget, together=step.together)
        return Selection(layers=[*step.layers], choice=choice, exclude=step.exclude)
    value = step.layers[name]
    if step.below is not None and value == EVERY:
        return Selection(layers=[name], exclude=step.exclude)
    if not isinstance(value, LayerChoice):
        return Selection(units=[spec_from_pair(name, value, base=base)], exclude=step.exclude)
    if value.where is not None:
        return Selection(layers=[name], where=value.where, exclude=step.exclude)
    return Selection(layers=[name], choice=Choice(**value.options()), exclude=step.exclude)
