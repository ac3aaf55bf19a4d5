"""Carrying out a plan, step by step."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.atomic import work_folder
from kprune.errors import CheckError, FileError, KpruneError, PlanError, UsageError
from kprune.faults import file_error, shown
from kprune.formats import Source
from kprune.formats.opening import STANDARD_INPUT
from kprune.formats.registry import usual_suffix
from kprune.limits import PLAN_BYTES
from kprune.opened import LiveModel, Opened, opened
from kprune.pruning.steps import Asked
from kprune.pruning.writing import Target, write
from kprune.report.change import Change
from kprune.report.kept_positions import kept_of_both
from kprune.report.names_left import NamesLeft
from kprune.report.report import Report
from kprune.report.token_ids import TokenIds
from kprune.select.plans.backends import BACKENDS
from kprune.select.plans.plan import Plan, Step, failed_expectations, parse_plan
from kprune.surgery.provenance import left_units
from kprune.types import AnyPath, Progress
from kprune.verbs.arguments import Opening

if TYPE_CHECKING:
    from kprune.pruning.repairing import Repair
    from kprune.running.sources import DataSource
    from kprune.select.ranking.options import Way


class Refitting(Struct, frozen=True, eq=False):
    """What a command says of refitting.

    Attributes:
        method: for steps that say nothing themselves; True for the best that the data allow.
        data, memory, progress: see `kprune.pruning.repairing.Repair`; for every step.
    """

    method: Way | bool | None = None
    data: DataSource | None = None
    memory: int | None = None
    progress: Progress | None = None


def load_plan(plan: Plan | AnyPath) -> tuple[Plan, Path | None]:
    """A plan, and the folder that the files it names are relative to; `-` reads standard input.

    Raises: FileError if it cannot be read, PlanError for errors in it.
    """
    if isinstance(plan, Plan):
        return plan, None
    if os.fspath(plan) == STANDARD_INPUT:
        from kprune.select.naming.index_files import content_of, text_of

        text = text_of(content_of(STANDARD_INPUT, what="plan"), "standard input", what="steps")
        return parse_plan(text, "standard input"), None
    path = Path(plan)
    return parse_plan(plan_text(path), path.name), path.parent


def plan_text(path: Path) -> str:
    """The text of a plan's file. Raises: FileError if it cannot be read, LimitError if it is too long."""
    try:
        with open(path, "rb") as stream:
            return PLAN_BYTES.read(stream, f"the plan {shown(path)}").decode()
    except OSError as error:
        raise file_error(error, "read", f"the plan {shown(path)}") from error
    except UnicodeDecodeError as error:
        raise FileError(
            f"cannot read the plan {shown(path)}", why="it is not text in UTF-8"
        ) from error


def apply_plan(
    model: AnyPath | LiveModel,
    plan: Plan,
    base: Path | None,
    target: Target,
    *,
    rules: Iterable[str] = (),
    drop_branches: bool = False,
    refitting: Refitting | None = None,
    trust: bool = False,
    drop_optimizer: bool = False,
) -> Report | LiveModel:
    """See `kprune.verbs.change.apply`.

    Args:
        refitting: how what steps leave is refitted, as far as they do not say it themselves.
    """
    if len(plan.steps) > 1:
        if isinstance(model, LiveModel):
            raise UsageError(
                "a plan of several steps needs a model file", do="save the model first"
            )
        opening: Opening = {"rules": tuple(rules), "trust": trust, "drop_optimizer": drop_optimizer}
        return _in_turn(model, plan, base, target, drop_branches, refitting, opening)
    with opened(model, rules=rules, trust=trust, drop_optimizer=drop_optimizer) as it:
        target.check(it.source)
        _check_model(it.analysis, plan)
        change = _step(it, plan, 0, base, drop_branches, refitting)
        _expect(it, change, plan)
        return _written(it, plan.steps[0], change, target)


def _in_turn(
    model: AnyPath,
    plan: Plan,
    base: Path | None,
    target: Target,
    drop_branches: bool,
    refitting: Refitting | None,
    opening: Opening,
) -> Report:
    """Several steps. The output of a step is the input of the next one; only the last output goes to the user."""
    with (
        opened(model, **opening) as first,
        work_folder(None if target.dry_run else _beside(target.path(first.source))) as folder,
    ):
        _check_model(first.analysis, plan)
        final, placing = _last_target(target, first)
        sofar, here, last = _SoFar(), model, len(plan.steps) - 1
        for number, step in enumerate(plan.steps):
            # A pipe can be read but once.
            it: Opened
            with opened(here, **opening) if number else nullcontext(first) as it:
                place = folder / f"{number}{usual_suffix(it.source)}"
                change = _step(it, plan, number, base, drop_branches, refitting)
                sofar.follow(change)
                if number == last:
                    _expect(it, change, plan)
                change = sofar.beside(change, it, placing if number == last else None)
                done = _written(it, step, change, final if number == last else Target(place))
                assert isinstance(done, Report)
                sofar.report(done, _units_left(it.source, since=first.source))
            here = place
    assert sofar.reported is not None
    return sofar.reported


