"""Grouped convolutions and channels folded into space, against masked originals."""

from __future__ import annotations

import numpy as np
import pytest

import kprune
from kprune.errors import CannotPruneError
from tests.saved_model import making, plain

pytestmark = pytest.mark.oracle


def grouped():
    """A grouped convolution of 4 runs, and one with a run for each channel."""
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(8, 3, groups=4, activation="relu", name="grouped")(x)
    x = keras.layers.Conv2D(16, 3, groups=8, name="by_channel")(x)
    x = keras.layers.Flatten()(x)
    return making.randomised(keras.Model(inputs, keras.layers.Dense(3, name="last")(x)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grouped")
    model = grouped()
    model.save(folder / "model.keras")
    return making.export(model, folder / "model")


# One input of each run, another in every run; whole runs; a filter of each run.
CHOICES = {
    "inputs": {"first": [0, 5, 10, 15]},
    "a whole run": {"first": [4, 5, 6, 7], "grouped": [2, 3]},
    "filters": {"grouped": [1, 2, 4, 7]},
    "all of it": {"first": [1, 4, 11, 14], "grouped": [0, 3, 5, 6]},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_grouped_convolution_loses_as_much_of_each_run(exported, tmp_path, choice):
    units = CHOICES[choice]
    report = kprune.remove(exported, units, output=tmp_path / "small")
    kprune.remove(exported.parent / "model.keras", units, output=tmp_path / "small.keras")
    assert plain.same_weights(tmp_path / "small.keras", tmp_path / "small") >= 6
    through = tmp_path / "through"
    kprune.zero(exported, units, outgoing=True, output=through)
    import tensorflow as tf

    original, masked, small = (
        plain.outputs(tf.saved_model.load(str(path)))
        for path in (exported, through, tmp_path / "small")
    )
    assert plain.worst(original, masked) > 1e-3
    assert plain.worst(masked, small) < 1e-5
    assert plain.interface(exported) == plain.interface(tmp_path / "small")
    rows = {row.path: row.shape_after for row in report.weights}
    if choice == "inputs":
        assert rows["grouped/kernel"] == [3, 3, 3, 8]
        (kept,) = (row.kept for row in report.weights if row.path == "grouped/kernel")
        runs = [
            [unit for unit in range(4) if 4 * run + unit not in units["first"]] for run in range(4)
        ]
        assert kept == [None, None, runs, None]


def test_runs_of_unequal_length_are_refused(exported, tmp_path):
    with pytest.raises(CannotPruneError, match="uneven"):
        kprune.remove(exported, {"first": [0, 1]}, output=tmp_path / "small")
    with pytest.raises(CannotPruneError, match="uneven"):
        kprune.remove(exported, {"grouped": [0]}, output=tmp_path / "small")


def test_compact_leaves_channels_that_a_grouped_convolution_reads(exported, tmp_path):
    kprune.zero(exported, {"first": [0]}, outgoing=True, output=tmp_path / "zeroed")
    report = kprune.compact(tmp_path / "zeroed", output=tmp_path / "small")
    assert not report.changed


def test_a_kernel_that_is_standardised_first_stays(tmp_path):
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            rng = np.random.default_rng(0)
            self.a = tf.Variable(rng.normal(size=(1, 1, 3, 8)).astype("float32"), name="a/kernel")
            self.b = tf.Variable(rng.normal(size=(3, 3, 4, 6)).astype("float32"), name="b/kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], name="x")])
        def run(self, x):
            kernel = self.b - tf.reduce_mean(self.b, [0, 1, 2], keepdims=True)
            return {"y": tf.nn.conv2d(tf.nn.conv2d(x, self.a, 1, "SAME"), kernel, 1, "SAME")}

    tf.saved_model.save(module := Module(), str(tmp_path / "model"), signatures=module.run)
    with pytest.raises(CannotPruneError, match="groups of 'b'"):
        kprune.remove(tmp_path / "model", {"a": [0, 4]}, output=tmp_path / "small")


def test_channels_that_become_space_go_block_by_block(tmp_path):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shapes = {"a": (1, 1, 3, 16), "b": (1, 1, 4, 6), "c": (1, 1, 24, 5)}

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = {
                name: tf.Variable(rng.normal(size=shape).astype("float32"), name=f"{name}/kernel")
                for name, shape in shapes.items()
            }

        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3], name="x")])
        def run(self, x):
            x = tf.nn.relu(tf.nn.conv2d(x, self.w["a"], 1, "SAME"))
            x = tf.nn.conv2d(tf.nn.depth_to_space(x, 2), self.w["b"], 1, "SAME")
            x = tf.nn.space_to_depth(tf.nn.relu(x), 2)
            return {"y": tf.nn.conv2d(x, self.w["c"], 1, "SAME")}

    tf.saved_model.save(module := Module(), str(tmp_path / "model"), signatures=module.run)
    report = plain.removal_equals_masked_original(
        tmp_path / "model", tmp_path / "small", {"a": [1], "b": [0, 4]}
    )
    assert report.changed["a"] == [1, 5, 9, 13]
    rows = {row.path: row.shape_after for row in report.weights}
    assert rows == {
        "a/kernel": [1, 1, 3, 12],
        "b/kernel": [1, 1, 3, 4],
        "c/kernel": [1, 1, 16, 5],
    }
