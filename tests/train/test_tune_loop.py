"""The loop over epochs: what chance decides in one follows from the seed and the epoch's number alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.running.examples import Examples
from kprune.train.checkpoint import History
from kprune.train.tune_loop import Training

pytestmark = pytest.mark.oracle

SAMPLES = 32


class NoCheckpoint:
    """Where nothing is kept."""

    def keep(self, model: Any, history: History) -> None:
        pass


def chances(seed: int, *, first: int = 1, last: int, before: int) -> list[tuple[Any, Any]]:
    """What chance decided in each epoch: the order of the samples, and which of them dropout dropped.

    Args:
        first: the epoch to begin with, as a training that is resumed does.
        before: the state of every generator when the training begins.
    """
    import keras
    import tensorflow as tf

    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Recorder(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.drop = keras.layers.Dropout(0.5)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.drop(x, training=training)

        def train_step(self, data: Any) -> Any:
            def note(x: np.ndarray, dropped: np.ndarray) -> np.ndarray:
                seen.append((x.ravel(), dropped.ravel() == 0))
                return np.float32(0)

            noted = tf.numpy_function(note, [data[0], self(data[0], training=True)], tf.float32)
            return {"loss": noted}

    model = Recorder()
    model.compile(loss="mse", jit_compile=False)
    x = np.arange(1, SAMPLES + 1, dtype="float32")[:, None]
    train = Examples({"x": x, "y": x, "batch_size": 4}, x, SAMPLES, "data")
    history = History([{"loss": 0.0}] * first, [{}] * first)
    keras.utils.set_random_seed(before)
    loop: Any = Training(keras, model, model, train, None, None, seed)
    loop.run(history, NoCheckpoint(), last, None, None)
    steps = SAMPLES // 4
    assert len(seen) == steps * (last - first + 1)
    epochs = [seen[start : start + steps] for start in range(0, len(seen), steps)]
    return [
        (np.concatenate([x for x, _ in epoch]), np.concatenate([dropped for _, dropped in epoch]))
        for epoch in epochs
    ]


@pytest.fixture(scope="module")
def straight() -> list[tuple[Any, Any]]:
    return chances(3, last=3, before=100)


def differ(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[bool, bool]:
    """Whether the order, and whether what was dropped, is another."""
    return not np.array_equal(one[0], other[0]), not np.array_equal(one[1], other[1])


def test_every_epoch_draws_anew(straight: Any) -> None:
    for order, _ in straight:
        assert sorted(order) == list(range(1, SAMPLES + 1))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert differ(straight[a], straight[b]) == (True, True)


def test_an_epoch_draws_the_same_whatever_came_before_it(straight: Any) -> None:
    again = chances(3, last=3, before=200)
    resumed = chances(3, first=3, last=3, before=300)
    for one, other in zip([*straight, straight[2]], [*again, *resumed], strict=True):
        assert differ(one, other) == (False, False)


def test_another_seed_draws_otherwise(straight: Any) -> None:
    (other,) = chances(4, last=1, before=100)
    assert differ(straight[0], other) == (True, True)
