"""Axes that are folded into the batch and come out of it again: frames, windows, heads, anchors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.errors import FrozenUnitsError
from tests.oracle.law import Removal, assert_equal, check_removal, outputs

pytestmark = pytest.mark.oracle


def time_folded():
    x = keras.Input((3, 6, 6, 1))
    y = ops.reshape(x, (-1, 6, 6, 1))
    y = layers.Conv2D(4, 3, activation="relu", name="c")(y)
    y = layers.GlobalAveragePooling2D()(y)
    y = layers.LSTM(5, name="l")(ops.reshape(y, (-1, 3, 4)))
    return keras.Model(x, layers.Dense(2, name="out")(y))


def windows():
    x = keras.Input((8, 8, 3))
    y = ops.reshape(layers.Conv2D(6, 1, name="c")(x), (-1, 2, 4, 2, 4, 6))
    y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 16, 6))
    y = ops.reshape(layers.Dense(7, name="l")(y), (-1, 2, 2, 4, 4, 7))
    y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 8, 8, 7))
    return keras.Model(x, layers.Dense(2, name="out")(y))


def windows_of_a_fixed_batch():
    x = keras.Input(batch_shape=(2, 8, 8, 3))
    y = ops.reshape(layers.Conv2D(6, 1, name="c")(x), (2, 2, 4, 2, 4, 6))
    y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (8, 16, 6))
    y = ops.reshape(layers.Dense(7, name="l")(y), (2, 8, 8, 7))
    return keras.Model(x, layers.Dense(2, name="out")(y))


@pytest.mark.parametrize("build", [time_folded, windows])
def test_units_on_the_last_axis_pass(build):
    assert check_removal(build(), {"c": [0, 2], "l": [1, 3]}).changed == {"c": [0, 2], "l": [1, 3]}


def check_by_hand(model, units, shape):
    """As the law says, where only Dense layers and their like read the units: their rows are set to 0."""
    removal = Removal(model, units)
    removal.check_counts()
    original, x = removal.original, np.random.default_rng(0).normal(size=shape).astype("float32")
    for name, indices in units.items():
        layer = original.get_layer(name)
        kernel, bias = (np.array(w) for w in layer.get_weights())
        kernel[..., indices], bias[indices] = 0.0, 0.0
        layer.set_weights([kernel, bias])
    for got, expected in zip(outputs(removal.pruned, x), outputs(original, x), strict=True):
        assert_equal(got, expected)


def test_units_pass_where_the_batch_is_a_number_in_the_config():
    check_by_hand(windows_of_a_fixed_batch(), {"c": [0, 2], "l": [1, 3]}, (2, 8, 8, 3))


def test_heads_in_the_batch():
    """8 units as 2 heads of 4 dimensions: a dimension goes in both, as heads cannot."""
    x = keras.Input((5, 6))
    y = ops.reshape(layers.Dense(8, name="q")(x), (-1, 5, 2, 4))
    y = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, 5, 4))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    assert check_removal(model, {"q": [1]}).changed == {"q": [1, 5]}


def test_anchors_share_what_they_give():
    """12 filters as 3 anchors of 4 figures: what follows reads a figure of every anchor alike."""
    x = keras.Input((4, 4, 3))
    y = ops.reshape(layers.Conv2D(12, 1, name="head")(x), (-1, 4))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    assert check_removal(model, {"head": [2]}).changed == {"head": [2, 6, 10]}


def test_what_comes_out_of_the_batch_stands_in_each_of_its_places():
    """(batch * 3, 4) -> (batch, 12): one unit, three rows of the next kernel."""
    x = keras.Input((3, 5))
    y = layers.Dense(4, name="a")(ops.reshape(x, (-1, 5)))
    model = keras.Model(x, layers.Dense(2, name="out")(ops.reshape(y, (-1, 12))))
    assert check_removal(model, {"a": [1, 3]}).changed == {"a": [1, 3]}


def test_units_that_themselves_are_folded_into_the_batch_stay(tmp_path):
    x = keras.Input((4, 3))
    y = ops.reshape(ops.transpose(layers.Dense(6, name="a")(x), (0, 2, 1)), (-1, 4))
    y = ops.reshape(layers.Dense(5, name="b")(y), (-1, 6, 5))
    keras.Model(x, layers.Dense(2, name="out")(y)).save(tmp_path / "m.keras")
    with pytest.raises(FrozenUnitsError, match="folds with others"):
        kprune.remove(tmp_path / "m.keras", {"a": [1]}, output=tmp_path / "n.keras")
    kprune.remove(tmp_path / "m.keras", {"b": [1]}, output=tmp_path / "n.keras")
    assert keras.models.load_model(tmp_path / "n.keras").get_layer("b").units == 4


def test_a_quantile_or_several_of_places():
    x = keras.Input((6, 5))
    y = layers.Dense(8, name="a")(x)
    one = ops.quantile(y, 0.5, axis=1)
    two = ops.quantile(y, [0.2, 0.7], axis=1, keepdims=True)
    model = keras.Model(x, [layers.Dense(2, name="o1")(one), layers.Dense(2, name="o2")(two)])
    check_by_hand(model, {"a": [0, 5]}, (3, 6, 5))


def test_what_a_rule_was_not_written_for_holds_its_units_and_nothing_else(tmp_path, monkeypatch):
    from kprune.rules import OPERATIONS, builtin

    def fails(call):
        raise TypeError("'float' object is not iterable")

    builtin()
    broken = OPERATIONS.rules["Cumsum"]
    monkeypatch.setitem(
        OPERATIONS.rules, "Cumsum", type(broken)(broken.name, fails, broken.does, "", True, "here")
    )
    x = keras.Input((5,))
    y = layers.Dense(4, name="b")(ops.cumsum(layers.Dense(6, name="a")(x), axis=1))
    keras.Model(x, layers.Dense(2, name="out")(y)).save(tmp_path / "m.keras")
    found = kprune.inspect(tmp_path / "m.keras")
    assert {layer.name: layer.free for layer in found.layers if layer.units}["b"] == 4
    with pytest.raises(FrozenUnitsError, match=r"does not know \(TypeError: 'float' object"):
        kprune.remove(tmp_path / "m.keras", {"a": [1]}, output=tmp_path / "n.keras")
