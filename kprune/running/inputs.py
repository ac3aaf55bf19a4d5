"""Inputs for a model: random ones that it accepts, or those in an .npz file."""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError, FileError, UsageError
from kprune.faults import shown
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import output_names
from kprune.text import clean

# Sizes for what the model leaves open: long enough for kernels and pooling to fit in.
STEPS = 16
EXTENT = 64
LABELS = ("y", "labels", "targets")

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def structure(model: Any) -> Any:
    """The model's inputs (KerasTensors) in the structure in which it takes them.

    Raises: CannotPruneError if it does not say what it takes.
    """
    try:
        tensors = model.inputs
    except AttributeError:
        tensors = None
    if not tensors:
        raise CannotPruneError(
            f"the model '{clean(model.name)}' does not say what inputs it takes",
            why="it was saved before it was built",
            do="call the model on data and save it again",
        )
    inner = getattr(model, "_inputs_struct", None)
    if inner is None:
        inner = tensors[0] if len(tensors) == 1 else tensors
    return inner


def random_inputs(model: Any, samples: int, seed: int) -> Any:
    """Arrays in the structure of the model's inputs.

    Floats are normal; integers are below what the embeddings that read them hold.
    """
    keras = import_keras()
    rng = np.random.default_rng(seed)

    def draw(tensor: Any) -> np.ndarray:
        shape = (tensor.shape[0] or samples, *_sizes(tensor.shape[1:]))
        if shape[0] != samples:
            shape = (samples - samples % shape[0] or shape[0], *shape[1:])
        dtype = _dtype(tensor)
        if dtype.startswith(("int", "uint")):
            return rng.integers(0, _tokens(tensor), shape).astype(dtype)
        if dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if dtype == "string":
            return rng.integers(0, 100, shape).astype(str).astype(object)
        return rng.normal(0.0, 1.0, shape).astype("float64" if dtype == "float64" else "float32")

    return keras.tree.map_structure(draw, structure(model))


def _sizes(shape: tuple[int | None, ...]) -> list[int]:
    open_size = STEPS if len(shape) < 3 else EXTENT
    return [open_size if size is None else size for size in shape]


def _tokens(tensor: Any) -> int:
    """How many different integers an input may hold: the least of the embeddings that read it."""
    found = []
    seen: set[int] = set()
    queue = deque([_operation(tensor._keras_history)])
    while queue:
        op = queue.popleft()
        if id(op) in seen:
            continue
        seen.add(id(op))
        for layer in _layers_in(op):
            limit = layer.get_config().get(
                "input_dim" if "Embedding" in type(layer).__name__ else "num_tokens"
            )
            if limit:
                found.append(int(limit))
        # What an embedding gives is no token any more; what other layers give may still be one.
        if not any("Embedding" in type(layer).__name__ for layer in _layers_in(op)):
            queue.extend(_operation(node) for node in op._outbound_nodes)
    return min(found, default=2)


def _operation(node: Any) -> Any:
    """What a node or a tensor's history belongs to, in Keras 3 and in Keras 2."""
    return node.operation if hasattr(node, "operation") else node.layer


def _dtype(tensor: Any) -> str:
    """The name of a tensor's type; Keras 2 has TensorFlow's types."""
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _layers_in(op: Any) -> list[Any]:
    """A layer and all that are inside it; nothing for a plain operation."""
    if not hasattr(op, "_flatten_layers"):
        return []
    return list(op._flatten_layers())


@dataclass(frozen=True)
class Data:
    """What an .npz file holds for a model.

    Attributes:
        inputs: arrays in the structure of the model's inputs.
        labels: the array `y`; of a model with several outputs, those that are called like them, in
            a dict; None if there is none.
        path: the file.
        names: of the model's outputs.
    """

    inputs: Any
    labels: Any
    path: str
    names: list[str]

    def needed_labels(self, what: str) -> Any:
        """The labels, for what cannot do without.

        Raises: UsageError, which begins with `what`, if there are none, or one array for several outputs.
        """
        if self.labels is None or (len(self.names) > 1 and not isinstance(self.labels, dict)):
            one = len(self.names) == 1
            raise UsageError(
                what,
                where=clean(self.path),
                why="" if one else f"the model has {len(self.names)} outputs",
                do="save them as 'y' beside 'x'"
                if one
                else f"save them by the names of the outputs: {', '.join(map(clean, self.names))}",
            )
        return self.labels


