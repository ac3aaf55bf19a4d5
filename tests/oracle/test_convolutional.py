"""Convolutions in all their options."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kprune.errors import CannotPruneError, LastUnitError
from tests.oracle.law import Removal, check_removal

pytestmark = pytest.mark.oracle

CONV = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
TRANSPOSED = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}
DEPTHWISE = {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}
SEPARABLE = {1: layers.SeparableConv1D, 2: layers.SeparableConv2D}
# The last extent is more than any number of channels here: where the two are equal, Keras adds a
# channels_first bias along the wrong axis (`test_keras_adds_the_bias_along_the_wrong_axis`).
EXTENTS = {1: (24,), 2: (7, 24), 3: (5, 6, 24)}


def shape(rank: int, channels: int, data_format: str = "channels_last"):
    if data_format == "channels_first":
        return (channels, *EXTENTS[rank])
    return (*EXTENTS[rank], channels)


def chain(inputs, *middle):
    return keras.Sequential(
        [keras.Input(inputs), *middle, layers.Flatten(), layers.Dense(3, name="out")]
    )


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_filters_of_a_convolution(rank, padding, data_format):
    conv = CONV[rank]
    options = {"padding": padding, "data_format": data_format}
    model = keras.Sequential(
        [
            keras.Input(shape(rank, 3, data_format)),
            conv(6, 3, name="a", activation="relu", **options),
            conv(5, 2, name="b", use_bias=False, strides=2, **options),
            layers.Flatten(data_format=data_format),
            layers.Dense(3, name="out"),
        ]
    )
    assert check_removal(model, {"a": [0, 4], "b": [1]}).changed == {"a": [0, 4], "b": [1]}


@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_dilated_and_causal_convolutions(dilation, padding):
    model = chain(
        (12, 3),
        layers.Conv1D(6, 3, dilation_rate=dilation, padding=padding, name="a"),
        layers.Conv1D(4, 2, dilation_rate=dilation, padding=padding, name="b"),
    )
    check_removal(model, {"a": [0, 4], "b": [1]})


def test_a_convolution_on_images_of_unknown_size():
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(6, 3, padding="same", name="a"),
            layers.Conv2D(4, 3, padding="same", name="b"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, name="out"),
        ]
    )
    check_removal(model, {"a": [0, 4], "b": [1]})


# -- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2])
def test_as_many_filters_from_each_group_may_go(rank):
    """The grouped convolution's own filters: two runs of four, one of each goes."""
    conv = CONV[rank]
    model = chain(shape(rank, 4), conv(8, 3, groups=2, name="a"), conv(3, 1, name="b"))
    report = check_removal(model, {"a": [1, 6]})
    assert report.changed == {"a": [1, 6]}


def test_filters_of_one_group_alone_are_refused():
    model = chain((6, 6, 4), layers.Conv2D(8, 3, groups=2, name="a"), layers.Conv2D(3, 1, name="b"))
    with pytest.raises(CannotPruneError, match="uneven"):
        Removal(model, {"a": [1, 2]})


def test_as_many_inputs_of_each_group_may_go():
    """Different ones in each group: the kernel's rows are cut group by group."""
    model = chain(
        (6, 6, 3),
        layers.Conv2D(6, 1, name="a"),
        layers.Conv2D(8, 3, groups=2, name="b"),
        layers.Conv2D(3, 1, name="c"),
    )
    report = check_removal(model, {"a": [0, 5]})
    assert report.changed == {"a": [0, 5]}
    kernel = next(row for row in report.weights if row.path == "layers/conv2d_1/vars/0")
    assert (kernel.shape_before, kernel.shape_after) == ([3, 3, 3, 8], [3, 3, 2, 8])


def test_inputs_and_filters_of_groups_together():
    model = chain(
        (6, 6, 3),
        layers.Conv2D(9, 1, name="a"),
        layers.Conv2D(6, 3, groups=3, name="b"),
        layers.Conv2D(3, 1, name="c"),
    )
    check_removal(model, {"a": [0, 1, 3, 5, 7, 8], "b": [0, 3, 4]})


def test_inputs_of_one_group_alone_are_refused():
    model = chain((6, 6, 3), layers.Conv2D(6, 1, name="a"), layers.Conv2D(8, 3, groups=2, name="b"))
    with pytest.raises(CannotPruneError, match="uneven"):
        Removal(model, {"a": [0]})


def test_a_whole_group_may_go_with_its_inputs():
    model = chain(
        (6, 6, 3),
        layers.Conv2D(6, 1, name="a"),
        layers.Conv2D(9, 3, groups=3, name="b"),
        layers.Conv2D(3, 1, name="c"),
    )
    report = check_removal(model, {"a": [2, 3], "b": [3, 4, 5]})
    assert report.changed == {"a": [2, 3], "b": [3, 4, 5]}


