"""Data by a function of the user's: imported, called, checked; its dataset trains and judges."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.running.sources import is_function
from kprune.select.plans.curves import read_curves
from kprune.select.ranking.choice import Choice

pytestmark = pytest.mark.oracle

MODULE = """
    import numpy as np
    import tensorflow as tf

    def pairs():
        with np.load("data.npz") as held:
            return tf.data.Dataset.from_tensor_slices((held["x"], held["y"]))

    def arrays():
        with np.load("data.npz") as held:
            return dict(held)

    def batches(): return pairs().batch(50)
    def endless(): return batches().repeat()
    def empty(): return batches().take(0)
    def unlabelled(): return batches().map(lambda x, y: x)
    def number(): return 3
    def broken(): raise OSError("no such bucket")
    text = "not a function"
"""


@pytest.fixture
def model(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The MLP, in a folder with data and a module, which is the current one."""
    from sample_models.make_models import digits

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    (tmp_path / "own_data.py").write_text(textwrap.dedent(MODULE))
    data = digits()
    np.savez("data.npz", x=data.x_train[:300], y=data.y_train[:300])
    return samples / "digits_mlp.keras"


def test_a_dataset_judges_as_its_arrays_do(model: Path) -> None:
    how = {"ratios": [0.5], "layers": ["hidden_2"], "batch_size": 50}
    of_arrays = kprune.sensitivity(model, data="data.npz", **how)
    assert of_arrays.samples == 300
    for name in ("pairs", "batches"):
        found = kprune.sensitivity(model, data=f"own_data:{name}", **how)
        assert (found.samples, found.data) == (None, f"own_data:{name}")
        for one, other in (
            (found.baseline, of_arrays.baseline),
            (found.candidates[0].points[0].metrics, of_arrays.candidates[0].points[0].metrics),
        ):
            assert one == pytest.approx(other, rel=1e-5)
        text = found.to_json()
        Path("curves.json").write_text(text)
        assert read_curves("curves.json") == found


def test_a_function_may_make_what_criteria_and_verify_run_on(model: Path) -> None:
    def outcomes(data: str) -> list[Any]:
        choice = Choice("taylor", ratio=0.5)
        report = kprune.remove(model, choice=choice, data=data, dry_run=True)
        return [report.changed, kprune.verify(model, model, data=data).metrics]

    of_arrays = outcomes("data.npz")
    for name in ("pairs", "batches", "arrays"):
        assert outcomes(f"own_data:{name}") == of_arrays


def test_arrays_that_a_function_makes_are_held_back_as_those_of_a_file_are(model: Path) -> None:
    found = kprune.tune(model, data="own_data:arrays", output="t.keras", epochs=1)
    assert (found.samples, found.held_back) == (270, 30)


def test_a_plan_runs_no_code(model: Path) -> None:
    choice = "{criterion: apoz, ratio: 0.5}"
    step = f"{{backend: remove, data: 'own_data:arrays', layers: {{hidden_1: {choice}}}}}"
    Path("plan.yaml").write_text(f"version: 1\nsteps: [{step}]\n")
    with pytest.raises(kprune.UsageError, match="a plan runs no code"):
        kprune.apply(model, "plan.yaml", dry_run=True)
    assert "own_data" not in sys.modules


def test_a_model_built_for_batches_of_one_size_gets_whole_ones(model: Path) -> None:
    import keras

    fixed = keras.Sequential([keras.Input(batch_shape=(16, 64)), keras.layers.Dense(10, name="d")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fixed.compile("sgd", loss)
    fixed.save("fixed.keras")
    with np.load("data.npz") as held:
        x, y = held["x"].reshape(300, -1), held["y"]
    np.savez("flat.npz", x=x, y=y)
    found = kprune.tune("fixed.keras", data="flat.npz", epochs=1, output="t.keras")
    assert (found.samples, found.held_back) == (256, 16)
    found = kprune.tune(
        "fixed.keras", data="flat.npz", epochs=1, output="t.keras", force=True, validation_split=0
    )
    assert found.samples == 288
    expected = fixed.evaluate(x[:288], y[:288], batch_size=16, verbose=0)
    assert found.epochs[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "batch"), [("pairs", 20), ("batches", 50)])
def test_a_dataset_trains_batched_or_not(model: Path, name: str, batch: int) -> None:
    import keras

    found = kprune.tune(
        model, data=f"own_data:{name}", validation="data.npz", output="t.keras", epochs=1,
        batch_size=20, learning_rate=1e-5,
    )  # fmt: skip
    assert (found.samples, found.held_back, found.best) == (None, 300, 1)
    steps = [int(keras.models.load_model(path).optimizer.iterations) for path in (model, "t.keras")]
    assert steps[1] - steps[0] == 300 // batch


def test_without_validation_epochs_are_judged_by_what_is_learned(model: Path) -> None:
    found = kprune.tune(model, data="own_data:batches", output="t.keras", epochs=1)
    assert (found.watched, found.held_back) == ("loss", 0)
    assert any("judged by those the model learns from" in note.text for note in found.notes)
    plain = kprune.tune(
        model, data="data.npz", validation="own_data:batches", output="u.keras", epochs=1
    )
    assert (plain.watched, plain.samples, plain.held_back) == ("val_loss", 300, None)
    assert plain.epochs[0]["val_loss"] == pytest.approx(found.epochs[0]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("endless", "has no end"),
        ("empty", "is empty"),
        ("unlabelled", "gives TensorSpec"),
        ("number", "no data can be read from own_data:number"),
        ("text", "has no function 'text'"),
        ("broken", "own_data:broken fails"),
    ],
)
def test_a_function_that_gives_something_else_is_refused(
    model: Path, name: str, words: str
) -> None:
    with pytest.raises(kprune.KpruneError, match=words):
        kprune.tune(model, data=f"own_data:{name}", output="t.keras")
    assert not Path("t.keras").exists()


def test_a_module_that_is_not_there_is_told_from_one_that_fails(model: Path) -> None:
    Path("needy.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(kprune.UsageError, match="no module 'own_dat'"):
        kprune.tune(model, data="own_dat:batches", output="t.keras")
    with pytest.raises(kprune.CannotPruneError) as refused:
        kprune.tune(model, data="needy:batches", output="t.keras")
    assert "nowhere_to_be_found" in refused.value.why


def test_no_part_of_a_dataset_is_held_back(model: Path) -> None:
    with pytest.raises(kprune.UsageError, match="no part of a dataset"):
        kprune.tune(model, data="own_data:batches", validation_split=0.2, output="t.keras")


def test_a_file_of_such_a_name_is_a_file(model: Path) -> None:
    assert is_function("own_data:batches") and is_function("a.b_2:c")
    for text in ("data.npz", "a:b:c", "1a:b", "a:b.npz", "/a:b", "C:\\data"):
        assert not is_function(text)
    Path("own_data:batches").write_text("")
    assert not is_function("own_data:batches")
