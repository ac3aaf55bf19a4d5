"""The state of the optimizer, left behind on request."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.select.plans.plan import parse_plan
from kprune.select.ranking.budget import Budget
from tests.formats.making import contents

MODEL = Path(__file__).parents[2] / "sample_models" / "digits_mlp.keras"


def state(path: Path) -> list[str]:
    return [name for name in contents(path) if name.startswith("optimizer")]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        (kprune.remove, {"units": {"hidden_1": [0, 5]}}),
        (kprune.zero, {"units": {"hidden_1": [0, 5]}}),
        (kprune.mask, {"units": {"hidden_1": [0, 5]}}),
        (kprune.compact, {"check": False}),
    ],
)
def test_every_command_leaves_it_behind(
    verb: Any, arguments: dict[str, Any], tmp_path: Path
) -> None:
    with_state, without = tmp_path / "with.keras", tmp_path / "without.keras"
    verb(MODEL, output=with_state, **arguments)
    report = verb(MODEL, output=without, drop_optimizer=True, **arguments)
    assert state(with_state) and not state(without)
    own = [note for note in report.notes if note.kind == "optimizer"]
    assert len(own) == 1 and "left behind" in own[0].text
    kept, left = contents(with_state), contents(without)
    weights = {name for name in kept if not name.startswith("optimizer")}
    assert weights == left.keys()
    assert all(kept[name].tobytes() == left[name].tobytes() for name in weights)


def test_unmask_leaves_it_behind(tmp_path: Path) -> None:
    masked, bare = tmp_path / "masked.keras", tmp_path / "bare.keras"
    kprune.mask(MODEL, {"hidden_1": [0]}, output=masked)
    kprune.unmask(masked, output=bare, drop_optimizer=True)
    assert state(masked) and not state(bare)


def test_a_plan_says_it_for_a_step_and_the_command_for_all(tmp_path: Path) -> None:
    first = {"backend": "zero", "layers": {"hidden_1": [0]}}
    second = {"backend": "remove", "layers": {"hidden_1": [0]}, "drop_optimizer": True}
    plans = {
        "step": [second],
        "last": [first, second],
        "none": [first],
    }
    for name, steps in plans.items():
        plan = parse_plan(json.dumps({"version": 1, "steps": steps}))
        out = tmp_path / f"{name}.keras"
        kprune.apply(MODEL, plan, output=out)
        assert bool(state(out)) == (name == "none")
        kprune.apply(MODEL, plan, output=out, force=True, drop_optimizer=True)
        assert not state(out)


def test_what_compile_set_stays_and_keras_trains_with_a_new_state(tmp_path: Path) -> None:
    import keras
    import numpy as np

    out = tmp_path / "small.keras"
    kprune.remove(MODEL, {"hidden_1": [0, 5]}, output=out, drop_optimizer=True)
    model = keras.models.load_model(out)
    before = keras.models.load_model(MODEL)
    assert type(model.optimizer) is type(before.optimizer)
    assert int(before.optimizer.iterations) > 0
    assert int(model.optimizer.iterations) == 0
    x = np.zeros((4, *model.inputs[0].shape[1:]), "float32")
    model.fit(x, np.zeros(4, "int64"), epochs=1, verbose=0)
    assert int(model.optimizer.iterations) == 1


def test_a_budget_of_bytes_says_what_it_counts_and_counts_it(tmp_path: Path) -> None:
    choice = kprune.Choice("l1", target=Budget("bytes", "35%"))
    kept = kprune.remove(MODEL, choice=choice, output=tmp_path / "a.keras")
    left = kprune.remove(MODEL, choice=choice, output=tmp_path / "b.keras", drop_optimizer=True)
    for report, words in ((kept, "with the optimizer's state"), (left, "without the optimizer's")):
        assert any(words in note.text for note in report.notes if note.kind == "budget")
        assert report.output.bytes <= 0.35 * MODEL.stat().st_size
    # Once its state is left behind, the file is nearly small enough.
    assert left.output.parameters > 2 * kept.output.parameters


def test_a_file_without_a_state_is_told_so(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.keras", tmp_path / "twice.keras"
    kprune.remove(MODEL, {"hidden_1": [0]}, output=once, drop_optimizer=True)
    report = kprune.remove(once, {"hidden_1": [0]}, output=twice, drop_optimizer=True)
    assert any("no state" in note.text for note in report.notes)


def test_members_stay_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "small.keras"
    kprune.remove(MODEL, {"hidden_1": [0]}, output=out, drop_optimizer=True)
    with zipfile.ZipFile(MODEL) as before, zipfile.ZipFile(out) as after:
        assert before.namelist() == after.namelist()
