"""Merging layers: what meets is tied, what is joined is not."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kprune.errors import CannotPruneError, LastUnitError
from tests.oracle.law import Removal, check_removal

pytestmark = pytest.mark.oracle

ELEMENTWISE = [
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
]


def conv(filters, name, size=1, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def head(x, name="out"):
    return layers.Dense(2, name=name)(layers.Flatten()(x))


@pytest.mark.parametrize("merge", ELEMENTWISE)
def test_units_that_meet_go_together(merge):
    x = keras.Input((4, 5, 3))
    y = merge()([conv(6, "a")(x), conv(6, "b", 3)(x)])
    report = check_removal(keras.Model(x, head(y)), {"a": [0, 4]})
    assert report.changed == {"a": [0, 4], "b": [0, 4]}


@pytest.mark.parametrize(
    "merge", [layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]
)
def test_three_that_meet(merge):
    x = keras.Input((4, 5, 3))
    y = merge()([conv(6, "a")(x), conv(6, "b")(x), conv(6, "c")(x)])
    report = check_removal(keras.Model(x, head(y)), {"b": [5]})
    assert report.changed == {"a": [5], "b": [5], "c": [5]}


def test_coupled_units_are_refused_if_they_must_not_go_along():
    x = keras.Input((4, 5, 3))
    y = layers.Add()([conv(6, "a")(x), conv(6, "b")(x)])
    with pytest.raises(CannotPruneError, match="would be removed with"):
        Removal(keras.Model(x, head(y)), {"a": [0]}, coupled=False)


def test_a_residual_network_ties_its_whole_trunk():
    x = keras.Input((4, 5, 3))
    trunk = conv(6, "stem")(x)
    for name in "ab":
        inner = conv(4, f"{name}1")(trunk)
        inner = layers.ReLU()(layers.BatchNormalization()(inner))
        trunk = layers.ReLU()(layers.Add()([trunk, conv(6, f"{name}2", 3)(inner)]))
    report = check_removal(keras.Model(x, head(trunk)), {"a2": [1, 2], "b1": [0]})
    assert report.changed == {"stem": [1, 2], "a2": [1, 2], "b1": [0], "b2": [1, 2]}


@pytest.mark.parametrize("merge", [layers.Add, layers.Multiply, layers.Maximum])
@pytest.mark.parametrize("keepdims", [True, False])
def test_a_gate_of_one_number_per_channel(merge, keepdims):
    """Squeeze and excitation: (1, 1, C) is spread over the image."""
    x = keras.Input((4, 5, 3))
    y = conv(6, "a")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=keepdims)(y)
    gate = gate if keepdims else layers.Reshape((1, 1, 6))(gate)
    gate = conv(6, "gate", activation="sigmoid")(conv(2, "squeeze")(gate))
    report = check_removal(keras.Model(x, head(merge()([y, gate]))), {"a": [1, 4], "squeeze": [0]})
    assert report.changed == {"a": [1, 4], "squeeze": [0], "gate": [1, 4]}


def test_a_gate_of_one_number_per_place_frees_the_channels():
    """Spatial attention: (h, w, 1) is spread over the channels, which still go one by one."""
    x = keras.Input((4, 5, 3))
    y = conv(6, "a")(x)
    gate = conv(1, "gate", activation="sigmoid")(x)
    report = check_removal(keras.Model(x, head(layers.Multiply()([y, gate]))), {"a": [1, 4]})
    assert report.changed == {"a": [1, 4]}


def test_the_only_unit_of_a_gate_stays():
    x = keras.Input((4, 5, 3))
    y = layers.Multiply()([conv(6, "a")(x), conv(1, "gate")(x)])
    with pytest.raises(CannotPruneError):
        Removal(keras.Model(x, head(y)), {"gate": [0]})


def test_a_vector_that_is_spread_along_time():
    x, z = keras.Input((4, 3)), keras.Input((3,))
    y = layers.Add()(
        [layers.Dense(5, name="a")(x), layers.Reshape((1, 5))(layers.Dense(5, name="b")(z))]
    )
    report = check_removal(keras.Model([x, z], head(y)), {"b": [0, 3]})
    assert report.changed == {"a": [0, 3], "b": [0, 3]}


def test_units_that_meet_the_models_input_stay():
    x = keras.Input((4, 5, 3))
    y = layers.Add()([conv(3, "a")(x), x])
    with pytest.raises(CannotPruneError, match="model's input"):
        Removal(keras.Model(x, head(y)), {"a": [0]})


def test_units_that_meet_something_without_units_stay():
    """On the other side of the sum there is nothing that could be taken away."""
    x, z = keras.Input((4, 3)), keras.Input((4, 5), dtype="int32")
    y = layers.Add()([layers.Dense(5, name="a")(x), layers.Rescaling(0.5)(z)])
    with pytest.raises(CannotPruneError):
        Removal(keras.Model([x, z], head(y)), {"a": [0]})


@pytest.mark.parametrize("axis", [-1, 3])
def test_joined_channels_go_one_by_one(axis):
    x = keras.Input((4, 5, 3))
    y = layers.Concatenate(axis=axis)([conv(6, "a")(x), conv(4, "b")(x), x])
    y = layers.BatchNormalization()(y)
    report = check_removal(keras.Model(x, head(y)), {"a": [0, 5], "b": [0]})
    assert report.changed == {"a": [0, 5], "b": [0]}


@pytest.mark.parametrize("axis", [1, 2, -2])
def test_joined_along_another_axis_channels_are_tied(axis):
    x = keras.Input((4, 5, 3))
    y = layers.Concatenate(axis=axis)([conv(6, "a")(x), conv(6, "b")(x)])
    report = check_removal(keras.Model(x, head(y)), {"a": [0, 5]})
    assert report.changed == {"a": [0, 5], "b": [0, 5]}


def test_joined_channels_first():
    x = keras.Input((3, 4, 24))
    parts = [conv(n, name, data_format="channels_first")(x) for n, name in ((6, "a"), (4, "b"))]
    y = conv(5, "c", data_format="channels_first")(layers.Concatenate(axis=1)(parts))
    model = keras.Model(
        x, layers.Dense(2, name="out")(layers.Flatten(data_format="channels_first")(y))
    )
    check_removal(model, {"a": [0, 5], "b": [0], "c": [2]})


def test_flattened_parts_joined():
    x = keras.Input((4, 5, 3))
    parts = [
        layers.Flatten()(conv(6, "a")(x)),
        layers.Flatten()(conv(4, "b")(x)),
        layers.Flatten()(x),
    ]
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Concatenate()(parts)))
    check_removal(model, {"a": [0, 5], "b": [3]})


def test_a_branch_joined_with_itself():
    x = keras.Input((4, 5, 3))
    y = conv(6, "a")(x)
    joined = layers.Concatenate()([y, layers.ReLU()(y), y])
    check_removal(keras.Model(x, head(joined)), {"a": [0, 5]})


def test_a_branch_added_to_itself_in_another_order_is_tied_in_pairs():
    """Concatenate(a, b) + Concatenate(b, a): unit i of a meets unit i of b, twice."""
    x = keras.Input((4, 5, 3))
    a, b = conv(3, "a")(x), conv(3, "b")(x)
    y = layers.Add()([layers.Concatenate()([a, b]), layers.Concatenate()([b, a])])
    report = check_removal(keras.Model(x, head(y)), {"a": [1]})
    assert report.changed == {"a": [1], "b": [1]}


def test_a_sum_across_a_join_ties_different_units_of_one_layer():
    """Concatenate(a, b) + c where c has as many: ties across the seam."""
    x = keras.Input((4, 5, 3))
    a, b, c = conv(3, "a")(x), conv(2, "b")(x), conv(5, "c")(x)
    y = layers.Add()([layers.Concatenate()([a, b]), c])
    report = check_removal(keras.Model(x, head(y)), {"c": [2, 4]})
    assert report.changed == {"a": [2], "b": [1], "c": [2, 4]}


def test_a_dense_block():
    x = keras.Input((4, 5, 3))
    y = conv(4, "stem")(x)
    for name in "abc":
        inner = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Concatenate()([y, conv(2, name, 3)(inner)])
    check_removal(keras.Model(x, head(y)), {"stem": [1, 2], "a": [0], "b": [1], "c": [0]})


def test_the_last_unit_of_a_tied_layer_stays():
    x = keras.Input((4, 5, 3))
    y = layers.Add()([conv(2, "a")(x), conv(2, "b")(x)])
    with pytest.raises(LastUnitError):
        Removal(keras.Model(x, head(y)), {"a": [0], "b": [1]})


def test_a_difference_of_a_tensor_and_its_mirror_ties_a_layers_own_units():
    """Channels of two places, flattened either way and subtracted: channel i meets j."""
    x = keras.Input((2, 3))
    y = layers.Dense(2, name="a")(x)
    mirrored = layers.Flatten()(layers.Permute((2, 1))(y))
    out = layers.Dense(2, name="out")(layers.Subtract()([layers.Flatten()(y), mirrored]))
    with pytest.raises(CannotPruneError):
        Removal(keras.Model(x, out), {"a": [0]})


def test_a_branch_of_which_every_unit_goes_is_left_out_with_what_feeds_it_alone():
    x = keras.Input((5,))
    feeding = layers.Dense(4, name="feeding")(x)
    branch = layers.Dense(2, name="branch")(layers.ReLU()(feeding))
    joined = layers.Concatenate()([layers.Dense(3, name="stays")(x), branch])
    model = keras.Model(x, layers.Dense(2, name="out")(joined))
    report = check_removal(model, {"branch": [0, 1]})
    assert report.output.parameters == (5 * 3 + 3) + (3 * 2 + 2)
    after = {row.name: (row.units_after, row.parameters_after) for row in report.layers}
    assert after["feeding"] == after["branch"] == (0, 0)
    assert not report.notes
