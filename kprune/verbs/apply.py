"""Carrying out a plan, step by step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.errors import CheckError, FileError, KpruneError, PlanError, UsageError
from kprune.faults import file_error, shown
from kprune.formats import Source
from kprune.opened import open_model
from kprune.page.result import Note
from kprune.pruning.carrying import Target, carry_out, carry_out_source
from kprune.pruning.changes import Change, masking, removal, taking_out, zeroing
from kprune.pruning.selection import NamesLeft, Selection, statistics_of
from kprune.pruning.token_ids import TokenIds
from kprune.report.kept import kept_of_both
from kprune.report.report import Report
from kprune.select.naming.specs import spec_from_pair
from kprune.select.plans.plan import EVERY, LayerChoice, Plan, Step, failed_expectations, parse_plan
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.options import BUDGETS
from kprune.sets import distinct
from kprune.surgery.provenance import KEY
from kprune.verbs.compact import compact_source, compacting


def load_plan(plan: Plan | str | os.PathLike[str]) -> tuple[Plan, Path | None]:
    """A plan, and the folder that the files it names are relative to.

    Raises: FileError if it cannot be read, PlanError for what it says.
    """
    if isinstance(plan, Plan):
        return plan, None
    path = Path(plan)
    return parse_plan(plan_text(path), path.name), path.parent


def plan_text(path: Path) -> str:
    """What a plan's file says. Raises: FileError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise file_error(error, "read", f"the plan {shown(path)}") from error
    except UnicodeDecodeError as error:
        raise FileError(
            f"cannot read the plan {shown(path)}", why="it is not text in UTF-8"
        ) from error


def apply_plan(
    model: Any,
    plan: Plan,
    base: Path | None,
    target: Target,
    rules: Iterable[str],
    *,
    drop_branches: bool = False,
    trust: bool = False,
) -> Any:
    """See `kprune.verbs.change.apply`."""
    rules = list(rules)
    last = len(plan.steps) - 1
    placing = target
    names: NamesLeft | None = None  # of the classes that all steps so far have left
    token_ids: TokenIds | None = None  # what the first step said that renumbered tokens

    def make(number: int) -> Callable[[Source, Analysis], Change]:
        def change(source: Source, analysis: Analysis) -> Change:
            if number == 0:
                _check_model(analysis, plan)
            nonlocal names, token_ids
            made = _step(source, analysis, plan, number, base, drop_branches)
            if made.names is not None:
                names = made.names
            elif names is not None and made.gone is not None:
                names = names.without(made.changed)
            if number == last:
                _expect(source, analysis, made, plan)
            token_ids = made.token_ids if token_ids is None else token_ids
            made = replace(made, token_ids=token_ids if number == last else None)
            if number < last or names is None:
                return replace(made, names=None)
            # A plan's own place, not beside what a step wrote.
            return replace(made, names=replace(names, place=placing.names_path(source, names)))

        return change

    def step_of(source: Source, number: int, target: Target) -> Report:
        step = plan.steps[number]
        if step.backend == "compact":
            return compact_source(source, rules, make(number), target, check=step.check)
        return carry_out_source(source, rules, make(number), target)

    if last == 0 and isinstance(model, (str, os.PathLike)):
        with open_model(model, trust=trust) as source:
            return step_of(source, 0, target)
    if last == 0:
        return carry_out(model, target, rules, make(0), trust=trust)
    if not isinstance(model, (str, os.PathLike)):
        raise UsageError(
            "a plan of several steps goes with a model file", do="save the model first"
        )
    with (
        open_model(model, trust=trust) as source,
        tempfile.TemporaryDirectory(
            dir=None if target.dry_run else _beside(target.path(source)), prefix=".kprune-"
        ) as folder,
    ):
        # What a step writes is the next one's input; only the last one's output is the user's.
        if not (target.output or target.in_place) and source.path:
            placing = replace(target, output=target.path(source))
        final = placing
        if target.in_place:
            final = replace(target, output=target.path(source), in_place=False, force=True)
        report: Report | None = None
        here: str | os.PathLike[str] = model
        for number in range(last + 1):
            place = Path(folder) / f"{number}.model"
            # A pipe can be read but once.
            opened = open_model(here, trust=trust) if number else nullcontext(source)
            with opened as between:
                step = step_of(between, number, final if number == last else Target(place))
                left = _units_left(between, since=source)
            report = step if report is None else followed_by(report, step, left)
            here = place
    return report


def _units_left(model: Source, *, since: Source) -> dict[str, list[int]]:
    """For each layer the units that are left, as another model counts them that this one came of."""
    units, before = ((it.metadata.get(KEY) or {}).get("units") or {} for it in (model, since))
    places = {name: {unit: at for at, unit in enumerate(own)} for name, own in before.items()}
    return {
        name: [places[name][unit] for unit in own] if name in places else own
        for name, own in units.items()
    }


