"""The commands that change a model file, as functions: zero, mask, unmask, remove, apply, plan.

Each opens the file, analyses it, chooses units, makes an Edit, and has `kprune.formats` carry it out.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kprune.analysis import Analysis
from kprune.errors import CheckError, CannotPruneError, UsageError
from kprune.formats import Source, default_output, open_model, write_model
from kprune.labels.closure import Closure, check, close
from kprune.report.build import build, facts, removal_notes
from kprune.report.counts import count
from kprune.report.report import Note, Report
from kprune.select.choose import Choice, choose, prunable_axes
from kprune.select.resolve import axes_named, excluded, indices_of, is_glob, layers_named, resolve, specs_from
from kprune.select.specs import parse_layer
from kprune.select.statistics import Statistics
from kprune.surgery import emitted, mask as masks
from kprune.surgery.edit import Edit
from kprune.surgery.optimizer import find_slots
from kprune.surgery.provenance import with_provenance
from kprune.surgery.relocate import variable_names
from kprune.surgery.remove import remove as remove_edit
from kprune.surgery.zero import zero as zero_edit, zero_through
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.select.plans import Plan

Progress = Callable[[int, int], None]
Units = Mapping[str, np.ndarray]
BACKENDS = ("remove", "zero", "mask")


@dataclass(frozen=True)
class Target:
    """Where the result goes.

    Attributes:
        output: a path, `-` for standard output, or None for `NAME.pruned.EXT` beside the input.
        in_place: write over the input.
        force: write over an existing file.
        dry_run: write nothing.
        limits: figures of the result that must not be exceeded: `parameters`, `flops`, `bytes`, `units`.
        progress: called with (bytes done, bytes in all).
    """

    output: str | os.PathLike[str] | None = None
    in_place: bool = False
    force: bool = False
    dry_run: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    progress: Progress | None = None

    def path(self, source: Source) -> str:
        """Where a source's result goes. Raises: UsageError if that cannot be told."""
        if self.in_place and self.output is not None:
            raise UsageError("--in-place and --output are two places", do="give one of them")
        if source.path is None and self.output is None:
            raise UsageError(
                "the model comes from standard input, so it has no name to write beside",
                do="name the output with -o PATH, or -o - for standard output",
            )
        if self.in_place:
            return str(source.path)
        return str(self.output) if self.output is not None else str(default_output(str(source.path)))


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

    def resolve(self, analysis: Analysis, statistics: Statistics) -> tuple[dict[str, np.ndarray], list[Note]]:
        """By address, sorted int64 indices; and what was left out.

        Raises: UsageError if nothing is chosen.
        """
        if self.where is not None and self.choice is not None:
            raise UsageError("--where and --criterion are two ways to choose", do="give one of them")
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

    def _by_rank(self, analysis: Analysis, statistics: Statistics) -> tuple[dict[str, np.ndarray], list[Note]]:
        left_out = excluded(analysis, self.exclude)
        if self.layers:
            names = [parse_layer(name) for name in self.layers]
            axes = [axis for name in names for axis in axes_named(analysis, name)]
            named = not any(is_glob(name) for name in names)
        else:
            axes, named = prunable_axes(analysis), False
        axes = [axis for axis in dict.fromkeys(axes) if axis.address not in left_out]
        if self.choice is not None:
            result = choose(analysis, statistics, self.choice, axes, named=named)
            notes = [Note("skipped", address, clean(why, 300)) for address, why in result.skipped.items()]
            return result.units, notes
        from kprune.errors import ExpressionError
        from kprune.select.expressions import parse_expression
        from kprune.select.indices import Where
        from kprune.select.pointing import Source as Text

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


@dataclass(frozen=True, eq=False)
class Change:
    """An edit with everything its report needs."""

    command: str
    backend: str
    edit: Edit
    selected: Units
    changed: Units
    gone: np.ndarray | None = None
    notes: tuple[Note, ...] = ()
    exact: bool = True


