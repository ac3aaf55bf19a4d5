"""Which units, in any of the ways to say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.errors import FrozenUnitsError, KpruneError, MissingStatisticError, UsageError
from kprune.labels.closure import Units
from kprune.labels.paths import reason
from kprune.opened import Opened
from kprune.page.result import Note
from kprune.report.names_left import NamesLeft
from kprune.select.naming.indices import Where
from kprune.select.naming.layer_names import axes_named, is_glob
from kprune.select.naming.resolve import excluded, indices_of, resolve, specs_from
from kprune.select.naming.specs import parse_layer
from kprune.select.ranking.criteria import BY_ORDER
from kprune.sets import distinct
from kprune.text import clean

# What ranks units is imported where units are ranked: most calls name them.
if TYPE_CHECKING:
    from kprune.formats import Source
    from kprune.labels.map import UnitAxis
    from kprune.running.sources import DataSource
    from kprune.select.naming.class_names import ClassNames, Names
    from kprune.select.naming.kept_tokens import Kept
    from kprune.select.ranking.choice import Choice
    from kprune.select.ranking.statistics import Statistics

NARROW = 0.1  # a layer that keeps a smaller share of its units than this is pointed out


def statistics_of(
    it: Opened,
    data: DataSource | None = None,
    *,
    made_up: bool = False,
    memory: int | None = None,
) -> Statistics:
    """Statistics of each unit: of its weights and, if there are data, of its activations.

    Args:
        data: the model is run on them in TensorFlow, as far as needed.
        made_up: whether inputs may be made up for the criterion obs if there are no data.
        memory: bytes that it may keep at once.
    """
    from kprune.select.ranking.statistics import Statistics

    if data is None and not made_up:
        return Statistics(it.analysis, it.source)
    from kprune.refitting.ordering.on_data import OnData
    from kprune.refitting.streams.room import MEMORY
    from kprune.running.activations import Activations

    return Statistics(
        it.analysis,
        it.source,
        None if data is None else Activations(it.source, it.analysis, data),
        OnData(it.source, it.analysis, data, memory=memory or MEMORY),
    )


class Selection(Struct, frozen=True, dict=True):
    """Which units, in any of the ways to say it.

    Attributes:
        units: a mapping from LAYER[.AXIS] to indices, or specs.
        layers: layers for `where` and `choice`, None for all that can be pruned; for `classes` the
            output layer, None if there is only one.
        where: an expression.
        choice: a criterion and how many.
        classes: units of the output layer by name: "cat,dog", or a list; "!cat,dog" means all others.
        class_names: all those names in order: the path of a file, or a list.
        keep_tokens: the tokens whose rows an embedding keeps, or the path of a file of them;
            `layers` may name the embedding.
        exclude: layers that stay as they are: their units are not chosen, and by rank no units tied
            to them either.
        by_plan: whether a plan names the file of class names: messages then show nothing of it.
    """

    units: Any = None
    layers: Sequence[str] | None = None
    where: str | None = None
    choice: Choice | None = None
    classes: str | Sequence[str] | None = None
    class_names: Names | None = None
    exclude: Sequence[str] = ()
    keep_tokens: Kept | None = None
    by_plan: bool = False

    @property
    def by_rank(self) -> bool:
        """Whether units are chosen by their properties, not by name."""
        return self.where is not None or self.choice is not None

    @property
    def by_spec(self) -> bool:
        """Whether all units are given by layer and index."""
        return not self.by_rank and self.classes is None and self.class_names is None

    @property
    def empty(self) -> bool:
        """Whether nothing is said."""
        said = self.units or self.layers or self.exclude or self.keep_tokens
        return self.by_spec and not said

    def alternatives(self) -> Iterator[Selection]:
        """This selection; and for a budget of the criterion obs the same with equal ratios.

        Where little is left of a model, one list of all units may leave single layers too narrow,
        which their own errors do not tell.
        """
        yield self
        choice = self.choice
        ordered = choice is not None and choice.criterion in BY_ORDER and choice.target is not None
        if choice is not None and ordered and choice.ranking.normalize == "none":
            yield replace(self, choice=replace(choice, normalize="layer-rank"))

    def resolve(
        self, analysis: Analysis, statistics: Statistics
    ) -> tuple[dict[str, np.ndarray], list[Note]]:
        """By address, sorted int64 indices; and what was left out.

        Raises: UsageError if nothing is chosen.
        """
        ways = {
            "--where": self.where,
            "--criterion": self.choice,
            "--classes": self.classes,
            "--keep-tokens": self.keep_tokens,
        }
        given = [option for option, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} cannot be combined", do="give one of them")
        chosen = resolve(analysis, specs_from(self.units), statistics) if self.units else {}
        notes: list[Note] = []
        more: Units = {}
        if self.by_rank:
            more, notes = self._by_rank(analysis, statistics)
        elif self.classes is not None or self.class_names is not None:
            more = self._by_class(analysis)
        elif self.keep_tokens is not None:
            from kprune.select.naming.kept_tokens import rows_left_out

            layer = self.layers[0] if self.layers else None
            source = cast("Source", statistics.source)
            axis, gone, notes = rows_left_out(analysis, source, self.keep_tokens, layer)
            more = {axis.address: gone}
        elif self.layers:
            raise UsageError(
                f"no units of '{clean(self.layers[0])}' are named",
                do="write LAYER:INDICES, or give --units, --where or --criterion",
            )
        for address, indices in more.items():
            chosen[address] = distinct(chosen.get(address, np.zeros(0, np.int64)), indices)
        for address in excluded(analysis, self.exclude):
            chosen.pop(address, None)
        if not any(indices.size for indices in chosen.values()):
            raise self._nothing_chosen(analysis)
        return {address: indices for address, indices in chosen.items() if indices.size}, notes

    def _nothing_chosen(self, analysis: Analysis) -> KpruneError:
        if not self.by_rank:
            return UsageError("no unit is chosen", do="write LAYER:INDICES, such as dense_1:3,7,12")
        from kprune.select.ranking.choose import prunable_axes

        held = [freeze for freeze in analysis.map.freezes if freeze.kind == "rule"]
        if held and not self.layers and not prunable_axes(analysis):
            return FrozenUnitsError(
                "no unit of any layer can be removed",
                where=clean(held[0].at),
                why=reason(held[0]),
                do=held[0].do or "give the layer a rule (--rules my_layers.py), or name units",
            )
        if self.where is not None:
            return UsageError(
                "no unit is chosen", why="the expression holds for no unit that may be removed"
            )
        return UsageError(
            "no unit is chosen",
            why="this share of a layer is less than one unit, or none may be removed",
            do="ask for more, or allow more to be removed (--min-units, --max-ratio, --exclude)",
        )

    def _by_class(self, analysis: Analysis) -> Units:
        if self.classes is None or self.class_names is None:
            given, lacks = "--classes", "--class-names"
            if self.classes is None:
                given, lacks = lacks, given
            raise UsageError(
                f"{given} needs {lacks}",
                do="write --classes cat,dog --class-names labels.txt, the names in the order of the outputs",
            )
        wanted = [self.classes] if isinstance(self.classes, str) else self.classes
        return {self._class_axis(analysis).address: self._names.indices(wanted)}

    @cached_property
    def _names(self) -> ClassNames:
        from kprune.select.naming.class_names import class_names

        assert self.class_names is not None
        return class_names(self.class_names, hidden=self.by_plan)

    def _class_axis(self, analysis: Analysis) -> UnitAxis:
        if self.layers and len(self.layers) > 1:
            raise UsageError(
                f"--classes is given {len(self.layers)} output layers", do="give one --layer"
            )
        return self._names.axis(analysis, self.layers[0] if self.layers else None)

    def names_left(self, analysis: Analysis, gone: Units) -> NamesLeft | None:
        """The file of class names without those that are gone; None if no such file was given."""
        if self.classes is None or self._names.file is None:
            return None
        address = self._class_axis(analysis).address
        return NamesLeft(self._names, address, frozenset()).without(gone)

    def _by_rank(
        self, analysis: Analysis, statistics: Statistics
    ) -> tuple[dict[str, np.ndarray], list[Note]]:
        from kprune.pointing import Source as Text
        from kprune.pruning.amounts import measure_of
        from kprune.select.naming.expressions import parse_expression
        from kprune.select.ranking.choose import choose, ids_of, prunable_axes

        left_out = sorted(excluded(analysis, self.exclude))
        whole = [analysis.map.axes[address] for address in left_out]
        if self.layers:
            names = [parse_layer(name) for name in self.layers]
            axes = [axis for name in names for axis in axes_named(analysis, name)]
            named = not any(is_glob(name) for name in names)
        else:
            axes, named = prunable_axes(analysis), False
        axes = [axis for axis in dict.fromkeys(axes) if axis not in whole]
        if not axes:
            raise self._nothing_chosen(analysis)
        if self.choice is not None:
            for name in self.choice.per_layer:
                axes_named(analysis, parse_layer(name))  # refuses an unknown one
            measure = (
                measure_of(self.choice.target.kind, analysis, statistics.source)
                if self.choice.target
                else None
            )
            result = choose(
                analysis,
                statistics,
                self.choice,
                axes,
                named=named,
                measure=measure,
                whole=whole,
            )
            notes = [
                Note("skipped", address, clean(why, 300)) for address, why in result.skipped.items()
            ]
            if result.achieved is not None and self.choice.target is not None:
                text = f"{self.choice.target.amount} asked for, {result.achieved:,.0f} left"
                counted = measure.counts if measure is not None else ""
                notes.append(Note("budget", "", f"{counted}: {text}"))
            if self.choice.together or self.choice.target is not None:
                notes += _narrow(axes, result.units)
            return result.units, notes
        expression = Where(parse_expression(self.where or ""), source=Text(self.where or ""))
        found, notes = {}, []
        refused: MissingStatisticError | None = None
        frozen = analysis.groups.frozen()
        held = analysis.groups.frozen(kinds=(), held=ids_of(whole))
        for axis in axes:
            try:
                indices = indices_of(expression, axis, statistics, allow_empty=len(axes) > 1)
            except MissingStatisticError as error:
                if named:
                    raise
                notes.append(Note("skipped", axis.address, error.what))
                refused = error
                continue
            indices = indices[~held[axis.ids[indices]]]
            if not named:
                indices = indices[~frozen[axis.ids[indices]]]
                # A layer that is not named keeps at least one unit.
                indices = indices[: len(axis) - 1] if len(indices) == len(axis) else indices
            found[axis.address] = indices
        if refused is not None and not found:
            raise refused
        return found, notes


def _narrow(axes: Iterable[UnitAxis], chosen: Units) -> list[Note]:
    """A note on layers of which ranking in one list leaves almost nothing.

    Training does not repair such layers (see the table in the README).
    """
    left = {axis: len(axis) - len(chosen.get(axis.address, ())) for axis in axes}
    narrow = [axis for axis in left if left[axis] < NARROW * len(axis)]
    if not narrow:
        return []
    named = [f"'{clean(axis.address)}' keeps {left[axis]} of {len(axis)} units" for axis in narrow]
    more = f", and {len(named) - 3} more layers" if len(named) > 3 else ""
    text = f"{', '.join(named[:3])}{more}: --max-ratio {1 - NARROW:g} bounds what a layer loses"
    return [Note("narrow", narrow[0].address, text)]
