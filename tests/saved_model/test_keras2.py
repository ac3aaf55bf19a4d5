"""SavedModels that tf_keras wrote come back as models that tf_keras loads."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import kprune
from kprune.errors import CannotPruneError, FileError, FrozenUnitsError, KpruneError, SetupError
from kprune.saved_model.files import contents, graph_check
from tests.saved_model.plain import random_free_units

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


def compiled():
    model = sequential()
    model.compile("adam", loss="mse")
    return model


def swish():
    """Activations with a gradient of their own, a function that waits for its arguments."""
    return keras.Sequential(
        [
            keras.layers.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="swish", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="silu", name="silu"),
            keras.layers.Dense(5, activation="gelu", name="gelu"),
            keras.layers.Dense(3, name="last"),
        ]
    )


MODELS = {
    make.__name__: make for make in (sequential, functional, residual, nested, swish, compiled)
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


# That the state of `compile` comes along is held below.
NIGHTLY = pytest.param("compiled", marks=pytest.mark.nightly)


@pytest.mark.parametrize("name", [*(name for name in MODELS if name != "compiled"), NIGHTLY])
def test_a_keras_2_model_is_one_afterwards_and_equals_the_masked_one(tmp_path, name):
    import tensorflow as tf

    model = randomised(MODELS[name]())
    model.save(tmp_path / "model", save_format="tf")
    units = random_free_units(tmp_path / "model")
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


def test_functions_that_wait_for_an_argument_do_not_contradict_themselves(tmp_path):
    swish().save(tmp_path / "model", save_format="tf")
    found = contents.read(tmp_path / "model")
    assert any(
        f"^{arg.name}" in node.input
        for function in found.meta.graph_def.library.function
        for arg in function.signature.input_arg
        for node in function.node_def
    )
    assert graph_check.complaints(found) == []


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


def test_a_vocabulary_that_only_the_graph_knows_is_refused(tmp_path):
    inputs = keras.Input((1,), dtype="string")
    adapted = keras.layers.StringLookup(output_mode="one_hot")
    adapted.adapt([["a"], ["b"]])
    model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(adapted(inputs)))
    model.save(tmp_path / "model", save_format="tf")
    with pytest.raises(CannotPruneError, match="table"):
        kprune.remove(tmp_path / "model", {"dense": [0]}, output=tmp_path / "small")


def described(folder, change):
    """Change what the file says of its model."""
    from tensorflow.python.keras.protobuf import saved_metadata_pb2

    path = folder / "keras_metadata.pb"
    proto = saved_metadata_pb2.SavedMetadata.FromString(path.read_bytes())
    root = next(node for node in proto.nodes if node.node_path == "root")
    said = json.loads(root.metadata)
    root.metadata = json.dumps(change(said))
    path.write_bytes(proto.SerializeToString())


def wider(said):
    said["model_config"]["config"]["layers"][1]["config"]["units"] = 10**11
    return said


def narrower(said):
    said["model_config"]["config"]["layers"][1]["config"]["units"] = 15
    return said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (wider, "more values than there are"),
        (narrower, "contradicts itself|does not build"),
        (lambda said: {**said, "model_config": ["x"]}, "does not say what model it is"),
        (lambda said: {"class_name": "Functional"}, "does not say what model it is"),
        (lambda said: {**said, "model_config": {"class_name": "Nothing", "config": {}}}, "Nothing"),
        (lambda said: [], "damaged"),
        (lambda said: 7, "damaged"),
    ],
)
def test_a_description_that_does_not_fit_the_variables_is_damage(tmp_path, change, told):
    functional().save(tmp_path / "model", save_format="tf")
    described(tmp_path / "model", change)
    with pytest.raises(KpruneError, match=told) as refused:
        kprune.inspect(tmp_path / "model")
    assert refused.value.exit_code in (3, 4) and "model" in str(refused.value)


def test_verify_knows_what_masks_mean_and_sees_that_other_units_are_masked(tmp_path):
    randomised(functional()).save(tmp_path / "model", save_format="tf")
    kprune.mask(tmp_path / "model", {"a": [0, 5]}, output=tmp_path / "masked")
    found = kprune.verify(tmp_path / "model", tmp_path / "masked")
    assert found.passed and found.against == "masked original"
    note = tmp_path / "masked" / "assets.extra" / "kprune.json"
    note.write_text(note.read_text().replace("[0, 5]", "[0, 4]"))
    assert not kprune.verify(tmp_path / "model", tmp_path / "masked").passed


# -- code that is not Keras's own -----------------------------------------------------------------


def behind_a_dense(layer, folder):
    """dense → layer → last, saved."""
    inputs = keras.Input((4,))
    x = layer(keras.layers.Dense(3, name="dense")(inputs))
    model = randomised(keras.Model(inputs, keras.layers.Dense(5, name="last")(x)))
    model.save(folder, save_format="tf")
    return model


def small_equals_sliced(model, folder, gone, **reading):
    """`last` without some classes gives the others as before."""
    report = kprune.remove(folder, {"last": gone}, output=folder.parent / "small", **reading)
    assert report.changed == {"last": gone}
    x = np.random.default_rng(2).normal(size=(6, 4)).astype("float32")
    small = keras.models.load_model(folder.parent / "small")
    expected = np.delete(np.asarray(model(x)), gone, axis=1)
    np.testing.assert_allclose(np.asarray(small(x)), expected, rtol=1e-5, atol=1e-6)
    assert kprune.verify(folder, folder.parent / "small", **reading).passed


def test_the_code_of_a_lambda_layer_runs_only_in_a_file_that_is_trusted(tmp_path):
    model = behind_a_dense(keras.layers.Lambda(lambda t: t * 2, name="twice"), tmp_path / "model")
    assert {layer.name for layer in kprune.inspect(tmp_path / "model").layers} >= {"twice", "last"}
    with pytest.raises(CannotPruneError) as refused:
        kprune.remove(tmp_path / "model", {"last": [0]})
    assert "'twice' runs Python bytecode" in refused.value.where and "--trust" in refused.value.do
    assert os.listdir(tmp_path) == ["model"]
    small_equals_sliced(model, tmp_path / "model", [0, 3], trust=True)
    with pytest.raises(FrozenUnitsError, match="Lambda"):
        kprune.remove(tmp_path / "model", {"dense": [0]}, output=tmp_path / "no", trust=True)


PACKAGE = """
import tf_keras

