"""Runs a pruned model and what it should equal, in plain Keras, and compares them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.errors import CannotPruneError, CheckError, KpruneError, SetupError, UsageError
from kprune.formats import Source
from kprune.graph.model import TensorRef, leaves
from kprune.labels.labels import Labels
from kprune.opened import analyse, open_model
from kprune.page.result import Note
from kprune.pruning.lost import Lost
from kprune.running.classes import Classes, ignored_numbers
from kprune.running.data import data_for
from kprune.running.divergence import is_distribution
from kprune.running.inputs import at, fixed_batch, random_inputs, whole_batches
from kprune.running.metrics import measured, removed_classes
from kprune.running.noise import is_random, without_noise
from kprune.running.sources import DataSource
from kprune.runtime.keras_import import import_keras, name_of
from kprune.runtime.keras_runtime import load, output_names, run
from kprune.runtime.lambda_code import trusted
from kprune.surgery.whole_layers import WholeLayers
from kprune.text import clean
from kprune.types import AnyPath, Progress
from kprune.verification.compare import (
    HALF_TOLERANCE,
    TOLERANCE,
    difference,
    unexplained,
)
from kprune.verification.masked_original import silenced_original
from kprune.verification.replay import Unexplained, lost, steps_between
from kprune.verification.timing import check_sizes, time_models
from kprune.verification.token_inputs import TokenInputs
from kprune.verification.verify_result import ParameterCount, Verification
from kprune.verification.without_layers import hand_through, taken_out, written_without


def verify(
    original: AnyPath,
    pruned: AnyPath,
    *,
    data: DataSource | None = None,
    samples: int = 32,
    seed: int = 0,
    tolerance: float | None = None,
    batch_size: int = 32,
    time: Sequence[int] = (),
    rules: Iterable[str] = (),
    trust: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Run both models in plain Keras and compare the pruned one with what it should compute.

    That is the original whose removed units are silenced: every weight that belongs to them is 0.
    Zeroed and masked units are silenced as their backend means it. What was done is read from the
    pruned file's own metadata, and replayed on the original; a file without it is compared with the
    original as it is.

    Args:
        data: inputs, and labels for metrics; see `DataSource`.
        samples: how many random inputs, if there are no data.
        tolerance: largest difference allowed, relative to an output's largest magnitude; by default
            1e-4, and more for models that compute in half precision.
        batch_size: how many samples are run at once.
        time: batch sizes at which to time both models; see `kprune.verification.timing`.
        rules: files with rules for layers that kprune does not know, where pruning needed them.
        trust: whether code that is not Keras's own may be run to read and load the models.
        progress: called with (samples done, samples in all).
    Raises: UsageError, CannotPruneError if a model needs code that is not there, FileError;
        CheckError if plain Keras does not load the pruned file.
    """
    if samples < 1 or batch_size < 1:
        raise UsageError(
            "the number of samples must be at least 1", do="give --samples a positive number"
        )
    if seed < 0:
        raise UsageError(f"the seed must be at least 0, got {seed}")
    check_sizes(time)
    with (
        open_model(original, trust=trust) as before,
        open_model(pruned, trust=trust) as after,
        tempfile.TemporaryDirectory(prefix="kprune-") as folder,
    ):
        for source in (before, after):
            if source.path is None:
                raise UsageError(
                    "verify needs two files", do="save the model that comes from standard input"
                )
        if before.has_signatures and after.has_signatures:
            from kprune.verification.verify_graphs import verify_saved_models

            return verify_saved_models(
                before,
                after,
                Path(folder),
                data=data,
                samples=samples,
                seed=seed,
                tolerance=tolerance,
                time=time,
                rules=rules,
            )
        with closing(_Both(before, after, Path(folder), list(rules))) as both:
            return both.compare(data, samples, seed, tolerance, batch_size, time, progress)


