"""What a SavedModel offers to callers: its signatures and its own functions; what layers have follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import kprune
from kprune.errors import CannotPruneError, UsageError
from tests.saved_model.plain import random_free_units
from tests.saved_model.test_keras2 import randomised

pytestmark = pytest.mark.oracle
keras = pytest.importorskip("tf_keras")


def convolutions():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, name="c1")(inputs)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="b1")(x))
    x = keras.layers.Flatten(name="flat")(keras.layers.Conv2D(6, 3, name="c2")(x))
    return keras.Model(inputs, keras.layers.Dense(4, name="d")(x))


def words(kind: str):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(20, 8, name="e")(inputs)
    x = getattr(keras.layers, kind)(6, name="r")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="d")(x))


def expected_of(model, report, x):
    """What the original gives once every slice that went is 0."""
    rows = {row.path: row for row in report.weights}
    before = model.get_weights()
    for variable in model.weights:
        row = rows.pop(variable.name.removesuffix(":0"), None)
        value = variable.numpy()
        for axis, kept in enumerate(row.kept if row is not None else ()):
            if kept is not None:
                index = [slice(None)] * value.ndim
                index[axis] = np.setdiff1d(np.arange(value.shape[axis]), kept)
                value[tuple(index)] = 0
        variable.assign(value)
    assert not rows
    result = model(x).numpy()
    model.set_weights(before)
    return result


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """As `tf.saved_model.save` writes a Keras 2 model: a graph, in which every layer has functions."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("saved") / "model"
    model = randomised(convolutions())
    tf.saved_model.save(model, str(folder))
    return model, folder


X = np.random.default_rng(3).normal(size=(2, 8, 8, 3)).astype("float32")


def test_functions_of_layers_freeze_nothing_and_go_on_fitting_together(saved, tmp_path):
    import tensorflow as tf

    model, folder = saved
    report = kprune.remove(folder, {"c1": [1, 4], "c2": [0]}, output=tmp_path / "out")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    expected = expected_of(model, report, X)
    np.testing.assert_allclose(loaded(X).numpy(), expected, 1e-4, 1e-5)
    signature = loaded.signatures["serving_default"]
    np.testing.assert_allclose(signature(tf.constant(X))["d"].numpy(), expected, 1e-4, 1e-5)
    y = tf.constant(X)
    for number, layer in enumerate(loaded.keras_api.layers[1:]):
        y = layer(y, training=False) if number == 1 else layer(y)  # the normalisation
    np.testing.assert_allclose(y.numpy(), expected, 1e-4, 1e-5)


def test_a_share_of_each_layer_goes(saved, tmp_path):
    _, folder = saved
    choice = kprune.Choice("l1", ratio=0.25)
    report = kprune.remove(folder, choice=choice, output=tmp_path / "out")
    assert {name: len(units) for name, units in report.changed.items()} == {"c1": 2, "c2": 1}
    assert kprune.verify(folder, tmp_path / "out").passed


def test_what_the_model_itself_gives_stays(tmp_path):
    import tensorflow as tf

    class Two(tf.Module):
        """One function is a signature, the other is not; both are the object's own."""

        def __init__(self):
            super().__init__()
            rng = np.random.default_rng(0)
            self.one = tf.Variable(rng.normal(size=(6, 8)).astype("float32"), name="a/kernel")
            self.two = tf.Variable(rng.normal(size=(8, 3)).astype("float32"), name="b/kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 6], name="x")])
        def features(self, x):
            return tf.nn.relu(x @ self.one)

        @tf.function(input_signature=[tf.TensorSpec([None, 6], name="x")])
        def serve(self, x):
            return {"y": self.features(x) @ self.two}

    module = Two()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    assert random_free_units(tmp_path / "model") == {}


@pytest.mark.nightly
def test_inspect_gives_the_same_bytes_in_every_process(saved):
    _, folder = saved
    found = {
        subprocess.run(
            [sys.executable, "-m", "kprune", "inspect", str(folder), "--json"],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(found) == 1
    assert json.loads(found.pop())["layers"]


# -- functions that stand for one another ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["LSTM", pytest.param("GRU", marks=pytest.mark.nightly)])
def test_a_recurrent_model_and_its_pruned_self_run_in_one_process(tmp_path, kind):
    """TensorFlow picks the implementation of a recurrent layer by its name among all that are loaded."""
    import tensorflow as tf

    model = randomised(words(kind))
    model.export(str(tmp_path / "model"))
    original = tf.saved_model.load(str(tmp_path / "model"))
    tokens = tf.constant([[1, 2, 3, 4, 5]])
    original.signatures["serving_default"](tokens)
    for name, units in (("e", {"e": [1]}), ("r", {"r": [0, 5]})):
        report = kprune.remove(tmp_path / "model", units, output=tmp_path / name)
        pruned = tf.saved_model.load(str(tmp_path / name)).signatures["serving_default"]
        (got,) = pruned(tokens).values()
        expected = expected_of(model, report, tokens)
        np.testing.assert_allclose(got.numpy(), expected, 1e-4, 1e-5)
    assert kprune.verify(tmp_path / "model", tmp_path / "e").passed
    assert kprune.verify(tmp_path / "model", tmp_path / "r").passed


# -- batches --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """Keras 3 leaves the batch open in the signature of a model with a fixed one."""
    import keras as keras3
    from keras import layers, ops

    folder = tmp_path_factory.mktemp("fixed")
    inputs = keras3.Input(batch_shape=(4, 3, 6, 6, 1))
    x = layers.Conv2D(4, 3, name="c")(ops.reshape(inputs, (12, 6, 6, 1)))
    x = ops.reshape(layers.GlobalAveragePooling2D()(x), (4, 3, 4))
    model = keras3.Model(inputs, layers.Dense(2)(layers.LSTM(5, stateful=True)(x)))
    model.export(str(folder / "model"), verbose=False)
    kprune.remove(folder / "model", {"c": [1]}, output=folder / "pruned")
    return folder


def test_verify_takes_the_batch_that_a_model_is_fixed_to(fixed, tmp_path):
    model, pruned = fixed / "model", fixed / "pruned"
    assert kprune.verify(model, pruned).samples == 32
    found = kprune.verify(model, pruned, samples=3, time=(4,))
    assert found.passed and found.samples == 4
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 3, 6, 6, 1)))
    assert kprune.verify(model, pruned, data=tmp_path / "x.npz").samples == 8


def test_what_does_not_run_is_said_and_is_no_bug(fixed, tmp_path):
    model, pruned = fixed / "model", fixed / "pruned"
    np.savez(tmp_path / "few.npz", x=np.zeros((3, 3, 6, 6, 1)))
    with pytest.raises(UsageError, match="batches of 4 samples, and there are 3"):
        kprune.verify(model, pruned, data=tmp_path / "few.npz")
    np.savez(tmp_path / "odd.npz", x=np.zeros((8, 3, 6, 7, 1)))
    with pytest.raises(CannotPruneError, match="does not run on these inputs"):
        kprune.verify(model, pruned, data=tmp_path / "odd.npz")
    with pytest.raises(UsageError, match="batches of 4 samples only"):
        kprune.verify(model, pruned, time=(1,))