Make = Callable[[Source, Analysis], Change]


def _carry_out(model: Any, target: Target, rules: Iterable[str], make: Make) -> Any:
    """Open, analyse, make the change, report, write. A live Keras model goes through a temporary file."""
    if not isinstance(model, (str, os.PathLike)):
        return _live(model, target, rules, make)
    with open_model(model) as source:
        analysis = analyse(source, rules)
        change = make(source, analysis)
        return _write(source, analysis, change, target)


def analyse(source: Source, rules: Iterable[str] = ()) -> Analysis:
    """The analysis of an opened file, with rules from further files."""
    from kprune.rules.loading import load_rules

    return Analysis.of(source.config, source.metadata, source.tensors, load_rules(rules))


def _write(source: Source, analysis: Analysis, change: Change, target: Target) -> Report:
    path = target.path(source)
    change = _named(change, analysis)
    old = count(analysis)
    report = build(
        analysis,
        change.edit,
        command=change.command,
        backend=change.backend,
        before=facts(old, None if source.path is None else str(source.path), source.format, source.bytes),
        selected=change.selected,
        changed=change.changed,
        gone=change.gone,
        notes=change.notes,
        exact=change.exact,
    )
    if target.dry_run or target.limits:
        report = with_output(report, None, source.output_size(change.edit))
        check_limits(report, target.limits)
    if target.dry_run:
        return report
    written = write_model(
        source, change.edit, path, force=target.force or target.in_place, progress=target.progress
    )
    return with_output(report, path, written)


def _named(change: Change, analysis: Analysis) -> Change:
    """The change with the layers' names beside their variables, which only Keras 3 writes."""
    import dataclasses

    if not str(analysis.metadata.get("keras_version", "")).startswith("3"):
        return change
    edit = dataclasses.replace(change.edit, names=variable_names(change.edit.config))
    return dataclasses.replace(change, edit=edit)


def with_output(report: Report, path: str | None, size: int) -> Report:
    """The report with the place and size of what was written."""
    import msgspec

    output = msgspec.structs.replace(report.output, path=path, bytes=size)
    return msgspec.structs.replace(report, output=output)


def check_limits(report: Report, limits: Mapping[str, float]) -> None:
    """Raises: CheckError, before anything is written, if the result would be larger than allowed."""
    for name, limit in limits.items():
        value = getattr(report.output, name)
        if value > limit:
            raise CheckError(
                f"the result would have {value:,} {name}, and --max-{name} allows {limit:,.0f}",
                do="choose more units; nothing was written",
            )


def _live(model: Any, target: Target, rules: Iterable[str], make: Make) -> Any:
    """Save a Keras model, change the file, load it again."""
    if not (hasattr(model, "save") and hasattr(model, "get_config")):
        raise UsageError(
            f"a model is given as a {type(model).__name__}", do="give the path of a model file, or a Keras model"
        )
    if target.output is not None or target.in_place or target.dry_run:
        raise UsageError("output, in_place and dry_run go with model files", do="save the model first")
    import keras

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "model.keras", Path(folder) / "pruned.keras"
        model.save(before)
        _carry_out(before, Target(after, limits=target.limits), rules, make)
        return keras.models.load_model(after)


# -- the commands -----------------------------------------------------------------------------------


