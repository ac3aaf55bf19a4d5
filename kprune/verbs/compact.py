"""Writing a compacted model: idle masks are removed, and plain Keras runs the result before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.atomic import work_folder
from kprune.edit import Edit
from kprune.errors import CannotPruneError, CheckError
from kprune.formats import write_model
from kprune.formats.registry import suffix_of, usual_suffix
from kprune.opened import LiveModel, Opened, opened
from kprune.page.result import Note
from kprune.pruning.mask import unmasking
from kprune.pruning.writing import (
    Target,
    companions,
    with_output,
    write,
    write_file,
    written_beside,
)
from kprune.report.change import Change
from kprune.report.report import Report
from kprune.surgery.mask import PREFIX, masked_layer
from kprune.surgery.relocate import with_names
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.select.plans.structs import Step

SAMPLES = 8
"""The number of random inputs on which the result is compared with the original."""


def write_compacted(
    it: Opened, change: Change, target: Target, *, check: bool = True
) -> Report | LiveModel:
    """Carry out a change of `kprune.pruning.compact.compacting`. A model in memory is not checked.

    Args:
        check: whether to run both in plain Keras before the result replaces anything.
    Raises: CheckError if they differ; see `kprune.pruning.writing.write`.
    """
    if it.live:
        return write(it, change, target)
    masks = idle_masks(it.analysis, change.gone)
    if change.gone is None and not masks:
        return _unchanged(it, change, target)
    if not masks and (target.dry_run or not check):
        return write_file(it, change, target)
    return _by_way_of(it, change, target, masks=masks, check=check)


def write_step(it: Opened, change: Change, target: Target, step: Step) -> Report | LiveModel:
    """The same for a step of a plan."""
    return write_compacted(it, change, target, check=step.check)


def idle_masks(analysis: Analysis, gone: np.ndarray | None) -> list[str]:
    """Paths of the masked layers whose mask has only ones left to multiply by."""
    found = []
    for array in analysis.map.arrays:
        masked = masked_layer(array.layer)
        if masked is None or array.array.key != "scale" or not array.layer.name.startswith(PREFIX):
            continue
        scale = array.array.value.astype(np.float64)
        if gone is not None:
            for axis, along in enumerate(array.axes):
                if along.factors:
                    scale = scale.compress(~along.dead(gone), axis)
        if scale.size and (scale == 1).all():
            found.append(masked)
    return found


def _unchanged(it: Opened, change: Change, target: Target) -> Report:
    """Nothing to do: the output is a copy, which the next reader expects; the input stays."""
    if not target.in_place:
        return write_file(it, change, target)
    report = write_file(it, change, replace(target, dry_run=True))
    return (
        report if target.dry_run else with_output(report, target.path(it.source), it.source.bytes)
    )


def _by_way_of(
    it: Opened, change: Change, target: Target, *, masks: list[str], check: bool
) -> Report:
    """Write beside the output first, take idle masks out, check, and only then put it in place."""
    source, trust = it.source, it.source.trusted
    path = None if target.dry_run else target.path(source)
    beside = None if path in (None, "-") else Path(str(path))
    texts, told = companions(source, change, target) if path else ({}, [])
    # These are of the last of these writes.
    change = replace(change, names=None, token_ids=None, notes=(*change.notes, *told))
    with work_folder(beside) as folder:
        # The name says in which format the result is written, here as in its own place.
        wanted = suffix_of(target.output) if target.output not in (None, "-") else ""
        suffix = wanted or usual_suffix(source)
        place = folder / f"0{suffix}"
        report = write_file(it, change, Target(place, limits=target.limits))
        if masks:
            before, place = place, folder / f"1{suffix}"
            with opened(before, rules=it.rules, trust=trust) as masked:
                unmasked = write_file(masked, unmasking(masked.analysis, masks), Target(place))
            text = "masks that have nothing left to silence were taken out"
            notes = [
                *report.notes,
                *(Note("unmasked", layer, f"'{clean(layer)}': {text}") for layer in masks),
            ]
            report = replace(report, notes=notes, output=unmasked.output)
        if check and path is not None:
            same_outputs(it, place, folder)
        if path is None:
            return with_output(report, None, report.output.bytes)
        force = target.force or target.in_place
        with written_beside(texts, force=force) as commit:
            if not masks:  # what was checked, once more: the bytes that it has without a check
                edit = with_names(it.analysis, change.edit)
                written = write_model(source, edit, path, force=force, progress=target.progress)
            else:
                with opened(place, rules=it.rules, trust=trust) as result:
                    bare = Edit(result.source.config, result.source.metadata)
                    edit = with_names(result.analysis, bare)
                    written = write_model(
                        result.source, edit, path, force=force, progress=target.progress
                    )
            commit()
    return with_output(report, path, written)


def same_outputs(it: Opened, result: Path, folder: Path) -> None:
    """Run both models in plain Keras.

    Raises: CheckError if they differ, CannotPruneError if one cannot be run here.
    """
    from kprune.verification.verify import verify

    source, original = it.source, it.source.path
    if original is None:  # standard input cannot be read twice
        original = folder / "original.keras"
        write_model(source, Edit(source.config, source.metadata), original)
    try:
        found = verify(original, result, samples=SAMPLES, rules=it.rules, trust=source.trusted)
    except CannotPruneError as error:
        error.do = f"{error.do}; or pass --no-check" if error.do else "pass --no-check"
        raise
    if not found.passed:
        worst = max((output.relative or 0.0 for output in found.outputs), default=0.0)
        raise CheckError(
            "the compacted model does not compute what the original does",
            why=f"outputs differ by up to {worst:.2g} of their magnitude on random inputs",
            do="nothing was written; please report this",
        )
