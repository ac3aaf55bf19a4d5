"""Labels for a model that lost classes, and for one of several outputs: trained and judged as by plain Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.running.classes import Classes, fitted

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("eagerly")]

KEPT = np.array([0, 2, 4])


def five_classes(folder: Path, loss: str = "sparse_categorical_crossentropy") -> Path:
    """small.keras, of whose five classes 1 and 3 are gone; full.keras; x and y in d.npz."""
    import keras

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype("float32"), rng.integers(0, 5, 60)
    targets = y if loss.startswith("sparse") else np.eye(5, dtype="float32")[y]
    np.savez(folder / "d.npz", x=x, y=targets)
    known = np.isin(y, KEPT)
    own = np.searchsorted(KEPT, y[known])
    np.savez(
        folder / "own.npz",
        x=x[known],
        y=own if loss.startswith("sparse") else np.eye(3, dtype="float32")[own],
    )
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((4,)), dense(8, "relu"), dense(5, "softmax", name="out")])
    model.compile("adam", loss, metrics=["accuracy"])
    model.save(folder / "full.keras")
    kprune.remove(folder / "full.keras", {"out": [1, 3]}, output=folder / "small.keras")
    return folder


def weights(path: str | Path) -> list[np.ndarray]:
    import keras

    return list(keras.models.load_model(path).get_weights())


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_labels_of_the_original_train_what_is_left_as_its_own_would(
    tmp_path: Path, loss: str
) -> None:
    folder, after = five_classes(tmp_path, loss), {}
    for name in ("d", "own"):
        data = folder / f"{name}.npz"
        found = kprune.tune(
            folder / "small.keras", data=data, validation=data, epochs=2,
            output=folder / f"{name}.keras",
        )  # fmt: skip
        assert found.best and found.samples == len(np.load(folder / "own.npz")["x"])
        assert any("renumbered" in note.text for note in found.notes) == (name == "d")
        after[name] = weights(folder / f"{name}.keras")
    assert all((a == b).all() for a, b in zip(after["d"], after["own"], strict=True))


def test_curves_and_criteria_count_the_classes_that_are_left(tmp_path: Path) -> None:
    folder = five_classes(tmp_path)
    curves = [
        kprune.sensitivity(folder / "small.keras", data=folder / f"{name}.npz", ratios=[0.5])
        for name in ("d", "own")
    ]
    assert curves[0].baseline == curves[1].baseline
    assert curves[0].candidates == curves[1].candidates
    choice = kprune.Choice("taylor", ratio=0.5)
    chosen = [
        kprune.remove(
            folder / "small.keras", choice=choice, data=folder / f"{name}.npz", dry_run=True
        ).changed
        for name in ("d", "own")
    ]
    assert chosen[0] == chosen[1]


def test_a_teacher_loses_the_same_classes(tmp_path: Path) -> None:
    """What the original teaches over the classes left is what it gives there, as shares of one."""
    folder = five_classes(tmp_path)
    kprune.remove(folder / "full.keras", {"out": [3]}, output=folder / "between.keras")
    after = []
    for teacher in (
        "full.keras",
        "between.keras",
        "small.keras",
    ):  # nothing but the classes is gone from it
        kprune.tune(
            folder / "small.keras", data=folder / "d.npz", teacher=folder / teacher,
            epochs=1, output=folder / "t.keras", force=True,
        )  # fmt: skip
        after.append(weights(folder / "t.keras"))
    for other in after[1:]:
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(after[0], other, strict=True))


def test_samples_of_removed_classes_alone_teach_nothing(tmp_path: Path) -> None:
    folder = five_classes(tmp_path)
    np.savez(folder / "gone.npz", x=np.zeros((4, 4), "float32"), y=np.array([1, 3, 3, 3]))
    with pytest.raises(kprune.UsageError, match="every sample is of a class that was removed"):
        kprune.tune(folder / "small.keras", data=folder / "gone.npz", output=folder / "t.keras")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([0, 1, 2, 3, 4], [0, 1, 2]),
        ([[0], [2], [4]], [[0], [1], [2]]),
        ([[0, 2], [4, 1]], [[0, 1]]),  # two classes a sample, one of them gone
        (np.eye(5)[[4, 3]], np.eye(3)[[2]]),
        ([[1.0, 1, 0, 0, 1], [0, 1, 0, 1, 0]], [[1.0, 0, 1], [0, 0, 0]]),  # five questions each
        ([[0.1, 0.2, 9.0, 0.4, 0.5]], [[0.1, 9.0, 0.5]]),  # five figures
        ([0, 1, 2], [0, 1, 2]),  # nothing tells that these are the original's
        (np.eye(3)[[1, 0]], np.eye(3)[[1, 0]]),
        ([[7, 8, 9]], [[7, 8, 9]]),  # three figures for three that are left
    ],
)
def test_labels_as_the_original_counts_them_are_known_by_their_form(
    targets: Any, expected: Any
) -> None:
    found, known, _ = fitted(np.asarray(targets), {"out": Classes(KEPT, 2)}, "out")
    np.testing.assert_array_equal(found if known is None else found[known], expected)


@pytest.mark.parametrize("times", [3, 6])
def test_labels_of_each_timestep_are_numbers_however_many_there_are(times: int) -> None:
    targets = np.resize([0, 2, 4, 2], (4, times))
    targets[1, 0] = 3  # a class that is gone
    for given in (targets, targets[..., None], np.eye(5)[targets]):
        found, known, _ = fitted(given, {"out": Classes(KEPT, 3)}, "out")
        assert known is not None and known.tolist() == [True, False, True, True]
        rows = given.shape[-1] == 5
        expected = np.eye(3)[targets[known] // 2] if rows else given[known] // 2
        np.testing.assert_array_equal(found[known], expected)


# -- several outputs ------------------------------------------------------------------------------


def two_outputs(folder: Path, **changes: Any) -> Path:
    """two.keras, whose outputs have names of their own beside those of their layers; targets in d.npz."""
    import keras

    rng = np.random.default_rng(0)
    x, kind = rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 3, 32)
    size = x.sum(1, keepdims=True)
    np.savez(folder / "d.npz", x=x, kind=kind, size=size)
    np.savez(folder / "one.npz", x=x, y=kind)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, "relu", name="hidden")(inputs)
    outputs = {
        "kind": keras.layers.Dense(3, "softmax", name="a")(hidden),
        "size": keras.layers.Dense(1, name="b")(hidden),
    }
    model = keras.Model(inputs, outputs)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    how = {"loss_weights": {"kind": 1.0, "size": 0.25}, "metrics": {"size": ["mae"]}} | changes
    model.compile("adam", losses, **how)
    model.save(folder / "two.keras")
    return folder / "two.keras"


def test_labels_of_several_outputs_go_by_their_names(tmp_path: Path) -> None:
    import keras

    path, data = two_outputs(tmp_path), tmp_path / "d.npz"
    given = np.load(data)
    live = keras.models.load_model(path)
    targets = {"kind": given["kind"], "size": given["size"]}
    expected = live.evaluate(given["x"], targets, verbose=0, return_dict=True)
    checked = kprune.verify(path, path, data=data)
    assert checked.metrics is not None
    assert checked.metrics["before"] == pytest.approx(expected, rel=1e-5)
    found = kprune.tune(path, data=data, validation=data, epochs=1, output=tmp_path / "t.keras")
    whole = {f"val_{name}": value for name, value in expected.items()}
    assert found.epochs[0] == pytest.approx(whole, rel=1e-5)
    curves = kprune.sensitivity(path, data=data, ratios=[0.5], metric="size_mae")
    assert curves.whole == pytest.approx(expected["size_mae"], rel=1e-5)
    assert not curves.higher_is_better


def test_taylor_weighs_the_losses_of_several_outputs(tmp_path: Path) -> None:
    """Each unit by a gate in front of it, in plain Keras."""
    import keras
    import tensorflow as tf

    path, data = two_outputs(tmp_path), tmp_path / "d.npz"
    given, live = np.load(data), keras.models.load_model(path)
    hidden = live.get_layer("hidden")(given["x"])
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        kind = live.get_layer("a")(hidden)
        size = live.get_layer("b")(hidden)
        first = keras.losses.sparse_categorical_crossentropy(given["kind"], kind)
        loss = first + 0.25 * (size - given["size"])[:, 0] ** 2
    scores = np.abs(hidden * tape.gradient(loss, hidden)).mean(axis=0)
    report = kprune.remove(path, choice=kprune.Choice("taylor", ratio=0.5), data=data, dry_run=True)
    assert report.changed["hidden"] == sorted(np.argsort(scores)[:4].tolist())


@pytest.mark.parametrize("command", ["tune", "sensitivity", "verify", "taylor"])
def test_one_array_of_labels_is_none_for_two_outputs(tmp_path: Path, command: str) -> None:
    path, data = two_outputs(tmp_path), tmp_path / "one.npz"
    calls: dict[str, Any] = {
        "tune": lambda: kprune.tune(path, data=data, output=tmp_path / "t.keras"),
        "sensitivity": lambda: kprune.sensitivity(path, data=data),
        "verify": lambda: kprune.verify(path, path, data=data),
        "taylor": lambda: kprune.remove(
            path, choice=kprune.Choice("taylor", ratio=0.5), data=data, dry_run=True
        ),
    }
    with pytest.raises(kprune.UsageError, match="2 outputs") as refused:
        calls[command]()
    assert "kind, size" in refused.value.do


def test_figures_of_one_answer_are_judged_by_their_squared_error(tmp_path: Path) -> None:
    """Also where they come without the axis that the output has."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    y = np.asarray(model(x))[:, 0] + 0.5
    np.savez(tmp_path / "d.npz", x=x, y=y)
    found = kprune.verify(tmp_path / "m.keras", tmp_path / "m.keras", data=tmp_path / "d.npz")
    assert found.metrics is not None
    assert found.metrics["before"] == {"mean_squared_error": pytest.approx(0.25, rel=1e-4)}


