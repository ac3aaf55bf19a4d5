"""Every layer that Keras exports has an answer, and the answer is right.

The first tests enumerate what the installed Keras has. The last builds one model for each class,
with units before and after it, and lets `zeroed.py` compare.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kprune.graph.order import PYTHON_NAMES, snake_case
from kprune.rules import builtin
from tests.oracle.zeroed import check_random_removal

pytestmark = pytest.mark.oracle


def exported() -> dict[str, type]:
    """The classes in keras.layers, each under its first name: Conv2D, not Convolution2D."""
    found: dict[str, type] = {}
    for name, value in vars(layers).items():
        if inspect.isclass(value) and issubclass(value, layers.Layer):
            # A class is saved under the shortest of the names that it is exported under.
            known = next((other for other, held in found.items() if held is value), None)
            if known is None:
                found[name] = value
            elif value.__name__ == name:
                found[name] = found.pop(known)
    return found


def operations() -> Iterator[type]:
    """Every class of nodes that keras.ops puts into a graph."""
    package = importlib.import_module("keras.src.ops")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.endswith("_test"):
            continue
        for value in vars(importlib.import_module(f"keras.src.ops.{module.name}")).values():
            if not inspect.isclass(value) or not issubclass(value, keras.Operation):
                continue
            if value is not keras.Operation and value.__module__.startswith("keras.src.ops"):
                yield value


def test_every_layer_has_an_answer() -> None:
    known = builtin().layers
    names = {
        name
        for name, value in vars(layers).items()
        if inspect.isclass(value) and issubclass(value, layers.Layer)
    }
    assert len(names) > 150
    assert sorted(names - set(known)) == []


def test_every_operation_with_a_node_class_has_an_answer() -> None:
    known = builtin().operations
    names = {value.__name__ for value in operations()}
    assert len(names) > 300
    assert sorted(names - set(known)) == []


def test_weights_are_stored_under_the_python_name_of_a_class() -> None:
    """The config has the name under which a class is exported, the weights file the Python one."""
    for value in exported().values():
        name = saved_name(value)
        stored = keras.src.utils.naming.to_snake_case(value.__name__)
        assert snake_case(PYTHON_NAMES.get(name, name)) == stored, name


def saved_name(value: type) -> str:
    """The class name that Keras writes into a config."""
    from keras.src.api_export import get_name_from_symbol

    return str(get_name_from_symbol(value)).rpartition(".")[2]


# -- one model for each class ---------------------------------------------------------------------

VECTOR, SEQUENCE, IMAGE, VOLUME = 1, 2, 3, 4
UNITS = 8

Call = Callable[[Any], Any]


def units_of(rank: int, name: str = "before") -> tuple[Any, Any]:
    """An input and eight units on it."""
    if rank == VECTOR:
        x = keras.Input((5,))
        return x, layers.Dense(UNITS, name=name)(x)
    if rank == SEQUENCE:
        x = keras.Input((6, 5))
        return x, layers.Dense(UNITS, name=name)(x)
    kind = layers.Conv2D if rank == IMAGE else layers.Conv3D
    x = keras.Input((6,) * (rank - 1) + (2,))
    return x, kind(UNITS, 3, padding="same", name=name)(x)


def plain(name: str, rank: int, /, *args: Any, **kwargs: Any) -> tuple[int, Call]:
    return rank, lambda x: getattr(layers, name)(*args, **kwargs)(x)


def several(name: str, rank: int, /, **kwargs: Any) -> tuple[int, Call]:
    """Called on a list of two tensors of the same shape."""

    def call(x: Any) -> Any:
        return getattr(layers, name)(**kwargs)([x, layers.Dense(UNITS)(x)])

    return rank, call


MODELS: dict[str, tuple[int, Call]] = {
    "Activation": plain("Activation", SEQUENCE, "tanh"),
    "ActivityRegularization": plain("ActivityRegularization", VECTOR),
    "AlphaDropout": plain("AlphaDropout", VECTOR, 0.3),
    "BatchNormalization": plain("BatchNormalization", IMAGE),
    "CenterCrop": plain("CenterCrop", IMAGE, 4, 3),
    "Cropping1D": plain("Cropping1D", SEQUENCE, 1),
    "Cropping2D": plain("Cropping2D", IMAGE, 1),
    "Cropping3D": plain("Cropping3D", VOLUME, 1),
    "Dropout": plain("Dropout", VECTOR, 0.3),
    "ELU": plain("ELU", VECTOR),
    "Flatten": plain("Flatten", IMAGE),
    "GaussianDropout": plain("GaussianDropout", VECTOR, 0.3),
    "GaussianNoise": plain("GaussianNoise", VECTOR, 0.3),
    "GroupNormalization": plain("GroupNormalization", IMAGE, groups=2),
    "Identity": plain("Identity", VECTOR),
    "LayerNormalization": plain("LayerNormalization", SEQUENCE),
    "LeakyReLU": plain("LeakyReLU", VECTOR),
    "Masking": (SEQUENCE, lambda x: layers.LSTM(4)(layers.Masking()(x))),
    "Normalization": plain(
        "Normalization", VECTOR, mean=list(np.linspace(0, 1, 8)), variance=[2.0] * 8
    ),
    "PReLU": plain("PReLU", IMAGE, shared_axes=[1, 2]),
    "Permute": plain("Permute", SEQUENCE, (2, 1)),
    "RMSNormalization": plain("RMSNormalization", SEQUENCE),
    "RandomBrightness": plain("RandomBrightness", IMAGE, 0.1),
    "RandomContrast": plain("RandomContrast", IMAGE, 0.1),
    # At inference its shape and its call disagree unless pictures have that size already.
    "RandomCrop": plain("RandomCrop", IMAGE, 6, 6),
    "RandomElasticTransform": plain("RandomElasticTransform", IMAGE),
    "RandomErasing": plain("RandomErasing", IMAGE),
    "RandomFlip": plain("RandomFlip", IMAGE),
    "RandomGaussianBlur": plain("RandomGaussianBlur", IMAGE),
    "RandomInvert": plain("RandomInvert", IMAGE),
    "RandomPerspective": plain("RandomPerspective", IMAGE),
    "RandomRotation": plain("RandomRotation", IMAGE, 0.1),
    "RandomSharpness": plain("RandomSharpness", IMAGE, 0.1),
    "RandomShear": plain("RandomShear", IMAGE),
    "RandomTranslation": plain("RandomTranslation", IMAGE, 0.1, 0.1),
    "RandomZoom": plain("RandomZoom", IMAGE, 0.1),
    "ReLU": plain("ReLU", VECTOR, max_value=1.0),
    "RepeatVector": plain("RepeatVector", VECTOR, 3),
    "Rescaling": plain("Rescaling", IMAGE, 0.5, offset=0.1),
    "Reshape": plain("Reshape", SEQUENCE, (3, 2, 8)),
    "Resizing": plain("Resizing", IMAGE, 3, 4),
    "Softmax": plain("Softmax", SEQUENCE),
    "SpatialDropout1D": plain("SpatialDropout1D", SEQUENCE, 0.3),
    "SpatialDropout2D": plain("SpatialDropout2D", IMAGE, 0.3),
    "SpatialDropout3D": plain("SpatialDropout3D", VOLUME, 0.3),
    "UnitNormalization": plain("UnitNormalization", SEQUENCE),
    "UpSampling1D": plain("UpSampling1D", SEQUENCE),
    "UpSampling2D": plain("UpSampling2D", IMAGE),
    "UpSampling3D": plain("UpSampling3D", VOLUME),
    "ZeroPadding1D": plain("ZeroPadding1D", SEQUENCE),
    "ZeroPadding2D": plain("ZeroPadding2D", IMAGE),
    "ZeroPadding3D": plain("ZeroPadding3D", VOLUME),
    # Merging
    **{
        name: several(name, SEQUENCE)
        for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
    },
    "Dot": several("Dot", SEQUENCE, axes=-1),
    "Attention": several("Attention", SEQUENCE, use_scale=True),
    "AdditiveAttention": several("AdditiveAttention", SEQUENCE),
    # Layers with units
    "Dense": plain("Dense", SEQUENCE, 6, activation="relu"),
    "EinsumDense": plain(
        "EinsumDense", SEQUENCE, "abc,cde->abde", output_shape=(6, 3, 4), bias_axes="de"
    ),
    "Conv1D": plain("Conv1D", SEQUENCE, 6, 3, dilation_rate=2),
    "Conv2D": plain("Conv2D", IMAGE, 6, 3, groups=2),
    "Conv3D": plain("Conv3D", VOLUME, 6, 3),
    "Conv1DTranspose": plain("Conv1DTranspose", SEQUENCE, 6, 3, strides=2),
    "Conv2DTranspose": plain("Conv2DTranspose", IMAGE, 6, 3, strides=2),
    "Conv3DTranspose": plain("Conv3DTranspose", VOLUME, 6, 3),
    "DepthwiseConv1D": plain("DepthwiseConv1D", SEQUENCE, 3, depth_multiplier=2),
    "DepthwiseConv2D": plain("DepthwiseConv2D", IMAGE, 3, depth_multiplier=2),
    "SeparableConv1D": plain("SeparableConv1D", SEQUENCE, 6, 3),
    "SeparableConv2D": plain("SeparableConv2D", IMAGE, 6, 3, depth_multiplier=2),
    "SimpleRNN": plain("SimpleRNN", SEQUENCE, 6, return_sequences=True),
    "LSTM": plain("LSTM", SEQUENCE, 6, return_sequences=True),
    "GRU": plain("GRU", SEQUENCE, 6),
    "RNN": (
        SEQUENCE,
        lambda x: layers.RNN([layers.LSTMCell(5), layers.GRUCell(4), layers.SimpleRNNCell(6)])(x),
    ),
    "ConvLSTM1D": (VECTOR, lambda x: layers.ConvLSTM1D(5, 2)(layers.Reshape((2, 2, 2))(x))),
    "ConvLSTM2D": (IMAGE, lambda x: layers.ConvLSTM2D(5, 2)(layers.Reshape((3, 2, 6, 8))(x))),
    "ConvLSTM3D": (VOLUME, lambda x: layers.ConvLSTM3D(4, 2)(layers.Reshape((2, 3, 6, 6, 8))(x))),
    "MultiHeadAttention": (
        SEQUENCE,
        lambda x: layers.MultiHeadAttention(3, 4, value_dim=5)(x, layers.Dense(7)(x)),
    ),
    "GroupQueryAttention": (SEQUENCE, lambda x: layers.GroupQueryAttention(4, 6, 3)(x, x)),
    # Wrappers
    "Bidirectional": (
        SEQUENCE,
        lambda x: layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x),
    ),
    "TimeDistributed": (SEQUENCE, lambda x: layers.TimeDistributed(layers.Dense(6))(x)),
    "SpectralNormalization": (VECTOR, lambda x: layers.SpectralNormalization(layers.Dense(6))(x)),
    # Pooling
    **{
        f"{how}Pooling{rank - 1}D": plain(f"{how}Pooling{rank - 1}D", rank, 2)
        for how in ("Average", "Max", "AdaptiveAverage", "AdaptiveMax")
        for rank in (SEQUENCE, IMAGE, VOLUME)
    },
    **{
        f"Global{how}Pooling{rank - 1}D": plain(f"Global{how}Pooling{rank - 1}D", rank)
        for how in ("Average", "Max")
        for rank in (SEQUENCE, IMAGE, VOLUME)
    },
    # Answers that say no
    "AugMix": plain("AugMix", IMAGE),
    "AutoContrast": plain("AutoContrast", IMAGE),
    "Discretization": plain("Discretization", VECTOR, bin_boundaries=[0.0, 0.5]),
    "Solarization": plain("Solarization", IMAGE),
}

# Nothing that could be pruned reaches these, or Keras does not save them by themselves.
NOT_BUILT = {
    "pictures of three colours only": "ContrastLimitedAdaptiveHistogramEqualization CutMix "
    "Equalization MixUp RandAugment RandomColorDegeneration RandomColorJitter RandomGrayscale "
    "RandomHue RandomPosterization RandomSaturation",
    "boxes beside pictures": "MaxNumBoundingBoxes",
    "strings and integers": "CategoryEncoding HashedCrossing Hashing IntegerLookup StringLookup "
    "TextVectorization",
    "sound": "MelSpectrogram STFTSpectrogram",
    "programs of other frameworks": "FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper Lambda",
    "bases and parts of others": "Layer Wrapper Pipeline LSTMCell GRUCell SimpleRNNCell "
    "StackedRNNCells",
    "inputs and tokens, tested below": "InputLayer Embedding ReversibleEmbedding",
}


def test_every_layer_is_built_here_or_said_not_to_be() -> None:
    names = {saved_name(value) for value in exported().values()}
    left_out = {name for listed in NOT_BUILT.values() for name in listed.split()}
    assert not left_out & set(MODELS)
    assert sorted(names - set(MODELS) - left_out) == []


def model_of(name: str) -> Any:
    rank, call = MODELS[name]
    x, y = units_of(rank)
    y = call(y)
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))


MIXED = {"GroupNormalization", "LayerNormalization", "RMSNormalization", "Softmax"}
OPAQUE = {"AugMix", "AutoContrast", "Discretization", "Solarization"}


@pytest.mark.parametrize("name", sorted(set(MODELS) - OPAQUE))
def test_what_is_removed_around_a_layer_equals_what_is_zeroed(name: str) -> None:
    outcome = check_random_removal(model_of(name), exact=name not in MIXED)
    assert not outcome.opaque
    if name != "Concatenate":
        assert "before" in outcome.report.changed or outcome.free["before"] == 0


@pytest.mark.parametrize("name", sorted(OPAQUE))
def test_nothing_goes_through_a_layer_whose_answer_is_no(name: str) -> None:
    with pytest.raises(AssertionError, match="nothing that could go"):
        check_random_removal(model_of(name))


@pytest.mark.parametrize("tie", [True, False])
def test_a_reversible_embedding_is_cut_on_its_way_in_and_out(tie: bool) -> None:
    tokens = keras.Input((4,), dtype="int32")
    embedding = layers.ReversibleEmbedding(9, UNITS, tie_weights=tie)
    y = layers.Add()([layers.Dense(UNITS)(embedding(tokens)), embedding(tokens)])
    outcome = check_random_removal(keras.Model(tokens, embedding(y, reverse=True)))
    assert {n for name, n in outcome.free.items() if not name.endswith(".tokens")} == {UNITS}


def test_an_embedding_is_cut_along_its_dimensions() -> None:
    tokens = keras.Input((4,), dtype="int32")
    y = layers.Embedding(9, UNITS)(tokens)
    check_random_removal(keras.Model(tokens, layers.Dense(2)(layers.Flatten()(y))))
