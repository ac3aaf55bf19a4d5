"""A model's calls, made one after the other, give what the model gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.errors import CannotPruneError
from kprune.refitting.streams.room import Room
from kprune.refitting.streams.steps import Program
from kprune.refitting.streams.values import Values
from tests.refitting.making import distance, outputs, randomized
from tests.refitting.models import CASES, LOW, tokens

pytestmark = pytest.mark.oracle


def step_by_step(model: Any, inputs: list[np.ndarray], *, size: int = 50) -> list[np.ndarray]:
    with Room(1 << 30) as room:
        program = Program.of(model)
        values = Values(program, inputs, size, room)
        for step in program.steps:
            values.run(step)
        return values.outputs()


@pytest.mark.parametrize("name", CASES)
def test_calls_in_chunks_give_what_the_model_gives(name: str) -> None:
    found = CASES[name]()
    made = step_by_step(found.model, list(found.inputs))
    assert distance(made, outputs(found.model, found.inputs)) < LOW.get(name, 1e-4)


def test_only_what_is_read_again_is_kept() -> None:
    found = CASES["projection"]()
    with Room(1 << 30) as room:
        program = Program.of(found.model)
        values = Values(program, found.inputs, 50, room)
        for step in program.steps:
            values.run(step)
        assert room.used == sum(output.nbytes for output in values.outputs())


def test_a_mask_passes_into_a_model_within() -> None:
    import keras
    from keras import layers

    own = keras.Input((6, 4))
    inner = keras.Model(own, layers.Dense(4, "tanh")(layers.LSTM(5, return_sequences=True)(own)))
    x = keras.Input((6,), dtype="int32")
    y = inner(layers.Embedding(11, 4, mask_zero=True)(x))
    model, ids = randomized(keras.Model(x, layers.LSTM(3)(y))), tokens(6, mask=True)
    assert distance(step_by_step(model, ids), outputs(model, ids)) < 1e-4


def test_a_mask_that_attention_took_off_is_gone_for_later_calls() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(11, 4, mask_zero=True)(x)
    first = layers.Dense(3)(layers.Dense(3)(layers.MultiHeadAttention(2, 3)(y, y)))
    model = randomized(keras.Model(x, [first, layers.MultiHeadAttention(2, 3)(y, y)]))
    ids = tokens(6, mask=True)
    assert distance(step_by_step(model, ids), outputs(model, ids)) < 1e-4


def test_a_mask_passes_over_wrapped_steps() -> None:
    import keras
    from keras import layers

    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(11, 4, mask_zero=True)(x)
    y = layers.TimeDistributed(layers.Dense(5, "tanh"))(y)
    model, ids = randomized(keras.Model(x, layers.GRU(3)(y))), tokens(6, mask=True)
    unmasked = randomized(keras.Model(x, layers.GRU(3)(y)))
    assert distance(step_by_step(model, ids), outputs(unmasked, ids)) < 1e-4


def test_what_is_called_as_in_training_is_not_trained() -> None:
    """As Keras has it: training=False of the whole model goes before what its graph says."""
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    x = keras.Input((4,))
    y = layers.BatchNormalization()(inner(x, training=True), training=True)
    model = randomized(keras.Model(x, y))
    data = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert distance(step_by_step(model, [data]), outputs(model, [data])) < 1e-4


def test_inputs_of_unknown_length_count_as_long_as_they_are() -> None:
    import keras
    from keras import layers

    from kprune.refitting.streams.values import CHUNK, samples_at_once

    x = keras.Input((None, None, 3))
    program = Program.of(keras.Model(x, layers.Conv2D(8, 1)(x)))
    data = np.zeros((500, 128, 128, 3), np.float32)
    assert samples_at_once(program, [data]) <= CHUNK // (128 * 128 * 8 * 4)
    assert samples_at_once(program, [data[:, :2, :2]]) == 500


def test_a_model_with_a_call_of_its_own_is_refused() -> None:
    import keras

    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(CannotPruneError, match="cannot be run layer by layer"):
        Program.of(Own())


def test_a_model_of_keras_2_is_refused() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Dense(2)])
    with pytest.raises(CannotPruneError) as caught:
        Program.of(model)
    assert "Keras 3" in (caught.value.why or "")
