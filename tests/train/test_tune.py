"""Training on: what is left learns again, what was zeroed stays, and the best epoch is what is written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sample_models.make_models import digits

    data = digits()
    path = tmp_path_factory.mktemp("data") / "train.npz"
    np.savez(path, x=data.x_train[:600], y=data.y_train[:600])
    return path


@pytest.fixture(scope="module")
def halved(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CNN without the weaker half of every layer. Read only."""
    small = tmp_path_factory.mktemp("halved") / "small.keras"
    kprune.remove(samples / "digits_cnn.keras", choice=kprune.Choice("l1", ratio=0.5), output=small)
    return small


def metadata(path: Path) -> dict[str, object]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, object] = json.loads(archive.read("metadata.json"))
    return found


@pytest.fixture(scope="module")
def learned(halved: Path, training: Path, samples: Path) -> Any:
    """What comes of four epochs: the figures, and the file. Its curves are beside it."""
    out = halved.with_name("tuned.keras")
    found = kprune.tune(
        halved, data=training, validation=samples / "digits_test.npz", output=out, epochs=4,
        plot=halved.with_name("curve.svg"),
    )  # fmt: skip
    return found, out


def test_a_model_that_lost_half_its_units_learns_again(learned: Any, samples: Path) -> None:
    found, out = learned
    assert found.epochs[0]["val_accuracy"] < 0.6
    assert found.epochs[found.best]["val_accuracy"] > 0.9
    proof = kprune.verify(out, out, data=samples / "digits_test.npz")
    assert proof.metrics is not None
    assert proof.metrics["after"]["accuracy"] == pytest.approx(
        found.epochs[found.best]["val_accuracy"], abs=1e-3
    )


def test_what_is_known_of_the_pruning_stays_with_the_file(halved: Path, learned: Any) -> None:
    assert metadata(learned[1])["kprune"] == metadata(halved)["kprune"]


def test_the_epoch_that_is_written_is_the_best_one(learned: Any) -> None:
    found, _ = learned
    losses = [epoch["val_loss"] for epoch in found.epochs]
    assert found.best == int(np.argmin(losses))


def test_training_that_makes_it_worse_changes_nothing(
    samples: Path, training: Path, tmp_path: Path
) -> None:
    out = tmp_path / "t.keras"
    found = kprune.tune(
        samples / "digits_mlp.keras",
        data=training,
        output=out,
        epochs=2,
        learning_rate=50.0,
        patience=1,
    )
    assert (found.best, len(found.epochs)) == (0, 2)
    import keras

    before = keras.models.load_model(samples / "digits_mlp.keras").get_weights()
    after = keras.models.load_model(out).get_weights()
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_zeroed_units_stay_at_zero_only_if_they_are_held(
    samples: Path, training: Path, tmp_path: Path
) -> None:
    import keras

    zeroed = tmp_path / "zeroed.keras"
    kprune.zero(samples / "digits_lstm.keras", {"lstm": "0-7"}, output=zeroed)
    columns = np.concatenate([gate * 48 + np.arange(8) for gate in range(4)])
    left = {}
    for held in (True, False):
        out = tmp_path / f"held_{held}.keras"
        found = kprune.tune(
            zeroed, data=training, output=out, epochs=1, keep_zeros=held, learning_rate=1e-3
        )
        assert found.held_zero == (8 if held else 0)
        kernel, recurrent, bias = keras.models.load_model(out).get_layer("lstm").get_weights()
        left[held] = [np.abs(array[..., columns]).max() for array in (kernel, recurrent, bias)]
    assert left[True] == [0, 0, 0]
    assert all(value > 0 for value in left[False])


def test_a_teacher_is_learned_from(
    halved: Path, training: Path, samples: Path, tmp_path: Path
) -> None:
    found = kprune.tune(
        halved,
        data=training,
        teacher=samples / "digits_cnn.keras",
        output=tmp_path / "t.keras",
        epochs=3,
    )
    assert found.epochs[found.best]["val_accuracy"] > 0.85


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "must be at least 1"),
        ({"validation_split": 1.0}, "validation split"),
        ({"learning_rate": -1.0}, "learning rate"),
        ({"patience": 0}, "the patience must be at least 1, got 0"),
        ({"seed": -1}, "the seed must lie between 0 .*, got -1"),
        ({"seed": 2**32}, "the seed must lie between 0 .*, got 4294967296"),
        ({"optimizer": "sgdd"}, "cannot be compiled"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    change: dict[str, object], words: str, samples: Path, training: Path, tmp_path: Path
) -> None:
    out = tmp_path / "t.keras"
    with pytest.raises(kprune.UsageError, match=words):
        kprune.tune(samples / "digits_mlp.keras", data=training, output=out, **change)
    assert not out.exists()