@tf_keras.saving.register_keras_serializable("PACKAGE")
class Gain(tf_keras.layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=shape[-1:], initializer="ones")

    def call(self, x):
        return x * self.gain
"""


@pytest.mark.parametrize("how", ["a package that the file names", "a file with rules"])
def test_a_class_from_elsewhere_needs_trust_or_a_file_that_registers_it(tmp_path, monkeypatch, how):
    name = f"gains_{len(how)}"
    (tmp_path / "code").mkdir()
    code = tmp_path / "code" / f"{name}.py"
    code.write_text(PACKAGE.replace("PACKAGE", name))
    held = {}
    exec(code.read_text(), held)
    model = behind_a_dense(held["Gain"](name="gain"), tmp_path / "model")
    del keras.utils.get_custom_objects()[f"{name}>Gain"]

    assert {layer.name for layer in kprune.inspect(tmp_path / "model").layers} >= {"gain", "last"}
    with pytest.raises(CannotPruneError) as refused:
        kprune.remove(tmp_path / "model", {"last": [0]}, output=tmp_path / "small")
    assert f"{name}>Gain" in refused.value.where and "--trust" in refused.value.do
    with pytest.raises(SetupError, match=f"cannot import {name}") as refused:
        kprune.remove(tmp_path / "model", {"last": [0]}, output=tmp_path / "small", trust=True)
    assert "--rules" in refused.value.do and not (tmp_path / "small").exists()

    if how == "a file with rules":
        reading = {"rules": [str(code)]}
    else:
        monkeypatch.syspath_prepend(code.parent)
        reading = {"trust": True}
    small_equals_sliced(model, tmp_path / "model", [1], **reading)


def test_a_damaged_shard_is_refused(tmp_path):
    sequential().save(tmp_path / "model", save_format="tf")
    shard = tmp_path / "model" / "variables" / "variables.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    with pytest.raises(FileError):
        kprune.remove(tmp_path / "model", {"conv": [0]}, output=tmp_path / "small")
    assert os.listdir(tmp_path) == ["model"]
