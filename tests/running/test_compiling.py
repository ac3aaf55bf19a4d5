"""By what a model is trained: what the file says stays, unless it is changed; else targets and outputs tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.running.compiling import suggested_loss

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("eagerly")]


def data(folder: Path, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """d.npz: four figures, and the number of one of three classes."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(count, 4)).astype("float32"), rng.integers(0, 3, count)
    np.savez(folder / "d.npz", x=x, y=y)
    return x, y


def network(activation: str | None = "softmax", units: int = 3) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((4,)), dense(8, "relu"), dense(units, activation)])


def tuned(folder: Path, model: Any, **how: Any) -> tuple[kprune.Tuning, Any]:
    """One epoch; what came of it, and the model that was written."""
    import keras

    model.save(folder / "m.keras")
    how = {"data": folder / "d.npz", "output": folder / "t.keras", "epochs": 1, **how}
    found = kprune.tune(folder / "m.keras", **how, force=True)
    return found, keras.models.load_model(folder / "t.keras")


WEIGHTED = "sparse_categorical_crossentropy"  # any metric that Keras can weigh by sample


@pytest.mark.parametrize(
    "change", [{"optimizer": "sgd"}, {"loss": "sparse_categorical_crossentropy"}]
)
def test_what_is_not_changed_stays_as_the_file_says(tmp_path: Path, change: dict[str, str]) -> None:
    import keras

    data(tmp_path)
    model = network()
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")]
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile("adam", loss, metrics=metrics, weighted_metrics=[WEIGHTED])
    found, after = tuned(tmp_path, model, **change)
    assert set(found.epochs[0]) == {"val_loss", "val_accuracy", "val_top2", f"val_{WEIGHTED}"}
    assert after.get_compile_config()["weighted_metrics"] == [WEIGHTED]
    assert type(after.optimizer).__name__ == ("SGD" if "optimizer" in change else "Adam")


