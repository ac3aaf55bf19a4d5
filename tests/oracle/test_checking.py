"""The table of weights that the last check goes by, held against what Keras saves.

A model as Keras wrote it gives no complaint, and no size of a weight is left open: so each size that
the walk asks for is the one that Keras has.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from kprune.checking.output import complaints
from kprune.checking.walk import Walk
from kprune.graph.parse import parse_model
from kprune.opened import open_model
from tests.oracle.test_applications import ALL, SMALL, build, build_small
from tests.rules.test_every_layer import MODELS, model_of

pytestmark = pytest.mark.oracle


def look(path: Path) -> tuple[list[str], set[str], list[str]]:
    """What the check finds: complaints, classes without an entry in its table, and sizes left open."""
    with open_model(path) as source:
        found = [complaint.text for complaint in complaints(source.outline())]
        model = parse_model(source.config)
        walk = Walk(model)
    known = [pair for layer in model.layers.values() for pair in walk.weights(layer)]
    unknown = {layer.kind for layer, weights in known if weights is None}
    left_open = [
        f"{layer.path}: {weight}"
        for layer, weights in known
        for weight in weights or ()
        if None in weight.shape
    ]
    return found, unknown, left_open


def check(
    model: Any, name: str, folder: Path, *, suffixes: tuple[str, ...] = (".keras", ".h5")
) -> None:
    for suffix in suffixes:
        path = folder / f"model{suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that .h5 is old
            model.save(path)
        found, _, left_open = look(path)
        assert (name, found, left_open) == (name, [], [])


def sequence() -> Any:
    return keras.Input((6, 5))


def attention() -> Any:
    x = sequence()
    attend = layers.MultiHeadAttention(2, 3, value_dim=4, use_gate=True, output_shape=(7,))
    mask = keras.ops.ones((1, 6, 6))
    return keras.Model(
        x, attend(x, layers.Dense(7)(x), key=layers.Dense(4)(x), attention_mask=mask)
    )


def cells() -> Any:
    x = sequence()
    stacked = layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], return_sequences=True)(x)
    both = layers.Bidirectional(layers.RNN(layers.GRUCell(3, reset_after=False)), merge_mode="sum")
    return keras.Model(x, layers.Dense(2)(both(stacked)))


def at_every_step() -> Any:
    frames = keras.Input((3, 8, 8, 2))
    picture = keras.Sequential(
        [keras.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten()]
    )
    return keras.Model(frames, layers.LSTM(4)(layers.TimeDistributed(picture)(frames)))


def partly_frozen() -> Any:
    x = keras.Input((5,))
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, trainable=False), layers.BatchNormalization()]
    )
    return keras.Model(x, layers.Dense(2)(inner(x)))


def never_told_its_input() -> Any:
    model = keras.Sequential([layers.Dense(4), layers.LSTM(3)])
    model.build((None, 6, 5))
    return model


def channels_first() -> Any:
    x = keras.Input((4, 8, 8))
    y = layers.Conv2D(6, 3, groups=2, data_format="channels_first")(x)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, data_format="channels_first")(y)
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))


def projections() -> Any:
    x = sequence()
    y = layers.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="e")(x)
    y = layers.EinsumDense("...c,cd->...d", 7, bias_axes="d")(y)
    return keras.Model(
        x, layers.Dot(1)([layers.Reshape((6, -1))(y), layers.Normalization(axis=1)(x)])
    )


def scaled_up() -> Any:
    x = keras.Input((None, None, 4))
    y = layers.Conv2DTranspose(5, 3, strides=2, output_padding=1)(x)
    y = layers.SpectralNormalization(layers.Conv2D(6, 3))(layers.UpSampling2D(2)(y))
    return keras.Model(
        x, layers.SeparableConv2D(3, 3, depth_multiplier=2)(layers.PReLU(shared_axes=(1, 2))(y))
    )


FURTHER: list[Callable[[], Any]] = [
    attention, cells, at_every_step, partly_frozen, never_told_its_input, channels_first, projections,
    scaled_up,
]  # fmt: skip


def test_what_keras_saves_is_what_the_table_asks_for(tmp_path: Path) -> None:
    for name in MODELS:
        check(model_of(name), name, tmp_path, suffixes=(".keras",))
    for further in FURTHER:
        check(further(), further.__name__, tmp_path)


def test_weights_in_another_form_are_passed_over(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(3)])
    for layer in model.layers:
        layer.quantize("int8")
    model.save(tmp_path / "whole.keras")
    assert look(tmp_path / "whole.keras") == ([], {"Dense"}, [])
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(3)])
    model.layers[0].enable_lora(2)  # a .keras file holds the sum, a legacy one the adapters as well
    check(model, "adapters", tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_each_kind_of_block_of_keras_applications_passes_as_it_is(
    name: str, tmp_path: Path
) -> None:
    check(build_small(name), name, tmp_path)


@pytest.mark.parametrize(
    "name",
    [name if name == "ResNet50" else pytest.param(name, marks=pytest.mark.nightly) for name in ALL],
)
def test_a_model_of_keras_applications_passes_as_it_is(name: str, tmp_path: Path) -> None:
    check(build(name), name, tmp_path)
    if name == "ResNet50":
        with open_model(tmp_path / "model.keras") as source:
            outline = source.outline()

        def once() -> float:
            start = time.process_time()
            complaints(outline)
            return time.process_time() - start

        median = statistics.median(once() for _ in range(5))
        print(f"\n{name} checked in {median * 1000:.1f} ms")
        assert median < 0.1  # 0.01 s where nothing else runs; the aim is 0.03 s


def test_what_keras_2_saves_is_what_the_table_asks_for(tmp_path: Path) -> None:
    from tests.formats.test_keras2 import network

    old = pytest.importorskip("tf_keras")
    x, (value, key) = old.Input((6, 5)), (old.layers.Dense(7), old.layers.Dense(4))
    attention = old.layers.MultiHeadAttention(2, 3)(x, value(x), key=key(x))
    for model in (network(old), old.Model(x, attention)):
        for suffix in (".keras", ".h5"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.save(tmp_path / f"model{suffix}")
            found, unknown, _ = look(tmp_path / f"model{suffix}")
            assert not found and unknown <= {"SlicingOpLambda"}
