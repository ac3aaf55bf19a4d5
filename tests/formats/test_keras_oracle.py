"""Plain Keras loads what kprune wrote, and finds what it saved itself."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kprune.edit import Edit, TensorEdit
from kprune.formats import as_float, open_model, write_model
from tests.formats.making import edit_of, empty_edit

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def trained_cnn(keras: Any) -> tuple[Any, list[np.ndarray]]:
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="my_conv.1")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Bidirectional(layers.LSTM(3))(layers.Reshape((36, 6))(x))
    inner = keras.Sequential([layers.Dense(5, activation="relu"), layers.Dropout(0.1)])
    model = keras.Model(inputs, layers.Dense(2)(inner(x)))
    model.compile("adam", "mse", metrics=["mae"])
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 8, 8, 3)).astype("f4")
    model.fit(data, rng.normal(size=(16, 2)), verbose=0)
    return model, [data]


def bfloat16_mlp(keras: Any) -> tuple[Any, list[np.ndarray]]:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, dtype="bfloat16"), layers.Dense(2, dtype="float16")]
    )
    return model, [np.random.default_rng(0).normal(size=(5, 4)).astype("f4")]


def text_model(keras: Any) -> tuple[Any, list[np.ndarray]]:
    layers = keras.layers
    lookup = layers.TextVectorization(max_tokens=50, output_sequence_length=4)
    lookup.adapt(["a few words", "and some more"])
    words = keras.Input((1,), dtype="string")
    model = keras.Model(words, layers.Dense(2)(layers.Embedding(50, 3)(lookup(words))))
    import tensorflow as tf

    return model, [tf.constant([["some words"], ["none of them"]])]


def quantized(keras: Any) -> tuple[Any, list[np.ndarray]]:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dense(2)])
    model.quantize("int8")
    return model, [np.random.default_rng(0).normal(size=(5, 8)).astype("f4")]


MODELS = [trained_cnn, bfloat16_mlp, text_model, quantized]


def numbers(keras: Any, value: Any) -> np.ndarray:
    """A variable's or a tensor's numbers as float32."""
    array = keras.ops.convert_to_numpy(value)
    return np.asarray(array, "f4") if array.dtype.name == "bfloat16" else array


def described(weights: bytes) -> dict[str, Any]:
    """Every object of a weights file with its type, shape, attributes and bytes."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        found[name] = (
            {key: str(value) for key, value in item.attrs.items()},
            (item.shape, item.dtype, item.id.get_type().encode(), item[...].tobytes())
            if isinstance(item, h5py.Dataset)
            else None,
        )

    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(visit)
    return found


def names_in(weights: bytes) -> dict[str, str]:
    return {
        path: attributes["name"]
        for path, (attributes, _) in described(weights).items()
        if "name" in attributes
    }


@pytest.mark.parametrize("make", MODELS)
def test_a_copy_loads_and_predicts_the_same(keras: Any, tmp_path: Path, make: Any) -> None:
    model, inputs = make(keras)
    saved, copied = tmp_path / "saved.keras", tmp_path / "copied.keras"
    model.save(saved)
    with zipfile.ZipFile(saved) as archive:
        before = archive.read("model.weights.h5")
        with open_model(saved) as source:
            write_model(source, edit_of(source, names=lambda: names_in(before)), copied)
        with zipfile.ZipFile(copied) as copy:
            assert copy.namelist() == archive.namelist()
            for name in archive.namelist():
                if name != "model.weights.h5":
                    assert copy.read(name) == archive.read(name), name
            after = copy.read("model.weights.h5")
    assert described(after) == described(before)
    assert len(after) <= len(before)

    loaded = keras.models.load_model(copied)
    for old, new in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numbers(keras, old), numbers(keras, new))
    if getattr(model, "optimizer", None):
        assert loaded.optimizer.iterations == model.optimizer.iterations > 0
        pairs = zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
        assert all(np.array_equal(numbers(keras, old), numbers(keras, new)) for old, new in pairs)
    np.testing.assert_array_equal(*(numbers(keras, m(*inputs)) for m in (model, loaded)))


def test_a_folder_loads_as_well(keras: Any, tmp_path: Path) -> None:
    model, inputs = text_model(keras)
    keras.saving.save_model(model, tmp_path / "saved", zipped=False)
    with open_model(tmp_path / "saved") as source:
        write_model(source, empty_edit(source), tmp_path / "copied")
    loaded = keras.models.load_model(tmp_path / "copied")
    np.testing.assert_array_equal(*(numbers(keras, m(*inputs)) for m in (model, loaded)))
    assert sorted(os.listdir(tmp_path / "copied")) == sorted(os.listdir(tmp_path / "saved"))


def test_cut_weights_load_into_a_smaller_layer(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(2)])
    model.save(tmp_path / "saved.keras")
    keep = np.array([0, 2, 3, 5, 7])
    with open_model(tmp_path / "saved.keras") as source:
        config = source.config
        first, second = config["config"]["layers"][1:]
        first["config"]["units"] = 5
        first.pop("build_config")
        second["build_config"]["input_shape"][-1] = 5
        edits = (
            TensorEdit("layers/dense/vars/0", "layers/dense/vars/0", (None, keep)),
            TensorEdit("layers/dense/vars/1", "layers/dense/vars/1", (keep,)),
            TensorEdit("layers/dense_1/vars/0", "layers/dense_1/vars/0", (keep, None)),
        )
        write_model(source, Edit(config, source.metadata, edits), tmp_path / "cut.keras")
    loaded = keras.models.load_model(tmp_path / "cut.keras")
    kernel, bias, kernel2, bias2 = model.get_weights()
    expected = [kernel[:, keep], bias[keep], kernel2[keep], bias2]
    for found, wanted in zip(loaded.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_bfloat16_reads_as_the_numbers_that_keras_holds(keras: Any, tmp_path: Path) -> None:
    model, _ = bfloat16_mlp(keras)
    model.save(tmp_path / "saved.keras")
    with open_model(tmp_path / "saved.keras") as source:
        kernel = source.read("layers/dense/vars/0")
        assert kernel.dtype == np.dtype("V2")
        np.testing.assert_array_equal(as_float(kernel), numbers(keras, model.weights[0]))
