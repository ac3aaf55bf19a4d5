"""Recurrent layers, and the wrappers around layers."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kprune.errors import CannotPruneError
from tests.oracle.law import Removal, check_removal

pytestmark = pytest.mark.oracle

KINDS = {
    "SimpleRNN": layers.SimpleRNN,
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "GRU before": lambda *args, **kwargs: layers.GRU(*args, reset_after=False, **kwargs),
}


def chain(shape, *middle, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *middle])


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_unit_takes_its_gates_its_row_and_its_bias(kind, use_bias):
    model = chain(
        (5, 4),
        KINDS[kind](6, return_sequences=True, use_bias=use_bias, name="a"),
        KINDS[kind](5, use_bias=use_bias, name="b"),
        layers.Dense(2, name="out"),
    )
    report = check_removal(model, {"a": [0, 3], "b": [4]})
    assert report.changed == {"a": [0, 3], "b": [4]}


@pytest.mark.parametrize(
    "options",
    [
        {"go_backwards": True},
        {"unroll": True},
        {"activation": "sigmoid"},
        {"recurrent_activation": "hard_sigmoid"},
        {"dropout": 0.3, "recurrent_dropout": 0.3},
    ],
    ids=str,
)
def test_options_that_change_no_shape(options):
    model = chain((5, 4), layers.GRU(6, name="a", **options), layers.Dense(2, name="out"))
    check_removal(model, {"a": [0, 3]})


def test_a_stateful_layer():
    model = keras.Sequential(
        [
            keras.Input((5, 4), batch_size=3),
            layers.LSTM(6, stateful=True, name="a"),
            layers.Dense(2, name="out"),
        ]
    )
    check_removal(model, {"a": [0, 3]})


def test_a_sequence_of_unknown_length():
    model = chain(
        (None, 4),
        layers.LSTM(6, return_sequences=True, name="a"),
        layers.Bidirectional(layers.GRU(3, return_sequences=True), name="b"),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 3], "b": [1]})


@pytest.mark.parametrize("kind", KINDS)
def test_returned_states_carry_the_units_of_the_layer(kind):
    x = keras.Input((5, 4))
    sequence, *states = KINDS[kind](6, return_sequences=True, return_state=True, name="a")(x)
    joined = layers.Concatenate()([layers.GlobalAveragePooling1D()(sequence), *states])
    model = keras.Model(x, layers.Dense(2, name="out")(joined))
    assert check_removal(model, {"a": [0, 5]}).changed == {"a": [0, 5]}


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_passed_in_is_tied_to_the_units(kind, by_name):
    """An encoder hands its last state to a decoder: unit i of one is unit i of the other."""
    x, y = keras.Input((5, 4)), keras.Input((3, 4))
    _, *states = KINDS[kind](6, return_state=True, name="encoder")(x)
    states = states if len(states) > 1 else states[0]
    decoder = KINDS[kind](6, name="decoder")
    decoded = decoder(y, initial_state=states) if by_name else decoder(y, states)
    model = keras.Model([x, y], layers.Dense(2, name="out")(decoded))
    report = check_removal(model, {"decoder": [0, 5]})
    assert report.changed == {"encoder": [0, 5], "decoder": [0, 5]}


def test_states_made_by_dense_layers():
    x, y = keras.Input((5,)), keras.Input((3, 4))
    h, c = layers.Dense(6, "tanh", name="h")(x), layers.Dense(6, name="c")(x)
    model = keras.Model(
        [x, y], layers.Dense(2, name="out")(layers.LSTM(6, name="decoder")(y, initial_state=[h, c]))
    )
    report = check_removal(model, {"h": [2]})
    assert report.changed == {"h": [2], "c": [2], "decoder": [2]}


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
def test_both_directions_lose_the_same_units(mode, sequences, kind):
    inner = KINDS[kind](5, return_sequences=sequences)
    model = chain(
        (4, 3),
        layers.Bidirectional(inner, merge_mode=mode, name="both"),
        layers.Dense(2, name="out"),
    )
    report = check_removal(model, {"both": [1, 4]})
    assert report.changed == {"both": [1, 4, 6, 9] if mode == "concat" else [1, 4]}


def test_a_unit_of_the_backward_direction_takes_the_forward_one_along():
    model = chain(
        (4, 3), layers.Bidirectional(layers.LSTM(5), name="both"), layers.Dense(2, name="out")
    )
    assert check_removal(model, {"both": [7]}).changed == {"both": [2, 7]}


def test_both_directions_kept_apart():
    x = keras.Input((4, 3))
    ahead, back = layers.Bidirectional(layers.GRU(5), merge_mode=None, name="both")(x)
    out = layers.Subtract()([layers.Dense(2, name="one")(ahead), layers.Dense(2, name="two")(back)])
    assert check_removal(keras.Model(x, out), {"both": [1]}).changed == {"both": [1, 6]}


def test_a_backward_layer_of_another_kind():
    both = layers.Bidirectional(
        layers.LSTM(5, return_sequences=True),
        backward_layer=layers.GRU(5, return_sequences=True, go_backwards=True),
        merge_mode="sum",
        name="both",
    )
    check_removal(chain((4, 3), both, layers.Dense(2, name="out")), {"both": [1, 4]})


@pytest.mark.parametrize("mode", ["concat", "sum"])
def test_states_of_both_directions_start_a_decoder(mode):
    x, y = keras.Input((4, 3)), keras.Input((5, 3))
    first = layers.Bidirectional(layers.LSTM(5, return_state=True), merge_mode=mode, name="encoder")
    _, *states = first(x)
    second = layers.Bidirectional(layers.LSTM(5), merge_mode=mode, name="decoder")
    model = keras.Model([x, y], layers.Dense(2, name="out")(second(y, initial_state=states)))
    gone = [1, 6] if mode == "concat" else [1]
    assert check_removal(model, {"decoder": [1]}).changed == {"encoder": gone, "decoder": gone}


@pytest.mark.parametrize("mask_zero", [True, False])
def test_masked_time_steps(mask_zero):
    model = chain(
        (6,),
        layers.Embedding(7, 5, mask_zero=mask_zero, name="words"),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both"),
        layers.GRU(4, name="gru"),
        layers.Dense(2, name="out"),
        dtype="int32",
    )
    check_removal(model, {"words": [0, 2], "both": [3], "gru": [1]}, tokens=7)


# -- TimeDistributed ------------------------------------------------------------------------------


def test_a_dense_at_every_time_step():
    model = chain(
        (4, 5),
        layers.TimeDistributed(layers.Dense(6, "relu"), name="a"),
        layers.TimeDistributed(layers.Dense(4), name="b"),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    assert check_removal(model, {"a": [0, 5], "b": [3]}).changed == {"a": [0, 5], "b": [3]}


def test_a_convolutional_network_at_every_time_step():
    model = chain(
        (3, 6, 6, 2),
        layers.TimeDistributed(layers.Conv2D(5, 3), name="a"),
        layers.TimeDistributed(layers.BatchNormalization(), name="bn"),
        layers.TimeDistributed(layers.MaxPooling2D(2), name="pool"),
        layers.TimeDistributed(layers.Flatten(), name="flat"),
        layers.LSTM(3, name="out"),
    )
    assert check_removal(model, {"a": [0, 3]}).changed == {"a": [0, 3]}


@pytest.mark.parametrize("functional", [True, False])
def test_a_nested_model_at_every_time_step(functional):
    if functional:
        y = keras.Input((6, 6, 2))
        hidden = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(5, 3, name="a")(y)))
        inner = keras.Model(y, layers.Dense(4, name="b")(layers.Flatten()(hidden)), name="inner")
    else:
        inner = chain(
            (6, 6, 2),
            layers.Conv2D(5, 3, name="a"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(4, name="b"),
        )
        inner.name = "inner"
    model = chain(
        (3, 6, 6, 2), layers.TimeDistributed(inner, name="each"), layers.LSTM(3, name="out")
    )
    report = check_removal(model, {"each/inner/a": [0, 3], "each/inner/b": [1]})
    assert report.changed == {"each/inner/a": [0, 3], "each/inner/b": [1]}


def test_a_recurrent_layer_at_every_time_step():
    model = chain(
        (3, 5, 2), layers.TimeDistributed(layers.GRU(4), name="each"), layers.LSTM(3, name="out")
    )
    assert check_removal(model, {"each": [0, 3]}).changed == {"each": [0, 3]}


def test_units_on_the_time_axis_of_a_wrapper_stay():
    model = chain(
        (4, 3),
        layers.Dense(5, name="a"),
        layers.Permute((2, 1)),
        layers.TimeDistributed(layers.Dense(2), name="each"),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    with pytest.raises(CannotPruneError, match="time axis"):
        Removal(model, {"a": [0]})


def test_units_on_the_time_axis_of_a_recurrent_layer_stay():
    model = chain(
        (4, 3), layers.Dense(5, name="a"), layers.Permute((2, 1)), layers.LSTM(2, name="out")
    )
    with pytest.raises(CannotPruneError, match="time axis"):
        Removal(model, {"a": [0]})