def remove(
    model: Any,
    units: Any = None,
    *,
    layers: Sequence[str] | None = None,
    where: str | None = None,
    choice: Choice | None = None,
    exclude: Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    force: bool = False,
    dry_run: bool = False,
    coupled: bool = True,
    allow_output_change: bool = False,
    limits: Mapping[str, float] | None = None,
    rules: Iterable[str] = (),
    progress: Progress | None = None,
) -> Any:
    """Remove units physically, with every consequence.

    Args:
        model: path of a model file, or a Keras model.
        units: a mapping from LAYER[.AXIS] to indices ({"dense_1": [3, 7, 12]}), or specs ("dense_1:3,7").
        layers, where, choice, exclude: see `Selection`.
        output, in_place, force, dry_run, limits, progress: see `Target`.
        coupled: whether units tied to the chosen ones may go along.
        allow_output_change: whether the model's inputs and outputs may change.
        rules: files with rules for layers that kprune does not know.
    Returns: the Report; for a Keras model, the smaller Keras model.
    Raises: UsageError, CannotPruneError, FileError, CheckError.
    """
    selection = Selection(units, layers, where, choice, exclude)

    def make(source: Source, analysis: Analysis) -> Change:
        chosen, notes = selection.resolve(analysis, Statistics(analysis, source))
        return removal(analysis, chosen, notes, coupled=coupled, allow_output_change=allow_output_change)

    return _carry_out(model, Target(output, in_place, force, dry_run, limits or {}, progress), rules, make)


def removal(
    analysis: Analysis,
    chosen: Units,
    notes: Iterable[Note] = (),
    *,
    coupled: bool = True,
    allow_output_change: bool = False,
) -> Change:
    """The change that removes units. Raises: CannotPruneError if they cannot go."""
    closure = close(analysis.groups, chosen)
    check(closure, allow_output_change=allow_output_change, coupled=coupled)
    edit = remove_edit(analysis, closure)
    found = [*notes, *removal_notes(analysis, closure), *_dropped_state(analysis, edit)]
    options = {} if not allow_output_change else {"allow_output_change": True}
    metadata = with_provenance(analysis, backend="remove", units=chosen, options=options, gone=closure.gone)
    return Change(
        "remove",
        "remove",
        _with_metadata(edit, metadata),
        closure.chosen,
        closure.affected,
        closure.gone,
        tuple(found),
        exact=not any(note.kind == "inexact" for note in found),
    )


def zero(
    model: Any,
    units: Any = None,
    *,
    layers: Sequence[str] | None = None,
    where: str | None = None,
    choice: Choice | None = None,
    exclude: Sequence[str] = (),
    outgoing: bool = False,
    silence: bool = False,
    output: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    force: bool = False,
    dry_run: bool = False,
    coupled: bool = True,
    limits: Mapping[str, float] | None = None,
    rules: Iterable[str] = (),
    progress: Progress | None = None,
) -> Any:
    """Set the units' incoming weights and biases to 0; every shape stays.

    Args:
        outgoing: also what consumers hold for the units, and for all that is tied to them; the
            result then computes what `remove` would.
        silence: set the biases so low that classes of an output layer get probability 0.
        model, units, …: see `remove`.
    Returns: the Report; for a Keras model, the changed Keras model.
    """
    selection = Selection(units, layers, where, choice, exclude)

    def make(source: Source, analysis: Analysis) -> Change:
        chosen, notes = selection.resolve(analysis, Statistics(analysis, source))
        return zeroing(source, analysis, chosen, notes, outgoing=outgoing, silence=silence, coupled=coupled)

    return _carry_out(model, Target(output, in_place, force, dry_run, limits or {}, progress), rules, make)


def zeroing(
    source: Source,
    analysis: Analysis,
    chosen: Units,
    notes: Iterable[Note] = (),
    *,
    outgoing: bool = False,
    silence: bool = False,
    coupled: bool = True,
) -> Change:
    """The change that zeroes units."""
    found = list(notes)
    options = {name: True for name, on in (("outgoing", outgoing), ("silence", silence)) if on}
    if outgoing and silence:
        raise UsageError("--silence is for an output layer, which has no consumers", do="leave out --outgoing")
    for address in chosen:
        if analysis.map.axes[address].name == "features":
            raise CannotPruneError(
                f"'{clean(address)}' is the model's input, which has no weights to zero",
                do="use 'kprune remove --allow-output-change' to take input features away",
            )
    changed: Units = chosen
    if outgoing:
        closure: Closure = close(analysis.groups, chosen)
        check_coupled(closure, coupled)
        edit, changed = zero_through(analysis, closure), closure.affected
    else:
        edit = zero_edit(analysis, chosen, silence=silence)
        if not silence:
            found += [Note("emits", e.layer, e.text) for e in emitted.emissions(analysis, source.read, chosen)]
    metadata = with_provenance(analysis, backend="zero", units=chosen, options=options, gone=None)
    return Change("zero", "zero", _with_metadata(edit, metadata), chosen, changed, None, tuple(found))


