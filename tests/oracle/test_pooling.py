"""Pooling: channel by channel, in every rank and option."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kprune.errors import CannotPruneError
from tests.oracle.law import Removal, check_removal

pytestmark = pytest.mark.oracle

CONV = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
EXTENTS = {1: (24,), 2: (5, 24), 3: (4, 5, 24)}


def model(rank, data_format, pools):
    """Each way of pooling behind a convolution of its own, with an output of its own."""
    x = keras.Input((2, *EXTENTS[rank]) if data_format == "channels_first" else (*EXTENTS[rank], 2))
    outputs = []
    for number, pool in enumerate(pools):
        y = pool(CONV[rank](5, 1, data_format=data_format, name=f"a{number}")(x))
        if len(y.shape) > 2:
            y = layers.Flatten(data_format=data_format)(y)
        outputs.append(layers.Dense(2, name=f"out{number}")(y))
    return keras.Model(x, outputs)


def check(rank, data_format, pools):
    units = {f"a{number}": [0, 3] for number in range(len(pools))}
    assert check_removal(model(rank, data_format, pools), units).changed == units


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling(rank, data_format):
    kinds = [getattr(layers, f"{kind}Pooling{rank}D") for kind in ("Max", "Average")]
    ways = [("valid", None), ("same", None), ("same", 1), ("valid", 3)]
    pools = [
        kind(2, strides=strides, padding=padding, data_format=data_format)
        for kind in kinds
        for padding, strides in ways
    ]
    check(rank, data_format, pools)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pooling(rank, data_format):
    kinds = [getattr(layers, f"Global{kind}Pooling{rank}D") for kind in ("Max", "Average")]
    pools = [
        kind(keepdims=keepdims, data_format=data_format)
        for kind in kinds
        for keepdims in (True, False)
    ]
    check(rank, data_format, pools)


@pytest.mark.parametrize("pool", [layers.MaxPooling1D, layers.GlobalMaxPooling1D])
def test_units_on_an_axis_that_is_pooled(pool):
    """Pooling over units makes one number of several: they stay."""
    chain = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.Dense(6, name="a"),
            layers.Permute((2, 1)),
            pool(),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    with pytest.raises(CannotPruneError):
        Removal(chain, {"a": [1]})