def _last_target(target: Target, first: Opened) -> tuple[Target, Target]:
    """Where the last step writes, whose input is a temporary file; and what files beside it are called after."""
    placing = target
    if not (target.output or target.in_place) and first.path:
        placing = replace(target, output=target.path(first.source))
    if not target.in_place:
        return placing, placing
    output = target.path(first.source)
    return replace(target, output=output, in_place=False, force=True), placing


@dataclass
class _SoFar:
    """The result of the steps so far.

    Attributes:
        names: of the classes that all of them have left.
        token_ids: what the first one said that renumbered tokens.
        reported: one report of them all.
    """

    names: NamesLeft | None = None
    token_ids: TokenIds | None = None
    reported: Report | None = None

    def follow(self, change: Change) -> None:
        """Take in the change of the next step."""
        if change.names is not None:
            self.names = change.names
        elif self.names is not None and change.gone is not None:
            self.names = self.names.without(change.changed)
        self.token_ids = change.token_ids if self.token_ids is None else self.token_ids

    def beside(self, change: Change, it: Opened, placing: Target | None) -> Change:
        """A change with the files of the whole plan beside it if it is the last, else with none.

        Args:
            placing: says where they go: a plan's own place, not beside what a step wrote.
        """
        if placing is None:
            return replace(change, names=None, token_ids=None)
        names = self.names
        if names is not None:
            names = replace(names, place=placing.names_path(it.source, names))
        return replace(change, names=names, token_ids=self.token_ids)

    def report(self, step: Report, left: Mapping[str, list[int]]) -> None:
        """Take in the report of the next step; see `followed_by`."""
        self.reported = step if self.reported is None else followed_by(self.reported, step, left)


def _written(it: Opened, step: Step, change: Change, target: Target) -> Report | LiveModel:
    """Carry out the change of one step, as its backend does."""
    backend = BACKENDS[step.backend]
    if not backend.writing:
        return write(it, change, target)
    module, _, name = backend.writing.partition(":")
    function = getattr(importlib.import_module(module), name)
    written: Report | LiveModel = function(it, change, target, step)
    return written


def _units_left(model: Source, *, since: Source) -> dict[str, list[int]]:
    """For each layer the units that are left, as another model counts them that this one came of."""
    units, before = (left_units(it.metadata) for it in (model, since))
    places = {name: {unit: at for at, unit in enumerate(own)} for name, own in before.items()}
    return {
        name: [places[name][unit] for unit in own] if name in places else own
        for name, own in units.items()
    }


def _beside(path: str) -> Path | None:
    return None if path == "-" else Path(path)


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
            else replace(
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
            else replace(change, shape_before=early.shape_before, kept=kept_of_both(early, change))
        )
    return replace(
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
    it: Opened,
    plan: Plan,
    number: int,
    base: Path | None,
    drop_branches: bool,
    refitting: Refitting | None,
) -> Change:
    """The change of one step. Errors tell the plan's line."""
    step = plan.steps[number]
    asked = Asked(it, step, base, drop_branches)
    if step.drop_optimizer:
        it.source.drop_optimizer()
    try:
        change: Change = BACKENDS[step.backend].code.of_step(asked)
        how = _repair_of(asked, refitting or Refitting()) if change.gone is not None else None
        if how is not None:
            from kprune.pruning.repairing import repaired

            change = repaired(it, change, how)
    except KpruneError as error:
        line = plan.where("steps", number, *asked.place)
        if line and line not in error.where:
            error.where = f"{error.where} ({line})" if error.where else line
        raise
    return replace(change, command="apply")


def _repair_of(asked: Asked, usual: Refitting) -> Repair | None:
    """How what a step leaves is refitted: as it says, on its own data if it names any."""
    said = asked.step.repair
    asked.place = ("repair",) if said is not None else ()
    method = usual.method if said is None else said
    if not method:
        return None
    from kprune.pruning.repairing import Repair

    data = usual.data if asked.data is None else asked.data
    return Repair(
        None if method is True else method, data, memory=usual.memory, progress=usual.progress
    )


def _expect(it: Opened, change: Change, plan: Plan) -> None:
    """Raises: CheckError if the result does not meet the plan's expectations."""
    if plan.expect is None:
        return
    after = count(it.analysis, change.gone, change.edit.dropped)
    facts = {
        "parameters": after.parameters,
        "flops": after.flops,
        "units": after.units,
        "bytes": it.source.output_size(change.edit),
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