def test_data_without_labels_are_refused(samples: Path, tmp_path: Path) -> None:
    data = tmp_path / "x.npz"
    np.savez(data, x=np.zeros((4, 8, 8, 1), "float32"))
    with pytest.raises(kprune.UsageError, match="need targets"):
        kprune.tune(samples / "digits_mlp.keras", data=data, output=tmp_path / "t.keras")


# -- the state of the optimizer -------------------------------------------------------------------


def one_step(path: Path, x: np.ndarray, y: np.ndarray, *, slots: bool) -> list[np.ndarray]:
    """The weights after one step of plain Keras on all samples at once."""
    import keras

    model = keras.models.load_model(path)
    if not slots:
        anew = type(model.optimizer).from_config(model.optimizer.get_config())
        model.compile(anew, model.loss)
    model.train_on_batch(x, y)
    return [np.asarray(array) for array in model.get_weights()]


@pytest.mark.parametrize("teacher", [False, True])
def test_the_optimizer_goes_on_with_the_slots_that_were_cut_along(
    teacher: bool, samples: Path, training: Path, tmp_path: Path
) -> None:
    import keras

    small, out, data = tmp_path / "small.keras", tmp_path / "out.keras", tmp_path / "data.npz"
    kprune.remove(samples / "digits_mlp.keras", {"hidden_1": "0-9"}, output=small)
    with np.load(training) as held:
        x, y = held["x"][:64], held["y"][:64]
    np.savez(data, x=x, y=y)
    kprune.tune(
        small, data=data, validation=training, output=out, epochs=1, batch_size=64,
        teacher=small if teacher else None, learning_rate=None,
    )  # fmt: skip
    before, after = keras.models.load_model(small), keras.models.load_model(out)
    assert int(after.optimizer.iterations) == int(before.optimizer.iterations) + 1 > 1
    if (
        teacher
    ):  # the teacher is the model itself, so it adds nothing but weight to the targets' loss
        return
    with_slots, without = one_step(small, x, y, slots=True), one_step(small, x, y, slots=False)
    got = after.get_weights()
    worst = max(np.abs(a - b).max() for a, b in zip(got, with_slots, strict=True))
    apart = max(np.abs(a - b).max() for a, b in zip(without, with_slots, strict=True))
    assert worst < 1e-6 < 1e-4 < apart


