"""The commands that change a model file, as functions: zero, mask, unmask, remove, compact, apply, plan.

Each opens the file, analyses it, chooses units, makes an Edit, and has `kprune.formats` carry it out.

What they share with other commands is in `arguments.py`; the way from a choice of units to a file is
`kprune.pruning`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.errors import UsageError
from kprune.formats import Source
from kprune.labels.closure import check, close
from kprune.opened import opened
from kprune.page.result import Note
from kprune.pruning.carrying import carry_out
from kprune.pruning.changes import Change, masking, removal, taking_out, unmasking, zeroing
from kprune.pruning.selection import Selection, statistics_of
from kprune.text import clean
from kprune.verbs.arguments import (
    Changing,
    Selecting,
    Writing,
    refuse_others,
    selection_of,
    target_of,
    trusts,
)

if TYPE_CHECKING:
    from kprune.select.naming.kept_tokens import Kept
    from kprune.select.plans.curves import Curves
    from kprune.select.plans.plan import Plan

BACKENDS = ("remove", "zero", "mask")

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


def remove(
    model: Any,
    units: Any = None,
    *,
    fold: bool = False,
    coupled: bool = True,
    allow_output_change: bool = False,
    keep_tokens: Kept | None = None,
    drop_branches: bool = False,
    whole_layers: Sequence[str] | None = None,
    **arguments: Unpack[Changing],
) -> Any:
    """Remove units physically, with every consequence.

    Args:
        model: path of a model file, or a Keras model.
        units: a mapping from LAYER[.AXIS] to indices ({"dense_1": [3, 7, 12]}), or specs ("dense_1:3,7").
        layers, where, choice, classes, class_names, exclude: see `Selection`. A file of class names
            is written without those of removed classes, beside the result.
        data: an .npz file with `x` (and `y`), for criteria and expressions on activations.
        output, in_place, force, dry_run, limits, progress: see `Target`.
        fold: also add what zeroed units would still give (act(0), a BatchNormalization's shift) to
            their consumers' biases, so that the result computes what `zero` makes of the model.
        coupled: whether units tied to the chosen ones may go along.
        allow_output_change: whether the model's inputs and outputs may change.
        keep_tokens: rows of an embedding go, but for these tokens (or ids): a list, or the path of a
            file. The vocabulary in front goes along; what became of each id is written beside the
            result, as NAME.tokens.json.
        drop_branches: whether a layer may vanish with its branch because units tied to its own were
            chosen; else that takes the choice of all its units.
        whole_layers: instead of units, layers (or globs) that go altogether: a residual branch that
            ends in an Add, or a chain of layers that gives the shape that it takes.
        rules: files with rules for layers that kprune does not know.
        trust: whether code that is not Keras's own may be run to read the model.
    Returns: the Report; for a Keras model, the smaller Keras model.
    Raises: UsageError, CannotPruneError, FileError, CheckError.
    """
    refuse_others("remove", Changing, arguments)
    selection = replace(selection_of(units, arguments), keep_tokens=keep_tokens)
    if whole_layers is not None:
        return _remove_whole(
            model, whole_layers, selection, arguments, fold=fold, output=allow_output_change
        )

    def make(source: Source, analysis: Analysis) -> Change:
        chosen, notes = selection.resolve(
            analysis, statistics_of(source, analysis, arguments.get("data"))
        )
        change = removal(
            analysis, chosen, notes,
            coupled=coupled, allow_output_change=allow_output_change,
            drop_branches=drop_branches, folding=source if fold else None,
        )  # fmt: skip
        return replace(change, names=selection.names_left(analysis, change.changed))

    return carry_out(
        model, target_of(arguments), arguments.get("rules", ()), make, trust=trusts(arguments)
    )


def _remove_whole(
    model: Any,
    names: Sequence[str],
    selection: Selection,
    arguments: Changing,
    *,
    fold: bool,
    output: bool,
) -> Any:
    if not selection.empty or fold:
        raise UsageError(
            "whole layers and units are two removals",
            do="take the layers out first, and choose units of what is left; a plan has a step for each",
        )
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise UsageError("no layer is named", do="write --layers 'block_3_*'")

    def make(source: Source, analysis: Analysis) -> Change:
        return taking_out(analysis, names, allow_output_change=output)

    rules = arguments.get("rules", ())
    return carry_out(model, target_of(arguments), rules, make, trust=trusts(arguments))


def zero(
    model: Any,
    units: Any = None,
    *,
    outgoing: bool = False,
    silence: bool = False,
    coupled: bool = True,
    **arguments: Unpack[Changing],
) -> Any:
    """Set the units' incoming weights and biases to 0; every shape stays.

    Args:
        outgoing: also what consumers hold for the units, and for all that is tied to them; the
            result then computes what `remove` would.
        silence: set the biases so low that classes of an output layer get probability 0.
        model, units, …: see `remove`.
    Returns: the Report; for a Keras model, the changed Keras model.
    """
    refuse_others("zero", Changing, arguments)
    selection = selection_of(units, arguments)

    def make(source: Source, analysis: Analysis) -> Change:
        chosen, notes = selection.resolve(
            analysis, statistics_of(source, analysis, arguments.get("data"))
        )
        return zeroing(
            source, analysis, chosen, notes, outgoing=outgoing, silence=silence, coupled=coupled
        )

    return carry_out(
        model, target_of(arguments), arguments.get("rules", ()), make, trust=trusts(arguments)
    )


def mask(
    model: Any, units: Any = None, *, below: float | None = None, **arguments: Unpack[Changing]
) -> Any:
    """Multiply the units' outputs by 0, by stock Keras parts only; `unmask` takes that out again.

    Args:
        below: instead, zero at run time every activation whose magnitude is under this; `units`
            may then name layers without units, for all of them.
        model, units, …: see `remove`. Layers without weights can be masked as well.
    Returns: the Report; for a Keras model, the masked Keras model.
    """
    refuse_others("mask", Changing, arguments)
    selection = selection_of(units, arguments)

    def make(source: Source, analysis: Analysis) -> Change:
        statistics = statistics_of(source, analysis, arguments.get("data"))
        return masking(analysis, statistics, [selection], below=below)

    return carry_out(
        model, target_of(arguments), arguments.get("rules", ()), make, trust=trusts(arguments)
    )


def unmask(model: Any, layers: Sequence[str] | None = None, **arguments: Unpack[Writing]) -> Any:
    """Take masks out again.

    Args:
        layers: the masked layers; None for all.
        model, output, …: see `remove`.
    Returns: the Report; for a Keras model, the unmasked Keras model.
    Raises: UsageError if there is no mask to take out.
    """
    refuse_others("unmask", Writing, arguments)

    def make(source: Source, analysis: Analysis) -> Change:
        return unmasking(analysis, layers)

    return carry_out(
        model, target_of(arguments), arguments.get("rules", ()), make, trust=trusts(arguments)
    )


def compact(
    model: Any, *, merge: bool = False, check: bool = True, **arguments: Unpack[Writing]
) -> Any:
    """Remove every unit that nothing would miss: the model computes the same, to rounding.

    Units go that are dead (weights of 0 on their way in or out, a mask behind them) or constant
    (act(bias) whatever the input); what they always gave is added to their consumers' biases.

    Args:
        merge: also make one of units that are equal, or equal up to a positive factor where the
            activation lets that through.
        check: run the original and the result in plain Keras before the result replaces anything.
        model, output, …: see `remove`.
    Returns: the Report; for a Keras model, the smaller Keras model.
    Raises: CheckError if the check fails; nothing is written then.
    """
    from kprune.verbs.compact import compact as run

    refuse_others("compact", Writing, arguments)
    rules = arguments.get("rules", ())
    target = target_of(arguments)
    return run(model, target, rules, merge=merge, check=check, trust=trusts(arguments))


def apply(
    model: Any,
    plan: Plan | str | os.PathLike[str],
    *,
    drop_branches: bool = False,
    **arguments: Unpack[Writing],
) -> Any:
    """Carry out a plan: its steps one after the other, each on what the one before it left.

    Args:
        plan: a Plan, or the path of a YAML file.
        drop_branches: see `remove`; for every step that removes units.
        model, output, …: see `remove`.
    Returns: the Report of the last step, with the input of the first.
    Raises: PlanError, with the line; CheckError if the plan's `expect` does not hold. Nothing is
        written then.
    """
    from kprune.verbs.apply import apply_plan, load_plan

    refuse_others("apply", Writing, arguments)
    loaded, base = load_plan(plan)
    rules = arguments.get("rules", ())
    return apply_plan(
        model, loaded, base, target_of(arguments), rules,
        drop_branches=drop_branches, trust=trusts(arguments),
    )  # fmt: skip


def plan(
    model: str | os.PathLike[str],
    units: Any = None,
    *,
    sensitivity: Curves | str | os.PathLike[str] | None = None,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    backend: str = "remove",
    **arguments: Unpack[Selecting],
) -> Plan:
    """Choose units, and give the choice as a plan with explicit indices.

    Args:
        sensitivity: what `kprune.sensitivity` measured, or the file it was written to: of each
            group of layers the largest cut goes that alone leaves the model good enough. That is a
            heuristic; see `kprune.select.plans.sensitivity.Curves`.
        min_accuracy, max_drop: how good that is: the least that the metric may come to, or how much
            worse it may become.
        backend: what the plan is to do with them: `remove`, `zero` or `mask`.
        model, units, …: see `remove`.
    Raises: UsageError, CannotPruneError if the units cannot go, FileError.
    """
    refuse_others("plan", Selecting, arguments)
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
    model: str | os.PathLike[str],
    units: Any = None,
    *,
    backend: str = "remove",
    sensitivity: Curves | str | os.PathLike[str] | None = None,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    **arguments: Unpack[Selecting],
) -> tuple[Plan, list[Note]]:
    """The same with notes on what was left out."""
    from kprune.select.plans.plan import Backend, ModelCheck, Plan, Step

    if backend not in BACKENDS:
        raise UsageError(
            f"there is no backend '{clean(backend)}'", do=f"choose one of {', '.join(BACKENDS)}"
        )
    with opened(model, rules=arguments.get("rules", ()), trust=trusts(arguments)) as found:
        source, analysis = found.source, found.analysis
        selection = selection_of(units, arguments)
        if sensitivity is None and min_accuracy is None and max_drop is None:
            chosen, notes = selection.resolve(
                analysis, statistics_of(source, analysis, arguments.get("data"))
            )
        else:
            from kprune.pruning.by_sensitivity import good_enough

            chosen, notes = good_enough(
                analysis, selection, sensitivity, min_accuracy=min_accuracy, max_drop=max_drop
            )
        if backend == "remove":
            check(close(analysis.groups, chosen))
        step = Step(
            backend=cast(Backend, backend),
            layers={address: [int(i) for i in indices] for address, indices in chosen.items()},
        )
        return Plan(version=1, model=ModelCheck(count(analysis).parameters), steps=[step]), notes
