"""Queries that make up for key dimensions that are gone, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.refitting.making import cut, randomized

pytestmark = pytest.mark.oracle

RIDGE = 1e-6


@pytest.mark.parametrize("shared", [False, True])
def test_queries_are_those_that_come_nearest_to_the_scores(shared: bool) -> None:
    import keras
    from keras import layers

    x = keras.Input((6, 5))
    if shared:
        attention, axis = layers.GroupQueryAttention(3, 4, 2, name="m"), "m.head_dim"
        outcome = attention(x, x)
    else:
        attention, axis = layers.MultiHeadAttention(4, 3, name="m"), "m.key_dim"
        outcome = attention(x, x)
    model = randomized(keras.Model(x, layers.Dense(2)(outcome)))
    data = np.random.default_rng(3).normal(size=(100, 6, 5)).astype(np.float32)
    done = cut(model, {axis: [1]}, [data], ridge=RIDGE)
    left = done.pruned.get_layer("m")

    keys = data @ np.asarray(attention._key_dense.kernel).reshape(5, -1)
    keys = keys.reshape(600, -1, 3)
    kernel, bias = (np.asarray(w) for w in attention._query_dense.get_weights())
    for head in range(4):
        own = keys[:, head // 2 if shared else head]
        own = own - own.mean(axis=0)
        # All dimensions of the keys by those that are left: K = K' M.
        expressed = np.linalg.lstsq(own[:, [0, 2]], own, rcond=None)[0]
        scale = np.sqrt(2 / 3)
        found = (np.asarray(w)[..., head, :] for w in left._query_dense.get_weights())
        for one, other in zip(found, (kernel[:, head], bias[head]), strict=True):
            np.testing.assert_allclose(one, other @ expressed.T * scale, rtol=1e-3, atol=1e-4)
