"""Layers that move data, alone and in chains."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kprune.errors import CannotPruneError, NotARectangleError
from tests.oracle.law import Removal, check_removal

pytestmark = pytest.mark.oracle


def chain(shape, *middle):
    return keras.Sequential([keras.Input(shape), *middle])


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_each_filter_owns_its_rows_behind_flatten(rank, data_format):
    extents = {1: (24,), 2: (4, 24), 3: (3, 4, 24)}[rank]
    conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    shape = (2, *extents) if data_format == "channels_first" else (*extents, 2)
    model = chain(
        shape,
        conv(5, 2, data_format=data_format, name="a"),
        layers.Flatten(data_format=data_format),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 3]})


def test_flatten_that_thinks_otherwise_than_the_convolution():
    """channels_first in Flatten alone moves the second axis to the end, whatever it holds."""
    model = chain(
        (4, 6, 2),
        layers.Conv2D(5, 2, name="a"),
        layers.Flatten(data_format="channels_first"),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 3]})


def test_flatten_of_a_vector():
    model = chain((4,), layers.Dense(5, name="a"), layers.Flatten(), layers.Dense(2, name="out"))
    check_removal(model, {"a": [0, 3]})


@pytest.mark.parametrize(
    "target",
    [
        (3, 4, 6),
        (12, 6),
        (-1, 6),
        (3, 24),
        (4, 3, 6),
        (2, 6, 6),
        (72,),
        (-1,),
        (3, 4, 1, 6),
        (1, 12, 6),
    ],
    ids=str,
)
def test_reshape_keeps_track_of_channels(target):
    model = chain(
        (3, 4, 2),
        layers.Conv2D(6, 1, name="a"),
        layers.Reshape(target),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 3]})


@pytest.mark.parametrize("chosen", [[1], list(range(1, 24, 2))], ids=["one place", "all places"])
def test_a_vector_reshaped_to_an_image_loses_whole_channels(chosen):
    """A decoder: a unit of the Dense is one place of one channel, and takes the others along."""
    model = chain(
        (5,),
        layers.Dense(3 * 4 * 2, name="a"),
        layers.Reshape((3, 4, 2)),
        layers.Conv2D(3, 2, name="out"),
    )
    assert check_removal(model, {"a": chosen}).changed == {"a": list(range(1, 24, 2))}


def test_heads_times_dims_must_keep_a_rectangle():
    model = chain(
        (5,),
        layers.Dense(12, name="a"),
        layers.Reshape((3, 4)),
        layers.Dense(2, name="b"),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    with pytest.raises(NotARectangleError):
        Removal(model, {"a": [0, 5]})


def test_a_column_of_heads_times_dims_may_go():
    model = chain(
        (5,),
        layers.Dense(12, name="a"),
        layers.Reshape((3, 4)),
        layers.Dense(2, name="b"),
        layers.Dense(2, name="out"),
        layers.GlobalAveragePooling1D(),
    )
    with_dims = check_removal(model, {"a": [0, 4, 8, 3, 7, 11]})
    assert with_dims.changed == {"a": [0, 3, 4, 7, 8, 11]}


def test_a_row_of_heads_times_dims_may_go():
    model = chain(
        (5,),
        layers.Dense(12, name="a"),
        layers.Reshape((3, 4)),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [4, 5, 6, 7]})


@pytest.mark.parametrize(
    "dims", [(2, 1, 3), (3, 1, 2), (1, 3, 2), (3, 2, 1), (2, 3, 1), (1, 2, 3)], ids=str
)
def test_permute_then_flatten(dims):
    model = chain(
        (3, 4, 2),
        layers.Conv2D(5, 1, name="a"),
        layers.Permute(dims),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 3]})


def test_units_along_two_axes():
    """A Dense on either side of a Permute: one's units along axis 1, the other's along axis 2."""
    model = chain(
        (4, 3),
        layers.Dense(5, name="a"),
        layers.Permute((2, 1)),
        layers.Dense(6, name="b"),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    report = check_removal(model, {"a": [1, 2], "b": [0, 5]})
    assert report.changed == {"a": [1, 2], "b": [0, 5]}


def test_a_token_mixer():
    """MLP-Mixer: Dense over time between two Permutes, added to what came in."""
    x = keras.Input((6, 4))
    y = layers.Dense(5, name="embed")(x)
    mixed = layers.Permute((2, 1))(layers.Dense(6, name="mix")(layers.Permute((2, 1))(y)))
    out = layers.Dense(2, name="out")(layers.Add()([y, mixed]))
    model = keras.Model(x, layers.GlobalAveragePooling1D()(out))
    assert check_removal(model, {"embed": [1, 2]}).changed == {"embed": [1, 2]}


def test_repeat_vector():
    model = chain(
        (4,),
        layers.Dense(5, name="a"),
        layers.RepeatVector(3),
        layers.LSTM(4, name="b"),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [1, 2], "b": [0]})


def test_repeat_vector_then_flatten():
    model = chain(
        (4,),
        layers.Dense(5, name="a"),
        layers.RepeatVector(3),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [1, 2]})


def test_a_chain_of_all_of_them():
    model = chain(
        (4, 6, 2),
        layers.Conv2D(6, 2, padding="same", name="a"),
        layers.Permute((3, 1, 2)),
        layers.Reshape((6, 24)),
        layers.Permute((2, 1)),
        layers.Reshape((4, 6, 6)),
        layers.ZeroPadding2D(((1, 0), (0, 2))),
        layers.Cropping2D(((0, 1), (1, 1))),
        layers.UpSampling2D(2),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(8, name="b"),
        layers.RepeatVector(3),
        layers.Reshape((24,)),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 3], "b": [1, 7]})


RESIZING = {
    "pad 1": ((9, 2), lambda f: layers.ZeroPadding1D((1, 2))),
    "pad 2": ((6, 24, 2), lambda f: layers.ZeroPadding2D(((1, 2), (0, 3)), data_format=f)),
    "pad 3": ((4, 5, 24, 2), lambda f: layers.ZeroPadding3D((1, 0, 2), data_format=f)),
    "crop 1": ((9, 2), lambda f: layers.Cropping1D((1, 2))),
    "crop 2": ((6, 24, 2), lambda f: layers.Cropping2D(((1, 2), (0, 3)), data_format=f)),
    "crop 3": ((4, 5, 24, 2), lambda f: layers.Cropping3D((1, 0, 2), data_format=f)),
    "up 1": ((9, 2), lambda f: layers.UpSampling1D(2)),
    "up 2": ((4, 20, 2), lambda f: layers.UpSampling2D((2, 3), data_format=f)),
    "up bilinear": (
        (4, 20, 2),
        lambda f: layers.UpSampling2D(2, interpolation="bilinear", data_format=f),
    ),
    "up 3": ((3, 4, 20, 2), lambda f: layers.UpSampling3D((1, 2, 2), data_format=f)),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", RESIZING)
def test_resizing_layers_work_channel_by_channel(kind, data_format):
    shape, resize = RESIZING[kind]
    rank = len(shape) - 1
    if rank == 1 and data_format == "channels_first":
        data_format = "channels_last"  # the 1D layers know no other
    if data_format == "channels_first":
        shape = (shape[-1], *shape[:-1])
    conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    model = chain(
        shape,
        conv(5, 1, data_format=data_format, name="a"),
        resize(data_format),
        conv(4, 2, data_format=data_format, name="b"),
        layers.Flatten(data_format=data_format),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 3], "b": [1]})


@pytest.mark.parametrize(
    "layer",
    [layers.ZeroPadding1D(1), layers.Cropping1D(1), layers.UpSampling1D(2)],
    ids=lambda x: x.name,
)
def test_units_on_an_axis_that_is_resized_stay(layer):
    model = chain(
        (4, 3),
        layers.Dense(5, name="a"),
        layers.Permute((2, 1)),
        layer.__class__.from_config(layer.get_config()),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    with pytest.raises(CannotPruneError):
        Removal(model, {"a": [1]})


UNKNOWN = {
    "reshape to a sequence": ((None, None, 3), lambda: [layers.Reshape((-1, 6))]),
    "reshape by its tail": ((None, 4, 3), lambda: [layers.Reshape((-1, 24)), layers.LSTM(4)]),
    "split channels": ((None, None, 3), lambda: [layers.Reshape((-1, 2, 3))]),
    "permute": ((None, 4, 3), lambda: [layers.Permute((2, 1, 3))]),
    "pad and crop": (
        (None, None, 3),
        lambda: [layers.ZeroPadding2D(1), layers.Cropping2D(1), layers.UpSampling2D(2)],
    ),
    "each step": ((None, 4, 3), lambda: [layers.TimeDistributed(layers.Flatten()), layers.GRU(4)]),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_sizes_that_are_not_known(kind):
    shape, middle = UNKNOWN[kind]
    x = keras.Input(shape)
    y = layers.Dense(6, "relu", name="a")(x)
    for layer in middle():
        y = layer(y)
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    chosen = [0, 3] if kind == "split channels" else [0, 4]
    assert check_removal(model, {"a": chosen}).changed == {"a": chosen}


def test_joined_along_an_axis_of_unknown_size():
    x = keras.Input((None, 3))
    parts = [layers.Dense(6, name="a")(x), layers.Dense(6, name="b")(x)]
    y = layers.Concatenate(axis=1)(parts)
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    assert check_removal(model, {"a": [0]}).changed == {"a": [0], "b": [0]}
