"""How long two models take, measured in turn in one process.

Calls of the two models alternate, so that other load on the machine slows both alike, and which of
a pair comes first changes from pair to pair. The first calls, which trace the graph and fill
caches, are not counted. The medians are reported, with the range of the middle half of the pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError, UsageError
from kprune.runtime.keras_import import import_keras, quiet
from kprune.text import clean
from kprune.verification.verify_result import Timing

SIZES = (1, 32)
WARM_UP = 3  # calls of each model
LEAST, MOST = 7, 200  # pairs of calls
SECONDS = 2.0  # for one batch size; more only as LEAST takes it
Call = Callable[[], object]


def check_sizes(sizes: Sequence[int]) -> None:
    """Raises: UsageError for a batch size below 1."""
    for size in sizes:
        if size < 1:
            raise UsageError(
                f"a batch size must be at least 1, got {size}", do="give sizes such as 1,32,256"
            )


def time_models(
    original: Any,
    pruned: Any,
    inputs: Any,
    small_inputs: Any,
    sizes: Sequence[int],
    *,
    only: int | None = None,
) -> list[Timing]:
    """Time two Keras models in inference mode: a traced call each, its outputs fetched.

    Args:
        inputs, small_inputs: arrays in the structure of either's inputs; repeated where a batch
            takes more samples than there are.
        sizes: batch sizes.
        only: the batch size that the models are fixed to.
    Raises: UsageError for a size that the models do not take, CannotPruneError if one does not run.
    """
    if only is not None and any(size != only for size in sizes):
        raise UsageError(
            f"the model takes batches of {only} samples only", do=f"give --batch-sizes {only}"
        )
    calls = [_traced(original), _traced(pruned)]
    found = []
    for size in sizes:
        batches = [_batch(inputs, size), _batch(small_inputs, size)]
        pair = [_bound(call, batch) for call, batch in zip(calls, batches, strict=True)]
        try:
            with quiet():
                found.append(time_calls(pair[0], pair[1], size))
        except Exception as error:  # whatever the backend raises where it has not the memory, say
            raise CannotPruneError(
                f"the models do not run on batches of {size} samples",
                why=f"{type(error).__name__}: {clean(' '.join(str(error).split()), 300)}",
                do="give other --batch-sizes",
            ) from error
    return found


def time_calls(original: Call, pruned: Call, batch_size: int) -> Timing:
    """Time two functions, which return when their work is done."""
    for _ in range(WARM_UP):
        original()
        pruned()
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + SECONDS
    while len(pairs) < LEAST or (len(pairs) < MOST and time.perf_counter() < end):
        if len(pairs) % 2:
            second = _seconds(pruned)
            pairs.append((_seconds(original), second))
        else:
            pairs.append((_seconds(original), _seconds(pruned)))
    times = np.array(pairs)
    before, after = np.median(times, axis=0)
    low, high = np.quantile(times[:, 1] / times[:, 0], (0.25, 0.75))
    return Timing(
        batch_size=batch_size,
        original=float(before),
        pruned=float(after),
        ratio=float(after / before),
        middle_half=[float(low), float(high)],
        pairs=len(pairs),
        device=_device(),
    )


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _traced(model: Any) -> Callable[[Any], Any]:
    """The model as one graph, the way a server would run it; with other backends, as `predict` does."""
    keras = import_keras()
    if keras.backend.backend() != "tensorflow":
        return lambda batch: model.predict_on_batch(batch)
    import tensorflow as tf

    return tf.function(lambda batch: model(batch, training=False), reduce_retracing=False)


def _bound(call: Callable[[Any], Any], batch: Any) -> Call:
    tree, ops = import_keras().tree, import_keras().ops
    # Handing arrays over would be timed as well, and it costs both models the same.
    ready = tree.map_structure(
        lambda array: array if array.dtype.kind in "OUS" else ops.convert_to_tensor(array), batch
    )
    return lambda: tree.map_structure(ops.convert_to_numpy, call(ready))


def _batch(inputs: Any, size: int) -> Any:
    return import_keras().tree.map_structure(
        lambda array: array[np.arange(size) % len(array)], inputs
    )


def _device() -> str:
    import tensorflow as tf

    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