def check_coupled(closure: Closure, coupled: bool) -> None:
    """Raises: CannotPruneError if others go along and may not."""
    if not coupled and closure.coupled:
        from kprune.labels.closure import refuse_coupled

        refuse_coupled(closure)


def mask(
    model: Any,
    units: Any = None,
    *,
    layers: Sequence[str] | None = None,
    where: str | None = None,
    choice: Choice | None = None,
    exclude: Sequence[str] = (),
    below: float | None = None,
    output: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    force: bool = False,
    dry_run: bool = False,
    limits: Mapping[str, float] | None = None,
    rules: Iterable[str] = (),
    progress: Progress | None = None,
) -> Any:
    """Multiply the units' outputs by 0, by stock Keras parts only; `unmask` takes that out again.

    Args:
        below: instead, zero at run time every activation whose magnitude is under this; `units`
            may then name layers without units, for all of them.
        model, units, …: see `remove`. Layers without weights can be masked as well.
    Returns: the Report; for a Keras model, the masked Keras model.
    """

    def make(source: Source, analysis: Analysis) -> Change:
        selection = Selection(units, layers, where, choice, exclude)
        return masking(source, analysis, selection, below=below)

    return _carry_out(model, Target(output, in_place, force, dry_run, limits or {}, progress), rules, make)


def masking(source: Source, analysis: Analysis, selection: Selection, *, below: float | None = None) -> Change:
    """The change that masks."""
    notes: list[Note] = []
    chosen: dict[str, np.ndarray] = {}
    if selection.where is not None or selection.choice is not None:
        named, notes = selection.resolve(analysis, Statistics(analysis, source))
        for address, indices in named.items():
            path = analysis.map.axes[address].layer.path
            chosen[path] = np.union1d(chosen.get(path, np.zeros(0, np.int64)), indices)
    else:
        for spec in specs_from(selection.units or []):
            for path in layers_named(analysis, spec):
                width = masks.channels(analysis, masks.layer_at(analysis.model, path))
                indices = spec.indices.resolve(width, what=f"layer '{clean(path)}'")
                chosen[path] = np.union1d(chosen.get(path, np.zeros(0, np.int64)), indices)
    if below is not None:
        if not below > 0:
            raise UsageError(f"a threshold of {below:g}", why="magnitudes are never under 0", do="give --below a positive number")
        where: dict[str, np.ndarray | None] = dict(chosen)
        for name in selection.layers or [] if not (selection.where or selection.choice) else []:
            where.update(dict.fromkeys(layers_named(analysis, parse_layer(name))))
        if not where:
            raise UsageError("no layer is named", do="name the layers whose activations are to be thresholded")
        edit = masks.mask_below(analysis, where, below)
        selected = {path: np.zeros(0, np.int64) if indices is None else indices for path, indices in where.items()}
        options: dict[str, Any] = {"below": below}
    else:
        if not chosen:
            raise UsageError("no unit is chosen", do="write LAYER:INDICES, such as dense_1:3,7,12")
        edit = masks.mask(analysis, chosen)
        selected, options = chosen, {}
    notes += _dropped_state(analysis, edit)
    metadata = with_provenance(analysis, backend="mask", units=selected, options=options, gone=None)
    return Change("mask", "mask", _with_metadata(edit, metadata), selected, selected, None, tuple(notes))