def is_function(data: str | os.PathLike[str]) -> bool:
    """Whether data are named as `package.module:function`, and not as a file that is there."""
    text = os.fspath(data)
    return _FUNCTION.fullmatch(text) is not None and not os.path.lexists(text)


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Every array in an .npz file. Nothing in it is executed (no pickles).

    Raises: FileError if it cannot be read, UsageError for what names a function.
    """
    name = shown(path)
    if is_function(path):
        raise UsageError(
            f"{name} names a function, where arrays are needed",
            do="save samples of it, and name the file: np.savez(FILE, x=…, y=…)",
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise FileError(
                    f"{name} holds a single array",
                    do="save the arrays with names: np.savez(FILE, x=…, y=…)",
                )
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise FileError(f"cannot read {name}", why="there is no such file") from error
    except OSError as error:
        raise FileError(f"cannot read {name}", why=error.strerror or clean(error, 200)) from error
    except FileError:
        raise
    except Exception as error:  # zipfile and numpy raise a dozen kinds on damaged archives
        raise FileError(
            f"{name} is not an .npz file",
            why=clean(error, 200),
            do="save the arrays with np.savez(FILE, x=…, y=…)",
        ) from error


def data_for(model: Any, path: str | os.PathLike[str]) -> Data:
    """The arrays of an .npz file that a model takes: `x`, or the inputs' names; `y` for labels, or the outputs' names.

    Raises: FileError for a file that cannot be read, UsageError for arrays that are missing or do
        not fit the model.
    """
    keras = import_keras()
    arrays = read_npz(path)
    wanted = structure(model)
    tensors = keras.tree.flatten(wanted)
    names = _input_names(model, wanted, tensors)
    if len(tensors) == 1 and names[0] not in arrays:
        names = ["x"]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UsageError(
            f"{shown(path)} has no array '{clean(missing[0])}'",
            where=f"it holds {', '.join(map(clean, arrays)) or 'nothing'}",
            do=f"save the inputs as {', '.join(map(clean, names))}"
            + (" (or their layer's name)" if names == ["x"] else ""),
        )
    found = [
        _fitting(arrays[name], tensor, name, path)
        for name, tensor in zip(names, tensors, strict=True)
    ]
    outputs = output_names(model)
    labels: Any = next((arrays[name] for name in LABELS if name in arrays), None)
    if len(outputs) > 1:
        own = {name: arrays[name] for name in outputs if name in arrays and name not in names}
        labels = own or labels
    counts = {len(array) for array in [*found, *keras.tree.flatten(labels)] if np.ndim(array)}
    if len(counts) > 1:
        raise UsageError(
            f"the arrays of {shown(path)} have different numbers of samples: {sorted(counts)}",
            do="save as many labels as inputs",
        )
    if counts == {0}:
        raise UsageError(f"the arrays of {shown(path)} are empty", do="save some samples")
    return Data(keras.tree.pack_sequence_as(wanted, found), labels, os.fspath(path), outputs)


def _input_names(model: Any, wanted: Any, tensors: list[Any]) -> list[str]:
    """What the arrays are called: keys of a dict of inputs, else the names of the input layers."""
    if isinstance(wanted, dict):
        return [str(key) for key in sorted(wanted)]
    return [str(_operation(tensor._keras_history).name) for tensor in tensors]


def _fitting(array: np.ndarray, tensor: Any, name: str, path: Any) -> np.ndarray:
    """The array in the input's dtype. Raises: UsageError if its shape is another."""
    want = tuple(tensor.shape[1:])
    have = array.shape[1:]
    if len(have) + 1 == len(want) and want[-1] == 1:
        array, have = array[..., None], (*have, 1)  # greyscale images come without a channel axis
    fits = len(have) == len(want) and all(w in (None, h) for w, h in zip(want, have, strict=True))
    if not array.ndim or not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in want)
        raise UsageError(
            f"the array '{clean(name)}' of {shown(path)} has shape {array.shape}",
            why=f"the model takes (samples, {sizes})",
            do="save arrays of that shape, samples first",
        )
    dtype = _dtype(tensor)
    if dtype in ("string", "bfloat16") or array.dtype.kind in "US":
        return array
    return array.astype(dtype, copy=False)


def fixed_batch(model: Any) -> int | None:
    """The batch size that a model was built for, if it takes no other."""
    tensors = import_keras().tree.flatten(model.inputs)
    return next((int(tensor.shape[0]) for tensor in tensors if tensor.shape[0]), None)


def at(arrays: Any, chosen: Any) -> Any:
    """Some samples of arrays in any structure; None stays."""
    tree = import_keras().tree
    return tree.map_structure(lambda array: None if array is None else array[chosen], arrays)


def whole_batches(inputs: Any, fixed: int | None) -> tuple[Any, int]:
    """Inputs, and how many samples there are; a model with a fixed batch gets whole ones only."""
    whole = in_whole_batches(len(import_keras().tree.flatten(inputs)[0]), fixed)
    return at(inputs, slice(whole)), whole


def in_whole_batches(number: int, fixed: int | None) -> int:
    """How many of so many samples a model takes that has a fixed batch, or none.

    Raises: UsageError if they do not make one batch.
    """
    whole = number - number % fixed if fixed else number
    if not whole:
        raise UsageError(
            f"the model takes batches of {fixed} samples, and there are {number}",
            do="give more samples",
        )
    return whole
