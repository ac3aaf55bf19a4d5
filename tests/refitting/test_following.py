"""What takes a constant up behind a kernel, and what a sum's other branches are, is told exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.refitting.making import Cut, cut, randomized

pytestmark = pytest.mark.oracle


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(80, *shape)).astype(np.float32)


def means(done: Cut, name: str = "bn") -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        np.asarray(model.get_layer(name).moving_mean) for model in (done.model, done.pruned)
    )  # type: ignore[return-value]


@pytest.mark.parametrize(("axis", "takes"), [(-1, True), (2, True), (1, False)])
def test_a_normalization_of_other_axes_takes_up_no_constant(axis: int, takes: bool) -> None:
    import keras
    from keras import layers

    x = keras.Input((5, 4))
    y = layers.Dense(5, use_bias=False, name="b")(layers.Dense(6, "tanh", name="a")(x))
    model = keras.Model(x, layers.BatchNormalization(axis=axis, name="bn")(y))
    done = cut(randomized(model), {"a": [1]}, [data(5, 4)])
    assert done.names == ["b"]
    assert np.array_equal(*means(done)) != takes


def test_a_normalization_that_is_called_twice_takes_up_no_constant() -> None:
    import keras
    from keras import layers

    x = keras.Input((4,))
    twice = layers.BatchNormalization(name="bn")
    y = layers.Dense(5, use_bias=False, name="b")(layers.Dense(6, "tanh", name="a")(x))
    other = layers.Dense(5, name="c")(x)
    model = keras.Model(x, [twice(y), twice(other)])
    done = cut(randomized(model), {"a": [1]}, [data(4)])
    assert done.names == ["b"]
    assert np.array_equal(*means(done))


def test_a_normalization_of_one_of_two_axes_of_columns_takes_up_no_constant() -> None:
    import keras
    from keras import layers

    x = keras.Input((4,))
    y = layers.EinsumDense("ab,bcd->acd", (3, 5), name="b")(layers.Dense(6, "tanh", name="a")(x))
    model = keras.Model(x, layers.BatchNormalization(name="bn")(y))
    done = cut(randomized(model), {"a": [1]}, [data(4)])
    assert done.names == ["b"]
    assert np.array_equal(*means(done))


@pytest.mark.parametrize("shape", [(1, 6), (6,)])
def test_what_a_sum_repeats_along_an_axis_is_not_corrected_for(shape: Any) -> None:
    """The sum of steps and of one for all: the other branch stands at no place of its own."""
    import keras
    from keras import layers

    x, z = keras.Input((5, 4)), keras.Input((4,))
    steps = layers.Dense(6, name="b")(layers.Dense(7, "tanh", name="a")(x))
    other = layers.Dense(6, name="d")(layers.Dense(7, "tanh", name="c")(z))
    given = layers.Dense(2, name="out")(keras.ops.tanh(steps + layers.Reshape((1, 6))(other)))
    model = randomized(keras.Model([x, z], given))
    done = cut(model, {"a": [1], "c": [2]}, [data(5, 4), data(4)], ridge=1e-3)
    assert done.names == ["d", "b", "out"] or done.names == ["b", "d", "out"]
    assert all(found.after <= found.before for found in done.refit.refitted)


def test_no_constant_is_taken_up_behind_an_activation() -> None:
    import keras
    from keras import layers

    x = keras.Input((4,))
    y = layers.Dense(6, "tanh", name="a")(x)
    y = layers.Dense(5, "relu", use_bias=False, name="b")(y)
    model = keras.Model(x, layers.BatchNormalization(name="bn")(y))
    done = cut(randomized(model), {"a": [1]}, [data(4)])
    assert done.names == ["b"]
    assert np.array_equal(*means(done))


def test_no_constant_of_a_part_of_a_layer_is_taken_up_behind_it() -> None:
    """The queries of an attention are as many as the outputs that are normalized behind it."""
    import keras
    from keras import layers

    x = keras.Input((5, 4))
    y = layers.Dense(6, "tanh", name="a")(x)
    y = layers.MultiHeadAttention(2, 3, use_bias=False, name="m")(y, y)
    model = keras.Model(x, layers.BatchNormalization(name="bn")(y))
    done = cut(randomized(model), {"a": [1]}, [data(5, 4)])
    assert "m (query)" in done.names
    assert np.array_equal(*means(done))
