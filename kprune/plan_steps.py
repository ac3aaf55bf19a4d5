"""Carrying out a plan, step by step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kprune.errors import CheckError, FileError, KpruneError, PlanError, UsageError
from kprune.formats import Source, open_model
from kprune.pruning import (
    Change,
    Selection,
    Target,
    _carry_out,
    _write,
    analyse,
    masking,
    removal,
    with_output,
    zeroing,
)
from kprune.analysis import Analysis
from kprune.report.counts import count
from kprune.report.report import Report
from kprune.select.choose import Choice
from kprune.select.plans import LayerChoice, Plan, Step, failed_expectations, parse_plan
from kprune.select.specs import spec_from_pair
from kprune.select.statistics import Statistics
from kprune.text import clean


def load_plan(plan: Plan | str | os.PathLike[str]) -> tuple[Plan, Path | None]:
    """A plan, and the folder that the files it names are relative to.

    Raises: FileError if it cannot be read, PlanError for what it says.
    """
    if isinstance(plan, Plan):
        return plan, None
    path = Path(plan)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise FileError(f"cannot read the plan {clean(path)}", why=str(reason)) from error
    return parse_plan(text, path.name), path.parent


def carry_out(model: Any, plan: Plan, base: Path | None, target: Target, rules: Iterable[str]) -> Any:
    """See `kprune.pruning.apply`."""
    rules = list(rules)
    steps = list(enumerate(plan.steps))
    if len(steps) == 1 or not isinstance(model, (str, os.PathLike)):
        if len(steps) > 1:
            raise UsageError("a plan of several steps goes with a model file", do="save the model first")
        return _carry_out(model, target, rules, lambda s, a: _first(s, a, plan, base))
    # Each step but the last writes to a temporary folder beside the output.
    with open_model(model) as source:
        place = Path(target.path(source)) if target.path(source) != "-" else None
        parent = place.parent if place is not None else None
        with tempfile.TemporaryDirectory(dir=parent, prefix=".kprune-") as folder:
            change = _first(source, analyse(source, rules), plan, base, last=False)
            here = Path(folder) / "0.keras"
            first = _write(source, analyse(source, rules), change, Target(here))
            for number, step in steps[1:-1]:
                with open_model(here) as between:
                    analysis = analyse(between, rules)
                    here = Path(folder) / f"{number}.keras"
                    _write(between, analysis, _step(between, analysis, plan, number, step, base), Target(here))
            number, step = steps[-1]
            with open_model(here) as between:
                analysis = analyse(between, rules)
                change = _step(between, analysis, plan, number, step, base)
                _expect(between, analysis, change, plan)
                final = Target(
                    None if place is None and target.dry_run else target.path(source),
                    False, target.force or target.in_place, target.dry_run, target.limits, target.progress,
                )  # fmt: skip
                last: Report = _write(between, analysis, change, final)
    import msgspec

    return msgspec.structs.replace(
        last,
        input=first.input,
        selected={**first.selected, **last.selected},
        notes=[*first.notes, *last.notes],
        exact=first.exact and last.exact,
    )


def _first(source: Source, analysis: Analysis, plan: Plan, base: Path | None, *, last: bool = True) -> Change:
    if plan.model is not None and plan.model.parameters != (have := count(analysis).parameters):
        raise PlanError(
            f"the plan is for a model of {plan.model.parameters:,} parameters, and this one has {have:,}",
            where=plan.where("model", "parameters"),
            do="check which model the plan was made for; nothing was written",
        )
    change = _step(source, analysis, plan, 0, plan.steps[0], base)
    if last:
        _expect(source, analysis, change, plan)
    return change


def _step(source: Source, analysis: Analysis, plan: Plan, number: int, step: Step, base: Path | None) -> Change:
    """The change of one step. Errors tell the plan's line."""
    statistics = Statistics(analysis, source)
    chosen: dict[str, Any] = {}
    notes: list[Any] = []
    name = next(iter(step.layers))
    try:
        if step.backend == "mask":
            specs = [
                spec_from_pair(name, value, base=base)
                for name, value in step.layers.items()
                if not isinstance(value, LayerChoice)
            ]
            return masking(source, analysis, Selection(units=specs, exclude=step.exclude))
        for name, value in step.layers.items():
            found, more = selection_of(name, value, step.exclude, base).resolve(analysis, statistics)
            notes += more
            for address, indices in found.items():
                import numpy as np

                chosen[address] = np.union1d(chosen.get(address, np.zeros(0, np.int64)), indices)
        if step.backend == "zero":
            return zeroing(
                source, analysis, chosen, notes,
                outgoing=step.outgoing, silence=step.silence, coupled=step.coupled,
            )  # fmt: skip
        return removal(
            analysis, chosen, notes, coupled=step.coupled, allow_output_change=step.allow_output_change
        )
    except KpruneError as error:
        place = plan.where("steps", number, "layers", name)
        if place and place not in error.where:
            error.where = f"{error.where} ({place})" if error.where else place
        raise


def selection_of(name: str, value: Any, exclude: list[str], base: Path | None) -> Selection:
    """What one line of a step selects."""
    if not isinstance(value, LayerChoice):
        return Selection(units=[spec_from_pair(name, value, base=base)], exclude=exclude)
    if value.where is not None:
        return Selection(layers=[name], where=value.where, exclude=exclude)
    choice = Choice(
        str(value.criterion), value.ratio, value.count, value.threshold, value.round_to, value.min_units
    )
    return Selection(layers=[name], choice=choice, exclude=exclude)


def _expect(source: Source, analysis: Analysis, change: Change, plan: Plan) -> None:
    """Raises: CheckError if the result is not what the plan expects."""
    if plan.expect is None:
        return
    after = count(analysis, change.gone)
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


__all__ = ["carry_out", "load_plan", "selection_of", "with_output"]
