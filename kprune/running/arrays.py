"""Arrays by name, read from whatever was given as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import numpy as np

from kprune.errors import FileError, UsageError
from kprune.faults import shown
from kprune.formats.opening import open_file
from kprune.limits import check_unpacked
from kprune.running.sources import Given, is_array
from kprune.text import clean
from kprune.types import AnyPath

Shape = Sequence[int | None]
Named = dict[str, np.ndarray]

_ARRAYS = (b"PK", b"\x93NUMPY")
X, Y = "x", "y"
"""What arrays are called that have no names."""


@dataclass(frozen=True)
class Arrays:
    """Arrays as they were given.

    Attributes:
        named: by name; one array without a name is `x`.
        targets: those that were given apart from the inputs: by output, or one array as `y`.
    """

    named: Named
    targets: Named

    def whole(self) -> Arrays:
        """The same with a first axis for the samples, of a single one."""
        named = {name: array[None] for name, array in self.named.items()}
        return Arrays(named, {name: array[None] for name, array in self.targets.items()})


def arrays_of(
    source: Given, inputs: Mapping[str, Shape], outputs: Sequence[str], limit: int | None = None
) -> Arrays:
    """Data as arrays by name.

    Args:
        inputs: the shapes that are wanted, with the batch, by the names of the inputs.
        outputs: their names.
        limit: batches are read until there are so many samples.
    Raises: as `data_for`.
    """
    value = source.value
    if source.is_path:
        return Arrays(read_npz(value), {})
    if not source.is_batches or (len(inputs) > 1 and _are_arrays(value)):
        return _named(value, inputs, outputs, source)
    if limit is None:
        source.refuse_endless()
    parts: list[Arrays] = []
    count = 0
    for batch in source.batches():
        part = _named(batch, inputs, outputs, source)
        part = part.whole() if _is_sample(part.named, inputs) else part
        parts.append(part)
        count += max((len(array) for array in part.named.values() if array.ndim), default=0)
        if limit is not None and count >= limit:
            break
    if not parts:
        raise UsageError(
            f"{source.said} is empty", do=f"{source.verb} data with at least one sample"
        )
    return Arrays(
        _joined([part.named for part in parts], limit, source),
        _joined([part.targets for part in parts], limit, source),
    )


def _joined(parts: Sequence[Named], limit: int | None, source: Given) -> Named:
    """The arrays of all batches one behind the other."""
    try:
        return {name: np.concatenate([part[name] for part in parts])[:limit] for name in parts[0]}
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"the batches of {source.said} do not fit together",
            why=f"one lacks {clean(error)}" if isinstance(error, KeyError) else clean(error, 200),
            do="give batches with the same arrays, alike in all but the number of samples",
        ) from error


def _named(
    value: Any, inputs: Mapping[str, Shape], outputs: Sequence[str], source: Given
) -> Arrays:
    """Arrays of inputs and targets, or of one batch of them."""
    x, y = value, None
    # PyTorch's loaders give lists where TensorFlow's datasets give tuples.
    pair = isinstance(value, list) and len(inputs) == 1 and _are_arrays(value)
    if isinstance(value, tuple) or pair:
        if not 1 <= len(value) <= 3:
            raise UsageError(
                f"{source.said} has a tuple of {len(value)} parts",
                do="give (x, y), or (x, y, sample weights)",
            )
        x, y = value[0], value[1] if len(value) > 1 else None
    try:
        named = _by_name(x, list(inputs), X)
        return Arrays(named, {} if y is None else _by_name(y, outputs, Y))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{source.said} holds something that is not an array",
            why=clean(error, 200),
            do="give arrays of numbers, alike in all but the number of samples",
        ) from error


def _by_name(value: Any, names: Sequence[str], alone: str) -> Named:
    if isinstance(value, Mapping):
        return {str(key): np.asarray(part) for key, part in value.items()}
    if len(names) > 1 and _are_arrays(value):
        return {name: np.asarray(part) for name, part in zip(names, value, strict=True)}
    return {alone: np.asarray(value)}


def _are_arrays(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(is_array, value))


def _is_sample(named: Named, inputs: Mapping[str, Shape]) -> bool:
    """Whether arrays have the inputs' shapes without the batch."""
    if len(inputs) == 1:
        ((name, shape),) = inputs.items()
        pairs = [(named.get(name, named.get(X)), shape)]
    else:
        pairs = [(named.get(name), shape) for name, shape in inputs.items()]
    return all(array is not None and fits(array.shape, shape[1:]) for array, shape in pairs)


def fits(have: Shape, want: Shape) -> bool:
    """Whether an array of shape `have` may stand where `want` is asked for, in which None is any size."""
    return len(have) == len(want) and all(w in (None, h) for w, h in zip(want, have, strict=True))


def read_npz(path: AnyPath) -> Named:
    """Every array in an .npz file. Nothing in it is executed (no pickles).

    Raises: FileError if it cannot be read, LimitError for a zip bomb.
    """
    name = shown(path)
    file = open_file(path, _ARRAYS)
    try:
        with np.load(BufferedReader(file.window()), allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise FileError(
                    f"{name} holds a single array",
                    do="save the arrays with names: np.savez(FILE, x=…, y=…)",
                )
            for member in archive.zip.infolist():
                called = f"'{clean(member.filename)}'"
                check_unpacked(member.compress_size, member.file_size, called, name)
            arrays = {key: archive[key] for key in archive.files}
            for key, value in arrays.items():
                if not isinstance(value, np.ndarray):
                    raise FileError(f"cannot read {name}", where=clean(key), why="it is no array")
            return arrays
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(f"cannot read {name}", why="it does not fit into memory") from error
    except Exception as error:  # zipfile and numpy raise a dozen kinds on damaged archives
        raise FileError(
            f"{name} is not an .npz file",
            why=clean(error, 200),
            do="save the arrays with np.savez(FILE, x=…, y=…)",
        ) from error
    finally:
        file.close()
