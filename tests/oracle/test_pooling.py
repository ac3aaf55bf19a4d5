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


def model(rank, data_format, pool, flatten=True):
    shape = (2, *EXTENTS[rank]) if data_format == "channels_first" else (*EXTENTS[rank], 2)
    end = [layers.Flatten(data_format=data_format)] if flatten else []
    return keras.Sequential(
        [
            keras.Input(shape),
            CONV[rank](5, 1, data_format=data_format, name="a"),
            pool,
            *end,
            layers.Dense(2, name="out"),
        ]
    )


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("padding", "strides"), [("valid", None), ("same", None), ("same", 1), ("valid", 3)]
)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_pooling(kind, rank, padding, strides, data_format):
    layer = getattr(layers, f"{kind}Pooling{rank}D")
    pool = layer(2, strides=strides, padding=padding, data_format=data_format)
    check_removal(model(rank, data_format, pool), {"a": [0, 3]})


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_global_pooling(kind, rank, keepdims, data_format):
    layer = getattr(layers, f"Global{kind}Pooling{rank}D")
    pool = layer(keepdims=keepdims, data_format=data_format)
    check_removal(model(rank, data_format, pool, flatten=keepdims), {"a": [0, 3]})


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
