"""Refitting a file that was pruned before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from kprune.atomic import TemporaryFolder
from kprune.edit import Edit
from kprune.errors import UsageError
from kprune.opened import LiveModel, opened
from kprune.pointing import checked
from kprune.pruning.writing import write
from kprune.report.change import Change
from kprune.report.report import Report
from kprune.running.sources import DataSource
from kprune.types import AnyPath, Progress
from kprune.verbs.arguments import Writing, opening_of, reading_of, target_of

if TYPE_CHECKING:
    from kprune.select.ranking.options import Way


@checked(Writing)
def repair(
    original: AnyPath | LiveModel,
    pruned: AnyPath,
    *,
    data: DataSource | None = None,
    way: Way | None = None,
    memory: int | None = None,
    on_refit: Progress | None = None,
    **arguments: Unpack[Writing],
) -> Report:
    """Refit a model that was pruned before to the outputs of the original.

    Args:
        original: the model that it was pruned from.
        pruned: the output of `kprune.remove`, `compact` or `apply`; which units are left is read
            from its metadata.
        data: inputs; targets are not needed.
        way: `lstsq`, `noise`, `bias` or `bn`; None for the best that the data allow.
        memory: bytes that may be kept at once of what passes between layers.
        on_refit: called with (calls of layers made, calls in all).
        output, in_place, force, dry_run, limits, progress, rules, trust: see `kprune.remove`.
    Returns: the Report; its input is the pruned file.
    Raises: UsageError if the second model was not made from the first by removing units; CannotPruneError,
        FileError.
    """
    from kprune.pruning.repairing import Repair, refitted, repair_notes, with_repaired
    from kprune.verification.replay import Unexplained, pruned_units

    how = Repair(way, data, memory=memory, progress=on_refit)
    target = target_of(arguments)
    with (
        opened(original, **reading_of(arguments)) as it,
        opened(pruned, **opening_of(arguments)) as left,
        TemporaryFolder() as folder,
    ):
        target.check(left.source)
        it.analysis.require("repair")
        try:
            taken = pruned_units(it.analysis, left.source.metadata)
        except Unexplained as error:
            raise _no_pair(str(error)) from error
        if not taken.gone.any() or taken.zeroed or taken.masks:
            raise UsageError(
                "what is left of this model cannot be refitted afterwards",
                why="units were zeroed, masked or folded, or whole layers taken out, where only removed "
                "units can be told from the file",
                do="cut the original again with --repair, which refits after any of these",
            )
        values, found = refitted(it, left, taken.gone, how, Path(folder))
        edit = with_repaired(Edit(left.source.config, left.source.metadata), left, values, found)
        change = Change(
            "repair", "repair", edit, {}, {},
            notes=repair_notes(found), exact=False, repaired=found,
        )  # fmt: skip
        report = write(left, change, target)
    assert isinstance(report, Report)
    return report


def _no_pair(why: str) -> UsageError:
    return UsageError(
        "the second model was not made from the first by kprune",
        why=why,
        do="give the original file, and the file that 'kprune remove' made from it",
    )
