"""Inputs for a model: in which structure it takes them, random ones that it accepts, some of many."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError, UsageError
from kprune.runtime.keras_import import import_keras
from kprune.text import clean

# Sizes for what the model leaves open: long enough for kernels and pooling to fit in.
STEPS = 16
EXTENT = 64


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
        shape = (tensor.shape[0] or samples, *sizes_of(tensor.shape[1:]))
        if shape[0] != samples:
            shape = (samples - samples % shape[0] or shape[0], *shape[1:])
        dtype = dtype_of(tensor)
        if dtype.startswith(("int", "uint")):
            return rng.integers(0, _tokens(tensor), shape).astype(dtype)
        if dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if dtype == "string":
            return rng.integers(0, 100, shape).astype(str).astype(object)
        return rng.normal(0.0, 1.0, shape).astype("float64" if dtype == "float64" else "float32")

    return keras.tree.map_structure(draw, structure(model))


def sizes_of(shape: tuple[int | None, ...]) -> list[int]:
    """The sizes of an input without the batch; what the model leaves open gets a usual one."""
    open_size = STEPS if len(shape) < 3 else EXTENT
    return [open_size if size is None else size for size in shape]


def _tokens(tensor: Any) -> int:
    """How many different integers an input may hold: the least of the embeddings that read it."""
    found = []
    seen: set[int] = set()
    queue = deque([operation_of(tensor._keras_history)])
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
            queue.extend(operation_of(node) for node in op._outbound_nodes)
    return min(found, default=2)


_OF_TOKENS = ("input_dim", "vocabulary_size", "num_tokens", "max_tokens")
"""Keys in the configs of layers that read ids."""


def is_of_tokens(tensor: Any) -> bool:
    """Whether an input's numbers are ids: an embedding or a lookup reads them as they are."""
    layers = [layer for layer, _ in consumers_of(tensor)]
    configs = [layer.get_config() if hasattr(layer, "get_config") else {} for layer in layers]
    return any(config.get(name) for config in configs for name in _OF_TOKENS)


def consumers_of(tensor: Any) -> list[tuple[Any, Any]]:
    """What reads a tensor of a graph, in the order of its calls, and the first tensor that it gives.

    Of a model inside the model, what reads its input there.
    """
    found: list[tuple[Any, Any]] = []
    for node in operation_of(tensor._keras_history)._outbound_nodes:
        # Keras 2 has other names.
        read = node.input_tensors if hasattr(node, "input_tensors") else node.keras_inputs
        if not any(one is tensor for one in import_keras().tree.flatten(read)):
            continue
        layer = operation_of(node)
        inside = getattr(layer, "inputs", None) if hasattr(layer, "layers") else None
        if inside:
            found += consumers_of(inside[0]) if len(inside) == 1 else [(layer, None)]
        else:
            found.append((layer, import_keras().tree.flatten(node.outputs)[0]))
    return found


def operation_of(node: Any) -> Any:
    """What a node or a tensor's history belongs to, in Keras 3 and in Keras 2."""
    return node.operation if hasattr(node, "operation") else node.layer


def dtype_of(tensor: Any) -> str:
    """The name of a tensor's type; Keras 2 has TensorFlow's types."""
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _layers_in(op: Any) -> list[Any]:
    """A layer and all that are inside it; nothing for a plain operation."""
    if not hasattr(op, "_flatten_layers"):
        return []
    return list(op._flatten_layers())


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


def cut_inputs(analysis: Analysis, gone: np.ndarray, inputs: Any) -> Any:
    """Inputs without the features that were removed.

    Args:
        analysis: of the original; gone: bool (labels,).
        inputs: arrays in the structure of the original's inputs.
    """
    tree = import_keras().tree
    ends, arrays = analysis.tensors_of(analysis.model.inputs), tree.flatten(inputs)
    if len(ends) != len(arrays):
        return inputs
    cut = [labels.cut(array, gone) for (_, labels), array in zip(ends, arrays, strict=True)]
    return tree.pack_sequence_as(inputs, cut)
