"""Normalisation: what follows its channels, and what mixes them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import CannotPruneError
from tests.oracle.law import Removal, check_removal
from tests.oracle.masked import MaskedOriginal

pytestmark = pytest.mark.oracle


def chain(shape, *middle):
    return keras.Sequential([keras.Input(shape), *middle])


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_batch_normalization_loses_the_channels_of_its_input(scale, center):
    model = chain(
        (7, 7, 3),
        layers.Conv2D(6, 3, name="a"),
        layers.BatchNormalization(scale=scale, center=center, name="bn"),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_batch_normalization_on_another_axis():
    model = chain(
        (3, 7, 24),
        layers.Conv2D(6, 3, data_format="channels_first", name="a"),
        layers.BatchNormalization(axis=1),
        layers.Flatten(data_format="channels_first"),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_batch_normalization_behind_flatten_has_a_row_for_each_position():
    model = chain(
        (5, 4, 3),
        layers.Conv2D(6, 3, name="a"),
        layers.Flatten(),
        layers.BatchNormalization(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_batch_normalization_on_an_axis_that_no_unit_stands_on():
    model = chain(
        (5, 3),
        layers.Dense(6, name="a"),
        layers.BatchNormalization(axis=1),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_batch_normalization_before_any_unit():
    model = chain(
        (5, 3), layers.BatchNormalization(), layers.Dense(6, name="a"), layers.Dense(2, name="out")
    )
    check_removal(model, {"a": [0, 4]})


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_batch_normalization_of_a_padded_image(data_format):
    """The border of a channel that goes is 0 before, and the channel's shift behind: it goes too."""
    first = data_format == "channels_first"
    model = chain(
        (3, 5, 24) if first else (5, 6, 3),
        layers.Conv2D(6, 2, name="a", data_format=data_format),
        layers.ZeroPadding2D(1, data_format=data_format),
        layers.BatchNormalization(axis=1 if first else -1),
        layers.Flatten(data_format=data_format),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


MIXING = {
    "layer": lambda: layers.LayerNormalization(name="norm"),
    "layer, no scale": lambda: layers.LayerNormalization(scale=False, center=False, name="norm"),
    "layer, two axes": lambda: layers.LayerNormalization(axis=[1, 2], name="norm"),
    "rms": lambda: layers.RMSNormalization(name="norm"),
    "one group": lambda: layers.GroupNormalization(groups=1, name="norm"),
    "two groups": lambda: layers.GroupNormalization(groups=2, name="norm"),
}


@pytest.mark.parametrize("kind", MIXING)
def test_a_statistic_over_units_makes_a_removal_inexact(kind):
    """It loads and counts right; the oracle finds too that every output depends on what went."""
    model = chain((5, 3), layers.Dense(8, name="a"), MIXING[kind](), layers.Dense(2, name="out"))
    removal = Removal(model, {"a": [0, 4]})
    removal.check_counts()
    assert not removal.report.exact
    assert [note.layer for note in removal.report.notes if note.kind == "inexact"] == ["norm"]
    (output,) = MaskedOriginal(removal.original, removal.report.changed)(removal.inputs)
    assert output.gone.all()


@pytest.mark.parametrize("kind", MIXING)
def test_units_that_are_not_normalised_go_exactly(kind):
    model = chain(
        (5, 3),
        layers.Dense(8, name="a"),
        layers.Dense(8, name="b"),
        MIXING[kind](),
        layers.Dense(6, name="c"),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4], "c": [1]})


def test_layer_normalization_on_an_axis_without_units_is_exact():
    model = chain(
        (5, 3),
        layers.Dense(8, name="a"),
        layers.LayerNormalization(axis=1),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_a_group_for_each_channel_is_exact():
    """Instance normalisation: groups=-1 counts the channels, however many there are."""
    model = chain(
        (7, 7, 3),
        layers.Conv2D(6, 3, name="a"),
        layers.GroupNormalization(groups=-1),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_a_group_for_each_channel_by_number_is_exact():
    model = chain(
        (7, 7, 3),
        layers.Conv2D(6, 3, name="a"),
        layers.GroupNormalization(groups=6),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


def test_groups_stay_equal():
    model = chain(
        (5, 3),
        layers.Dense(8, name="a"),
        layers.GroupNormalization(groups=2, name="norm"),
        layers.Dense(2, name="out"),
    )
    with pytest.raises(CannotPruneError, match="uneven"):
        Removal(model, {"a": [0, 1]})


def test_a_whole_group_is_exact():
    """Its mean and variance are its own."""
    model = chain(
        (5, 3),
        layers.Dense(8, name="a"),
        layers.GroupNormalization(groups=2),
        layers.Dense(2, name="out"),
    )
    removal = Removal(model, {"a": [4, 5, 6, 7]})
    removal.check_counts()
    removal.check_outputs()


def adapted(shape, **options):
    norm = layers.Normalization(**options)
    norm.adapt(np.random.default_rng(3).normal(1.0, 2.0, (20, *shape)).astype("float32"))
    return norm


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), None])
@pytest.mark.parametrize("invert", [True, False])
def test_normalization_with_statistics_that_were_adapted(axis, invert):
    model = chain(
        (5, 3),
        layers.Dense(6, name="a"),
        adapted((5, 6), axis=axis, invert=invert),
        layers.Flatten(),
        layers.Dense(2, name="out"),
    )
    check_removal(model, {"a": [0, 4]})


@pytest.mark.parametrize("invert", [True, False])
@pytest.mark.parametrize(
    ("axis", "mean"),
    [
        (-1, [0.1, -0.2, 0.3, 0.4, -0.5, 0.6]),
        (-1, 0.3),
        (None, 0.3),
        ((1, 2), [0.1, -0.2, 0.3, 0.4, -0.5, 0.6]),
        ((1, 2), np.linspace(-1, 1, 30).reshape(5, 6).tolist()),
        (1, [0.1, -0.2, 0.3, 0.4, -0.5]),
    ],
    ids=[
        "channels",
        "channels, one number",
        "one number",
        "two axes, one given",
        "two axes",
        "time",
    ],
)
def test_normalization_with_numbers_in_the_config(axis, mean, invert):
    variance = (np.abs(np.asarray(mean)) + 0.4).tolist()
    norm = layers.Normalization(axis=axis, mean=mean, variance=variance, invert=invert)
    model = chain(
        (5, 3), layers.Dense(6, name="a"), norm, layers.Flatten(), layers.Dense(2, name="out")
    )
    check_removal(model, {"a": [0, 4]})


def test_normalization_of_the_inputs():
    model = chain((5, 3), adapted((5, 3)), layers.Dense(6, name="a"), layers.Dense(2, name="out"))
    check_removal(model, {"a": [0, 4]})