def two_outputs() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    outputs = {name: keras.layers.Dense(2, name=name)(hidden) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    losses, weights = {"a": "mse", "b": "mse"}, {"a": 2.0, "b": 0.25}
    model.compile(keras.optimizers.SGD(0.1), losses, loss_weights=weights, metrics={"a": ["mae"]})
    return model


def pairs() -> Any:
    """A dataset for `two_outputs`, in one batch."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    x, a, b = (rng.normal(size=(20, n)).astype("float32") for n in (4, 2, 2))
    return tf.data.Dataset.from_tensor_slices((x, {"a": a, "b": b})).batch(20)


PAIRS = f"{__name__}:pairs"


def test_weights_of_losses_outlast_another_optimizer(tmp_path: Path) -> None:
    found, after = tuned(tmp_path, two_outputs(), data=PAIRS, optimizer="adam")
    assert after.get_compile_config()["loss_weights"] == {"a": 2.0, "b": 0.25}
    assert {"a_loss", "b_loss", "a_mae"} < set(found.epochs[0])
    assert set(tuned(tmp_path, two_outputs(), data=PAIRS, metric="mae")[0].epochs[0]) > {
        "a_mae", "b_mae",
    }  # fmt: skip


def test_a_teacher_stands_beside_the_whole_of_the_models_own_loss(tmp_path: Path) -> None:
    """Weights of losses and regularizers included; one step by hand."""
    import keras
    import tensorflow as tf

    student, teacher = two_outputs(), two_outputs()
    teacher.set_weights([value + 0.5 for value in teacher.get_weights()])
    teacher.save(tmp_path / "teacher.keras")
    ((x, y),) = list(pairs())
    ops = keras.ops
    with tf.GradientTape() as tape:
        got, taught = student(x), teacher(x)
        squares = {key: ops.mean(ops.square(got[key] - y[key])) for key in "ab"}
        far = sum(ops.mean(ops.square(got[key] - taught[key])) for key in "ab")
        own = 2.0 * squares["a"] + 0.25 * squares["b"]
        own += 0.1 * ops.sum(ops.square(student.layers[1].kernel))
        loss = 0.5 * own + 0.5 * far
    steps = tape.gradient(loss, student.trainable_variables)
    expected = [
        v.numpy() - 0.1 * s.numpy() for v, s in zip(student.trainable_variables, steps, strict=True)
    ]
    teacher_path = tmp_path / "teacher.keras"
    found, after = tuned(tmp_path, student, data=PAIRS, teacher=teacher_path)
    assert found.best == 1
    for variable, value in zip(after.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6)


def test_labels_without_an_output_are_refused_in_words(tmp_path: Path) -> None:
    """TensorFlow has an exception of its own for them, and tells in which line of Keras it was."""
    x, y = data(tmp_path)
    np.savez(tmp_path / "d.npz", x=x, y=y + 2)
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(kprune.UsageError, match="cannot be trained on these data") as refused:
        tuned(tmp_path, model)
    assert "Received a label value of 4" in refused.value.why
    assert "File" not in refused.value.why


def test_a_fixed_rate_reaches_the_optimizer_inside_a_loss_scale(tmp_path: Path) -> None:
    import keras

    x, y = data(tmp_path)
    model = network()
    decay = keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.9)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(decay))
    model.compile(scaled, "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    found, after = tuned(tmp_path, model, learning_rate=1e-4)
    assert float(after.optimizer.learning_rate) == pytest.approx(1e-4)
    assert int(after.optimizer.iterations) > int(model.optimizer.iterations)
    assert any("schedule gave way" in note.text for note in found.notes)


@pytest.mark.parametrize("ending", [None, "softmax"])
def test_a_file_that_says_nothing_is_trained_on_logits_or_probabilities_as_it_gives_them(
    tmp_path: Path, ending: str | None
) -> None:
    import keras

    x, y = data(tmp_path)
    model = network(ending)
    found, _ = tuned(tmp_path, model, validation=tmp_path / "d.npz")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=ending is None)
    assert found.epochs[0]["val_loss"] == pytest.approx(float(loss(y, model(x))), rel=1e-5)
    assert ("from logits" in found.notes[0].text) == (ending is None)


def test_logits_of_one_answer_are_right_above_0(tmp_path: Path) -> None:
    x, y = data(tmp_path)
    np.savez(tmp_path / "d.npz", x=x, y=y == 1)
    model = network(None, units=1)
    found, _ = tuned(tmp_path, model, validation=tmp_path / "d.npz")
    right = (np.asarray(model(x))[:, 0] > 0) == (y == 1)
    assert found.epochs[0]["val_accuracy"] == pytest.approx(right.mean())


SHARES = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]])
CHANCES = np.array([[0.1, 0.7, 0.9], [0.5, 0.25, 0.75]])
LOGITS = np.array([[-1.0, 2.0, 0.5], [0.3, -0.2, 4.0]])
ONES = np.eye(3)[[1, 0]]


@pytest.mark.parametrize(
    ("targets", "output", "loss"),
    [
        ([1, 0], SHARES, ("sparse_categorical_crossentropy", False)),
        ([1, 0], LOGITS, ("sparse_categorical_crossentropy", True)),
        ([[1], [0]], SHARES, ("sparse_categorical_crossentropy", False)),
        (ONES, SHARES, ("categorical_crossentropy", False)),
        (ONES.astype(int), LOGITS, ("categorical_crossentropy", True)),
        ([[1, 1, 0], [0, 0, 0]], CHANCES, ("binary_crossentropy", False)),
        ([[1, 1, 0], [0, 0, 0]], LOGITS, ("binary_crossentropy", True)),
        ([1, 0], CHANCES[:, :1], ("binary_crossentropy", False)),
        ([True, False], LOGITS[:, :1], ("binary_crossentropy", True)),
        ([[1.0], [0.0]], CHANCES[:, :1], ("binary_crossentropy", False)),
        ([[1.0], [0.0]], LOGITS[:, :1], ("mse", False)),
        ([3, 7], LOGITS[:, :1], ("mse", False)),
        ([0.5, 2.5], LOGITS[:, :1], ("mse", False)),
        (LOGITS * 3, LOGITS, ("mse", False)),
        ([[0, 2], [1, 1]], np.stack([SHARES, SHARES]), ("sparse_categorical_crossentropy", False)),
    ],
)
def test_the_form_of_labels_and_outputs_tells_the_loss(
    targets: Any, output: np.ndarray, loss: tuple[str, bool]
) -> None:
    assert suggested_loss(np.asarray(targets), output) == loss


def test_a_file_that_keras_would_not_open_is_not_written(tmp_path: Path) -> None:
    data(tmp_path)
    with pytest.raises(kprune.UsageError, match=r"not written as \.h5"):
        tuned(tmp_path, network(), output=tmp_path / "t.h5")
    assert not (tmp_path / "t.h5").exists()


def test_something_is_left_to_learn_from(tmp_path: Path) -> None:
    data(tmp_path)
    with pytest.raises(kprune.UsageError, match="no sample would be left to learn from"):
        tuned(tmp_path, network(), validation_split=0.999)


def test_the_output_of_a_pruned_file_is_called_after_it(tmp_path: Path) -> None:
    data(tmp_path)
    network().save(tmp_path / "m.pruned.keras")
    found = kprune.tune(tmp_path / "m.pruned.keras", data=tmp_path / "d.npz", epochs=1)
    assert Path(found.output).name == "m.pruned.tuned.keras"
