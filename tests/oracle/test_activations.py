"""Activations, noise and what only changes values."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import CannotPruneError
from tests.oracle.law import Removal, check_removal

pytestmark = pytest.mark.oracle


def chain(shape, *middle):
    return keras.Sequential([keras.Input(shape), *middle])


PASSING = {
    "relu": lambda: layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.2),
    "leaky": lambda: layers.LeakyReLU(0.2),
    "elu": lambda: layers.ELU(0.7),
    "prelu": lambda: layers.PReLU(),
    "dropout": lambda: layers.Dropout(0.4),
    "alpha dropout": lambda: layers.AlphaDropout(0.4),
    "gaussian dropout": lambda: layers.GaussianDropout(0.4),
    "gaussian noise": lambda: layers.GaussianNoise(0.4),
    "spatial dropout": lambda: layers.SpatialDropout1D(0.4),
    "rescaling": lambda: layers.Rescaling(0.5, 0.2),
    "activation": lambda: layers.Activation("swish"),
    "softmax over time": lambda: layers.Softmax(axis=1),
    **{
        name: (lambda name=name: layers.Activation(name))
        for name in [
            "relu6",
            "selu",
            "mish",
            "hard_sigmoid",
            "hard_silu",
            "softplus",
            "softsign",
            "tanh",
            "exponential",
            "log_sigmoid",
            "celu",
            "hard_shrink",
            "soft_shrink",
            "tanh_shrink",
            "squareplus",
            "sparse_plus",
            "sparse_sigmoid",
            "hard_tanh",
            "threshold",
            "gelu",
        ]
    },
}


@pytest.mark.parametrize("kind", [name for name in PASSING if name != "threshold"])
def test_units_pass_one_by_one(kind):
    model = chain(
        (5, 3),
        layers.Dense(6, name="a"),
        PASSING[kind](),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    assert check_removal(model, {"a": [0, 4]}).changed == {"a": [0, 4]}


@pytest.mark.parametrize("noise_shape", [None, (None, 1, None), (None, 5, 6), (None, 5, 1)])
def test_the_noise_shape_of_dropout_follows(noise_shape):
    model = chain(
        (5, 3),
        layers.Dense(6, name="a"),
        layers.Dropout(0.4, noise_shape=noise_shape, name="drop"),
        layers.Dense(2, name="out"),
    )
    removal = Removal(model, {"a": [0, 4]})
    removal.check_outputs()
    trained = removal.pruned(removal.inputs, training=True)
    assert np.isfinite(keras.ops.convert_to_numpy(trained)).all()


@pytest.mark.parametrize("shared_axes", [None, [1], [1, 2], [2], [3], [1, 2, 3]], ids=str)
def test_alpha_of_prelu_follows_on_axes_that_are_not_shared(shared_axes):
    model = chain(
        (4, 5, 3),
        layers.Conv2D(6, 2, name="a"),
        layers.PReLU(shared_axes=shared_axes),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_alpha_of_prelu_behind_flatten():
    model = chain(
        (4, 5, 3),
        layers.Conv2D(6, 2, name="a"),
        layers.Flatten(),
        layers.PReLU(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


@pytest.mark.parametrize(
    "layer",
    [
        layers.Softmax,
        lambda: layers.Activation("softmax"),
        lambda: layers.Activation("log_softmax"),
    ],
)
def test_a_softmax_over_units_is_inexact(layer):
    model = chain((5, 3), layers.Dense(6, name="a"), layer(), layers.Dense(2, name="out"))
    removal = Removal(model, {"a": [0, 4]})
    removal.check_counts()
    assert not removal.report.exact


@pytest.mark.parametrize(
    ("scale", "offset"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 0.3),
        (0.3, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]),
        ([[0.1], [0.2], [0.3], [0.4], [0.5]], 0.1),
        (np.linspace(0.5, 1.5, 30).reshape(5, 6).tolist(), 0.1),
    ],
    ids=["scale", "offset", "both", "time", "both axes"],
)
def test_numbers_of_a_rescaling_follow(scale, offset):
    model = chain(
        (5, 3),
        layers.Dense(6, name="a"),
        layers.Rescaling(scale, offset),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


@keras.saving.register_keras_serializable("kprune_tests")
def half(x):
    return x / 2


def test_an_activation_of_ones_own_is_not_guessed_at():
    model = chain((5,), layers.Dense(6, activation=half, name="a"), layers.Dense(2, name="out"))
    with pytest.raises(CannotPruneError, match="kprune_tests>half"):
        Removal(model, {"a": [0]})


def test_an_activation_given_as_a_layer():
    model = chain(
        (5,),
        layers.Dense(6, activation=layers.LeakyReLU(0.3), name="a"),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0]})