def test_a_whole_group_stays_with_inputs_on_which_no_unit_stands():
    """Found among random graphs: features of the input on axis 1, and the last axis carries none."""
    model = keras.Sequential(
        [
            keras.Input((6, 4, 3)),
            layers.Permute((1, 3, 2)),
            layers.Conv2D(4, 2, groups=2, name="a"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    with pytest.raises(CannotPruneError):
        Removal(model, {"a": [2, 3]})


@pytest.mark.parametrize("channels", [2, 4])
def test_filters_of_groups_on_inputs_on_which_no_unit_stands(channels):
    x = keras.Input((6, 6, channels), dtype="int32")
    y = layers.Conv2D(8, 3, groups=2, name="a")(layers.Rescaling(0.5)(x))
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))
    assert check_removal(model, {"a": [1, 6]}).changed == {"a": [1, 6]}
    with pytest.raises(CannotPruneError, match="uneven"):
        Removal(model, {"a": [4, 5, 6, 7]})


def test_groups_of_one_input_are_tied_to_it():
    """A depthwise convolution in the guise of a grouped one."""
    model = chain(
        (6, 6, 3),
        layers.Conv2D(5, 1, name="a"),
        layers.Conv2D(10, 3, groups=5, name="b"),
        layers.Conv2D(3, 1, name="c"),
    )
    report = check_removal(model, {"a": [1, 4]})
    assert report.changed == {"a": [1, 4], "b": [2, 3, 8, 9]}


# -- transposed, depthwise, separable -------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_filters_of_a_transposed_convolution(rank, padding, data_format):
    conv = TRANSPOSED[rank]
    options = {"padding": padding, "data_format": data_format, "strides": 2}
    model = keras.Sequential(
        [
            keras.Input(shape(rank, 3, data_format)),
            conv(6, 3, name="a", **options),
            conv(4, 2, name="b", use_bias=False, **options),
            layers.Flatten(data_format=data_format),
            layers.Dense(3, name="out"),
        ]
    )
    check_removal(model, {"a": [0, 4], "b": [1]})


@pytest.mark.parametrize(
    ("output_padding", "strides", "dilation"),
    [(None, 2, 1), (0, 2, 1), (1, 2, 1), (None, 1, 2), (0, 1, 2), (1, 3, 1)],
)
def test_the_size_that_a_transposed_convolution_gives(output_padding, strides, dilation):
    model = chain(
        (5, 3),
        layers.Conv1DTranspose(
            6, 3, strides=strides, output_padding=output_padding, dilation_rate=dilation, name="a"
        ),
    )
    check_removal(model, {"a": [0, 4]})


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_depthwise_convolution_loses_what_its_inputs_lose(rank, multiplier, data_format):
    model = keras.Sequential(
        [
            keras.Input(shape(rank, 3, data_format)),
            CONV[rank](4, 1, name="a", data_format=data_format),
            DEPTHWISE[rank](3, depth_multiplier=multiplier, name="depth", data_format=data_format),
            layers.Flatten(data_format=data_format),
            layers.Dense(3, name="out"),
        ]
    )
    report = check_removal(model, {"a": [0, 2]})
    gone = [*range(multiplier), *range(2 * multiplier, 3 * multiplier)]
    assert report.changed == {"a": [0, 2], "depth": gone}


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_unit_of_a_depthwise_convolution_takes_its_input_along(strides, dilation):
    model = chain(
        (8, 8, 3),
        layers.Conv2D(4, 1, name="a"),
        layers.DepthwiseConv2D(3, strides=strides, dilation_rate=dilation, name="depth"),
    )
    assert check_removal(model, {"depth": [1]}).changed == {"a": [1], "depth": [1]}


def test_a_depthwise_convolution_on_the_input_stays():
    model = chain((8, 8, 3), layers.DepthwiseConv2D(3, name="depth"))
    with pytest.raises(CannotPruneError, match="model's input"):
        Removal(model, {"depth": [1]})


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_separable_convolution_has_inputs_and_filters(rank, multiplier, data_format):
    model = keras.Sequential(
        [
            keras.Input(shape(rank, 3, data_format)),
            CONV[rank](4, 1, name="a", data_format=data_format),
            SEPARABLE[rank](6, 3, depth_multiplier=multiplier, name="sep", data_format=data_format),
            layers.Flatten(data_format=data_format),
            layers.Dense(3, name="out"),
        ]
    )
    report = check_removal(model, {"a": [1], "sep": [0, 5]})
    assert report.changed == {"a": [1], "sep": [0, 5]}


def test_no_convolution_loses_its_last_filter():
    model = chain((6, 6, 3), layers.Conv2D(2, 1, name="a"), layers.Conv2D(4, 3, name="b"))
    with pytest.raises(LastUnitError):
        Removal(model, {"a": [0, 1]})


def test_a_kernel_may_slide_over_an_axis_on_which_units_stand_only_if_they_stay():
    """Permute puts a Dense's units on the axis on which the next convolution slides."""
    model = chain(
        (6, 3),
        layers.Dense(5, name="a"),
        layers.Permute((2, 1)),
        layers.Conv1D(4, 3, name="b"),
    )
    with pytest.raises(CannotPruneError, match="slides"):
        Removal(model, {"a": [1]})


@pytest.mark.parametrize(("filters", "gone"), [(6, [0, 3]), (4, [1])])
def test_keras_adds_the_bias_along_the_wrong_axis(filters, gone):
    """Keras 3.15.1: a channels_first bias lands on the last axis where both are equally long.

    Cutting 6 filters to 4 on an image 4 wide makes the result wrong, cutting 4 to 3 makes it right.
    Nothing in a file can prevent it, so the report has to say it.
    """
    first = {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input((2, 5, 4)),
            layers.Conv2D(filters, 1, name="a", **first),
            layers.Flatten(**first),
            layers.Dense(3, name="out"),
        ]
    )
    removal = Removal(model, {"a": gone})
    removal.check_counts()
    assert [note.layer for note in removal.report.notes if note.kind == "keras"] == ["a"]
    with pytest.raises(AssertionError, match="differ"):
        removal.check_outputs()


def test_keras_adds_the_bias_right_where_sizes_differ():
    first = {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input((2, 5, 4)),
            layers.Conv2D(6, 1, name="a", **first),
            layers.Flatten(**first),
            layers.Dense(3, name="out"),
        ]
    )
    assert not check_removal(model, {"a": [0]}).notes
