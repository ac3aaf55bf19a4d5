"""Exports of keras.applications at small input sizes lose a third of their free units."""

from __future__ import annotations

import numpy as np
import pytest

from tests.saved_model import making, plain

pytestmark = [pytest.mark.oracle, pytest.mark.nightly]

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


@pytest.mark.parametrize("name", SIZES)
def test_an_architecture_loses_a_third_of_its_free_units(tmp_path, name):
    import keras

    keras.utils.set_random_seed(0)
    size = SIZES[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        # Around what layers start with: far from it the signal of a deep net is lost or explodes.
        if "variance" in variable.path:
            variable.assign(np.abs(rng.normal(size=variable.shape)) + 0.5)
        elif len(variable.shape) == 1:
            variable.assign(variable.numpy() + rng.normal(size=variable.shape) * 0.1)
    plain.removal_equals_masked_original(
        making.export(model, tmp_path / "model"), tmp_path / "small"
    )
