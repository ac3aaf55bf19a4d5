"""Runs one signature of a SavedModel, in batches of a size that it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError, UsageError
from kprune.running.inputs import in_whole_batches
from kprune.runtime.keras_import import reason_of
from kprune.runtime.tensorflow_runtime import tensorflow
from kprune.text import clean

Arrays = Mapping[str, np.ndarray]
Function = Callable[..., Mapping[str, Any]]

_OPEN = 7
"""What stands for a size that a signature leaves open, other than the batch."""

_LARGEST_BATCH = 256
"""No larger batch is tried where a signature says that it takes any, and does not."""


@dataclass(frozen=True)
class SignatureRun:
    """A signature of two models, ready to run on the same samples.

    Attributes:
        name: what the signature is called.
        specs: by name, the TensorSpec of each input.
        batch: how many samples it takes at once; None for any number.
    """

    name: str
    specs: Mapping[str, Any]
    batch: int | None

    @classmethod
    def of(cls, name: str, signature: Any) -> SignatureRun:
        """A signature with the batch that it says it takes."""
        specs = signature.structured_input_signature[1]
        said = {spec.shape[0] for spec in specs.values() if spec.shape.rank}
        return cls(name, specs, said.pop() if len(said) == 1 else None)

    def with_batch(self, function: Function, inputs: Arrays) -> SignatureRun | None:
        """The signature with the smallest batch that runs; None if none does, or it says its batch.

        Keras 3 exports a model with a fixed batch under a signature that leaves the batch open.

        Args:
            function: what to try it on; a model that keeps state between calls is changed by that.
        """
        opened = any(spec.shape.rank and spec.shape[0] is None for spec in self.specs.values())
        for size in range(1, _LARGEST_BATCH + 1) if opened else ():
            try:
                self._call(function, self._first(inputs, size))
            except Exception:  # any that TensorFlow has: the next size may pass
                continue
            return replace(self, batch=size)
        return None

    def _first(self, inputs: Arrays, size: int) -> dict[str, np.ndarray]:
        """So many samples, the first ones again where there are not enough."""
        return {
            name: value.take(np.arange(size) % len(value), 0) if self._has_batch(name) else value
            for name, value in inputs.items()
        }

    def _has_batch(self, name: str) -> bool:
        spec = self.specs[name]
        return bool(spec.shape.rank) and spec.shape[0] in (None, self.batch)

    @staticmethod
    def _call(function: Function, inputs: Arrays) -> dict[str, np.ndarray]:
        tf = tensorflow()
        given = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in function(**given).items()}

    def _refused(self, model: str, error: Exception) -> CannotPruneError:
        return CannotPruneError(
            f"{model} does not run on these inputs",
            where=f"signature '{clean(self.name)}'",
            why=clean(reason_of(error), 300),
            do="give inputs that it takes, with --data FILE.npz",
        )

    def filled(self, inputs: Arrays) -> Arrays:
        """Samples that make at least one batch: the first ones again where there are too few."""
        counts = [len(value) for name, value in inputs.items() if self._has_batch(name)]
        if self.batch is None or not counts or min(counts) >= self.batch:
            return inputs
        return self._first(inputs, self.batch)

    def whole(self, inputs: Arrays) -> tuple[dict[str, np.ndarray], int]:
        """The inputs in whole batches, and how many samples these are.

        Raises: UsageError if they do not make one.
        """
        counts = [len(value) for name, value in inputs.items() if self._has_batch(name)]
        if not counts:
            return dict(inputs), 1
        number = in_whole_batches(min(counts), self.batch)
        return {
            name: value[:number] if self._has_batch(name) else value
            for name, value in inputs.items()
        }, number

    def run(self, function: Function, inputs: Arrays, model: str) -> dict[str, np.ndarray]:
        """What a function with this signature gives.

        Args:
            model: what a message calls it.
        Raises: CannotPruneError if it does not run on these inputs.
        """
        parts = []
        for batch in self._batches(inputs):
            try:
                parts.append(self._call(function, batch))
            except Exception as error:
                raise self._refused(model, error) from error
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}

    def _batches(self, inputs: Arrays) -> Iterator[Arrays]:
        size = self.batch
        number = max(
            (len(value) for name, value in inputs.items() if self._has_batch(name)), default=0
        )
        if size is None or number <= size:
            yield inputs
            return
        for start in range(0, number, size):
            yield {
                name: value[start : start + size] if self._has_batch(name) else value
                for name, value in inputs.items()
            }

    def timed(self, function: Function, inputs: Arrays, size: int) -> Callable[[], object]:
        """A call on a batch of that size, its outputs fetched.

        Raises: UsageError if the signature takes other batches only.
        """
        if self.batch not in (None, size):
            raise UsageError(
                f"the model takes batches of {self.batch} samples only",
                where=f"signature '{clean(self.name)}'",
                do=f"give --batch-sizes {self.batch}",
            )
        tf = tensorflow()
        given = {name: tf.constant(v) for name, v in self._first(inputs, size).items()}
        return lambda: [value.numpy() for value in function(**given).values()]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """What several batches gave, one after the other; a number of each, side by side."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts[0].ndim else np.stack(parts)


def random_samples(signature: Any, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs for a signature: as many samples as it takes, `samples` where it takes any number.

    Raises: CannotPruneError if no values can be made up.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name, spec in sorted(signature.structured_input_signature[1].items()):
        if spec.shape.rank is None or spec.dtype.name == "string":
            raise CannotPruneError(
                f"cannot make random values for the input '{clean(name)}'",
                why=f"it takes {spec.dtype.name} of shape {spec.shape}",
                do="give inputs with --data FILE.npz",
            )
        shape = [
            (samples if axis == 0 else _OPEN) if size is None else size
            for axis, size in enumerate(spec.shape)
        ]
        values = rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        found[name] = values.astype(spec.dtype.as_numpy_dtype)
    return found
