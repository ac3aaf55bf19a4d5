"""The public functions that change a model (remove, zero, mask, unmask, compact, apply), and plan.

Each opens the model, turns the chosen units into a change (`kprune.pruning`), and writes it.
`arguments.py` defines how they take their arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from msgspec.structs import replace

from kprune.analysis.counts import count
from kprune.errors import UsageError
from kprune.labels.closure import check as check_closure
from kprune.labels.closure import close
from kprune.opened import LiveModel, Opened, opened
from kprune.page.result import Note
from kprune.pointing import checked
from kprune.pruning.selection import Selection, statistics_of
from kprune.pruning.writing import write
from kprune.report.change import Change
from kprune.report.report import Report
from kprune.text import clean
from kprune.types import AnyPath, Progress
from kprune.verbs.arguments import (
    Changing,
    Selecting,
    Writing,
    changes,
    opening_of,
    reading_of,
    selection_of,
    target_of,
)

if TYPE_CHECKING:
    from kprune.pruning.repairing import Repair
    from kprune.running.sources import DataSource
    from kprune.select.naming.kept_tokens import Kept
    from kprune.select.plans.curves import Curves
    from kprune.select.plans.plan import Plan
    from kprune.select.ranking.options import Way
    from kprune.select.ranking.statistics import Statistics

__all__ = [
    "apply",
    "compact",
    "mask",
    "plan",
    "planned",
    "remove",
    "unmask",
    "zero",
]


@changes(Changing)
def remove(
    model: AnyPath | LiveModel,
    units: Any = None,
    *,
    fold: bool = False,
    coupled: bool = True,
    allow_output_change: bool = False,
    keep_tokens: Kept | None = None,
    drop_branches: bool = False,
    whole_layers: Sequence[str] | None = None,
    repair: Way | bool | None = None,
    on_refit: Progress | None = None,
    **arguments: Unpack[Changing],
) -> Report | LiveModel:
    """Remove units physically, and adapt everything that depends on them.

    Args:
        model: path of a model file, or a Keras model.
        units: a mapping from LAYER[.AXIS] to indices ({"dense_1": [3, 7, 12]}), or specs ("dense_1:3,7").
        layers, where, choice, classes, class_names, exclude: see `Selection`. A file of class names
            is written without those of removed classes, beside the result.
        data: inputs (and targets), for criteria and expressions on activations; see `DataSource`.
        output, in_place, force, dry_run, limits, progress: see `Target`.
        fold: also add the constant that zeroed units would still emit (act(0), a
            BatchNormalization's shift) to their consumers' biases. The result then computes what
            `zero` gives.
        coupled: whether units tied to the chosen ones may be removed with them.
        allow_output_change: whether the model's inputs and outputs may change.
        keep_tokens: remove all rows of an embedding except those of these tokens (or ids): a list,
            or the path of a file. The vocabulary in front of it is cut as well, and the new id of
            each old one is written beside the result, as NAME.tokens.json.
        drop_branches: whether a layer may vanish with its branch because units tied to its own were
            chosen. By default all of its own units must be chosen.
        whole_layers: instead of units, layers (or globs) to remove as a whole: a residual branch
            that ends in an Add, or a chain of layers whose output has the shape of its input.
        repair: refit the remaining weights to the outputs of the original: `lstsq` on the inputs of
            `data` (targets are not needed), `noise` on made-up inputs, `bias`, `bn`; True for the
            best method that the data allow. See `kprune.pruning.repairing.Repair`.
        memory: bytes of intermediate outputs, and of sums over them, that the criterion obs and a
            repair may keep at once.
        on_refit: called during a repair with (calls of layers made, calls in all).
        drop_optimizer: leave the state of the optimizer behind: a training starts with a new one.
        rules: files with rules for layers that kprune does not know.
        trust: whether code that is not Keras's own may be run to read the model.
    Returns: the Report; for a Keras model, the smaller Keras model.
    Raises: UsageError, CannotPruneError, FileError, CheckError.
    """
    selection = replace(selection_of(units, arguments), keep_tokens=keep_tokens)
    names = None if whole_layers is None else _whole(whole_layers, selection, fold=fold)
    target, data, memory = target_of(arguments), arguments.get("data"), arguments.get("memory")
    how = _repair_of(repair, data, memory, on_refit)
    with opened(model, **opening_of(arguments)) as it:
        target.check(it.source)
        if names is not None:
            from kprune.pruning.remove import taking_out

            change = taking_out(it.analysis, names, allow_output_change=allow_output_change)
            return write(it, _refitted(it, [change], how), target)
        statistics = statistics_of(it, data, made_up=how is not None, memory=memory)
        changes = (
            _removal(
                it,
                each,
                statistics,
                coupled=coupled,
                allow_output_change=allow_output_change,
                drop_branches=drop_branches,
                fold=fold,
            )
            for each in ([selection] if how is None else selection.alternatives())
        )
        return write(it, _refitted(it, changes, how), target)


def _repair_of(
    repair: Way | bool | None,
    data: DataSource | None,
    memory: int | None,
    on_refit: Progress | None,
) -> Repair | None:
    """How the remaining weights are refitted, if a repair is requested."""
    if not repair:
        return None
    from kprune.pruning.repairing import Repair

    return Repair(None if repair is True else repair, data, memory=memory, progress=on_refit)


def _refitted(it: Opened, changes: Iterable[Change], how: Repair | None) -> Change:
    """The change, refitted if requested; of several changes the best."""
    if how is None:
        return next(iter(changes))
    from kprune.pruning.repairing import nearest

    return nearest(it, changes, how)


def _removal(it: Opened, selection: Selection, statistics: Statistics, **how: bool) -> Change:
    """The change that removes what is selected, with what is left of a file of class names."""
    from kprune.pruning.remove import removal

    chosen, notes = selection.resolve(it.analysis, statistics)
    change = removal(it, chosen, notes, **how)
    return replace(change, names=selection.names_left(it.analysis, change.changed))


def _whole(names: Sequence[str], selection: Selection, *, fold: bool) -> list[str]:
    """The layers that go as a whole. Raises: UsageError if units are chosen beside them, or no layer is named."""
    if not selection.empty or fold:
        raise UsageError(
            "whole layers and units cannot be removed in one step",
            do="remove the layers first, then choose units of what is left; a plan can have a step for each",
        )
    if not names:
        raise UsageError("no layer is named", do="write --layers 'block_3_*'")
    return [names] if isinstance(names, str) else list(names)


@changes(Changing)
def zero(
    model: AnyPath | LiveModel,
    units: Any = None,
    *,
    outgoing: bool = False,
    silence: bool = False,
    coupled: bool = True,
    **arguments: Unpack[Changing],
) -> Report | LiveModel:
    """Set the units' incoming weights and biases to 0; every shape stays.

    Args:
        outgoing: also zero the consumers' weights for the units, and for all units tied to them.
            The result then computes what `remove` would.
        silence: set the biases so low that classes of an output layer get probability 0.
        model, units, …: see `remove`.
    Returns: the Report; for a Keras model, the changed Keras model.
    """
    from kprune.pruning.zero import zeroing

    selection, target = selection_of(units, arguments), target_of(arguments)
    with opened(model, **opening_of(arguments)) as it:
        target.check(it.source)
        chosen, notes = selection.resolve(
            it.analysis, statistics_of(it, arguments.get("data"), memory=arguments.get("memory"))
        )
        change = zeroing(it, chosen, notes, outgoing=outgoing, silence=silence, coupled=coupled)
        return write(it, change, target)


@changes(Changing)
def mask(
    model: AnyPath | LiveModel,
    units: Any = None,
    *,
    below: float | None = None,
    **arguments: Unpack[Changing],
) -> Report | LiveModel:
    """Multiply the units' outputs by 0 with stock Keras layers; `unmask` removes them again.

    Args:
        below: instead, set every activation whose magnitude is below this to 0 at run time. `units`
            may then name layers without indices, which means all of their units.
        model, units, …: see `remove`. Layers without weights can be masked as well.
    Returns: the Report; for a Keras model, the masked Keras model.
    """
    from kprune.pruning.mask import masking

    selection, target = selection_of(units, arguments), target_of(arguments)
    with opened(model, **opening_of(arguments)) as it:
        target.check(it.source)
        statistics = statistics_of(it, arguments.get("data"), memory=arguments.get("memory"))
        return write(it, masking(it.analysis, statistics, [selection], below=below), target)


@changes(Writing)
def unmask(
    model: AnyPath | LiveModel,
    layers: Sequence[str] | None = None,
    **arguments: Unpack[Writing],
) -> Report | LiveModel:
    """Remove masks.

    Args:
        layers: the masked layers; None for all.
        model, output, …: see `remove`.
    Returns: the Report; for a Keras model, the unmasked Keras model.
    Raises: UsageError if there is no mask to remove.
    """

    from kprune.pruning.mask import unmasking

    target = target_of(arguments)
    with opened(model, **opening_of(arguments)) as it:
        target.check(it.source)
        return write(it, unmasking(it.analysis, layers), target)


@changes(Writing)
def compact(
    model: AnyPath | LiveModel,
    *,
    merge: bool = False,
    check: bool = True,
    repair: Way | bool | None = None,
    data: DataSource | None = None,
    memory: int | None = None,
    on_refit: Progress | None = None,
    **arguments: Unpack[Writing],
) -> Report | LiveModel:
    """Remove every unit that makes no difference: the outputs stay the same, up to rounding.

    These are dead units (all incoming or outgoing weights are 0, or a mask follows) and constant
    ones (act(bias) whatever the input). The constant that they emit is added to their consumers'
    biases.

    Args:
        merge: also merge units that are equal, or equal up to a positive factor if the activation
            passes such a factor on.
        check: run the original and the result in plain Keras before the result replaces anything.
        repair, data, memory, on_refit: see `remove`. A refitted model is not checked: the report
            says how close its outputs are.
        model, output, …: see `remove`.
    Returns: the Report; for a Keras model, the smaller Keras model.
    Raises: CheckError if the check fails; nothing is written then.
    """
    from kprune.pruning.compact import compacting
    from kprune.verbs.compact import write_compacted

    target = target_of(arguments)
    with opened(model, **opening_of(arguments)) as it:
        target.check(it.source)
        change = _refitted(
            it, [compacting(it, merge=merge)], _repair_of(repair, data, memory, on_refit)
        )
        return write_compacted(it, change, target, check=check and change.repaired is None)


@changes(Writing)
def apply(
    model: AnyPath | LiveModel,
    plan: Plan | AnyPath,
    *,
    drop_branches: bool = False,
    repair: Way | bool | None = None,
    data: DataSource | None = None,
    memory: int | None = None,
    on_refit: Progress | None = None,
    **arguments: Unpack[Writing],
) -> Report | LiveModel:
    """Carry out a plan: its steps one after the other, each on the result of the one before.

    Args:
        plan: a Plan, or the path of a YAML file; `-` for standard input.
        drop_branches: see `remove`; for every step that removes units.
        repair, data, memory, on_refit: see `remove`; for steps that do not set these themselves.
        model, output, …: see `remove`.
    Returns: the Report of the last step, with the input of the first.
    Raises: PlanError, with the line; CheckError if the plan's `expect` does not hold. Nothing is
        written then.
    """
    from kprune.verbs.apply import Refitting, apply_plan, load_plan

    if model == plan == "-":
        raise UsageError(
            "the model and the plan cannot both come from standard input", do="name one of them"
        )
    loaded, base = load_plan(plan)
    return apply_plan(
        model, loaded, base, target_of(arguments),
        drop_branches=drop_branches, refitting=Refitting(repair, data, memory, on_refit),
        **opening_of(arguments),
    )  # fmt: skip


@checked(Selecting)
def plan(
    model: AnyPath | LiveModel,
    units: Any = None,
    *,
    sensitivity: Curves | AnyPath | None = None,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    backend: str = "remove",
    **arguments: Unpack[Selecting],
) -> Plan:
    """Choose units, and return the choice as a plan with explicit indices.

    Args:
        sensitivity: the result of `kprune.sensitivity`, or the file it was written to. The plan
            takes, for each group of layers, the largest cut that on its own leaves the model good
            enough. This is a heuristic; see `kprune.select.plans.curves.Curves`.
        min_accuracy, max_drop: what is good enough: the lowest value that the metric may have, or
            how much worse it may become.
        backend: what the plan does with the units: `remove`, `zero` or `mask`.
        model, units, …: see `remove`.
    Raises: UsageError, CannotPruneError if the units cannot go, FileError.
    """
    return planned(
        model,
        units,
        sensitivity=sensitivity,
        min_accuracy=min_accuracy,
        max_drop=max_drop,
        backend=backend,
        **arguments,
    )[0]


def planned(
    model: AnyPath | LiveModel,
    units: Any = None,
    *,
    backend: str = "remove",
    sensitivity: Curves | AnyPath | None = None,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    **arguments: Unpack[Selecting],
) -> tuple[Plan, list[Note]]:
    """The same with notes on what was left out."""
    from kprune.select.plans.plan import BACKENDS, ModelCheck, Plan, Step

    by_unit = [found for found in BACKENDS.values() if found.by_unit]
    known = [found.name for found in sorted(by_unit, key=lambda found: not found.removes)]
    if backend not in known:
        raise UsageError(
            f"there is no backend '{clean(backend)}'", do=f"choose one of {', '.join(known)}"
        )
    with opened(model, **reading_of(arguments)) as it:
        selection = selection_of(units, arguments)
        if sensitivity is None and min_accuracy is None and max_drop is None:
            chosen, notes = selection.resolve(
                it.analysis,
                statistics_of(it, arguments.get("data"), memory=arguments.get("memory")),
            )
        else:
            from kprune.pruning.by_sensitivity import good_enough

            chosen, notes = good_enough(
                it.analysis, selection, sensitivity, min_accuracy=min_accuracy, max_drop=max_drop
            )
        if BACKENDS[backend].removes:
            check_closure(close(it.analysis.groups, chosen))
        step = Step(
            backend=backend,
            layers={address: [int(i) for i in indices] for address, indices in chosen.items()},
        )
        found = Plan(version=1, model=ModelCheck(count(it.analysis).parameters), steps=[step])
        return found, notes
