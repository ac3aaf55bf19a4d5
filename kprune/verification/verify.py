"""Runs a pruned model and its reference in plain Keras, and compares their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.atomic import TemporaryFolder
from kprune.errors import CannotPruneError, CheckError, KpruneError, SetupError, UsageError
from kprune.formats import Source
from kprune.opened import analyse, open_model
from kprune.page.result import Note
from kprune.pointing import checked
from kprune.pruning.pruned_units import PrunedUnits
from kprune.running.compiling import ByMetric, compile_for
from kprune.running.data import data_for
from kprune.running.divergence import divergence, kinds_of
from kprune.running.examples import Examples
from kprune.running.inputs import at, cut_inputs, fixed_batch, random_inputs, whole_batches
from kprune.running.metrics import directions, measured, removed_classes
from kprune.running.noise import is_random, without_noise
from kprune.running.sources import DataSource
from kprune.runtime.inert import not_compiled
from kprune.runtime.keras_import import import_keras, keras_of
from kprune.runtime.keras_runtime import is_compiled, load, output_names, run
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
from kprune.verification.cut_tensors import CutOutputs, cut_outputs, inexact
from kprune.verification.gates import NO_LIMITS, Gates
from kprune.verification.masked_original import masked_original
from kprune.verification.repaired import (
    Steps,
    changed_beyond_repair,
    changed_text,
    is_repaired,
    steps_after,
)
from kprune.verification.replay import Unexplained, pruned_units, steps_between
from kprune.verification.timing import check_sizes, time_models
from kprune.verification.token_inputs import TokenInputs
from kprune.verification.verify_result import ParameterCount, Verification
from kprune.verification.without_layers import hand_through, taken_out, written_without


@checked()
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
    metric: str | None = None,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    min: Mapping[str, float] = NO_LIMITS,
    max: Mapping[str, float] = NO_LIMITS,
) -> Verification:
    """Run both models in plain Keras, and compare the pruned one with its reference.

    The reference is the original with every pruned unit masked: all weights that belong to removed
    units are 0, and zeroed and masked units are treated as their backend defines. Which units these
    are is read from the pruned file's metadata. A file without it is compared with the unchanged
    original.

    A repaired file computes something else: it should be close to the unchanged original. The
    distance is measured, and limits say what is close enough. Limits can be set for any other file
    as well.

    Args:
        data: inputs, and targets for metrics; see `DataSource`.
        samples: the number of random inputs, if there are no data.
        tolerance: largest difference allowed, relative to an output's largest magnitude; by default
            1e-4, and more for models that compute in half precision.
        batch_size: how many samples are run at once.
        time: batch sizes at which to time both models; see `kprune.verification.timing`.
        rules: files with rules for layers that kprune does not know, if pruning needed them.
        trust: whether code that is not Keras's own may be run to read and load the models.
        progress: called with (samples done, samples in all).
        metric: use this Keras metric instead of those of the file.
        max_drop: how much worse the metric may be than the original's. The metric is `metric`, or
            the first one for which Keras knows whether more is better.
        min_agreement: the smallest allowed share of samples for which both models give the same class.
        min, max: by name, the lowest or highest value that a metric of the pruned model may have.
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
    gates = Gates(max_drop, min_agreement, min, max)
    gates.check(data=data is not None)
    if metric is not None and data is None:
        raise UsageError("--metric needs --data", do="add --data FILE.npz with x and y")
    with (
        open_model(original, trust=trust) as before,
        open_model(pruned, trust=trust) as after,
        TemporaryFolder() as folder,
    ):
        for source in (before, after):
            if source.path is None:
                raise UsageError(
                    "verify needs two files", do="save the model that comes from standard input"
                )
        if before.has_signatures and after.has_signatures:
            from kprune.verification.verify_graphs import verify_saved_models

            if gates or metric is not None:
                raise CannotPruneError(
                    "SavedModels are not judged by metrics or limits",
                    why="their files say neither loss nor metrics",
                    do="verify the .keras files that they were exported from",
                )
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
            asked = _Asked(
                data, samples, seed, tolerance, batch_size, time, progress, metric, gates
            )
            return both.compare(asked)


@dataclass(frozen=True)
class _Asked:
    """The arguments of `verify`."""

    data: DataSource | None
    samples: int
    seed: int
    tolerance: float | None
    batch_size: int
    time: Sequence[int]
    progress: Progress | None
    metric: str | None
    gates: Gates


