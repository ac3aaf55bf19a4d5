"""Training on: what is left learns again, what was zeroed stays, and the best epoch is what is written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

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


@pytest.fixture
def halved(samples: Path, tmp_path: Path) -> Path:
    """The CNN without the weaker half of every layer."""
    small = tmp_path / "small.keras"
    kprune.remove(samples / "digits_cnn.keras", choice=kprune.Choice("l1", ratio=0.5), output=small)
    return small


def metadata(path: Path) -> dict[str, object]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, object] = json.loads(archive.read("metadata.json"))
    return found


def test_a_model_that_lost_half_its_units_learns_again(
    halved: Path, training: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.keras"
    found = kprune.tune(
        halved, data=training, validation=samples / "digits_test.npz", output=out, epochs=4
    )
    assert found.epochs[0]["val_accuracy"] < 0.6
    assert found.epochs[found.best]["val_accuracy"] > 0.9
    proof = kprune.verify(out, out, data=samples / "digits_test.npz")
    assert proof.metrics is not None
    assert proof.metrics["after"]["accuracy"] == pytest.approx(
        found.epochs[found.best]["val_accuracy"], abs=1e-3
    )


def test_what_is_known_of_the_pruning_stays_with_the_file(
    halved: Path, training: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.keras"
    kprune.tune(halved, data=training, output=out, epochs=1)
    assert metadata(out)["kprune"] == metadata(halved)["kprune"]


def test_the_epoch_that_is_written_is_the_best_one(
    halved: Path, training: Path, tmp_path: Path
) -> None:
    found = kprune.tune(
        halved, data=training, output=tmp_path / "t.keras", epochs=3, learning_rate=1e-3
    )
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
    with pytest.raises(kprune.UsageError, match="training needs labels"):
        kprune.tune(samples / "digits_mlp.keras", data=data, output=tmp_path / "t.keras")
