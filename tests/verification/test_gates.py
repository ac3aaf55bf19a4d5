"""Limits: metrics as plain Keras evaluates them, agreement as numpy counts it, and what is asked of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.errors import CannotPruneError, UsageError

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 6)).astype("float32"), RNG.integers(0, 3, 60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A classifier, and what is left of it."""
    folder = tmp_path_factory.mktemp("gates")
    keras.utils.set_random_seed(0)
    dense = layers.Dense
    model = keras.Sequential([keras.Input((6,)), dense(12, "relu", name="a"), dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, epochs=40, verbose=0)
    model.save(folder / "whole.keras")
    kprune.remove(folder / "whole.keras", {"a": [0, 1, 2, 5]}, output=folder / "small.keras")
    return folder / "whole.keras", folder / "small.keras"


@pytest.fixture(scope="module")
def evaluated(files: tuple[Path, Path]) -> list[dict[str, float]]:
    """Both, by plain Keras."""
    models = [keras.models.load_model(path) for path in files]
    return [model.evaluate(X, Y, verbose=0, return_dict=True) for model in models]


def held(found: kprune.Verification) -> list[bool]:
    return [gate.passed for gate in found.gates]


def test_a_metric_may_drop_by_so_much_and_no_more(
    files: tuple[Path, Path], evaluated: list[dict[str, float]]
) -> None:
    fell = evaluated[0]["accuracy"] - evaluated[1]["accuracy"]
    assert fell > 0.05
    for limit, passes in ((fell + 1e-4, True), (fell - 1e-4, False)):
        found = kprune.verify(*files, data=(X, Y), max_drop=limit)
        assert found.computes and found.passed is passes and held(found) == [passes]
        (gate,) = found.gates
        assert (gate.metric, gate.limit) == ("accuracy", limit)
        assert gate.value == pytest.approx(fell, abs=1e-6)
    assert f"accuracy got worse by {fell:.4g}, more than" in str(found)


def test_metrics_have_a_least_and_a_most(
    files: tuple[Path, Path], evaluated: list[dict[str, float]]
) -> None:
    accuracy, loss = evaluated[1]["accuracy"], evaluated[1]["loss"]
    found = kprune.verify(
        *files, data=(X, Y), min={"accuracy": accuracy - 0.01}, max={"loss": loss + 0.01}
    )
    assert found.passed and held(found) == [True, True]
    found = kprune.verify(
        *files, data=(X, Y), min={"accuracy": accuracy + 0.01}, max={"loss": loss - 0.01}
    )
    assert not found.passed and held(found) == [False, False]
    lines = str(found).splitlines()
    assert lines[0].startswith("FAILED: accuracy is ") and lines[0].endswith("(--min)")
    assert lines[1].strip().startswith("loss is ") and lines[1].endswith("(--max)")


def test_agreement_is_of_classes_and_needs_no_targets(files: tuple[Path, Path]) -> None:
    one, other = (np.asarray(keras.models.load_model(path)(X)).argmax(axis=1) for path in files)
    share = float((one == other).mean())
    assert 0.3 < share < 1
    for limit, passes in ((share, True), (share + 0.01, False)):
        found = kprune.verify(*files, data=X, min_agreement=limit)
        assert found.passed is passes and found.metrics is None
        assert found.gates[0].value == pytest.approx(share)


def test_what_is_better_the_less_drops_by_growing(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="a"), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.save(tmp_path / "whole.keras")
    kprune.remove(tmp_path / "whole.keras", {"a": [0, 1, 2]}, output=tmp_path / "small.keras")
    files = [tmp_path / f"{name}.keras" for name in ("whole", "small")]
    targets = np.asarray(
        keras.models.load_model(files[0])(X)
    )  # so that the original makes no error
    loss = keras.models.load_model(files[1]).evaluate(X, targets, verbose=0)
    for limit, passes in ((1.01 * loss, True), (0.99 * loss, False)):
        found = kprune.verify(*files, data=(X, targets), max_drop=limit)
        assert found.passed is passes
        assert found.gates[0].metric == "loss"
        assert found.gates[0].value == pytest.approx(loss, rel=1e-4)
    with pytest.raises(UsageError, match="have no classes"):
        kprune.verify(*files, data=X, min_agreement=0.9)


def test_another_metric_than_the_files_own_can_be_asked_for(files: tuple[Path, Path]) -> None:
    name = "sparse_top_k_categorical_accuracy"
    found = kprune.verify(*files, data=(X, Y), metric=name, max_drop=0.0, min={name: 1.0})
    assert found.passed  # the right one is among the five of three classes that come first
    assert [gate.metric for gate in found.gates] == [name, name]
    assert found.metrics is not None and set(found.metrics["after"]) == {"loss", name}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"max_drop": 0.1}, "limits need data"),
    "no data for agreement": ({"min_agreement": 0.9}, "limits need data"),
    "no data for a metric": ({"metric": "mae"}, "--metric needs --data"),
    "no targets": ({"data": X, "max_drop": 0.1}, "limits of metrics need targets"),
    "no such metric": ({"data": (X, Y), "min": {"auc": 0.5}}, "has no metric 'auc'"),
    "too much": ({"data": X, "min_agreement": 98}, "lies between 0 and 1, got 98"),
    "negative": ({"data": (X, Y), "max_drop": -0.1}, "--max-drop must be at least 0, got -0.1"),
}


@pytest.mark.parametrize("what", BAD)
def test_limits_that_make_no_sense_are_refused(files: tuple[Path, Path], what: str) -> None:
    how, words = BAD[what]
    with pytest.raises(UsageError, match=words):
        kprune.verify(*files, **how)


def test_a_metric_that_is_no_number_keeps_no_limit(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, name="a")])
    model.compile("sgd", "mse")
    model.layers[0].kernel.assign(np.full((6, 1), np.nan))
    model.save(tmp_path / "m.keras")
    found = kprune.verify(
        tmp_path / "m.keras", tmp_path / "m.keras", data=(X, X[:, :1]), max={"loss": 1e9}
    )
    assert held(found) == [False] and not found.passed


def test_savedmodels_have_neither_loss_nor_metrics(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(tf.ones((6, 2)))
    call = tf.function(lambda x: {"out": x @ module.w})
    served = call.get_concrete_function(tf.TensorSpec((None, 6), tf.float32, name="x"))
    tf.saved_model.save(module, tmp_path / "m", signatures={"serving_default": served})
    with pytest.raises(CannotPruneError, match="SavedModels are not judged by metrics or limits"):
        kprune.verify(tmp_path / "m", tmp_path / "m", data=X, min_agreement=0.5)