@dataclass
class _Both:
    """Two opened models.

    Attributes:
        notes: what a reader should know.
        wrong: problems other than outputs that differ.
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
        """Close the models that were opened here."""
        if self.base is not self.before:
            self.base.close()

    def compare(self, asked: _Asked) -> Verification:
        analysis, known = self._known()
        steps = steps_after(self.before.metadata, self.after.metadata)
        repaired = is_repaired(steps)
        compiled = asked.data is not None
        original = load(self.before, self.folder, compiled=compiled)
        small = self._load_pruned(compiled=compiled)
        given = data_for(original, asked.data) if asked.data is not None else None
        inputs = (
            random_inputs(original, asked.samples, asked.seed) if given is None else given.inputs
        )
        fixed = fixed_batch(original)
        targets = None if given is None else given.targets
        if given is not None and asked.gates.needs_metrics:
            given.needed_targets("limits of metrics need targets")
        tokens = None
        if analysis is not None and known is not None:
            tokens = TokenInputs(analysis, known.gone)
        if tokens:
            if given is None:
                inputs = tokens.drawn(inputs, self.before, asked.seed)
            else:
                inputs, targets, told = tokens.comparable(inputs, targets, self.before)
                self.notes += told
        inputs, number = whole_batches(inputs, fixed)
        batch_size = fixed or asked.batch_size
        tolerance = asked.tolerance
        if tolerance is None:
            tolerance = max(
                [
                    TOLERANCE,
                    *(HALF_TOLERANCE.get(dtype, 0.0) for dtype in _compute_dtypes(original)),
                ]
            )
        self.notes += trusted(self.before, self.after)
        if compiled:
            self.notes += not_compiled(self.before, self.after)
        masked = not repaired and known is not None
        other = masked and (self.whole is not None or (known is not None and not known.nothing))
        progress = _Steps(asked.progress, number, 2 + (other and given is not None))

        small_inputs = inputs
        exact, quiet = not repaired, False
        reference = original
        if analysis is not None and known is not None:
            small_inputs = cut_inputs(analysis, known.gone, inputs)
            if masked and not known.nothing:
                reference = masked_original(self.base, analysis, known, self.folder)
            elif masked and self.whole is not None:
                reference = load(self.base, self.folder)
            if self.whole is not None:
                self._check_without_layers(self.whole, inputs, batch_size, tolerance)
            if repaired:
                self._check_untouched(analysis, known, steps)
        if tokens:
            small_inputs = tokens.renumbered(small_inputs)
            if masked:
                self.notes += (unsure := tokens.forget(reference, drawn=given is None))
                exact = exact and not unsure
        full = run(reference, inputs, batch_size=batch_size, progress=progress.next())
        got = run(small, small_inputs, batch_size=batch_size, progress=progress.next())
        if not _alike(full, got, tolerance) and is_random(reference, inputs, full, batch_size):
            quiet = True
            with without_noise():
                full = self._fixed(reference, inputs, batch_size)
                got = run(small, small_inputs, batch_size=batch_size)
        names = output_names(original)
        expected = CutOutputs(full)
        if analysis is not None and known is not None:
            expected = cut_outputs(analysis, known.gone, full, names)
            self.notes += expected.notes
            if masked:
                self.notes += (mixed := inexact(analysis, known.gone, expected.renormalised))
                exact = exact and not mixed
        classes = expected.classes
        outputs = [
            difference(name, one, two, tolerance)
            for name, one, two in zip(output_names(small), got, expected.values, strict=True)
        ]
        alike = all(output.relative is not None for output in outputs)
        first, whole = full, expected.values  # of the original as it is
        if given is not None and reference is not original:
            with without_noise() if quiet else nullcontext():
                first = run(original, inputs, batch_size=batch_size, progress=progress.next())
            if analysis is not None and known is not None:
                whole = cut_outputs(analysis, known.gone, first, names).values
        apart = None
        if alike and (given is not None or repaired):
            apart = divergence(names, whole, got, kinds_of(original))
        metrics, known_directions = None, dict[str, bool | None]()
        if targets is not None:
            targets = at(targets, slice(number))
            compiling = self._compiling(asked.metric)
            metrics = {
                "before": measured(
                    original, inputs, first, targets, classes, cut=False, compiling=compiling
                ),
                "after": measured(
                    small, small_inputs, got, targets, classes, cut=True, compiling=compiling
                ),
            }
            # A metric that is asked for is the one to go by, and not the loss beside it.
            names_of = [it for it in metrics["after"] if asked.metric is None or it != "loss"]
            known_directions = directions(small, names_of)
            self.notes += removed_classes(targets, classes, names)
        parameters = {
            "original": self._count(self.before, original),
            "pruned": self._count(self.after, small),
        }
        equal = all(output.equal for output in outputs)
        if not equal and not exact and alike:
            equal = all(np.isfinite(array).all() for array in got)
            if not equal:
                self.wrong.append("some of what the pruned model gives is not a number")
        gates = [] if apart is None else asked.gates.judged(metrics, known_directions, apart)
        if repaired and not gates:
            self.notes.append(_unjudged(given is not None))
        self.notes += [Note("wrong", "", text) for text in self.wrong]
        timed = time_models(original, small, inputs, small_inputs, asked.time, only=fixed)
        computes = equal and not self.wrong
        return Verification(
            original=str(self.before.path),
            pruned=str(self.after.path),
            passed=computes and all(gate.passed for gate in gates),
            computes=computes,
            against="masked original" if masked else "original",
            exact=exact,
            tolerance=tolerance,
            samples=number,
            seed=None if given is not None else asked.seed,
            data=None if given is None else given.name,
            outputs=outputs,
            parameters=parameters,
            repaired=repaired,
            divergence=None if apart is None else apart.outputs,
            gates=gates,
            metrics=metrics,
            notes=self.notes,
            time=timed or None,
        )

    def _compiling(self, metric: str | None) -> Callable[[Any, Examples], None] | None:
        """What compiles a model for a metric beside its loss; None if it is judged by its own."""
        if metric is None:
            return None
        keras, wishes = keras_of(self.before), ByMetric(metric)

        def compile_(model: Any, given: Examples) -> None:
            compile_for(keras, model, given, wishes, said=is_compiled(model))

        return compile_

    def _check_untouched(self, analysis: Analysis, known: PrunedUnits, steps: Steps) -> None:
        """Compare the weights that no repair changes with those of the original."""
        left = analyse(self.after, self.rules)
        changed = changed_beyond_repair(self.base, analysis, self.after, left, known.gone, steps)
        if changed:
            self.wrong.append(changed_text(changed))

    def _fixed(self, reference: Any, inputs: Any, batch_size: int) -> list[np.ndarray]:
        """The outputs of a model without noise. Raises: CannotPruneError if they are random even so."""
        full = run(reference, inputs, batch_size=batch_size)
        if is_random(reference, inputs, full, batch_size):
            raise CannotPruneError(
                f"{self.before.name} cannot be compared with anything",
                why="its outputs differ each time it is run on the same inputs",
                do="compare how well both do on data of your own",
            )
        text = "the outputs are random: they are compared with all noise at its mean"
        self.notes.append(Note("random", "", text))
        return full

    def _known(self) -> tuple[Analysis | None, PrunedUnits | None]:
        """The original's analysis, and the units that were pruned; or a note why they are not known."""
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
            return analysis, pruned_units(analysis, self.after.metadata)
        except Unexplained as reason:
            self.notes.append(unexplained(reason))
            return analysis, None

    def _without_layers(self, analysis: Analysis) -> Analysis:
        """The analysis of the original without the layers that were taken out as a whole.

        Raises: Unexplained if these layers are not known.
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
        """Compare the original without some layers with the original in which these layers do nothing."""
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
                f"plain Keras loads the original, but not {self.after.name}",
                why=error.why or error.what,
                do=error.do,
            ) from error

    def _count(self, source: Source, model: Any) -> ParameterCount:
        own = count(analyse(source, self.rules)).parameters if _holds_graph(source) else -1
        keras_count = int(model.count_params())
        if own not in (-1, keras_count):
            self.wrong.append(
                f"Keras counts {keras_count:,} parameters in {source.name}, and kprune {own:,}"
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


def _unjudged(data: bool) -> Note:
    """A note that no limit judges the figures."""
    text = "how close it is to the original is not judged: set a limit with --min-agreement or --max-drop"
    if not data:
        text = "random inputs show that it runs, but not how close it is to the original on data: give --data"
    return Note("repaired", "", text)


def _holds_graph(source: Source) -> bool:
    config = source.config.get("config")
    return isinstance(config, dict) and isinstance(config.get("layers"), list)


def _compute_dtypes(model: Any) -> set[str]:
    return {str(getattr(layer, "compute_dtype", "float32")) for layer in model._flatten_layers()}


def _alike(one: list[np.ndarray], other: list[np.ndarray], tolerance: float) -> bool:
    return all(difference("", b, a, tolerance).equal for a, b in zip(one, other, strict=True))
