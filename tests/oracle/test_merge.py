"""`compact --merge`: units that give the same, or the same times a factor, become one."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from tests.oracle.folding import compacted, randomised

pytestmark = pytest.mark.oracle

PAIRS = [(1, 4), (1, 5), (2, 7)]
DROPPED = [4, 5, 7]


def copied(layer, factor: float = 1.0) -> None:
    """Make some units of a layer of 9 others times a factor, in every weight it has."""
    weights = layer.get_weights()
    for number, array in enumerate(weights):
        deep = isinstance(layer, layers.DepthwiseConv2D) and number == 0
        units = array[..., 0] if deep else array.reshape(*array.shape[:-1], -1, 9)
        for one, other in PAIRS:
            units[..., other] = units[..., one] * factor
    layer.set_weights(weights)


def sequential(shape, *stack):
    return randomised(keras.Sequential([keras.Input(shape), *stack]))


def merged(model, folder: Path):
    report = compacted(model, folder, merge=True)
    kinds = {note.kind for note in report.notes}
    assert ("merged" in kinds) == bool(report.changed)
    return report.changed


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "linear"])
def test_equal_units_become_one(activation, tmp_path: Path):
    model = sequential((6,), layers.Dense(9, activation, name="d"), layers.Dense(3))
    copied(model.layers[0])
    assert merged(model, tmp_path) == {"d": DROPPED}


def test_equal_units_are_left_unless_merging_is_asked_for(tmp_path: Path):
    model = sequential((6,), layers.Dense(9, "relu", name="d"), layers.Dense(3))
    copied(model.layers[0])
    assert compacted(model, tmp_path).changed == {}


@pytest.mark.parametrize("factor", [0.25, 3.3])
def test_a_positive_factor_passes_a_homogeneous_activation(factor, tmp_path: Path):
    model = sequential(
        (9, 9, 3),
        layers.Conv2D(9, 3, name="d"),
        layers.LeakyReLU(negative_slope=0.1),
        layers.MaxPooling2D(),
        layers.Conv2D(4, 3, padding="same"),
        layers.Flatten(),
        layers.Dense(3),
    )
    copied(model.layers[0], factor)
    assert merged(model, tmp_path) == {"d": DROPPED}


def test_a_flattened_map_is_added_place_by_place(tmp_path: Path):
    model = sequential(
        (6, 6, 3),
        layers.Conv2D(9, 3, activation="relu", name="d"),
        layers.Flatten(),
        layers.Dense(3),
    )
    copied(model.layers[0], 2.0)
    assert merged(model, tmp_path) == {"d": DROPPED}


@pytest.mark.parametrize(
    "between",
    [
        layers.Activation("tanh"),
        layers.ReLU(max_value=1.0),
        layers.Rescaling(1.0, offset=0.5),
        layers.Activation("softmax"),
        layers.LayerNormalization(),
    ],
    ids=["tanh", "relu with a ceiling", "an offset", "softmax", "layer normalisation"],
)
def test_a_factor_does_not_pass_anything_else(between, tmp_path: Path):
    model = sequential((6,), layers.Dense(9, name="d"), between, layers.Dense(3))
    kernel, bias = model.layers[0].get_weights()
    kernel[:, 4], bias[4] = 2 * kernel[:, 1], 2 * bias[1]
    model.layers[0].set_weights([kernel, bias])
    assert merged(model, tmp_path) == {}


def test_a_negative_factor_is_none(tmp_path: Path):
    model = sequential((6,), layers.Dense(9, "relu", name="d"), layers.Dense(3))
    kernel, bias = model.layers[0].get_weights()
    kernel[:, 4], bias[4] = -kernel[:, 1], -bias[1]
    model.layers[0].set_weights([kernel, bias])
    assert merged(model, tmp_path) == {}


def test_units_that_are_normalised_differently_are_not_equal(tmp_path: Path):
    model = sequential(
        (6,), layers.Dense(9, name="d"), layers.BatchNormalization(), layers.Dense(3)
    )
    copied(model.layers[0])
    assert merged(model, tmp_path) == {}
    copied(model.layers[1])
    assert merged(model, tmp_path / "again") == {"d": DROPPED}


def test_depthwise_filters_have_to_be_equal_too(tmp_path: Path):
    model = sequential(
        (9, 9, 3),
        layers.Conv2D(9, 3, activation="sigmoid", name="d"),
        layers.DepthwiseConv2D(3, padding="same", name="dw"),
        layers.Conv2D(4, 1),
        layers.Flatten(),
    )
    copied(model.layers[0])
    assert merged(model, tmp_path) == {}
    copied(model.layers[1])
    assert merged(model, tmp_path / "again") == {"d": DROPPED, "dw": DROPPED}


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_recurrent_units_add_up_in_the_recurrence_as_well(kind, tmp_path: Path):
    model = sequential((6, 4), kind(9, return_sequences=True, name="r"), kind(3), layers.Dense(2))
    copied(model.layers[0])
    assert merged(model, tmp_path) == {"r": DROPPED}


def test_every_summand_has_to_be_equal(tmp_path: Path):
    x = keras.Input((7, 7, 3))
    y = layers.Add()([layers.Conv2D(9, 3, name="a")(x), layers.Conv2D(9, 3, name="b")(x)])
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 2)(layers.ReLU()(y)))
    model = randomised(keras.Model(x, layers.Dense(3)(y)))
    copied(model.get_layer("a"))
    assert merged(model, tmp_path) == {}
    copied(model.get_layer("b"))
    assert merged(model, tmp_path / "again") == {"a": DROPPED, "b": DROPPED}


def test_a_second_reader_of_another_kind_holds_a_factor_back(tmp_path: Path):
    x = keras.Input((6,))
    d = layers.Dense(9, "relu", name="d")(x)
    y = layers.Concatenate()([layers.Dense(3)(d), layers.Dense(3)(layers.Activation("sigmoid")(d))])
    model = randomised(keras.Model(x, y))
    kernel, bias = model.get_layer("d").get_weights()
    kernel[:, 4], bias[4] = 2 * kernel[:, 1], 2 * bias[1]
    model.get_layer("d").set_weights([kernel, bias])
    assert merged(model, tmp_path) == {}


def test_dead_and_equal_units_go_in_one_go_and_the_result_is_checked(tmp_path: Path):
    model = sequential((6,), layers.Dense(9, "relu", name="d"), layers.Dense(3))
    copied(model.layers[0], 2.0)
    kernel, bias = model.layers[0].get_weights()
    kernel[:, 0] = 0
    bias[0] = 1.0
    model.layers[0].set_weights([kernel, bias])
    model.save(tmp_path / "m.keras")
    report = kprune.compact(tmp_path / "m.keras", merge=True)
    assert report.changed == {"d": [0, *DROPPED]}
    small = keras.models.load_model(tmp_path / "m.pruned.keras")
    assert small.layers[0].units == 5
    inputs = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    np.testing.assert_allclose(
        np.asarray(small(inputs)), np.asarray(model(inputs)), rtol=1e-5, atol=1e-5
    )
