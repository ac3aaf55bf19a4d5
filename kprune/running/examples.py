"""What a model learns from and is judged by: arrays, or a dataset that Keras reads batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kprune.errors import UsageError
from kprune.page.result import Note
from kprune.running.classes import Classes, fitted
from kprune.running.data import Data, data_for
from kprune.running.inputs import at, fixed_batch, in_whole_batches, structure
from kprune.running.sources import DataSource, Given, given
from kprune.runtime.keras_import import import_keras, quiet
from kprune.text import clean


@dataclass(frozen=True)
class Examples:
    """Inputs with targets.

    Attributes:
        arguments: for Keras's `fit` and `evaluate`.
        targets: the targets, or those of the first batch, in the structure of the outputs.
        count: how many samples; None where only a run through them would tell.
        name: of the data, in reports.
        notes: what a reader should know of the targets.
    """

    arguments: dict[str, Any]
    targets: Any
    count: int | None
    name: str
    notes: tuple[Note, ...] = ()

    def first_batch(self) -> Any:
        """The inputs of the first batch."""
        inputs = self.arguments["x"]
        if "y" not in self.arguments:
            return next(iter(inputs.take(1)))[0]
        size = self.arguments["batch_size"]
        return at(inputs, slice(size))


def examples(
    model: Any,
    data: DataSource | Given,
    batch_size: int,
    *,
    hold_back: float,
    seed: int,
    classes: Mapping[str, Classes] | None = None,
) -> tuple[Examples, Examples | None]:
    """What `data` name, for a model: to learn from, and what is held back of it, if anything is.

    Args:
        data: see `DataSource`. A tf.data.Dataset of (inputs, targets) is left to Keras to read; all
            else is read into arrays.
        batch_size: of arrays, and of a dataset that gives single samples; a model that was built
            for batches of one size gets those, and no samples that do not fill one.
        classes: by output, what is left of its classes: targets in a file that count them as the
            original did are renumbered, and samples of other classes left out.
        hold_back: the share of the samples of arrays to set apart, chosen by `seed`.
    Raises: UsageError for data without targets or of another form, CannotPruneError for a function
        that fails, FileError.
    """
    fixed = fixed_batch(model)
    batch_size = fixed or batch_size
    source = given(data)
    if source.is_dataset:
        if hold_back:
            raise UsageError(
                "no part of a dataset can be held back",
                why="it is only known batch by batch, perhaps in another order each time",
                do="give --validation other data, or save the samples in an .npz file",
            )
        return _of_dataset(model, source, batch_size, fixed), None
    found = data_for(model, source)
    targets, known, notes = fitted(
        found.needed_targets("training and judging need targets"), classes or {}, found.names[0]
    )
    if known is not None:
        if not known.any():
            raise UsageError(
                "every sample is of a class that was removed",
                where=source.said,
                do="give samples of those that are left",
            )
        targets, found = at(targets, known), replace(found, inputs=at(found.inputs, known))
    found = replace(found, targets=targets)
    count = len(import_keras().tree.flatten(targets)[0])
    back = round(count * hold_back)
    if back >= count:
        raise UsageError(
            f"no sample would be left to learn from: there are {count}, and {hold_back:g} of them "
            "are to be held back",
            where=source.said,
            do="hold back fewer (--validation-split), or give more samples",
        )
    if not back:
        return _of_arrays(found, count, np.arange(count), batch_size, fixed, notes), None
    order = np.random.default_rng(seed).permutation(count)
    held = _of_arrays(found, count, order[:back], batch_size, fixed, notes)
    return _of_arrays(found, count, order[back:], batch_size, fixed, notes), held


def _of_arrays(
    found: Data,
    count: int,
    chosen: np.ndarray,
    batch_size: int,
    fixed: int | None,
    notes: Sequence[Note],
) -> Examples:
    inputs, targets = found.inputs, found.targets
    chosen = chosen[: in_whole_batches(len(chosen), fixed)]
    if len(chosen) < count:
        inputs, targets = at(inputs, chosen), at(targets, chosen)
    arguments = {"x": inputs, "y": targets, "batch_size": batch_size}
    return Examples(arguments, targets, len(chosen), found.name, tuple(notes))


def _of_dataset(model: Any, source: Given, batch_size: int, fixed: int | None) -> Examples:
    dataset = source.value
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise UsageError(
            f"{source.dataset} gives {clean(spec, 200)}",
            do="let it give pairs (inputs, targets), or triples with sample weights",
        )
    source.refuse_endless()
    tree = import_keras().tree
    wanted = tree.flatten(structure(model))[0]
    given = tree.flatten(spec[0])[0]
    if given.shape.rank == len(wanted.shape) - 1:
        dataset = dataset.batch(batch_size, drop_remainder=fixed is not None)
    with quiet():
        first = next(iter(dataset.take(1)), None)
    if first is None:
        raise UsageError(f"{source.dataset} is empty")
    targets = tree.map_structure(np.asarray, first[1])
    return Examples({"x": dataset}, targets, None, source.name)
