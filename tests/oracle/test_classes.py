"""Classes taken out by name, in plain Keras: what is left of a head is what the original gives for it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from tests.oracle.folding import randomised

pytestmark = pytest.mark.oracle

NAMES = ["cat", "dog", "cow", "hen", "owl"]


@pytest.mark.parametrize("separate", [False, True], ids=["in the layer", "a layer of its own"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_head_without_some_classes_gives_the_others_as_before(head, separate, tmp_path):
    x = keras.Input((6,))
    y = layers.Dense(8, activation="relu")(x)
    other = layers.Dense(5, name="other")(y)  # as wide, and not meant
    y = layers.Dense(5, activation=None if separate else head, name="kinds")(y)
    y = layers.Activation(head)(y) if separate else y
    model = randomised(keras.Model(x, [y, other]))
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    kprune.remove(
        tmp_path / "model.keras",
        layers=["kinds"],
        classes="hen,dog",
        class_names=tmp_path / "labels.txt",
        output=tmp_path / "small.keras",
    )
    left = [NAMES.index(name) for name in ("cat", "cow", "owl")]
    assert (tmp_path / "small.labels.txt").read_text().split() == ["cat", "cow", "owl"]
    inputs = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    kinds, beside = (np.asarray(part, np.float64) for part in model(inputs))
    expected = kinds[:, left]
    if head == "softmax":  # over the classes that remain
        expected = expected / expected.sum(axis=1, keepdims=True)
    small = keras.models.load_model(tmp_path / "small.keras")
    got, same = (np.asarray(part, np.float64) for part in small(inputs))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(same, beside)
