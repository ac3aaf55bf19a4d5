"""Data as arrays in the form in which a model takes them, in whatever form they were given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kprune.errors import UsageError
from kprune.running.arrays import Arrays, Named, X, Y, arrays_of, fits
from kprune.running.inputs import at, dtype_of, operation_of, structure
from kprune.running.sources import DataSource, Given, given, is_array
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import output_names
from kprune.text import clean

TARGETS = (Y, "labels", "targets")


@dataclass(frozen=True)
class Data:
    """Arrays for a model.

    Attributes:
        inputs: arrays in the structure of the model's inputs.
        targets: one array; of a model with several outputs those that are called like them, in a
            dict; None if there is none.
        source: as they were given.
        names: of the model's outputs.
    """

    inputs: Any
    targets: Any
    source: Given
    names: list[str]

    @property
    def name(self) -> str:
        """What reports call the data: a path, a function, or what was given in Python."""
        return self.source.name

    def __len__(self) -> int:
        return len(import_keras().tree.flatten(self.inputs)[0])

    def needed_targets(self, what: str) -> Any:
        """The targets, for a caller that needs them.

        Raises: UsageError, which begins with `what`, if there are none, or one array for several outputs.
        """
        if self.targets is None or (len(self.names) > 1 and not isinstance(self.targets, dict)):
            one = len(self.names) == 1
            raise UsageError(
                what,
                where=self.source.said,
                why="" if one else f"the model has {len(self.names)} outputs",
                do=f"{self.source.verb} them as 'y' beside 'x'"
                if one
                else f"{self.source.verb} them by the names of the outputs: "
                f"{', '.join(map(clean, self.names))}",
            )
        return self.targets


def data_for(model: Any, data: DataSource | Given, *, limit: int | None = None) -> Data:
    """The arrays that a model takes.

    Args:
        model: a Keras model.
        data: see `DataSource`.
        limit: how many samples at most: of arrays so many, spread evenly over them; of batches the
            first, and none is read beyond them.
    Raises: FileError for a file that cannot be read, UsageError for arrays that are missing or do
        not fit the model, CannotPruneError for a function that fails.
    """
    source = given(data)
    tree = import_keras().tree
    wanted = structure(model)
    tensors = tree.flatten(wanted)
    names = _input_names(wanted, tensors)
    outputs = output_names(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in zip(names, tensors, strict=True)}
    arrays = arrays_of(source, shapes, outputs, limit)
    if len(tensors) == 1 and names[0] not in arrays.named:
        names = [X]
    _check_names(arrays.named, names, source)
    found = [
        _fitting(arrays.named[name], tensor, name, source)
        for name, tensor in zip(names, tensors, strict=True)
    ]
    targets = _targets(arrays, names, outputs, source)
    counts = {len(array) for array in [*found, *tree.flatten(targets)] if np.ndim(array)}
    _check_counts(counts, source)
    inputs = tree.pack_sequence_as(wanted, found)
    (count,) = counts
    if limit is not None and count > limit:
        spread = np.arange(limit) * count // limit
        inputs, targets = at(inputs, spread), at(targets, spread)
    return Data(inputs, targets, source, outputs)


def _check_names(named: Named, names: Sequence[str], source: Given) -> None:
    """Raises: UsageError if an input has no array."""
    missing = [name for name in names if name not in named]
    if missing:
        raise UsageError(
            f"{source.said} has no array '{clean(missing[0])}'",
            where=f"it holds {', '.join(map(clean, named)) or 'nothing'}",
            do=f"{source.verb} the inputs as {', '.join(map(clean, names))}"
            + (" (or their layer's name)" if list(names) == [X] else ""),
        )


def _check_counts(counts: set[int], source: Given) -> None:
    if len(counts) > 1:
        raise UsageError(
            f"the arrays of {source.said} have different numbers of samples: {sorted(counts)}",
            do=f"{source.verb} as many targets as inputs",
        )
    if counts == {0}:
        raise UsageError(f"the arrays of {source.said} are empty", do=f"{source.verb} some samples")


def _targets(arrays: Arrays, names: Sequence[str], outputs: list[str], source: Given) -> Any:
    """One array, or a dict by output, or None."""
    if not arrays.targets:
        targets: Any = next((arrays.named[name] for name in TARGETS if name in arrays.named), None)
        if len(outputs) > 1:
            held = arrays.named
            own = {name: held[name] for name in outputs if name in held and name not in names}
            targets = own or targets
        return targets
    if set(arrays.targets) == {Y}:
        return arrays.targets[Y]
    own = {name: arrays.targets[name] for name in outputs if name in arrays.targets}
    if not own:
        raise UsageError(
            f"the targets of {source.said} belong to no output",
            where=f"they are called {', '.join(map(clean, arrays.targets))}",
            do=f"{source.verb} them by the names of the outputs: {', '.join(map(clean, outputs))}",
        )
    return own if len(outputs) > 1 else own[outputs[0]]


def _input_names(wanted: Any, tensors: list[Any]) -> list[str]:
    """What the arrays are called: keys of a dict of inputs, else the names of the input layers."""
    if isinstance(wanted, dict):
        return [str(key) for key in sorted(wanted)]
    return [str(operation_of(tensor._keras_history).name) for tensor in tensors]


def _fitting(array: np.ndarray, tensor: Any, name: str, source: Given) -> np.ndarray:
    """The array in the input's dtype. Raises: UsageError if its shape is another."""
    want = tuple(tensor.shape[1:])
    have = array.shape[1:]
    if len(have) + 1 == len(want) and want[-1] == 1:
        array, have = array[..., None], (*have, 1)  # greyscale images come without a channel axis
    if not array.ndim or not fits(have, want):
        sizes = ", ".join("any" if size is None else str(size) for size in want)
        whose = "" if is_array(source.value) else f"the array '{clean(name)}' of "
        raise UsageError(
            f"{whose}{source.said} has shape {array.shape}",
            why=f"the model takes (samples, {sizes})",
            do=f"{source.verb} arrays of that shape, samples first",
        )
    dtype = dtype_of(tensor)
    if dtype in ("string", "bfloat16") or array.dtype.kind in "US":
        return array
    return array.astype(dtype, copy=False)
