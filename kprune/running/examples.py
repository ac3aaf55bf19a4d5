"""What a model learns from: arrays in an .npz file, or a dataset that a function of the user's makes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError, UsageError
from kprune.page.result import Note
from kprune.running.classes import Classes, fitted
from kprune.running.inputs import (
    Data,
    at,
    data_for,
    fixed_batch,
    in_whole_batches,
    is_function,
    structure,
)
from kprune.runtime.keras_import import import_keras, quiet
from kprune.text import clean


@dataclass(frozen=True)
class Examples:
    """Inputs with labels.

    Attributes:
        arguments: for Keras's `fit` and `evaluate`.
        labels: the labels, or those of the first batch, in the structure of the outputs.
        count: how many samples; None where only a run through them would tell.
        name: the file or the function.
        notes: what a reader should know of the labels.
    """

    arguments: dict[str, Any]
    labels: Any
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
    data: str | os.PathLike[str],
    batch_size: int,
    *,
    hold_back: float,
    seed: int,
    classes: Mapping[str, Classes] | None = None,
) -> tuple[Examples, Examples | None]:
    """What `data` name, for a model: to learn from, and what is held back of it, if anything is.

    Args:
        data: path of an .npz file, or `package.module:function`, which is imported and called: it
            returns a tf.data.Dataset of (inputs, labels).
        batch_size: of arrays, and of a dataset that gives single samples; a model that was built
            for batches of one size gets those, and no samples that do not fill one.
        classes: by output, what is left of its classes: labels in a file that count them as the
            original did are renumbered, and samples of other classes left out.
        hold_back: the share of an .npz file's samples to set apart, chosen by `seed`.
    Raises: UsageError for data without labels or of another form, CannotPruneError for a function
        that fails, FileError.
    """
    fixed = fixed_batch(model)
    batch_size = fixed or batch_size
    if is_function(data):
        if hold_back:
            raise UsageError(
                "no part of a dataset can be held back",
                why="it is only known batch by batch, perhaps in another order each time",
                do="give --validation another function, or an .npz file",
            )
        return _of_function(model, os.fspath(data), batch_size, fixed), None
    found = data_for(model, data)
    labels, known, notes = fitted(
        found.needed_labels("training and judging need labels"), classes or {}, found.names[0]
    )
    if known is not None:
        if not known.any():
            raise UsageError(
                "every sample is of a class that was removed",
                where=clean(found.path),
                do="give samples of those that are left",
            )
        labels, found = at(labels, known), replace(found, inputs=at(found.inputs, known))
    found = replace(found, labels=labels)
    count = len(import_keras().tree.flatten(labels)[0])
    back = round(count * hold_back)
    if back >= count:
        raise UsageError(
            f"no sample would be left to learn from: there are {count}, and {hold_back:g} of them "
            "are to be held back",
            where=clean(found.path),
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
    inputs, labels = found.inputs, found.labels
    chosen = chosen[: in_whole_batches(len(chosen), fixed)]
    if len(chosen) < count:
        inputs, labels = at(inputs, chosen), at(labels, chosen)
    arguments = {"x": inputs, "y": labels, "batch_size": batch_size}
    return Examples(arguments, labels, len(chosen), found.path, tuple(notes))


def _of_function(model: Any, name: str, batch_size: int, fixed: int | None) -> Examples:
    dataset = _called(name)
    spec = getattr(dataset, "element_spec", None)
    if spec is None:
        raise UsageError(
            f"{clean(name)} does not return a tf.data.Dataset",
            why=f"what it returns is of type {clean(type(dataset).__name__)}",
            do="let it return one of (inputs, labels)",
        )
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise UsageError(
            f"the dataset of {clean(name)} gives {clean(spec, 200)}",
            do="let it give pairs (inputs, labels), or triples with sample weights",
        )
    if int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise UsageError(
            f"the dataset of {clean(name)} has no end",
            do="leave out .repeat(), or bound it with .take(batches): one pass is an epoch",
        )
    tree = import_keras().tree
    wanted = tree.flatten(structure(model))[0]
    given = tree.flatten(spec[0])[0]
    if given.shape.rank == len(wanted.shape) - 1:
        dataset = dataset.batch(batch_size, drop_remainder=fixed is not None)
    with quiet():
        first = next(iter(dataset.take(1)), None)
    if first is None:
        raise UsageError(f"the dataset of {clean(name)} is empty")
    labels = tree.map_structure(np.asarray, first[1])
    return Examples({"x": dataset}, labels, None, name)


def _called(name: str) -> Any:
    """What the function returns. The folder one stands in may hold its module, as with `python -m`."""
    path, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(path), attribute, None)
        if not callable(function):
            raise UsageError(
                f"{clean(path)} has no function '{clean(attribute)}'",
                where=clean(getattr(sys.modules[path], "__file__", "") or "", 300),
            )
        return function()
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error
        raise UsageError(
            f"there is no module '{clean(path)}', and no file {clean(name)}",
            do="name an .npz file, or package.module:function, the module in this folder or "
            "on PYTHONPATH",
        ) from error
    except Exception as error:  # it is the user's code, which may raise anything
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> CannotPruneError:
    return CannotPruneError(
        f"{clean(name)} fails",
        why=f"{type(error).__name__}: {clean(' '.join(str(error).split()), 300)}",
        do="--debug shows the traceback",
    )
