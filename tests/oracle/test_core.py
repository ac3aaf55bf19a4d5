"""Dense, Embedding and the layers that hand on what they get; what the outputs lose."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import FrozenUnitsError, IndexRangeError, LastUnitError
from tests.oracle.law import Removal, assert_equal, check_removal, outputs

pytestmark = pytest.mark.oracle


def chain(shape, *middle, dtype="float32", **options):
    return keras.Sequential([keras.Input(shape, dtype=dtype, **options), *middle])


@pytest.mark.parametrize("activation", ["linear", "relu", "sigmoid", "softplus", "gelu", "tanh"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_dense_unit_takes_its_column_its_bias_and_its_row(activation, use_bias):
    model = chain(
        (5,),
        layers.Dense(8, activation, use_bias=use_bias, name="a"),
        layers.Dense(6, activation, use_bias=use_bias, name="b"),
        layers.Dense(3, name="out"),
    )
    report = check_removal(model, {"a": [0, 3, 7], "b": [2]})
    assert report.changed == {"a": [0, 3, 7], "b": [2]}
    shapes = {row.path: row.shape_after for row in report.weights}
    assert shapes["layers/dense/vars/0"] == [5, 5]
    assert shapes["layers/dense_1/vars/0"] == [5, 5]
    assert shapes["layers/dense_2/vars/0"] == [5, 3]


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5)])
def test_dense_works_on_the_last_axis_of_any_rank(shape):
    model = chain(shape, layers.Dense(6, "relu", name="a"), layers.Dense(2, name="out"))
    assert check_removal(model, {"a": [1, 4]}).changed == {"a": [1, 4]}


def test_dense_on_a_sequence_of_unknown_length():
    model = chain((None, 5), layers.Dense(6, "relu", name="a"), layers.Dense(2, name="out"))
    check_removal(model, {"a": [1, 4]})


def test_the_output_layer_loses_the_classes_that_were_named():
    model = chain((5,), layers.Dense(6, "relu", name="a"), layers.Dense(4, name="out"))
    report = check_removal(model, {"out": [1], "a": [0]})
    assert report.changed == {"a": [0], "out": [1]}


def test_a_softmax_renormalises_over_the_classes_that_are_left():
    model = chain((5,), layers.Dense(6, "relu", name="a"), layers.Dense(4, "softmax", name="out"))
    removal = Removal(model, {"out": [1, 2]})
    removal.check_counts()
    (before,) = outputs(removal.original, removal.inputs)
    kept = before[:, [0, 3]]
    (after,) = outputs(removal.pruned, removal.inputs)
    assert_equal(after, kept / kept.sum(axis=1, keepdims=True))
    assert not removal.report.exact and "inexact" in {note.kind for note in removal.report.notes}


def test_input_features_go_where_the_inputs_may_change():
    model = chain((5,), layers.Dense(6, "relu", name="a"), layers.Dense(4, name="out"))
    inputs = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    name = model.inputs[0]._keras_history.operation.name
    removal = Removal(model, {name: [0, 2]}, allow_output_change=True, inputs=inputs)
    zeroed = inputs.copy()
    zeroed[:, [0, 2]] = 0
    assert_equal(
        outputs(removal.pruned, inputs[:, [1, 3, 4]])[0], outputs(removal.original, zeroed)[0]
    )


def test_input_features_stay_where_nobody_said_so():
    model = chain((5,), layers.Dense(4, name="out"))
    name = model.inputs[0]._keras_history.operation.name
    with pytest.raises(FrozenUnitsError, match=r"model's input"):
        Removal(model, {name: [0, 2]})


def test_units_that_are_added_to_the_output_are_refused():
    x = keras.Input((5,))
    hidden = layers.Dense(4, name="a")(x)
    out = layers.Add(name="add")([layers.Dense(4, name="b")(hidden), hidden])
    with pytest.raises(FrozenUnitsError) as error:
        Removal(keras.Model(x, out), {"a": [0]})
    assert error.value.where == "a -> add -> output"


def test_the_last_unit_stays():
    model = chain((5,), layers.Dense(3, name="a"), layers.Dense(4, name="out"))
    with pytest.raises(LastUnitError):
        Removal(model, {"a": [0, 1, 2]})


def test_a_unit_that_is_not_there():
    model = chain((5,), layers.Dense(3, name="a"), layers.Dense(4, name="out"))
    with pytest.raises(IndexRangeError, match="3"):
        Removal(model, {"a": [3]})


@pytest.mark.parametrize("mask_zero", [True, False])
@pytest.mark.parametrize(
    "reader",
    [
        lambda: [layers.LSTM(3, name="read")],
        lambda: [layers.GlobalAveragePooling1D(), layers.Dense(3, name="read")],
        lambda: [layers.Flatten(), layers.Dense(3, name="read")],
    ],
)
def test_dimensions_of_an_embedding(mask_zero, reader):
    model = chain(
        (6,), layers.Embedding(9, 8, mask_zero=mask_zero, name="words"), *reader(), dtype="int32"
    )
    report = check_removal(model, {"words": [0, 5]}, tokens=9)
    assert report.changed == {"words": [0, 5]}


def test_an_embedding_of_one_token_per_sample():
    x = keras.Input((), dtype="int32")
    y = layers.Dense(3, name="out")(layers.Embedding(9, 8, name="words")(x))
    check_removal(keras.Model(x, y), {"words": [0, 5]}, tokens=9)


@pytest.mark.parametrize(
    "layer", [layers.Identity, layers.ActivityRegularization, lambda: layers.Activation("relu")]
)
def test_units_pass_through_layers_that_hand_on(layer):
    model = chain((5,), layers.Dense(6, name="a"), layer(), layers.Dense(2, name="out"))
    check_removal(model, {"a": [1, 4]})


@pytest.mark.parametrize("mask_value", [0.0, 0.5])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_masking_looks_at_all_units_at_once(activation, mask_value):
    """A time step is padding if all units are mask_value: one that gives 0 is not missed."""
    model = chain(
        (4, 5),
        layers.Dense(3, activation, name="a"),
        layers.Masking(mask_value, name="padding"),
        layers.LSTM(3, name="out"),
    )
    if (activation, mask_value) == ("relu", 0.0):
        check_removal(model, {"a": [1]})
        return
    removal = Removal(model, {"a": [1]})
    removal.check_counts()
    assert not removal.report.exact
    assert [note.layer for note in removal.report.notes if note.kind == "inexact"] == ["padding"]


@keras.saving.register_keras_serializable("kprune_tests")
class Backwards(keras.layers.Layer):
    """A layer for which there is no rule."""

    def call(self, x):
        return x[..., ::-1]


def test_a_layer_without_a_rule_freezes_what_reaches_it():
    model = chain((4,), layers.Dense(6, name="a"), Backwards(name="b"), layers.Dense(2, name="out"))
    with pytest.raises(FrozenUnitsError, match="'b' is a kprune_tests>Backwards layer"):
        Removal(model, {"a": [0]})


def test_what_comes_before_a_frozen_layer_can_go():
    model = chain(
        (4,),
        layers.Dense(6, name="a"),
        layers.Dense(5, name="b"),
        Backwards(name="c"),
        layers.Dense(2, name="out"),
    )
    assert check_removal(model, {"a": [0, 2]}).changed == {"a": [0, 2]}
