"""Exports of keras.applications at small input sizes lose a third of their free units."""

from __future__ import annotations

import numpy as np
import pytest

import kprune
from tests.saved_model import making, plain

pytestmark = pytest.mark.oracle

SIZES = {
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "DenseNet121": 64,
    "InceptionV3": 96,
    "Xception": 96,
    "NASNetMobile": 64,
    "ConvNeXtTiny": 64,
}


def application(name, size, **options):
    """An architecture with weights near those that layers start with: far from them the signal of a
    deep net is lost or explodes."""
    import keras

    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(size, size, 3), classes=10, **options)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "variance" in variable.path:
            variable.assign(np.abs(rng.normal(size=variable.shape)) + 0.5)
        elif len(variable.shape) == 1:
            variable.assign(variable.numpy() + rng.normal(size=variable.shape) * 0.1)
    return model


def test_a_mobile_net_loses_a_third_of_its_free_units(tmp_path):
    """Its first blocks; the whole of each architecture takes a night."""
    import keras

    whole = application("MobileNetV3Small", 32, alpha=0.5, minimalistic=True)
    x = keras.layers.GlobalAveragePooling2D()(whole.get_layer("expanded_conv_4_add").output)
    model = keras.Model(whole.input, keras.layers.Dense(10)(x))
    folder = making.export(model, tmp_path / "model")
    plain.removal_equals_masked_original(folder, tmp_path / "small")


@pytest.mark.nightly
@pytest.mark.parametrize("name", SIZES)
def test_an_architecture_loses_a_third_of_its_free_units_and_still_serves(tmp_path, name):
    """As a SavedModel, in Keras, in TFLite; and with the weights that the `.keras` file would keep."""
    folder, small = tmp_path / "model", tmp_path / "small"
    model = application(name, SIZES[name])
    model.save(tmp_path / "model.keras")
    making.export(model, folder)
    units = plain.random_free_units(folder, mixed=False)
    plain.removal_equals_masked_original(folder, small, units)
    # NASNet is built under scopes, which stand before the names of its layers in the variables' paths.
    named = {address.rpartition("/")[2]: indices for address, indices in units.items()}
    kprune.remove(tmp_path / "model.keras", named, output=tmp_path / "small.keras")
    assert plain.same_weights(tmp_path / "small.keras", small) > 20
    plain.serves_in_keras(small)
    plain.converts_to_less(folder, small, tolerance=1e-3)
