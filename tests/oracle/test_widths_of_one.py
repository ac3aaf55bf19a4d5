"""Layers cut to a single unit: an axis of size 1 is one that operations treat in ways of their own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.errors import CannotPruneError
from tests.oracle.law import Removal, assert_equal, check_removal, outputs

pytestmark = pytest.mark.oracle


def squeezed(steps: int = 1):
    """A convolution whose output is squeezed without an axis."""
    x = keras.Input((steps, 4, 4, 3))
    y = layers.Conv3D(4, (1, 4, 4), name="a")(x)
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(ops.squeeze(y))))


def squeeze_of(model):
    return next(layer for layer in model.operations if type(layer).__name__ == "Squeeze")


@pytest.mark.parametrize("steps", [1, 3])
def test_a_squeeze_without_an_axis_leaves_the_axis_of_the_last_unit(steps):
    removal = Removal(squeezed(steps), {"a": [0, 1, 3]})
    removal.check_counts()
    removal.check_outputs()
    assert squeeze_of(removal.pruned).axis == ([1, 2, 3] if steps == 1 else [2, 3])


def test_a_squeeze_stays_as_it_is_where_several_units_are_left():
    removal = Removal(squeezed(), {"a": [0, 3]})
    removal.check_outputs()
    assert squeeze_of(removal.pruned).axis is None


def test_a_squeeze_that_takes_nothing_keeps_two_units():
    """TensorFlow takes an empty list of axes for all axes of size 1: nothing can be written down."""
    x = keras.Input((6, 5))
    y = ops.squeeze(layers.Dense(4, name="a")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))
    with pytest.raises(CannotPruneError, match="would lose the axis"):
        Removal(model, {"a": [0, 1, 2]})
    check_removal(model, {"a": [0, 3]})


def test_two_layers_of_which_each_keeps_one_unit_along_its_own_axis():
    """Units stand along both axes of what is squeezed."""
    x = keras.Input((5, 3))
    y = layers.Permute((2, 1))(layers.Dense(4, name="a")(x))
    y = ops.expand_dims(layers.Dense(6, name="b")(y), 1)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(ops.squeeze(y))))
    check_removal(model, {"a": [0, 1, 2], "b": [0, 1, 3, 4, 5]})


def attention(heads: int):
    x = keras.Input((6, 5))
    y = layers.MultiHeadAttention(heads, 4, name="a")(x, x)
    return keras.Model(x, layers.Dense(2, name="out")(y))


def excited():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(4, 3, name="a")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(3, 1, activation="relu", name="b")(gate)
    y = layers.Multiply()([y, layers.Conv2D(4, 1, activation="sigmoid")(gate)])
    y = layers.BatchNormalization()(y)
    return keras.Model(x, layers.Conv2D(2, 1, name="out")(y))


def recurrent():
    x = keras.Input((5, 3))
    y = layers.GRU(4, name="b")(
        layers.EinsumDense("abc,cd->abd", (5, 4), bias_axes="d", name="a")(x)
    )
    return keras.Model(x, layers.Dense(2, name="out")(y))


ALONE = {
    "squeeze and excitation": (excited, {"a": [0, 1, 2], "b": [1, 2]}),
    "recurrent": (recurrent, {"a": [0, 1, 3], "b": [1, 2, 3]}),
    "one class": (recurrent, {"out": [1]}),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_unit_is_left(name):
    make, units = ALONE[name]
    check_removal(make(), units)


def check_attention(heads: int, axis: str, gone: list[int]) -> None:
    """Compare with the original in which the projections give 0 for what is gone."""
    removal = Removal(attention(heads), {f"a.{axis}": gone})
    removal.check_counts()
    layer = removal.original.get_layer("a")
    at = {"heads": 1, "key_dim": 2, "value_dim": 2}[axis]
    projection = layer.query_dense if axis == "key_dim" else layer.value_dense
    for number, variable in enumerate((projection.kernel, projection.bias)):
        value = ops.convert_to_numpy(variable).copy()
        value[(slice(None),) * (at - number) + (gone,)] = 0
        variable.assign(value)
    (expected,) = outputs(removal.original, removal.inputs)
    (got,) = outputs(removal.pruned, removal.inputs)
    assert_equal(got, expected)


@pytest.mark.parametrize(
    ("axis", "gone"), [("heads", [0, 2]), ("key_dim", [0, 1, 3]), ("value_dim", [0, 1, 3])]
)
def test_one_head_or_dimension_of_attention_is_left(axis, gone):
    check_attention(3, axis, gone)


def positions(size: int):
    """Positions along the width of an image, added as a constant."""
    x = keras.Input((4, size, 3))
    table = np.linspace(-1, 1, size * 4).reshape(1, size, 4).astype("float32")
    y = ops.add(layers.Conv2D(4, 1, name="a")(x), table)
    return keras.Model(x, layers.Conv2D(2, 1, name="out")(y))


def test_keras_adds_what_has_one_size_left_along_another_axis():
    """Keras 3.15.1: the fact that the refusals below stand on."""
    images = np.zeros((1, 4, 4, 1), "float32")
    table = np.arange(4, dtype="float32").reshape(1, 4, 1)
    got = ops.convert_to_numpy(ops.add(images, table))
    assert not np.allclose(got, images + table)


def test_positions_of_a_square_image_are_not_added_to_a_single_channel():
    with pytest.raises(CannotPruneError, match="add along the wrong axis"):
        Removal(positions(4), {"a": [0, 1, 2]})
    check_removal(positions(4), {"a": [0, 1]})


def test_attention_with_as_many_heads_as_steps_keeps_two_dimensions():
    with pytest.raises(CannotPruneError, match="add along the wrong axis"):
        Removal(attention(6), {"a.key_dim": [0, 1, 3]})
    check_attention(6, "key_dim", [0, 1])


def test_positions_on_an_image_that_is_not_square_are_added_where_they_belong():
    check_removal(positions(5), {"a": [0, 1, 2]})