def test_labels_that_are_ignored_stay_and_say_nothing_of_the_class_of_a_sample() -> None:
    """255 in a map of numbers says that nobody knows; it is no class, removed or not."""
    maps = np.array([[0, 2, 255], [4, 255, 0], [255, 255, 255], [1, 0, 255]], np.uint8)
    left = Classes(KEPT, 3, ignored=(255,))
    found, known, _ = fitted(maps, {"out": left}, "out")
    assert known is not None and known.tolist() == [True, True, False, False]
    assert found[:2].tolist() == [[0, 1, 255], [2, 255, 0]] and found.dtype == np.uint8
    own = np.array([[0, 1, 255], [2, 255, 0]])
    assert (
        fitted(own, {"out": left}, "out")[1] is None
    )  # nothing tells that they are the original's


def test_rows_may_stand_along_another_axis_than_the_last() -> None:
    """Classes of a channels_first map: (samples, classes, places)."""
    numbers = np.array([[0, 4], [2, 1], [4, 2]])
    rows = np.moveaxis(np.eye(5)[numbers], -1, 1)
    found, known, _ = fitted(rows, {"out": Classes(KEPT, 3, axis=-2)}, "out")
    assert known is not None and known.tolist() == [True, False, True]
    assert found[known].argmax(1).tolist() == [[0, 2], [2, 1]]


