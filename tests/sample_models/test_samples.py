"""The committed models are small, are what their script says, and really work."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from sample_models import make_models

LAYERS = {
    "digits_cnn": """
        conv_1 bn_1 relu_1  conv_2 bn_2 relu_2 pool  conv_3 bn_3 relu_3 flatten
        hidden dropout classes""",
    "digits_resnet": """
        stem_conv stem_bn stem_relu
        block_1_1_conv block_1_1_bn block_1_1_relu block_1_2_conv block_1_2_bn
        block_1_add block_1_out
        block_2_1_conv block_2_1_bn block_2_1_relu block_2_2_conv block_2_2_bn
        block_2_shortcut_conv block_2_shortcut_bn block_2_add block_2_out
        block_3_1_conv block_3_1_bn block_3_1_relu block_3_2_conv block_3_2_bn
        block_3_add block_3_out
        pool classes""",
    "digits_mlp": "flatten hidden_1 hidden_2 classes",
    "digits_lstm": "rows lstm gru classes",
}


def layer_names(path: Path) -> list[str]:
    config = json.loads(zipfile.ZipFile(path).read("config.json"))
    return [layer["config"]["name"] for layer in config["config"]["layers"]]


def weights(path: Path) -> h5py.File:
    return h5py.File(io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5")))


def documented(name: str) -> tuple[int, float]:
    """Parameters and accuracy of a sample, as the script's docstring states them."""
    row = re.search(
        rf"{name}\.keras .* ([\d,]+) +(0\.\d+) +\d+$", make_models.__doc__, re.MULTILINE
    )
    assert row, f"the docstring of make_models.py has no row for {name}"
    return int(row[1].replace(",", "")), float(row[2])


def test_the_folder_holds_what_the_script_makes(samples):
    made = {path.name for path in samples.iterdir() if path.suffix in {".keras", ".npz"}}
    assert made == {f"{name}.keras" for name in make_models.RECIPES} | {
        "digits_train.npz",
        "digits_test.npz",
    }


def test_all_samples_together_stay_below_3_megabytes(samples):
    assert sum(path.stat().st_size for path in samples.iterdir() if path.is_file()) < 3e6


@pytest.mark.parametrize("name", make_models.RECIPES)
def test_layers_have_the_names_that_the_readme_uses(samples, name):
    assert set(layer_names(samples / f"{name}.keras")) == {"image", *LAYERS[name].split()}


@pytest.mark.parametrize("name", make_models.RECIPES)
def test_a_sample_holds_the_moments_that_adam_had_reached(samples, name):
    with weights(samples / f"{name}.keras") as file:
        slots = file["optimizer/vars"]
        shapes = [slots[key].shape for key in sorted(slots, key=int)]
        moments = [np.abs(slots[key][()]).max() for key in sorted(slots, key=int)[2:]]
    assert shapes[:2] == [(), ()], "the step count and the learning rate come first"
    assert shapes[2::2] == shapes[3::2], "first and second moments alternate"
    assert np.count_nonzero(moments) == len(moments), "the model was trained"


def test_the_held_out_digits_are_those_that_no_sample_was_trained_on(samples):
    data, saved = make_models.digits(), np.load(samples / "digits_test.npz")
    assert saved["x"].shape == (450, 8, 8, 1) and saved["x"].dtype == np.float32
    assert saved["y"].shape == (450,) and saved["y"].dtype == np.int64
    np.testing.assert_array_equal(saved["x"], data.x_test)
    np.testing.assert_array_equal(saved["y"], data.y_test)
    assert len(data.x_train) + len(data.x_test) == 1797


@pytest.mark.oracle
@pytest.mark.parametrize("name", make_models.RECIPES)
def test_a_sample_loads_in_plain_keras_and_recognises_the_held_out_digits(samples, name):
    import keras

    model = keras.models.load_model(samples / f"{name}.keras")
    held_out = np.load(samples / "digits_test.npz")
    accuracy = model.evaluate(held_out["x"], held_out["y"], verbose=0, return_dict=True)["accuracy"]
    assert accuracy > 0.95
    # Two images of 450 may fall to the other side on a processor that rounds otherwise.
    assert (model.count_params(), pytest.approx(accuracy, abs=2.5 / 450)) == documented(name)


def test_the_mission_has_512_neurons_between_3136_rows_and_62_classes(mission):
    names = "input_layer conv2d max_pooling2d conv2d_1 max_pooling2d_1 flatten dense dense_1"
    assert layer_names(mission) == names.split()
    with weights(mission) as file:
        layers = ("conv2d", "conv2d_1", "dense", "dense_1")
        found = {f"{layer}/{i}": file[f"layers/{layer}/vars/{i}"] for layer in layers for i in "01"}
        shapes = {path: dataset.shape for path, dataset in found.items()}
        assert shapes == {
            "conv2d/0": (5, 5, 1, 32),
            "conv2d/1": (32,),
            "conv2d_1/0": (5, 5, 32, 64),
            "conv2d_1/1": (64,),
            "dense/0": (7 * 7 * 64, 512),
            "dense/1": (512,),
            "dense_1/0": (512, 62),
            "dense_1/1": (62,),
        }
        assert all(np.all(dataset[()] != 0) for dataset in found.values()), (
            "biases are random as well"
        )


@pytest.mark.oracle
def test_the_mission_is_the_same_each_time_whatever_was_built_before():
    import keras

    keras.layers.Dense(3)  # takes the name `dense`, were the names left to Keras
    one, two = make_models.mission_cnn(), make_models.mission_cnn()
    assert [weight.path for weight in one.weights] == [weight.path for weight in two.weights]
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.count_params() == 1_690_046
    assert make_models.mission_cnn(classes=10).count_params() == 1_663_370