def test_the_state_that_is_written_is_that_of_the_best_epoch(
    samples: Path, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from kprune.train.tune_loop import Training

    losses = iter([3.0, 2.0, 1.0, 1.5, 1.0])
    monkeypatch.setattr(Training, "judge", lambda self: {"val_loss": next(losses)})
    out, model = tmp_path / "t.keras", samples / "digits_mlp.keras"
    found = kprune.tune(model, data=training, output=out, epochs=9, patience=2)
    assert (found.best, len(found.epochs)) == (2, 5)
    before, after = (keras.models.load_model(path).optimizer.iterations for path in (model, out))
    assert int(after) - int(before) == 2 * 17


def test_a_fixed_rate_takes_the_place_of_a_schedule(tmp_path: Path, training: Path) -> None:
    import keras

    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), loss)
    with np.load(training) as held:
        model.fit(held["x"], held["y"], epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    found = kprune.tune(
        tmp_path / "m.keras", data=training, output=tmp_path / "t.keras", epochs=2,
        learning_rate=0.01,
    )  # fmt: skip
    assert [note.kind for note in found.notes].count("learning-rate") == 1
    assert found.best == 2
    tuned = keras.models.load_model(tmp_path / "t.keras")
    assert float(tuned.optimizer.learning_rate) == pytest.approx(0.01)
    assert int(tuned.optimizer.iterations) == 19 + 2 * 17
    slots = [np.asarray(slot) for slot in tuned.optimizer.variables[2:]]
    assert [slot.shape for slot in slots] == [(64, 10), (10,)]
    assert all(np.abs(slot).max() > 0 for slot in slots)


# -- zeroed units ---------------------------------------------------------------------------------


def test_units_that_share_a_position_are_held_at_zero_one_by_one(
    tmp_path: Path, training: Path
) -> None:
    """A depthwise kernel of multiplier 2 has two units for each channel."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(3, 3),
            keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depth"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    kernel, bias = model.get_layer("depth").get_weights()
    kernel[:, :, 1, 0] = 0  # unit 2
    model.get_layer("depth").set_weights([kernel, bias])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "m.keras")
    found = kprune.tune(
        tmp_path / "m.keras", data=training, output=tmp_path / "t.keras", epochs=1, keep_zeros=True
    )
    assert found.held_zero == 1
    kernel, bias = keras.models.load_model(tmp_path / "t.keras").get_layer("depth").get_weights()
    still = (kernel == 0).all(axis=(0, 1))
    assert still.tolist() == [[False, False], [True, False], [False, False]]
    assert (bias == 0).tolist() == [False, False, True, False, False, False]


# -- a teacher ------------------------------------------------------------------------------------


def test_outputs_that_are_no_classes_are_compared_by_the_mean_square(tmp_path: Path) -> None:
    """Labels of 0 and a teacher: the student comes to the middle, and not only up to a constant."""
    import keras

    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 4)).astype("float32")
    inputs = keras.Input((4,))
    for name, weight in (("teacher", 2.0), ("student", 0.0)):
        model = keras.Model(inputs, keras.layers.Dense(3, name="out")(inputs))
        model.get_layer("out").set_weights([np.full((4, 3), weight), np.full(3, 5 * weight)])
        model.compile(keras.optimizers.SGD(0.3), "mse")
        model.save(tmp_path / f"{name}.keras")
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros((512, 3)))
    half = (x.sum(1, keepdims=True) + 5).repeat(3, axis=1)
    np.savez(tmp_path / "half.npz", x=x, y=half)
    kprune.tune(
        tmp_path / "student.keras", data=tmp_path / "d.npz", validation=tmp_path / "half.npz",
        teacher=tmp_path / "teacher.keras", output=tmp_path / "t.keras", epochs=8,
    )  # fmt: skip
    kernel, bias = keras.models.load_model(tmp_path / "t.keras").get_weights()
    np.testing.assert_allclose(kernel, 1.0, atol=0.05)
    np.testing.assert_allclose(bias, 5.0, atol=0.05)


def test_a_keras_without_distillation_is_told_of(
    samples: Path, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.delattr(keras, "distillation")
    model = samples / "digits_mlp.keras"
    with pytest.raises(kprune.CannotPruneError, match=r"has no keras\.distillation") as refused:
        kprune.tune(model, data=training, teacher=model, output=tmp_path / "t.keras")
    assert "leave out --teacher" in refused.value.do


# -- curves ---------------------------------------------------------------------------------------


def test_the_curves_are_drawn_for_the_loss_and_each_metric(
    learned: Any, samples: Path, training: Path, tmp_path: Path
) -> None:
    shown = learned[1].with_name("curve.svg").read_text()
    for text in ("epoch", "loss", "accuracy", "data held back", "while learning", "written"):
        assert f">{text}</text>" in shown, text
    with pytest.raises(kprune.UsageError, match=r"curve\.gif"):
        kprune.tune(samples / "digits_mlp.keras", data=training, plot=tmp_path / "curve.gif")


# -- Keras 2 and figures that are none ------------------------------------------------------------


def test_a_model_of_keras_2_goes_on_with_its_own_optimizer(tmp_path: Path, training: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential(
        [
            tf_keras.layers.Input((8, 8, 1)),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(12, activation="relu", name="hidden"),
            tf_keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with np.load(training) as held:
        model.fit(held["x"], held["y"], epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    kprune.remove(tmp_path / "m.keras", {"hidden": "0-3"}, output=tmp_path / "s.keras")
    out = tmp_path / "t.keras"
    found = kprune.tune(tmp_path / "s.keras", data=training, output=out, epochs=1)
    assert (found.best, found.notes) == (1, [])
    tuned = tf_keras.models.load_model(out)
    assert int(tuned.optimizer.iterations) == 19 + 17
    proof = kprune.verify(tmp_path / "s.keras", out, data=training)
    assert proof.metrics is not None
    assert proof.metrics["after"]["loss"] < proof.metrics["before"]["loss"]
    with pytest.raises(kprune.CannotPruneError, match="Keras 2 cannot learn from a teacher"):
        kprune.tune(tmp_path / "s.keras", data=training, teacher=tmp_path / "m.keras")


def test_an_epoch_without_a_number_is_never_the_best_and_json_stays_json(
    samples: Path, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kprune.train.tune_loop import Training

    losses = iter([float("nan"), 0.5, float("nan")])
    monkeypatch.setattr(Training, "judge", lambda self: {"val_loss": next(losses)})
    found = kprune.tune(
        samples / "digits_mlp.keras", data=training, output=tmp_path / "t.keras", epochs=2
    )
    assert found.best == 1
    shown = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [epoch["val_loss"] for epoch in shown["epochs"]] == [None, 0.5, None]