def _beside(path: str) -> Path | None:
    return None if path == "-" else Path(path).absolute().parent


def followed_by(first: Report, second: Report, left: Mapping[str, list[int]]) -> Report:
    """One report of two steps, in terms of the first one's input.

    Args:
        left: for each layer the original indices that the second step found.
    """

    def original(units: Mapping[str, list[int]]) -> dict[str, list[int]]:
        return {
            address: [left[address][i] for i in indices] if address in left else indices
            for address, indices in units.items()
        }

    def union(one: Mapping[str, list[int]], other: Mapping[str, list[int]]) -> dict[str, list[int]]:
        return {key: sorted({*one.get(key, ()), *other.get(key, ())}) for key in {**one, **other}}

    layers = {row.name: row for row in first.layers}
    for row in second.layers:
        before = layers.get(row.name)
        layers[row.name] = (
            row
            if before is None
            else msgspec.structs.replace(
                row,
                units_before=before.units_before,
                parameters_before=before.parameters_before,
                flops_before=before.flops_before,
            )
        )
    weights = {row.path: row for row in first.weights}
    for change in second.weights:
        early = weights.get(change.path)
        weights[change.path] = (
            change
            if early is None
            else msgspec.structs.replace(
                change, shape_before=early.shape_before, kept=kept_of_both(early, change)
            )
        )
    return msgspec.structs.replace(
        second,
        command="apply",
        backend=first.backend
        if first.backend == second.backend
        else f"{first.backend}, {second.backend}",
        exact=first.exact and second.exact,
        input=first.input,
        selected=union(first.selected, original(second.selected)),
        changed=union(first.changed, original(second.changed)),
        layers=list(layers.values()),
        weights=list(weights.values()),
        notes=[*first.notes, *second.notes],
    )


def _check_model(analysis: Analysis, plan: Plan) -> None:
    """Raises: PlanError if the plan was made for another model."""
    if plan.model is None or plan.model.parameters == (have := count(analysis).parameters):
        return
    raise PlanError(
        f"the plan is for a model of {plan.model.parameters:,} parameters, and this one has {have:,}",
        where=plan.where("model", "parameters"),
        do="check which model the plan was made for; nothing was written",
    )


def _step(
    source: Source,
    analysis: Analysis,
    plan: Plan,
    number: int,
    base: Path | None,
    drop_branches: bool,
) -> Change:
    """The change of one step. Errors tell the plan's line."""
    step = plan.steps[number]
    chosen: dict[str, np.ndarray] = {}
    notes: list[Note] = []
    place: tuple[str, ...] = ()
    try:
        data = None if step.data is None else (base or Path()) / step.data
        statistics = statistics_of(source, analysis, data)
        selections = []
        for at, selection in _selections(step, base):
            place = at
            selections.append(selection)
            if step.backend != "mask":
                found, more = selection.resolve(analysis, statistics)
                notes += more
                for address, indices in found.items():
                    chosen[address] = distinct(chosen.get(address, np.zeros(0, np.int64)), indices)
        if step.whole_layers:
            place = ("whole_layers",)
            made = taking_out(
                analysis, step.whole_layers, allow_output_change=step.allow_output_change
            )
        elif step.backend == "compact":
            made = compacting(
                source, analysis, merge=step.merge, only=chosen if step.layers else None
            )
        elif step.backend == "mask":
            made = masking(analysis, statistics, selections, below=step.below)
        elif step.backend == "zero":
            made = zeroing(
                source, analysis, chosen, notes,
                outgoing=step.outgoing, silence=step.silence, coupled=step.coupled,
            )  # fmt: skip
        else:
            made = removal(
                analysis,
                chosen,
                notes,
                coupled=step.coupled,
                allow_output_change=step.allow_output_change,
                drop_branches=drop_branches or step.drop_branches,
                folding=source if step.fold else None,
            )
            if step.classes is not None:
                made = replace(made, names=selections[-1].names_left(analysis, made.changed))
    except KpruneError as error:
        line = plan.where("steps", number, *place)
        if line and line not in error.where:
            error.where = f"{error.where} ({line})" if error.where else line
        raise
    return replace(made, command="apply")


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


def _expect(source: Source, analysis: Analysis, change: Change, plan: Plan) -> None:
    """Raises: CheckError if the result is not what the plan expects."""
    if plan.expect is None:
        return
    after = count(analysis, change.gone, change.edit.dropped)
    facts = {
        "parameters": after.parameters,
        "flops": after.flops,
        "units": after.units,
        "bytes": source.output_size(change.edit),
        "exact": change.exact,
    }
    failed = failed_expectations(plan.expect, facts)
    if failed:
        raise CheckError(
            "the plan's expectations do not hold",
            where=plan.where("expect"),
            why="; ".join(failed),
            do="nothing was written",
        )
