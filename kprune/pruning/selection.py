"""Which units, in any of the ways to say it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kprune.analysis import Analysis
from kprune.errors import ExpressionError, UsageError
from kprune.formats import Source
from kprune.report.report import Note
from kprune.select.indices import Where
from kprune.select.resolve import axes_named, excluded, indices_of, is_glob, resolve, specs_from
from kprune.select.specs import parse_layer
from kprune.text import clean

# What ranks units is imported where units are ranked: most calls name them.
if TYPE_CHECKING:
    from kprune.select.choose import Choice
    from kprune.select.statistics import Statistics

Units = Mapping[str, np.ndarray]


def statistics_of(
    source: Source, analysis: Analysis, data: str | os.PathLike[str] | None = None
) -> Statistics:
    """What is known of each unit: of its weights, and of its activations if there are data.

    Args:
        data: path of an .npz file; the model is then run in TensorFlow as far as it is asked for.
    """
    from kprune.select.statistics import Statistics

    if data is None:
        return Statistics(analysis, source)
    from kprune.running.activations import Activations

    return Statistics(analysis, source, Activations(source, analysis, data))


@dataclass(frozen=True)
class Selection:
    """Which units, in any of the ways to say it.

    Attributes:
        units: a mapping from LAYER[.AXIS] to indices, or specs.
        layers: layers for `where` and `choice`; None for all that can be pruned.
        where: an expression.
        choice: a criterion and how many.
        exclude: layers that are left as they are.
    """

    units: Any = None
    layers: Sequence[str] | None = None
    where: str | None = None
    choice: Choice | None = None
    exclude: Sequence[str] = ()

    def resolve(
        self, analysis: Analysis, statistics: Statistics
    ) -> tuple[dict[str, np.ndarray], list[Note]]:
        """By address, sorted int64 indices; and what was left out.

        Raises: UsageError if nothing is chosen.
        """
        if self.where is not None and self.choice is not None:
            raise UsageError(
                "--where and --criterion are two ways to choose", do="give one of them"
            )
        chosen = resolve(analysis, specs_from(self.units), statistics) if self.units else {}
        notes: list[Note] = []
        if self.where is not None or self.choice is not None:
            more, notes = self._by_rank(analysis, statistics)
            for address, indices in more.items():
                chosen[address] = np.union1d(chosen.get(address, np.zeros(0, np.int64)), indices)
        elif self.layers:
            raise UsageError(
                f"no units of '{clean(self.layers[0])}' are named",
                do="write LAYER:INDICES, or give --units, --where or --criterion",
            )
        for address in excluded(analysis, self.exclude):
            chosen.pop(address, None)
        if not any(indices.size for indices in chosen.values()):
            raise UsageError("no unit is chosen", do="write LAYER:INDICES, such as dense_1:3,7,12")
        return {address: indices for address, indices in chosen.items() if indices.size}, notes

    def _by_rank(
        self, analysis: Analysis, statistics: Statistics
    ) -> tuple[dict[str, np.ndarray], list[Note]]:
        from kprune.pruning.measures import measure_of
        from kprune.select.choose import choose, prunable_axes
        from kprune.select.expressions import parse_expression
        from kprune.select.pointing import Source as Text

        left_out = excluded(analysis, self.exclude)
        if self.layers:
            names = [parse_layer(name) for name in self.layers]
            axes = [axis for name in names for axis in axes_named(analysis, name)]
            named = not any(is_glob(name) for name in names)
        else:
            axes, named = prunable_axes(analysis), False
        axes = [axis for axis in dict.fromkeys(axes) if axis.address not in left_out]
        if self.choice is not None:
            measure = (
                measure_of(self.choice.target.kind, analysis, statistics.source)
                if self.choice.target
                else None
            )
            result = choose(analysis, statistics, self.choice, axes, named=named, measure=measure)
            notes = [
                Note("skipped", address, clean(why, 300)) for address, why in result.skipped.items()
            ]
            if result.achieved is not None and self.choice.target is not None:
                text = f"{self.choice.target.amount} asked for, {result.achieved:,.0f} left"
                notes.append(Note("budget", "", f"{self.choice.target.kind}: {text}"))
            return result.units, notes
        expression = Where(parse_expression(self.where or ""), Text(self.where or ""))
        found, notes = {}, []
        frozen = analysis.groups.frozen()
        for axis in axes:
            try:
                indices = indices_of(expression, axis, statistics, allow_empty=len(axes) > 1)
            except ExpressionError as error:
                if named or "has no" not in error.what:
                    raise
                notes.append(Note("skipped", axis.address, error.what))
                continue
            if not named:
                indices = indices[~frozen[axis.ids[indices]]]
                # A layer that is not named is left with one unit at the least.
                indices = indices[: len(axis) - 1] if len(indices) == len(axis) else indices
            found[axis.address] = indices
        return found, notes