def unmask(
    model: Any,
    layers: Sequence[str] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    force: bool = False,
    dry_run: bool = False,
    rules: Iterable[str] = (),
    progress: Progress | None = None,
) -> Any:
    """Take masks out again.

    Args:
        layers: the masked layers; None for all.
        model, output, …: see `remove`.
    Returns: the Report; for a Keras model, the unmasked Keras model.
    Raises: UsageError if there is no mask to take out.
    """

    def make(source: Source, analysis: Analysis) -> Change:
        paths = None
        if layers:
            paths = {path for name in layers for path in layers_named(analysis, parse_layer(name))}
        edit, freed = masks.unmask(analysis, paths)
        if not freed:
            raise UsageError("the model has no mask to take out" if paths is None else "none of these layers is masked")
        none = {path: np.zeros(0, np.int64) for path in freed}
        return Change("unmask", "mask", edit, none, none, None, tuple(_dropped_state(analysis, edit)))

    return _carry_out(model, Target(output, in_place, force, dry_run, {}, progress), rules, make)


def _with_metadata(edit: Edit, metadata: dict[str, Any]) -> Edit:
    import dataclasses

    return dataclasses.replace(edit, metadata=metadata)


def _dropped_state(analysis: Analysis, edit: Edit) -> list[Note]:
    if not edit.dropped:
        return []
    why = find_slots(analysis).why or "the order of the variables changed, so the optimizer's state was left out"
    return [Note("optimizer", "", why)]


# -- plans ------------------------------------------------------------------------------------------


def apply(
    model: Any,
    plan: Plan | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    force: bool = False,
    dry_run: bool = False,
    limits: Mapping[str, float] | None = None,
    rules: Iterable[str] = (),
    progress: Progress | None = None,
) -> Any:
    """Carry out a plan: its steps one after the other, each on what the one before it left.

    Args:
        plan: a Plan, or the path of a YAML file.
        model, output, …: see `remove`.
    Returns: the Report of the last step, with the input of the first.
    Raises: PlanError, with the line; CheckError if the plan's `expect` does not hold. Nothing is
        written then.
    """
    from kprune.plan_steps import carry_out, load_plan

    loaded, base = load_plan(plan)
    target = Target(output, in_place, force, dry_run, limits or {}, progress)
    return carry_out(model, loaded, base, target, rules)


def plan(
    model: str | os.PathLike[str],
    units: Any = None,
    *,
    layers: Sequence[str] | None = None,
    where: str | None = None,
    choice: Choice | None = None,
    exclude: Sequence[str] = (),
    backend: str = "remove",
    rules: Iterable[str] = (),
) -> Plan:
    """Choose units, and give the choice as a plan with explicit indices.

    Args:
        backend: what the plan is to do with them: `remove`, `zero` or `mask`.
        model, units, …: see `remove`.
    Raises: UsageError, CannotPruneError if the units cannot go, FileError.
    """
    return planned(
        model,
        units,
        layers=layers,
        where=where,
        choice=choice,
        exclude=exclude,
        backend=backend,
        rules=rules,
    )[0]


def planned(
    model: str | os.PathLike[str], units: Any = None, *, backend: str = "remove", rules: Iterable[str] = (), **choosing: Any
) -> tuple[Plan, list[Note]]:
    """The same with notes on what was left out. `choosing` are further arguments of `plan`."""
    from kprune.select.plans import ModelCheck, Plan as PlanStruct, Step

    if backend not in BACKENDS:
        raise UsageError(f"there is no backend '{clean(backend)}'", do=f"choose one of {', '.join(BACKENDS)}")
    with open_model(model) as source:
        analysis = analyse(source, rules)
        chosen, notes = Selection(units, **choosing).resolve(analysis, Statistics(analysis, source))
        if backend == "remove":
            check(close(analysis.groups, chosen))
        step = Step(backend=backend, layers={address: [int(i) for i in found] for address, found in chosen.items()})
        return PlanStruct(version=1, model=ModelCheck(count(analysis).parameters), steps=[step]), notes
