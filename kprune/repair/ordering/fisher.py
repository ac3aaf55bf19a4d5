"""How much the model's own answers hang on each output of its kernels: Fisher information, with no labels.

    F_j = E sum over places of (d log p(y) / d z_j)^2

where z_j is what a kernel sums up, before its activation, and y is drawn from the model's own
output: a class from a softmax, zeros and ones from sigmoids, else a normal deviate around each
number, as wide as the outputs vary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.repair.consumers import Consumer
from kprune.repair.streams.observing import observed
from kprune.running.compiling import losses_of
from kprune.running.inputs import at
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import is_compiled

DRAWS = 4
"""Answers that are drawn for each input."""
BATCH = 32


class Information(Struct):
    """Sums over samples for one consumer.

    Attributes:
        squares: float64 (G, M), of derivatives.
        total, variation: float64 (G, M), of what is summed up, and of its squares; over `rows` rows.
    """

    squares: np.ndarray
    total: np.ndarray
    variation: np.ndarray
    rows: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> Information:
        """Of nothing yet. shape: (G, D, M)."""
        parts, _, outputs = shape
        squares, total, variation = np.zeros((3, parts, outputs))
        return cls(squares, total, variation)

    @property
    def whole(self) -> float:
        """The information in all outputs, were all of them lost."""
        variance = self.variation / max(self.rows, 1) - (self.total / max(self.rows, 1)) ** 2
        return float((self.squares * variance.clip(min=0)).sum())


def information_of(
    model: Any, consumers: Sequence[Consumer], inputs: Any, *, seed: int = 0
) -> dict[int, Information]:
    """The information in the outputs of each kernel, by the identity of the consumer, summed over samples.

    Recurrent layers, which hand out no sums, are left out.

    Args:
        model: a live model.
        inputs: arrays in the structure in which it takes them.
        seed: of the answers that are drawn.
    """
    import tensorflow as tf

    direct = [consumer for consumer in consumers if consumer.kind is not None]
    found = {id(consumer): Information.empty(consumer.shape) for consumer in direct}
    likelihood = _Likelihood(model, np.random.default_rng(seed))
    kernels = [weight.value for weight in model.weights if _is_real(weight)]
    with ExitStack() as stack:
        seen = [stack.enter_context(observed(consumer.layer)) for consumer in direct]
        for x in _batches(inputs):
            for calls in seen:
                calls.clear()
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(kernels)
                outputs = import_keras().tree.flatten(model(x, training=False))
                targets = [likelihood.drawn(outputs) for _ in range(DRAWS)]
            made = [
                (one, linear)
                for one, calls in zip(direct, seen, strict=True)
                for _, linear, _ in calls
            ]
            for target in targets:
                slopes = tape.gradient(target, [linear for _, linear in made])
                for (one, linear), slope in zip(made, slopes, strict=True):
                    _add(found[id(one)], one, linear, slope)
            del tape
    return found


def _is_real(weight: Any) -> bool:
    return str(weight.dtype).startswith(("float", "bfloat"))


def _batches(inputs: Any) -> Iterator[Any]:
    count = len(import_keras().tree.flatten(inputs)[0])
    for start in range(0, count, BATCH):
        yield at(inputs, slice(start, min(start + BATCH, count)))


def _add(found: Information, consumer: Consumer, linear: Any, slope: Any) -> None:
    """Count one call in, for one draw."""
    assert consumer.kind is not None
    columns = consumer.kind.columns(consumer.layer, np.asarray(linear, np.float64))
    found.total += columns.sum(axis=1)
    found.variation += (columns**2).sum(axis=1)
    found.rows += columns.shape[1]
    if slope is not None:
        squares = consumer.kind.columns(consumer.layer, np.asarray(slope, np.float64)) ** 2
        found.squares += squares.sum(axis=1) / DRAWS


class _Likelihood:
    """The logarithm of the probability of answers that are drawn from a model's outputs."""

    def __init__(self, model: Any, rng: np.random.Generator) -> None:
        self._rng = rng
        self._losses = losses_of(model) if is_compiled(model) else []

    def drawn(self, outputs: Sequence[Any]) -> Any:
        """Summed over samples, places and outputs: a scalar tensor."""
        losses = self._losses or [None] * len(outputs)
        return sum(
            self._form(np.asarray(y), loss)(y) for y, loss in zip(outputs, losses, strict=True)
        )

    def _form(self, y: np.ndarray, loss: Any) -> Callable[[Any], Any]:
        shares = bool((y >= 0).all() and (y <= 1).all())
        whole = shares and bool(np.allclose(y.sum(axis=-1), 1, atol=1e-2))
        logits = bool(getattr(loss, "from_logits", False) or getattr(loss, "_from_logits", False))
        name = str(getattr(loss, "name", ""))
        if y.shape[-1] > 1 and (whole or (logits and "categorical" in name)):
            return self._classes(logits and not whole)
        if shares or (logits and "binary" in name):
            return self._each(logits and not shares)
        return self._deviates

    def _classes(self, logits: bool) -> Callable[[Any], Any]:
        def probability(y: Any) -> Any:
            ops = import_keras().ops
            logs = ops.log_softmax(y) if logits else ops.log(ops.maximum(y, _LEAST))
            shares = np.exp(np.asarray(logs, np.float64))
            up = np.cumsum(shares, axis=-1)
            limit = self._rng.random((*shares.shape[:-1], 1)) * up[..., -1:]
            chosen = (up > limit).argmax(axis=-1)
            one = np.arange(shares.shape[-1]) == chosen[..., None]
            return ops.sum(ops.where(one, logs, 0.0))

        return probability

    def _each(self, logits: bool) -> Callable[[Any], Any]:
        def probability(y: Any) -> Any:
            ops = import_keras().ops
            share = ops.sigmoid(y) if logits else y
            yes = self._rng.random(share.shape) < np.asarray(share)
            return ops.sum(ops.log(ops.maximum(ops.where(yes, share, 1.0 - share), _LEAST)))

        return probability

    def _deviates(self, y: Any) -> Any:
        ops = import_keras().ops
        values = np.asarray(y, np.float64)
        wide = np.maximum(values.std(axis=0, keepdims=True), np.finfo(np.float32).eps)
        return ops.sum(y * (self._rng.standard_normal(values.shape) / wide).astype(np.float32))


_LEAST = float(np.finfo(np.float32).tiny)
