"""Training after a repair: it goes on from what was refitted, and does not undo it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.select.ranking.budget import Budget
from kprune.train.gentle_start import start_gently
from kprune.train.settings import Settings

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def repaired(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MLP at 30 % of its parameters, refitted. Read only."""
    out = tmp_path_factory.mktemp("gentle") / "repaired.keras"
    kprune.remove(
        samples / "digits_mlp.keras", choice=kprune.Choice("obs", target=Budget("parameters", "30%")),
        data=samples / "digits_train.npz", repair=True, output=out,
    )  # fmt: skip
    return out


def known(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read("metadata.json"))["kprune"]
    return found


def rate(path: Path) -> float:
    import keras

    return float(keras.models.load_model(path).optimizer.learning_rate)


def rate_notes(found: Any) -> list[str]:
    return [note.text for note in found.notes if note.kind == "learning-rate"]


@pytest.fixture(scope="module")
def tuned(repaired: Path, samples: Path) -> Any:
    """What an epoch comes to for which nothing is said, and the file."""
    out = repaired.with_name("tuned.keras")
    data = samples / "digits_train.npz"
    return kprune.tune(repaired, data=data, output=out, epochs=1, batch_size=8), out


def test_an_epoch_after_a_repair_does_not_undo_it(tuned: Any) -> None:
    found, out = tuned
    before, after = (figures["val_loss"] for figures in found.epochs)
    assert after < 1.5 * before  # 3 to 30 times as much with the file's rate and count of steps
    assert rate_notes(found) == [
        "a learning rate of 0.0001 instead of the file's 0.001, since larger steps undo what was "
        "just refitted; --learning-rate sets another"
    ]
    assert rate(out) == pytest.approx(1e-4 if found.best else 1e-3)


def test_steps_are_counted_anew_with_the_slots(samples: Path, repaired: Path) -> None:
    import keras

    before, after = (
        keras.models.load_model(path).optimizer for path in (samples / "digits_mlp.keras", repaired)
    )
    assert int(before.iterations) > 1000 and int(after.iterations) == 0
    assert float(after.learning_rate) == float(before.learning_rate)


def test_a_schedule_goes_on_counting(tmp_path: Path) -> None:
    import keras

    schedule = keras.optimizers.schedules.PolynomialDecay(1e-2, 400, 1e-6)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.Adam(schedule), "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    model.fit(x, x[:, :2], batch_size=32, verbose=0)
    model.save(tmp_path / "model.keras")
    out = tmp_path / "out.keras"
    kprune.remove(tmp_path / "model.keras", {"hidden": [0, 1]}, data=x, repair=True, output=out)
    assert int(keras.models.load_model(out).optimizer.iterations) == 2


def test_a_rate_that_is_given_wins(repaired: Path, samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"
    with np.load(samples / "digits_train.npz") as data:
        few = data["x"][:64], data["y"][:64]
    found = kprune.tune(repaired, data=few, output=out, epochs=1, learning_rate=3e-4)
    assert rate_notes(found) == []
    assert rate(out) == pytest.approx(3e-4 if found.best else 1e-3)


@pytest.fixture
def compiled() -> Any:
    """Compiles a small model, as often as it is called."""
    import keras

    def build(optimizer: Any) -> Any:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        model.optimizer.build(model.trainable_variables)
        model.optimizer.iterations.assign(500)
        return model

    return build


@pytest.mark.parametrize(
    ("name", "own", "before", "expected"),
    [
        ("AdamW", 1e-2, False, 1e-4),
        ("Adam", 2e-5, False, 2e-5),
        ("RMSprop", 1e-3, True, 1e-4),
        ("SGD", 0.05, False, 0.015),
        ("SGD", 0.05, True, 0.05),
    ],
)
def test_the_rate_is_a_smaller_one_where_the_file_has_a_large_one(
    name: str, own: float, before: bool, expected: float, compiled: Any
) -> None:
    import keras

    model = compiled(getattr(keras.optimizers, name)(own))
    notes = start_gently(keras, model, Settings(), said=True, before=before)
    assert float(model.optimizer.learning_rate) == pytest.approx(expected)
    assert len(notes) == (expected != own)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(("end", "steps"), [(1e-3, 0), (1e-6, 500)])
def test_a_schedule_goes_on_where_it_has_come_to_small_steps(
    end: float, steps: int, compiled: Any
) -> None:
    import keras

    schedule = keras.optimizers.schedules.PolynomialDecay(1e-2, 400, end)
    model = compiled(keras.optimizers.Adam(schedule))
    notes = start_gently(keras, model, Settings(), said=True, before=False)
    assert float(model.optimizer.learning_rate) == pytest.approx(min(end, 1e-4))
    assert (int(model.optimizer.iterations), bool(notes)) == (steps, steps == 0)


def test_a_file_says_that_it_was_trained_after_its_repair(repaired: Path, tuned: Any) -> None:
    found, out = tuned
    expected = {**known(repaired), "trained": 1} if found.best else known(repaired)
    assert known(out) == expected
