"""States of recurrent layers, against plain Keras on the steps before."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from kprune.refitting.recurrent import Weights, observed_states, parts_of, rows_of, summed
from kprune.refitting.streams.observing import Captured
from tests.refitting.making import randomized

pytestmark = pytest.mark.oracle


def layer_and_data(kind: str, **how: Any) -> tuple[Any, np.ndarray, np.ndarray, list[np.ndarray]]:
    """A layer, what it is given, which steps count, and the states that it starts with."""
    from keras import layers

    rng = np.random.default_rng(0)
    layer = getattr(layers, kind)(4, **how)
    layer.build((None, 5, 3))
    randomized(layer)
    x = rng.normal(size=(20, 5, 3)).astype(np.float32)
    mask = rng.uniform(size=(20, 5)) < 0.6
    start = [rng.normal(size=(20, 4)).astype(np.float32) for _ in range(2 if kind == "LSTM" else 1)]
    return layer, x, mask, start


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("how", [{}, {"zero_output_for_mask": True}, {"go_backwards": True}])
def test_the_state_before_a_step_is_what_the_steps_before_it_left(
    kind: str, how: dict[str, Any]
) -> None:
    from keras import layers

    layer, x, mask, start = layer_and_data(kind, **how)
    with observed_states(layer) as seen, suppress(Captured):
        layer(x, initial_state=start, mask=mask)
    (found,) = seen
    if how.get("go_backwards"):
        x, mask = x[:, ::-1], mask[:, ::-1]
    assert np.array_equal(found.x, x)
    plain = getattr(layers, kind)(4, return_state=True)
    plain.build((None, 5, 3))
    plain.set_weights(layer.get_weights())
    assert np.array_equal(found.earlier[:, 0], start[0])
    for step in range(1, 5):
        _, state, *_ = plain(x[:, :step], initial_state=start, mask=mask[:, :step])
        np.testing.assert_allclose(found.earlier[:, step], state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "how"),
    [("LSTM", {}), ("GRU", {}), ("GRU", {"reset_after": False}), ("SimpleRNN", {})],
)
def test_parts_sum_up_to_the_state_that_keras_makes(kind: str, how: dict[str, Any]) -> None:
    """A step of each cell from what its parts sum up, without Keras."""
    layer, x, _, start = layer_and_data(kind, **how)
    with observed_states(layer) as seen, suppress(Captured):
        layer(x, initial_state=start)
    (given,) = seen
    cell, weights = layer.cell, Weights.of(layer.cell)
    sums = [
        summed(weights, part, rows_of(cell, weights, part, given, given.earlier))[0]
        for part in parts_of(cell)
    ]
    h = given.earlier.reshape(-1, 4)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    if kind == "SimpleRNN":
        made = np.tanh(sums[0])
    elif kind == "GRU":
        z, r = sigmoid(sums[0][:, :4]), sigmoid(sums[0][:, 4:])
        candidate = np.tanh(sums[1] + r * sums[2]) if len(sums) == 3 else np.tanh(sums[1])
        made = z * h + (1 - z) * candidate
    else:
        i, f, c, o = (sums[0].reshape(20, 5, 4, 4)[:, :, gate] for gate in range(4))
        carried, states = start[1], []
        for step in range(5):
            carried = sigmoid(f[:, step]) * carried + sigmoid(i[:, step]) * np.tanh(c[:, step])
            states.append(sigmoid(o[:, step]) * np.tanh(carried))
        made = np.stack(states, axis=1).reshape(-1, 4)
    np.testing.assert_allclose(made, given.h.reshape(-1, 4), rtol=1e-4, atol=1e-5)
