"""Plain operations between layers: `x * 2`, `x + constant`, `keras.ops`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.oracle.law import Removal, check_removal

pytestmark = pytest.mark.oracle

VECTOR = np.linspace(0.5, 1.5, 6).astype("float32")


def around(function, shape=(4, 5, 3)):
    x = keras.Input(shape)
    y = function(layers.Dense(6, "relu", name="a")(x))
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))


PASSING = {
    "times a number": lambda y: y * 0.5,
    "plus a number": lambda y: y + 3.0,
    "a number minus": lambda y: 3.0 - y,
    "divided": lambda y: y / 127.5 - 1.0,
    "negated": lambda y: -y,
    "to a power": lambda y: (y + 1.0) ** 2,
    "hard swish": lambda y: y * layers.ReLU(6.0)(y + 3.0) * (1.0 / 6.0),
    "times a vector": lambda y: y * VECTOR,
    "a vector minus": lambda y: ops.subtract(VECTOR, y),
    "divided by a vector": lambda y: y / VECTOR[None, None, :],
    "plus an image": lambda y: y + np.linspace(0.5, 1.5, 120).reshape(4, 5, 6).astype("float32"),
    "plus a column": lambda y: y + np.linspace(0.5, 1.5, 5).reshape(1, 5, 1).astype("float32"),
    "relu": ops.relu,
    "sigmoid": ops.sigmoid,
    "clip": lambda y: ops.clip(y, -1.0, 1.0),
    "sqrt": lambda y: ops.sqrt(ops.abs(y) + 0.1),
    "maximum": lambda y: ops.maximum(y, 0.3),
    "where": lambda y: ops.where(y > 0.5, y, 0.1),
}


@pytest.mark.parametrize("kind", PASSING)
def test_units_pass_one_by_one(kind):
    assert check_removal(around(PASSING[kind]), {"a": [0, 4]}).changed == {"a": [0, 4]}


def test_keras_adds_a_vector_along_the_wrong_axis():
    """Keras 3.15.1: (4, 5, 6) + (4, 1, 1) goes wrong when the 6 channels are cut to 4."""
    column = np.linspace(0.5, 1.5, 4).reshape(4, 1, 1).astype("float32")
    model = around(lambda y: y + column)
    removal = Removal(model, {"a": [0, 4]})
    assert [note.kind for note in removal.report.notes] == ["keras"]
    with pytest.raises(AssertionError, match="differ"):
        removal.check_outputs()
    assert not check_removal(model, {"a": [0]}).notes


def test_tensors_that_meet_in_an_operation_are_tied():
    x = keras.Input((4,))
    a, b = layers.Dense(6, name="a")(x), layers.Dense(6, name="b")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(a * b + a - ops.tanh(b)))
    assert check_removal(model, {"a": [1]}).changed == {"a": [1], "b": [1]}


MOVING = {
    "reshape": lambda y: ops.reshape(y, (-1, 20, 6)),
    "transpose": lambda y: ops.transpose(y, (0, 3, 1, 2)),
    "expand": lambda y: ops.expand_dims(y, 2),
    "squeeze": lambda y: ops.squeeze(ops.expand_dims(y, 2), 2),
    "slice of places": lambda y: y[:, 1:3],
    "concatenate": lambda y: ops.concatenate([y, ops.relu(y)], axis=-1),
    "stack": lambda y: ops.stack([y, y + 1.0], axis=1),
    "pad": lambda y: ops.pad(y, ((0, 0), (1, 0), (0, 2), (0, 0))),
    "mean over places": lambda y: ops.mean(y, axis=(1, 2)),
    "max over places": lambda y: ops.max(y, axis=1),
}


@pytest.mark.parametrize("kind", MOVING)
def test_operations_that_move_data(kind):
    assert check_removal(around(MOVING[kind]), {"a": [0, 4]}).changed == {"a": [0, 4]}


def test_channel_shuffle():
    """ShuffleNet: reshape, transpose, reshape, and nothing special is known about any of them."""
    x = keras.Input((4, 5, 3))
    y = layers.Conv2D(6, 1, name="a")(x)
    y = layers.Reshape((4, 5, 2, 3))(y)
    y = layers.Permute((1, 2, 4, 3))(y)
    y = layers.Reshape((4, 5, 6))(y)
    y = layers.Conv2D(4, 2, name="b")(y)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))
    check_removal(model, {"a": [0, 3], "b": [1]})


def test_a_sum_over_units_is_exact_where_a_unit_gives_0():
    model = around(lambda y: ops.sum(y, axis=-1))
    removal = Removal(model, {"a": [0, 4]})
    removal.check_counts()
    assert removal.report.exact


def test_a_sum_over_what_was_concatenated_is_exact_only_if_every_part_gives_0():
    """The sigmoid of a unit that goes gave 0.5 to the sum."""
    for part, exact in ((ops.sigmoid, False), (ops.tanh, True)):
        model = around(lambda y, part=part: ops.sum(ops.concatenate([part(y), y], -1), axis=-1))
        assert Removal(model, {"a": [0, 4]}).report.exact is exact