@dataclass
class _Both:
    """Two opened models.

    Attributes:
        notes: what a reader should know.
        wrong: what was found that should not be, beyond outputs that differ.
    """

    before: Source
    after: Source
    folder: Path
    rules: list[str]

    def __post_init__(self) -> None:
        self.notes: list[Note] = []
        self.wrong: list[str] = []
        # The original without the layers that were taken out as a whole, and which those are.
        self.base: Source = self.before
        self.whole: WholeLayers | None = None

    def close(self) -> None:
        """Let go of what was opened here."""
        if self.base is not self.before:
            self.base.close()

    def compare(
        self,
        data: DataSource | None,
        samples: int,
        seed: int,
        tolerance: float | None,
        batch_size: int,
        time: Sequence[int],
        progress: Progress | None,
    ) -> Verification:
        analysis, known = self._known()
        original = load(self.before, self.folder, compiled=data is not None)
        small = self._load_pruned(compiled=data is not None)
        given = data_for(original, data) if data is not None else None
        inputs = given.inputs if given is not None else random_inputs(original, samples, seed)
        fixed = fixed_batch(original)
        labels = None if given is None else given.labels
        tokens = None
        if analysis is not None and known is not None:
            tokens = TokenInputs(analysis, known.gone)
        if tokens:
            if given is None:
                inputs = tokens.drawn(inputs, self.before, seed)
            else:
                inputs, labels, told = tokens.comparable(inputs, labels, self.before)
                self.notes += told
        inputs, number = whole_batches(inputs, fixed)
        batch_size = fixed or batch_size
        if tolerance is None:
            tolerance = max(
                [
                    TOLERANCE,
                    *(HALF_TOLERANCE.get(dtype, 0.0) for dtype in _compute_dtypes(original)),
                ]
            )
        self.notes += trusted(self.before, self.after)
        wants_metrics = given is not None and given.labels is not None
        other = known is not None and (self.whole is not None or not known.nothing)
        steps = _Steps(progress, number, 2 + (wants_metrics and other))

        small_inputs = inputs
        exact, classes = True, dict[str, Classes]()
        reference = original
        if analysis is not None and known is not None:
            small_inputs = _cut_inputs(analysis, known.gone, inputs)
            if not known.nothing:
                reference = silenced_original(self.base, analysis, known, self.folder)
            elif self.whole is not None:
                reference = load(self.base, self.folder)
            if self.whole is not None:
                self._check_without_layers(self.whole, inputs, batch_size, tolerance)
        if tokens:
            small_inputs = tokens.renumbered(small_inputs)
            self.notes += (unsure := tokens.forget(reference, drawn=given is None))
            exact = not unsure
        full = run(reference, inputs, batch_size=batch_size, progress=steps.next())
        got = run(small, small_inputs, batch_size=batch_size, progress=steps.next())
        if not _alike(full, got, tolerance) and is_random(reference, inputs, full, batch_size):
            with without_noise():
                full = self._fixed(reference, inputs, batch_size)
                got = run(small, small_inputs, batch_size=batch_size)
        expected = full
        if analysis is not None and known is not None:
            expected, classes, whole = self._expected(analysis, known, full, output_names(original))
            exact = exact and whole
        outputs = [
            difference(name, one, other, tolerance)
            for name, one, other in zip(output_names(small), got, expected, strict=True)
        ]
        metrics = None
        if given is not None and given.labels is not None:
            first = (
                full
                if reference is original
                else run(original, inputs, batch_size=batch_size, progress=steps.next())
            )
            labels = at(labels, slice(number))
            metrics = {
                "before": measured(original, inputs, first, labels, classes, cut=False),
                "after": measured(small, small_inputs, got, labels, classes, cut=True),
            }
            self.notes += removed_classes(labels, classes, output_names(original))
        parameters = {
            "original": self._count(self.before, original),
            "pruned": self._count(self.after, small),
        }
        equal = all(output.equal for output in outputs)
        if not equal and not exact and all(output.relative is not None for output in outputs):
            equal = all(np.isfinite(array).all() for array in got)
        self.notes += [Note("wrong", "", text) for text in self.wrong]
        timed = time_models(original, small, inputs, small_inputs, time, only=fixed)
        return Verification(
            original=str(self.before.path),
            pruned=str(self.after.path),
            passed=equal and not self.wrong,
            against="original" if known is None else "masked original",
            exact=exact,
            tolerance=tolerance,
            samples=number,
            seed=None if given is not None else seed,
            data=None if given is None else given.name,
            outputs=outputs,
            parameters=parameters,
            metrics=metrics,
            notes=self.notes,
            time=timed or None,
        )

    def _fixed(self, reference: Any, inputs: Any, batch_size: int) -> list[np.ndarray]:
        """What a model gives without noise. Raises: CannotPruneError if it is random all the same."""
        full = run(reference, inputs, batch_size=batch_size)
        if is_random(reference, inputs, full, batch_size):
            raise CannotPruneError(
                f"{name_of(self.before)} cannot be compared with anything",
                why="it gives other outputs each time it is run on the same inputs",
                do="compare how well both do on data of your own",
            )
        text = "the outputs are random: they are compared with all noise at its mean"
        self.notes.append(Note("random", "", text))
        return full

    def _known(self) -> tuple[Analysis | None, Lost | None]:
        """The original's analysis, and what the pruned file lost of it; or a note why not."""
        if self.rules:
            import_keras()  # they may import it, and it has less to say where kprune does
        try:
            analysis = analyse(self.before, self.rules)
        except CannotPruneError as error:
            self.notes.append(
                Note("direct", "", f"compared as they are: {error.why or error.what}")
            )
            return None, None
        try:
            analysis = self._without_layers(analysis)
            return analysis, lost(analysis, self.after.metadata)
        except Unexplained as reason:
            self.notes.append(unexplained(reason))
            return analysis, None

    def _without_layers(self, analysis: Analysis) -> Analysis:
        """The analysis of the original without the layers that were taken out as a whole.

        Raises: Unexplained if that cannot be told.
        """
        steps = steps_between(analysis.metadata, self.after.metadata)
        whole = taken_out(analysis, steps)
        if whole is None:
            return analysis
        place = written_without(self.before, analysis, whole, self.folder)
        self.whole, self.base = whole, open_model(place, trust=self.before.trusted)
        return analyse(self.base, self.rules)

    def _check_without_layers(
        self, whole: WholeLayers, inputs: Any, batch_size: int, tolerance: float
    ) -> None:
        """Hold the original without some layers against the original in which they do nothing."""
        idle, base = load(self.before, self.folder), load(self.base, self.folder)
        hand_through(idle, whole)
        pairs = [run(model, inputs, batch_size=batch_size) for model in (base, idle)]
        for name, got, want in zip(output_names(base), *pairs, strict=True):
            if not difference(name, got, want, tolerance).equal:
                self.wrong.append(
                    f"'{clean(name)}' is not what the original gives where these layers do nothing: "
                    + ", ".join(clean(path) for path in whole.paths)
                )

    def _load_pruned(self, *, compiled: bool) -> Any:
        try:
            return load(self.after, self.folder, compiled=compiled)
        except SetupError:  # it says nothing of the file
            raise
        except KpruneError as error:
            raise CheckError(
                f"plain Keras loads the original, but not {name_of(self.after)}",
                why=error.why or error.what,
                do=error.do,
            ) from error

    def _expected(
        self, analysis: Analysis, known: Lost, full: list[np.ndarray], names: list[str]
    ) -> tuple[list[np.ndarray], dict[str, Classes], bool]:
        """What the pruned model should give, the classes it has by output, whether to float rounding."""
        refs = [leaf for leaf in leaves(analysis.model.outputs) if isinstance(leaf, TensorRef)]
        expected: list[np.ndarray] = []
        classes: dict[str, Classes] = {}
        renormalised: list[str] = []
        for name, ref, values in zip(names, refs, full, strict=True):
            labels = analysis.map.tensors.get((analysis.model.path, *ref.key), Labels(None))
            cut = labels.cut(values, known.gone)
            for axis, keep in _lost_along(labels, known.gone):
                kept = np.flatnonzero(keep)
                # A number below the classes' new count is that of another class now.
                taken = {*kept.tolist(), *range(len(kept))}
                void = ignored_numbers(analysis, len(expected), taken)
                classes[name] = Classes(kept, labels.rank, axis, void)
                if is_distribution(values, axis):
                    cut = cut / cut.sum(axis=axis, keepdims=True)
                    renormalised.append(ref.layer)
                    self.notes.append(
                        Note(
                            "renormalised",
                            clean(ref.layer),
                            f"'{clean(ref.layer)}' is compared over the {len(kept)} classes left",
                        )
                    )
            expected.append(cut)
        exact = True
        for mix in analysis.map.mixes:
            hit = int(known.gone[mix.ids].sum())
            if hit and mix.at.partition("/")[0] not in renormalised:
                exact = False
                self.notes.append(
                    Note(
                        "inexact",
                        mix.at,
                        f"differences are expected: {hit} removed units {clean(mix.why, 300)}",
                    )
                )
        return expected, classes, exact

    def _count(self, source: Source, model: Any) -> ParameterCount:
        own = count(analyse(source, self.rules)).parameters if _holds_graph(source) else -1
        keras_count = int(model.count_params())
        if own not in (-1, keras_count):
            self.wrong.append(
                f"Keras counts {keras_count:,} parameters in {name_of(source)}, and kprune {own:,}"
            )
        return ParameterCount(keras_count, keras_count if own == -1 else own)


