"""Models that draw random numbers in inference, as the sampling layer of a VAE does, run without noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import run


def is_random(model: Any, inputs: Any, outputs: Sequence[np.ndarray], batch_size: int) -> bool:
    """Whether a model gives other outputs when it is run once more on the same inputs."""
    again = run(model, inputs, batch_size=batch_size)
    return any(
        not np.array_equal(one, other, equal_nan=True)
        for one, other in zip(outputs, again, strict=True)
    )


@contextmanager
def without_noise() -> Iterator[None]:
    """Have every random number that a layer of Keras 3 draws be the mean of what it is drawn from."""
    import_keras()
    from keras.src import backend

    def normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, *args: Any, **how: Any) -> Any:
        return backend.numpy.full(shape, mean, dtype=how.get("dtype") or backend.floatx())

    def uniform(
        shape: Any, minval: float = 0.0, maxval: float = 1.0, *args: Any, **how: Any
    ) -> Any:
        middle = (minval + maxval) / 2
        return backend.numpy.full(shape, middle, dtype=how.get("dtype") or backend.floatx())

    quiet = {"normal": normal, "truncated_normal": normal, "uniform": uniform}
    loud = {name: getattr(backend.random, name) for name in quiet}
    for name, function in quiet.items():
        setattr(backend.random, name, function)
    try:
        yield
    finally:
        for name, function in loud.items():
            setattr(backend.random, name, function)
