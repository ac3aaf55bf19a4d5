"""Metrics of both models where the data have targets: the model's own, or what its outputs suggest."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kprune.verbs.change import remove
from kprune.verification.verify import verify
from tests.running.making import npz, saved

pytestmark = pytest.mark.oracle


def test_accuracy_before_and_after(samples, tmp_path):
    before, data = samples / "digits_cnn.keras", samples / "digits_test.npz"
    after = tmp_path / "after.keras"
    remove(str(before), ["conv_3:0-7", "hidden:0-31"], output=str(after))
    found = verify(before, after, data=data)
    assert found.passed and found.samples == 450 and found.seed is None and found.data == str(data)
    assert found.metrics["before"]["accuracy"] > 0.98 > found.metrics["after"]["accuracy"] - 0.02
    assert found.metrics["after"]["loss"] > found.metrics["before"]["loss"]


def test_samples_of_classes_that_went_are_left_out(samples, tmp_path):
    before, data = samples / "digits_cnn.keras", samples / "digits_test.npz"
    after = tmp_path / "after.keras"
    remove(str(before), ["classes:3,5"], output=str(after))
    found = verify(before, after, data=data)
    targets = np.load(data)["y"]
    out = int(np.isin(targets, [3, 5]).sum())
    assert found.passed and found.metrics["after"]["accuracy"] > 0.98
    assert f"{out} of 450 samples" in found.notes[-1].text


def test_data_without_labels_gives_no_metrics(original, tmp_path):
    found = verify(original, original, data=npz(tmp_path, x=np.ones((3, 6, 6, 3), "float32")))
    assert found.passed and found.metrics is None and found.samples == 3


@pytest.mark.parametrize("targets", ["numbers", "column", "one-hot"])
def test_accuracy_of_a_model_that_was_not_compiled(original, tmp_path, targets):
    model = keras.models.load_model(original)
    x = np.random.default_rng(0).normal(size=(20, 6, 6, 3)).astype("float32")
    right = np.argmax(model(x), axis=1)
    given = right.copy()
    given[:5] = (given[:5] + 1) % 4
    y = {"numbers": given, "column": given[:, None], "one-hot": np.eye(4, dtype="float32")[given]}[
        targets
    ]
    found = verify(original, original, data=npz(tmp_path, x=x, y=y))
    assert found.metrics == {"before": {"accuracy": 0.75}, "after": {"accuracy": 0.75}}


def test_labels_of_removed_classes_are_renumbered(original, small, tmp_path):
    remove(str(original), {"out": [1]}, output=str(small))
    x = np.random.default_rng(0).normal(size=(30, 6, 6, 3)).astype("float32")
    kept = np.array([0, 2, 3])
    y = kept[np.argmax(keras.models.load_model(small)(x), axis=1)]
    for targets in (y, np.eye(4, dtype="float32")[y]):
        found = verify(original, small, data=npz(tmp_path, x=x, y=targets))
        assert found.metrics["after"] == {"accuracy": 1.0}


def test_one_answer_is_right_above_a_half(tmp_path):
    path = saved(keras.Sequential([keras.Input((3,)), layers.Dense(1, "sigmoid")]), tmp_path)
    x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    y = (np.asarray(keras.models.load_model(path)(x))[:, 0] > 0.5).astype(int)
    assert verify(path, path, data=npz(tmp_path, x=x, y=y)).metrics["before"] == {"accuracy": 1.0}


def test_targets_that_are_numbers_get_a_squared_error(tmp_path):
    path = saved(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), tmp_path)
    x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    y = np.asarray(keras.models.load_model(path)(x)) + 0.5
    metrics = verify(path, path, data=npz(tmp_path, x=x, y=y)).metrics
    assert metrics["before"] == {"mean_squared_error": pytest.approx(0.25, rel=1e-4)}
