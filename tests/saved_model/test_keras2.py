"""SavedModels that tf_keras wrote come back as models that tf_keras loads."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import kprune
from kprune.errors import CannotPruneError, FileError

pytestmark = pytest.mark.oracle
keras = pytest.importorskip("tf_keras")


def sequential():
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3, activation="relu", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu", name="dense"),
            keras.layers.Dense(3, name="last"),
        ]
    )


def functional():
    inputs = keras.Input((10,))
    x = keras.layers.Dense(16, activation="relu", name="a")(inputs)
    y = keras.layers.Dense(8, name="b")(x)
    z = keras.layers.Concatenate()([x, y])
    return keras.Model(
        inputs, [keras.layers.Dense(3, name="one")(z), keras.layers.Dense(2, name="two")(y)]
    )


def residual():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="conv_1")(inputs)
    y = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_2")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([x, y]))
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x))


def nested():
    inner = keras.Sequential(
        [keras.layers.Input((16,)), keras.layers.Dense(8, activation="relu", name="in")],
        name="inner",
    )
    inputs = keras.Input((10,))
    x = inner(keras.layers.Dense(16, name="outside")(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="last")(x))


MODELS = {
    "sequential": (sequential, {"conv": [1, 2], "dense": [0]}),
    "functional": (functional, {"a": [1, 4], "b": [2]}),
    "residual": (residual, {"conv_1": [1, 5]}),
    "nested": (nested, {"outside": [3], "inner/in": [1]}),
}


def randomised(model):
    rng = np.random.default_rng(0)
    for variable in model.weights:
        value = rng.normal(size=variable.shape) * 0.4
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def silenced(model, report):
    """The original with every slice that went set to 0."""
    rows = {(row.path.split("/")[-2], row.path.rpartition("/")[2]): row for row in report.weights}
    for variable in model.weights:
        layer, name = variable.name.split("/")[-2:]
        row = rows.pop((layer, name), None)
        if row is None:
            continue
        value = variable.numpy()
        for axis, kept in enumerate(row.kept):
            if kept is not None:
                index = [slice(None)] * value.ndim
                index[axis] = np.setdiff1d(np.arange(value.shape[axis]), kept)
                value[tuple(index)] = 0
        variable.assign(value)
    assert not rows
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_keras_2_model_is_one_afterwards_and_equals_the_masked_one(tmp_path, name):
    import tensorflow as tf

    make, units = MODELS[name]
    model = randomised(make())
    model.save(tmp_path / "model", save_format="tf")
    report = kprune.remove(tmp_path / "model", units, output=tmp_path / "small")
    small = keras.models.load_model(tmp_path / "small")
    assert type(small) is type(model)
    assert small.count_params() == report.output.parameters < model.count_params()
    x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")
    before = np.concatenate([np.asarray(y) for y in tf.nest.flatten(model(x))], -1)
    expected = np.concatenate(
        [np.asarray(y) for y in tf.nest.flatten(silenced(model, report)(x))], -1
    )
    got = np.concatenate([np.asarray(y) for y in tf.nest.flatten(small(x))], -1)
    assert np.abs(before - expected).max() > 1e-3
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    signature = tf.saved_model.load(str(tmp_path / "small")).signatures["serving_default"]
    (key,) = signature.structured_input_signature[1]
    served = signature(**{key: tf.constant(x)})
    served = np.concatenate([np.asarray(served[name]) for name in small.output_names], -1)
    np.testing.assert_allclose(served, got, rtol=1e-5, atol=1e-6)
    note = json.loads((tmp_path / "small" / "assets.extra" / "kprune.json").read_text())["kprune"]
    assert note["plan"]["steps"][0]["layers"] == units


def test_the_compile_state_comes_along_and_training_goes_on(tmp_path):
    import tensorflow as tf

    model = randomised(sequential())
    model.compile(
        "adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x, y = np.random.default_rng(0).normal(size=(32, 8, 8, 1)), np.arange(32) % 3
    model.fit(x, y, batch_size=8, verbose=0)
    model.save(tmp_path / "model", save_format="tf")
    kprune.remove(tmp_path / "model", {"conv": [1, 2], "dense": [0]}, output=tmp_path / "small")
    small = keras.models.load_model(tmp_path / "small")
    assert isinstance(small.optimizer, keras.optimizers.Adam)
    assert isinstance(small.loss, keras.losses.SparseCategoricalCrossentropy)
    stored = tf.train.load_checkpoint(str(tmp_path / "small" / "variables" / "variables"))
    assert stored.get_tensor("optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE") == 4
    assert small.fit(x, y, verbose=0).history["loss"]


def test_a_lambda_layer_is_refused_before_its_code_could_run(tmp_path):
    inputs = keras.Input((4,))
    x = keras.layers.Lambda(lambda t: t * 2, name="twice")(
        keras.layers.Dense(3, name="dense")(inputs)
    )
    keras.Model(inputs, keras.layers.Dense(2, name="last")(x)).save(
        tmp_path / "model", save_format="tf"
    )
    with pytest.raises(CannotPruneError, match="twice") as refused:
        kprune.remove(tmp_path / "model", {"dense": [0]}, output=tmp_path / "small")
    assert "bytecode" in refused.value.why
    assert os.listdir(tmp_path) == ["model"]


def test_a_damaged_shard_is_refused(tmp_path):
    sequential().save(tmp_path / "model", save_format="tf")
    shard = tmp_path / "model" / "variables" / "variables.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    with pytest.raises(FileError):
        kprune.remove(tmp_path / "model", {"conv": [0]}, output=tmp_path / "small")
    assert os.listdir(tmp_path) == ["model"]
