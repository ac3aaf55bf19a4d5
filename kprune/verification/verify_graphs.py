"""Runs the signatures of two SavedModels in TensorFlow, and compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.edit import Edit, combined
from kprune.errors import CannotPruneError, CheckError, UsageError
from kprune.formats import Source, write_model
from kprune.labels.closure import Closure
from kprune.labels.labels import Labels
from kprune.opened import analyse
from kprune.page.result import Note
from kprune.pruning.pruned_units import Mask
from kprune.running.arrays import arrays_of
from kprune.running.divergence import over_units_left
from kprune.running.sources import DataSource, given, named
from kprune.runtime.keras_import import quiet
from kprune.saved_model.analysis import GraphAnalysis
from kprune.saved_model.loading import load_graphs, trusted_graphs
from kprune.saved_model.tracing.graph import MAIN
from kprune.surgery.zero import zero, zero_through
from kprune.text import clean
from kprune.verification.compare import (
    TOLERANCE,
    difference,
    unexplained,
)
from kprune.verification.masked_graphs import Signature, masked_signatures
from kprune.verification.masked_original import masked_original
from kprune.verification.replay import Unexplained, pruned_units
from kprune.verification.signature_runs import Arrays, SignatureRun, random_samples
from kprune.verification.timing import time_calls
from kprune.verification.verify_result import OutputDifference, ParameterCount, Timing, Verification

SERVED = "serving_default"
NO_LABELS = Labels(None)


def verify_saved_models(
    before: Source,
    after: Source,
    folder: Path,
    *,
    data: DataSource | None,
    samples: int,
    seed: int,
    tolerance: float | None,
    time: Sequence[int],
    rules: Iterable[str],
) -> Verification:
    """Run every signature of both, and compare the pruned one with the masked original.

    Args:
        folder: a temporary one, for the masked original.
        data, samples, seed, tolerance, time, rules: see `kprune.verify`.
    Raises: CheckError if the pruned one lacks a signature, UsageError if data do not fit.
    """
    analysis = analyse(before, rules)
    notes = trusted_graphs(before, after)
    models = _Models(before, after, _reference(before, after, analysis, folder, notes))
    gone = models.reference.gone
    arrays = None if data is None else _arrays(data, models)
    limit = TOLERANCE if tolerance is None else tolerance
    outputs: list[OutputDifference] = []
    renormalised = False
    # Zeroed weights take as long as others, so the masked original stands for the original.
    times: list[Timing] = []
    counted = samples
    timed = SERVED if SERVED in models.names else models.names[0]
    for name in models.names:
        signature = models.original.signatures[name]
        inputs: Arrays = (
            random_samples(signature, samples, seed)
            if arrays is None
            else _chosen(signature, arrays, name)
        )
        if set(models.pruned.signatures[name].structured_input_signature[1]) != set(inputs):
            raise CheckError(
                f"the signature '{clean(name)}' takes other inputs in {clean(after.path)}"
            )
        runs, inputs, number, expected = models.expected(name, inputs, repeat=arrays is None)
        small = {
            key: _labels(analysis, before, name, key, "inputs").cut(value, gone)
            for key, value in inputs.items()
        }
        got = runs.run(models.pruned.signatures[name], small, clean(after.path))
        if name == timed:
            counted = number
            times = models.times(runs, inputs, small, time)
        for key in sorted(expected):
            label = key if len(models.names) == 1 else f"{name}/{key}"
            full, result = expected[key], got.get(key)
            labels = _labels(analysis, before, name, key, "outputs")
            left, summed = over_units_left(full, labels, gone)
            for axis in summed:
                renormalised = True
                text = f"'{clean(label)}' is compared over the {left.shape[axis]} classes left"
                notes.append(Note("renormalised", clean(label), text))
            if result is None:
                outputs.append(OutputDifference(label, list(left.shape[1:]), None, None, False))
            else:
                outputs.append(difference(label, result, left, limit))
    hit = [mix for mix in analysis.map.mixes if gone[mix.ids].any()]
    exact = renormalised or not hit
    if not exact:
        notes += [
            Note(
                "inexact",
                mix.at,
                f"differences are expected: the removed units {clean(mix.why, 300)}",
            )
            for mix in hit
        ]
    computes = all(
        output.equal or (not exact and output.relative is not None) for output in outputs
    )
    return Verification(
        original=str(before.path),
        pruned=str(after.path),
        passed=computes,
        computes=computes,
        against=models.reference.against,
        exact=exact,
        tolerance=limit,
        samples=counted,
        seed=seed if arrays is None else None,
        data=None if data is None else named(data),
        outputs=outputs,
        parameters={
            name: ParameterCount(total, total)
            for name, total in (
                ("original", count(analysis).parameters),
                ("pruned", count(analyse(after, rules)).parameters),
            )
        },
        metrics=None,
        notes=notes,
        time=times or None,
    )


@dataclass
class _Reference:
    """The reference: what the pruned model should compute.

    Attributes:
        folder: a SavedModel in which the weights that count as 0 are 0.
        analysis: of the original, which has the same graphs.
        gone: bool (labels,): what was removed.
        masks: what else is set to 0 at run time.
        against: what it is called.
    """

    folder: Path
    analysis: Analysis
    gone: np.ndarray
    masks: list[Mask]
    against: str

    def signatures(self, loaded: Any) -> Mapping[str, Signature]:
        """The functions to compare with."""
        if not self.masks:
            found: Mapping[str, Signature] = loaded.signatures
            return found
        assert isinstance(self.analysis, GraphAnalysis)
        return masked_signatures(loaded, self.analysis, self.masks)


class _Models:
    """Both models, loaded.

    Attributes:
        reference: what the pruned model should compute.
        original: that, as TensorFlow loads it; `pruned` is the other one.
        names: of the original's signatures.
    """

    def __init__(self, before: Source, after: Source, reference: _Reference) -> None:
        self.before, self.after, self.reference = before, after, reference
        self._load()
        self.names = list(self.original.signatures)
        missing = sorted(set(self.names) - set(self.pruned.signatures))
        if missing:
            raise CheckError(f"{clean(after.path)} lacks the signature '{clean(missing[0])}'")
        if not self.names:
            raise CannotPruneError(
                f"{clean(before.path)} has no signature to run",
                do="save it with signatures: tf.saved_model.save(model, folder, signatures=…)",
            )

    def _load(self) -> None:
        self.original = load_graphs(self.before, self.reference.folder)
        self.pruned = load_graphs(self.after)
        self._expecting = self.reference.signatures(self.original)

    def expected(
        self, name: str, inputs: Arrays, *, repeat: bool
    ) -> tuple[SignatureRun, Arrays, int, Arrays]:
        """What a signature should give.

        Args:
            repeat: whether inputs may be repeated if there are too few for a batch.
        Returns: the signature with the batch that it takes, the inputs in whole batches, how many
            samples these are, and the outputs.
        """
        runs = SignatureRun.of(name, self.original.signatures[name])
        try:
            return self._expected(runs, inputs, repeat)
        except CannotPruneError:
            tried = load_graphs(self.before).signatures[name]
            found = runs.with_batch(tried, inputs)
            if found is None:
                raise
        self._load()  # what failed may have left a state behind
        return self._expected(found, inputs, repeat)

    def _expected(
        self, runs: SignatureRun, inputs: Arrays, repeat: bool
    ) -> tuple[SignatureRun, Arrays, int, Arrays]:
        whole, number = runs.whole(runs.filled(inputs) if repeat else inputs)
        outputs = runs.run(self._expecting[runs.name], whole, clean(self.before.path))
        return runs, whole, number, outputs

    def times(
        self, runs: SignatureRun, inputs: Arrays, small: Arrays, sizes: Sequence[int]
    ) -> list[Timing]:
        """How long both take for a signature, for several batch sizes."""
        original, pruned = (m.signatures[runs.name] for m in (self.original, self.pruned))
        return [
            time_calls(runs.timed(original, inputs, size), runs.timed(pruned, small, size), size)
            for size in sizes
        ]


def _reference(
    before: Source, after: Source, analysis: Analysis, folder: Path, notes: list[Note]
) -> _Reference:
    """The original with every pruned unit masked; as it is, if these are not known."""
    assert before.path is not None
    try:
        known = pruned_units(analysis, after.metadata)
    except Unexplained as reason:
        notes.append(unexplained(reason))
        nothing = np.zeros(analysis.map.count, bool)
        return _Reference(before.path, analysis, nothing, [], "original")
    found = _Reference(before.path, analysis, known.gone, known.masks, "masked original")
    if known.masks and not isinstance(analysis, GraphAnalysis):
        # Written by Keras 2: its layers are masked, and the whole is traced anew.
        model = masked_original(before, analysis, known, folder)
        found.folder, found.masks = folder / "masked", []
        with quiet():
            model.save(found.folder, save_format="tf")
        return found
    edit = _without_divisors(
        zero_through(analysis, Closure(analysis.groups, {}, known.weightless)), analysis
    )
    edit = combined(edit, zero(analysis, known.zeroed))
    edit = combined(edit, zero(analysis, known.silenced, silence=True))
    if edit.tensors:
        found.folder = folder / "masked"
        write_model(before, edit, found.folder, force=True)
    return found


# With 0 there they give no number: TensorFlow folds `variance + epsilon` into one constant.
_DIVIDED_BY = {"Rsqrt": 0, "Reciprocal": 0, "Inv": 0, "Log": 0, "RealDiv": 1, "Div": 1}


def _without_divisors(edit: Edit, analysis: Analysis) -> Edit:
    """The edit without the constants that a unit is divided by: 0 divided by any of them stays 0."""
    if not isinstance(analysis, GraphAnalysis):
        return edit
    held, tracer = analysis.held, analysis.tracer

    def divides(path: str) -> bool:
        places = held[path].constants if path in held else ()
        return any(
            (name, 0) in tracer.graph(graph).inputs[node.name][_DIVIDED_BY[node.op] :][:1]
            for graph, name in places
            for node in tracer.graph(graph).nodes.values()
            if node.op in _DIVIDED_BY
        )

    return replace(edit, tensors=tuple(one for one in edit.tensors if not divides(one.path)))


def _labels(analysis: Analysis, source: Source, signature: str, key: str, side: str) -> Labels:
    """Which units stand where in what a signature takes or gives (`side`: inputs or outputs)."""
    if isinstance(analysis, GraphAnalysis):
        signatures = analysis.tracer.meta.signature_def
        tensors = getattr(signatures[signature], side) if signature in signatures else {}
        node, _, index = tensors[key].name.partition(":") if key in tensors else ("", "", "")
        found: Labels = analysis.tracer.traced.tensors.get((MAIN, node, int(index or 0)), NO_LABELS)
        return found
    ends = analysis.tensors_of(getattr(analysis.model, side))
    named = ends if len(ends) == 1 else [end for end in ends if end[0].layer == key]
    return named[0][1] if len(named) == 1 else NO_LABELS


def _arrays(data: DataSource, models: _Models) -> dict[str, np.ndarray]:
    """The arrays that were given, by name."""
    shapes = {
        key: tuple(spec.shape) if spec.shape.rank is not None else ()
        for signature in models.original.signatures.values()
        for key, spec in signature.structured_input_signature[1].items()
    }
    return arrays_of(given(data), shapes, ()).named


def _chosen(signature: Any, given: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    specs = signature.structured_input_signature[1]
    if set(specs) <= set(given):
        return {key: given[key].astype(spec.dtype.as_numpy_dtype) for key, spec in specs.items()}
    if len(specs) == 1 and "x" in given:
        ((key, spec),) = specs.items()
        return {key: given["x"].astype(spec.dtype.as_numpy_dtype)}
    raise UsageError(
        f"the data lack the inputs of the signature '{clean(name)}'",
        why=f"it takes {', '.join(sorted(specs))}, and there are {', '.join(sorted(given))}",
        do="name the arrays in the .npz file as the inputs are named",
    )