class _Steps:
    """Progress over several runs, each over all samples."""

    def __init__(self, progress: Progress | None, number: int, runs: int) -> None:
        self._progress, self._number, self._runs, self._done = progress, number, runs, 0

    def next(self) -> Progress | None:
        if self._progress is None:
            return None
        report, offset, total = self._progress, self._done * self._number, self._runs * self._number
        self._done += 1
        return lambda done, _all: report(offset + done, total)


def _holds_graph(source: Source) -> bool:
    config = source.config.get("config")
    return isinstance(config, dict) and isinstance(config.get("layers"), list)


def _compute_dtypes(model: Any) -> set[str]:
    return {str(getattr(layer, "compute_dtype", "float32")) for layer in model._flatten_layers()}


def _lost_along(labels: Labels, gone: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The axes of a tensor, counted from the end, that lost something; bool (size,) for what is left."""
    if labels.shape is None:
        return
    for axis in range(1 - labels.rank, 0):
        dead = labels.axis(labels.rank + axis).dead(gone)
        if dead.any():
            yield axis, ~dead


def _cut_inputs(analysis: Analysis, gone: np.ndarray, inputs: Any) -> Any:
    """Inputs without the features that were removed."""
    tree = import_keras().tree
    refs = [leaf for leaf in leaves(analysis.model.inputs) if isinstance(leaf, TensorRef)]
    arrays = tree.flatten(inputs)
    if len(refs) != len(arrays):
        return inputs
    cut = [
        analysis.map.tensors.get((analysis.model.path, *ref.key), Labels(None)).cut(array, gone)
        for ref, array in zip(refs, arrays, strict=True)
    ]
    return tree.pack_sequence_as(inputs, cut)


def _alike(one: list[np.ndarray], other: list[np.ndarray], tolerance: float) -> bool:
    return all(difference("", b, a, tolerance).equal for a, b in zip(one, other, strict=True))