@pytest.mark.parametrize("ignored", [255, 4])
def test_maps_with_ignored_places_are_judged_as_by_plain_keras(
    tmp_path: Path, ignored: int
) -> None:
    """Class 1 goes, or the ignored class itself, which targets go on bearing."""
    import keras

    gone = 1 if ignored == 255 else ignored
    kept = [number for number in range(5) if number != gone]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3, 4)).astype("float32"), rng.choice(kept, (20, 3))
    y[:, 0] = ignored
    np.savez(tmp_path / "d.npz", x=x, y=y)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3, 4)), keras.layers.Dense(5, "softmax", bias_initializer="normal")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored)
    model.compile("adam", loss, metrics=["accuracy"])
    model.save(tmp_path / "full.keras")
    small = tmp_path / "small.keras"
    kprune.remove(tmp_path / "full.keras", {model.layers[-1].name: [gone]}, output=small)
    own = np.where(y == ignored, ignored, np.searchsorted(kept, y))
    judged = keras.models.load_model(small).evaluate(x, own, verbose=0, return_dict=True)
    found = kprune.verify(tmp_path / "full.keras", small, data=tmp_path / "d.npz")
    assert found.passed and found.metrics is not None
    assert found.metrics["after"] == pytest.approx(judged, rel=1e-5)
    assert found.metrics["before"] == pytest.approx(
        model.evaluate(x, y, verbose=0, return_dict=True), rel=1e-5
    )
