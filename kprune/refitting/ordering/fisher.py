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

from kprune.refitting.consumers import Consumer
from kprune.refitting.streams.observing import observed
from kprune.running.compiling import losses_of
from kprune.running.inputs import at
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import is_compiled, run

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
    likelihoods = _likelihoods(model, inputs, np.random.default_rng(seed))
    kernels = [weight.value for weight in model.weights if _is_real(weight)]
    with ExitStack() as stack:
        seen = [stack.enter_context(observed(consumer.layer)) for consumer in direct]
        for x in _batches(inputs):
            for calls in seen:
                calls.clear()
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(kernels)
                outputs = import_keras().tree.flatten(model(x, training=False))
                targets = [
                    sum(one(y) for one, y in zip(likelihoods, outputs, strict=True))
                    for _ in range(DRAWS)
                ]
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


def _likelihoods(model: Any, inputs: Any, rng: np.random.Generator) -> list[LogProbability]:
    """How answers are drawn from each output."""
    outputs = run(model, inputs, batch_size=BATCH)
    losses = losses_of(model) if is_compiled(model) else [None] * len(outputs)
    return [_likelihood(*pair, rng) for pair in zip(outputs, losses, strict=True)]


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


LogProbability = Callable[[Any], Any]
"""From an output, the logarithm of the probability of an answer that is drawn from it: a scalar tensor."""


def _likelihood(output: np.ndarray, loss: Any, rng: np.random.Generator) -> LogProbability:
    """How answers are drawn from one output of a model.

    Args:
        output: what it gives, for all samples.
        loss: by which it was trained, if that is known.
    """
    shares = bool((output >= 0).all() and (output <= 1).all())
    whole = shares and bool(np.allclose(output.sum(axis=-1), 1, atol=1e-2))
    logits = bool(getattr(loss, "from_logits", False)) and not shares
    name = str(getattr(loss, "name", ""))
    if output.shape[-1] > 1 and (whole or (logits and "categorical" in name)):
        return _classes(rng, logits)
    if shares or (logits and "binary" in name):
        return _each(rng, logits)
    return _deviates(rng, output.astype(np.float64).std(axis=0))


def _classes(rng: np.random.Generator, logits: bool) -> LogProbability:
    def probability(y: Any) -> Any:
        ops = import_keras().ops
        logs = ops.log_softmax(y) if logits else ops.log(ops.maximum(y, _LEAST))
        shares = np.exp(np.asarray(logs, np.float64))
        up = np.cumsum(shares, axis=-1)
        chosen = (up > rng.random((*shares.shape[:-1], 1)) * up[..., -1:]).argmax(axis=-1)
        one = np.arange(shares.shape[-1]) == chosen[..., None]
        return ops.sum(ops.where(one, logs, 0.0))

    return probability


def _each(rng: np.random.Generator, logits: bool) -> LogProbability:
    def probability(y: Any) -> Any:
        ops = import_keras().ops
        share = ops.sigmoid(y) if logits else y
        yes = rng.random(share.shape) < np.asarray(share)
        return ops.sum(ops.log(ops.maximum(ops.where(yes, share, 1.0 - share), _LEAST)))

    return probability


def _deviates(rng: np.random.Generator, spread: np.ndarray) -> LogProbability:
    """Of a normal deviate of a spread, (…), the logarithm up to what does not depend on the output."""
    inverse = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1.0), 0.0)

    def probability(y: Any) -> Any:
        return import_keras().ops.sum(
            y * (rng.standard_normal(y.shape) * inverse).astype(np.float32)
        )

    return probability


_LEAST = float(np.finfo(np.float32).tiny)
