"""Refitting a pruned model before it is written: `--repair`, and `kprune repair`.

Keras loads both models, `kprune.refitting` refits the kernels of the pruned one, and the new values
go into the edit that writes the file, like any other change of values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kprune.atomic import TemporaryFolder
from kprune.dtypes import from_float
from kprune.edit import Edit, TensorEdit
from kprune.errors import CannotPruneError, UsageError
from kprune.formats import write_model
from kprune.graph.weight_groups import is_state
from kprune.labels.map import TOKENS
from kprune.opened import Opened, opened
from kprune.page.result import Note
from kprune.refitting.inputs import SAMPLES, Inputs, repair_inputs
from kprune.refitting.streams.room import MEMORY
from kprune.report.change import Change
from kprune.report.repaired import Judged, Repaired, why_left
from kprune.running.divergence import Divergence, divergence, kinds_of, over_units_left
from kprune.running.inputs import cut_inputs, fixed_batch
from kprune.running.metrics import measured
from kprune.running.sources import DataSource
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import load, output_names, run
from kprune.select.ranking.options import WAYS, Way
from kprune.surgery.optimizer import find_slots, has_schedule
from kprune.surgery.provenance import with_repair
from kprune.text import clean
from kprune.types import Progress

BATCH = 64
"""Inputs that are run at once where all that counts is what the models give."""

NEAR = 0.01
"""The divergence (KL, in nats) at which no other choice of units is tried."""

_SOLVED: Mapping[str, Literal["bias", "bn"]] = {"bias": "bias", "bn": "bn"}
"""What is solved for, where that is not the weights."""


class Repair(Struct, frozen=True, eq=False):
    """How a pruned model is refitted.

    Attributes:
        way: `lstsq` fits weights and biases on data, `noise` on inputs that are made up, `bias`
            biases alone, `bn` measures the statistics of BatchNormalization anew; None for the
            best that the data allow.
        data: inputs; targets are not needed.
        memory: bytes that may be kept at once; by default `MEMORY`.
        samples: how many inputs are used at most.
        progress: called with (calls made, calls in all).
    Raises: UsageError for an unknown method, or one that needs data.
    """

    way: Way | None = None
    data: DataSource | None = None
    memory: int | None = None
    samples: int = SAMPLES
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.way is not None and self.way not in WAYS:
            raise UsageError(
                f"there is no way of repair called '{clean(self.way)}'",
                do=f"choose one of {', '.join(WAYS)}",
            )
        if self.memory is not None and not (type(self.memory) is int and self.memory > 0):
            raise UsageError(f"the memory must be a number of bytes above 0, got {self.memory!r}")
        if self.way == "lstsq" and self.data is None:
            raise UsageError(
                "the repair lstsq needs inputs",
                do="give --data FILE.npz (targets are not needed), or --repair noise",
            )

    @property
    def said(self) -> Way:
        """The way as reports name it."""
        return self.way or ("noise" if self.data is None else "lstsq")

    @property
    def inputs(self) -> DataSource | None:
        """The data that are used; None for inputs that are made up."""
        return None if self.said == "noise" else self.data


def repaired(it: Opened, change: Change, how: Repair) -> Change:
    """A change that removes units, with the rest refitted.

    Raises: CannotPruneError for a model that is not refitted, UsageError for data that do not fit it.
    """
    it.analysis.require("repair")
    if change.gone is None and not change.changed:
        return change  # nothing went
    # Whole layers leave no unit behind that would have to be told apart.
    gone = np.zeros(it.analysis.map.count, bool) if change.gone is None else change.gone
    _refuse_other_tokens(it, gone)
    with TemporaryFolder() as folder:
        place = Path(folder) / f"left{it.source.path.suffix if it.source.path else '.keras'}"
        write_model(it.source, change.edit, place)
        with opened(place, rules=it.rules, trust=it.source.trusted) as left:
            values, found = refitted(it, left, gone, how, Path(folder))
            edit = with_repaired(change.edit, left, values, found)
    return replace(
        change,
        edit=edit,
        exact=change.exact and not found.kept,
        notes=(*change.notes, *repair_notes(found)),
        repaired=found,
    )


def _refuse_other_tokens(it: Opened, gone: np.ndarray) -> None:
    """Raises: CannotPruneError where tokens have other numbers in the pruned model."""
    for axis in it.analysis.map.axes.values():
        if axis.name == TOKENS and gone[axis.ids].any():
            raise CannotPruneError(
                f"the model cannot be refitted, because tokens are removed: '{clean(axis.address)}'",
                why="both models are run on the same tokens, and those left have new numbers",
                do="remove these first, without --repair, and then the others",
            )


def nearest(it: Opened, changes: Iterable[Change], how: Repair) -> Change:
    """Of several changes, refitted, the one whose outputs come nearest to the original's.

    Those behind one that comes near enough are not tried.
    """
    found: list[Change] = []
    for change in changes:
        found.append(repaired(it, change, how))
        if _distance(found[-1]) < NEAR:
            break
    best = min(found, key=_distance)
    if best is found[0]:
        return best
    figures = f"{_distance(best):.3g} against {_distance(found[0]):.3g}"
    text = f"equal ratios in all layers come nearer to the original than one list of all units: {figures}"
    return replace(best, notes=(*best.notes, Note("equal-ratios", "", text)))


def _distance(change: Change) -> float:
    """How far what is written comes from the original.

    On all inputs that were fitted on: to tell two fits from each other, many inputs say more than
    the few that were held out.
    """
    found = change.repaired
    if found is None:
        return 0.0
    return found.fitted.distance if found.kept else found.cut.divergence.distance


def repair_notes(found: Repaired) -> tuple[Note, ...]:
    """Which kernels stay as the cut left them, and why; or that all do."""
    if not found.kept:
        cut, refit = (each.divergence.distance for each in (found.cut, found.repaired))
        text = (
            "refitted, the model would come less near to the original than it does as cut "
            f"(divergence {refit:.3g} against {cut:.3g}), so all weights stay as they were cut"
        )
        return (Note("not-repaired", "", text),)
    return tuple(
        Note(
            "not-repaired",
            row.name,
            f"'{clean(row.name)}' stays as it was cut: {why_left(row.why)}",
        )
        for row in found.left
    )


def refitted(
    it: Opened, left: Opened, gone: np.ndarray, how: Repair, folder: Path
) -> tuple[dict[str, np.ndarray], Repaired]:
    """Refit what is left of a model.

    Args:
        it, left: the original, and what is left of it.
        gone: bool (labels,), what went of the original.
        folder: a temporary one.
    Returns: the new values of weights, by their paths in the pruned file; and what came of it.
    """
    from kprune.refitting.consumers import consumers_of, variables_of
    from kprune.refitting.moments import ridge_for
    from kprune.refitting.pairs import pairs_of
    from kprune.refitting.refit import Refit
    from kprune.refitting.streams.room import Room
    from kprune.refitting.streams.steps import Program
    from kprune.refitting.unrepaired import left_out

    original, pruned = (load(model.source, folder, compiled=True) for model in (it, left))
    if (size := fixed_batch(original)) is not None:
        raise CannotPruneError(
            f"a model that is built for batches of {size} samples is not refitted",
            do="build it without a fixed batch size, or leave out --repair",
        )
    inputs = repair_inputs(original, how.inputs, how.samples)
    judge = _Judge(it, original, inputs, gone)
    cut = judge.of(pruned)
    before, after = variables_of(original, it.analysis), variables_of(pruned, left.analysis)
    old = {key: np.asarray(place.variable).copy() for key, place in after.items()}
    pairs = pairs_of(consumers_of(original, before), before, after, pruned, gone)

    narrower = any(
        gone[axis.ids].any() for axis in it.analysis.map.axes.values() if axis.name == "features"
    )

    def fit(samples: Any) -> tuple[Refit, Divergence]:
        for key, place in after.items():
            place.variable.assign(old[key])
        flatten = import_keras().tree.flatten
        arrays, small = flatten(samples), flatten(cut_inputs(it.analysis, gone, samples))
        with Room(how.memory or MEMORY) as room:
            refit = Refit(
                Program.of(original),
                Program.of(pruned),
                pairs,
                arrays,
                room,
                way=_SOLVED.get(how.said, "lstsq"),
                ridge=ridge_for(len(arrays[0])),
                pruned_inputs=small if narrower else None,
                left=left_out(it.analysis, before, gone, original),
                progress=how.progress,
            )
            refit.run()
            return refit, judge.between(refit.before.outputs(), refit.after.outputs())

    refit, fitted = fit(inputs.fitting)
    result = judge.of(pruned)
    kept = not result.divergence.worse(cut.divergence)
    if kept and not inputs.apart:
        # Those that judged have done so, and say more among those that are fitted on.
        refit, fitted = fit(inputs.every)
    values = {
        place.weight.path: np.asarray(place.variable).copy()
        for key, place in after.items()
        if not np.array_equal(old[key], np.asarray(place.variable), equal_nan=True)
    }
    return values if kept else {}, Repaired(
        way=how.said,
        inputs=refit.samples,
        kernels=refit.refitted,
        judged=judge.count,
        apart=inputs.apart,
        cut=cut,
        repaired=result,
        fitted=fitted,
        kept=kept,
        metrics=judge.metrics,
        left=refit.left,
    )


class _Judge:
    """Says how far a pruned model is from the original, on inputs that it was not fitted on if there are any."""

    def __init__(self, it: Opened, original: Any, inputs: Inputs, gone: np.ndarray) -> None:
        self.inputs = cut_inputs(it.analysis, gone, inputs.judging)
        self.targets = inputs.targets
        self.count = len(import_keras().tree.flatten(inputs.judging)[0])
        self.names, self.kinds = output_names(original), kinds_of(original)
        whole = run(original, inputs.judging, batch_size=BATCH)
        analysis = it.analysis
        self.labels = [labels for _, labels in analysis.tensors_of(analysis.model.outputs)]
        self.gone = gone
        self.wanted = self._left(whole)
        self.renumbered = any(
            one.shape != other.shape for one, other in zip(whole, self.wanted, strict=True)
        )
        self.metrics = self._metrics(original, inputs.judging, whole)

    def of(self, model: Any) -> Judged:
        """What can be said of a pruned model."""
        made = run(model, self.inputs, batch_size=BATCH)
        found = divergence(self.names, self.wanted, made, self.kinds)
        return Judged(found, self._metrics(model, self.inputs, made))

    def between(self, original: list[np.ndarray], pruned: list[np.ndarray]) -> Divergence:
        """How far outputs of both models are apart, on any inputs."""
        return divergence(self.names, self._left(original), pruned, self.kinds)

    def _left(self, outputs: list[np.ndarray]) -> list[np.ndarray]:
        """What the original gives, over the units that are left."""
        return [
            over_units_left(values, labels, self.gone)[0]
            for values, labels in zip(outputs, self.labels, strict=True)
        ]

    def _metrics(self, model: Any, inputs: Any, outputs: list[np.ndarray]) -> dict[str, float]:
        """Metrics, where there are targets, and classes have the numbers that they had."""
        if self.targets is None or self.renumbered:
            return {}
        return measured(model, inputs, outputs, self.targets, {}, cut=False)


def with_repaired(
    edit: Edit, left: Opened, values: Mapping[str, np.ndarray], found: Repaired
) -> Edit:
    """An edit with what a repair changes: values, slots of the optimizer, and what the file says of itself."""
    if not found.kept:
        return edit
    edit = with_values(edit, left, values)
    return replace(edit, metadata=with_repair(edit.metadata, found.way))


def with_values(edit: Edit, left: Opened, values: Mapping[str, np.ndarray]) -> Edit:
    """An edit that fills in new values as well, and sets the optimizer's slots of these weights to 0.

    Its count of steps is 0 then, too, unless a schedule goes by it: Adam corrects slots that began at 0
    by it, and takes steps several times too large where it tells of more steps than they have seen.

    Args:
        left: the file as the edit without them writes it.
        values: by path in that file.
    """
    tensors = {edited.path: edited for edited in edit.tensors}

    def put(path: str, value: np.ndarray) -> None:
        known = tensors.get(path) or TensorEdit(path, path)
        tensors[path] = replace(known, value=value)

    for path, value in values.items():
        put(path, from_float(value, left.source.tensors[path].dtype))
    slots = [slot for slot in find_slots(left.analysis).found if slot.weight.path in values]
    counts = _step_counts(left) if slots and not has_schedule(left.analysis) else []
    for path in [*(slot.path for slot in slots), *counts]:
        stored = left.source.tensors[path]
        put(path, np.zeros(stored.shape, stored.dtype))
    return replace(edit, tensors=tuple(tensors.values()))


def _step_counts(left: Opened) -> list[str]:
    """Where the optimizer keeps the number of its steps: its scalars that are whole numbers."""
    return [
        path
        for path, stored in left.source.tensors.items()
        if is_state(path) and not stored.shape and np.issubdtype(stored.dtype, np.integer)
    ]
