"""`--repair` and `kprune repair`, from file to file: how near the result comes, and what is in it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.errors import CannotPruneError, UsageError
from kprune.select.plans.plan import parse_plan
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice
from tests.formats.making import contents

HALF = Choice("obs", target=Budget("parameters", "50%"))
UNITS = {"hidden_1": list(range(40)), "hidden_2": list(range(30))}


@pytest.fixture(scope="module")
def mlp(samples: Path) -> Path:
    return samples / "digits_mlp.keras"


@pytest.fixture(scope="module")
def unlabelled(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "unlabelled.npz"
    np.savez(path, x=np.load(samples / "digits_train.npz")["x"][:256])
    return path


def accuracy(path: Path, samples: Path) -> float:
    import keras

    test = np.load(samples / "digits_test.npz")
    model = keras.models.load_model(path, compile=False)
    return float((np.asarray(model(test["x"])).argmax(axis=1) == test["y"]).mean())


def last_step(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read("metadata.json"))["kprune"]["plan"][
            "steps"
        ][-1]
    return found


def weights(path: Path) -> dict[str, np.ndarray]:
    return {name: value for name, value in contents(path).items() if name.startswith("layers/")}


def test_half_of_a_model_goes_and_its_accuracy_stays(
    mlp: Path, samples: Path, unlabelled: Path, tmp_path: Path
) -> None:
    cut, repaired = tmp_path / "cut.keras", tmp_path / "repaired.keras"
    kprune.remove(mlp, UNITS, output=cut)
    report = kprune.remove(mlp, UNITS, output=repaired, repair=True, data=unlabelled)
    whole = accuracy(mlp, samples)
    assert accuracy(cut, samples) < whole - 0.05
    assert accuracy(repaired, samples) > whole - 0.015
    found = report.repaired
    assert found is not None and found.way == "lstsq" and found.inputs == 256 and not found.left
    assert [row.name for row in found.kernels] == ["hidden_2", "classes"]
    assert found.cut.divergence.distance > 10 * found.repaired.divergence.distance
    assert not report.exact


def test_a_second_layer_is_the_least_squares_solution_of_numpy(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    """The layer behind the first: its inputs are exact, so its weights can be told by numpy alone."""
    import keras

    from kprune.refitting.moments import ridge_for

    out = tmp_path / "out.keras"
    kprune.remove(mlp, {"hidden_1": UNITS["hidden_1"]}, output=out, repair=True, data=unlabelled)
    model = keras.models.load_model(mlp, compile=False)
    x = np.load(unlabelled)["x"]
    first, second = (model.get_layer(name) for name in ("hidden_1", "hidden_2"))
    h = np.maximum(x.reshape(len(x), -1) @ np.asarray(first.kernel) + np.asarray(first.bias), 0)
    z = (h @ np.asarray(second.kernel) + np.asarray(second.bias)).astype(np.float64)
    kept = np.setdiff1d(np.arange(h.shape[1]), UNITS["hidden_1"])
    rows = h[:, kept].astype(np.float64)
    centred, targets = rows - rows.mean(axis=0), z - z.mean(axis=0)
    scale = np.sqrt((centred**2).mean(axis=0))
    prior = np.asarray(second.kernel, np.float64)[kept]
    pull = np.sqrt(ridge_for(len(x)) * len(x)) * np.diag(scale)
    wanted, *_ = np.linalg.lstsq(
        np.concatenate([centred, pull]), np.concatenate([targets, pull @ prior]), rcond=None
    )
    found = keras.models.load_model(out, compile=False).get_layer("hidden_2")
    alive = scale > 0  # an input that is always the same has no say: its weights stay
    np.testing.assert_allclose(np.asarray(found.kernel)[alive], wanted[alive], atol=3e-3)
    np.testing.assert_array_equal(np.asarray(found.kernel)[~alive], prior[~alive].astype("f4"))
    np.testing.assert_allclose(
        np.asarray(found.bias),
        z.mean(axis=0) - rows.mean(axis=0) @ np.asarray(found.kernel),
        atol=2e-3,
    )


def test_a_file_that_was_cut_before_becomes_what_it_would_have_been(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    at_once, cut, later = (tmp_path / f"{name}.keras" for name in ("at_once", "cut", "later"))
    kprune.remove(mlp, UNITS, output=at_once, repair=True, data=unlabelled)
    kprune.remove(mlp, UNITS, output=cut)
    report = kprune.repair(mlp, cut, output=later, data=unlabelled)
    assert report.command == "repair"
    one, other = contents(at_once), contents(later)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert last_step(later) == last_step(at_once)
    assert last_step(later)["repair"] == "lstsq"


def test_the_same_command_gives_the_same_bytes(mlp: Path, unlabelled: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.keras", tmp_path / "other.keras"
    for path in (one, other):
        kprune.remove(mlp, choice=HALF, output=path, repair=True, data=unlabelled)
    assert one.read_bytes() == other.read_bytes()


def test_slots_of_the_optimizer_are_zero_where_weights_were_rewritten(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    kprune.remove(mlp, {"hidden_2": UNITS["hidden_2"]}, output=out, repair=True, data=unlabelled)
    before, after = contents(mlp), contents(out)
    momenta = [name for name in after if name.startswith("optimizer/") and after[name].ndim == 2]
    rewritten = [name for name in momenta if after[name].shape[1] == 10]
    first = [name for name in momenta if after[name].shape == before[name].shape]
    assert len(rewritten) == 2 and len(first) == 2
    assert all(before[name].any() and not after[name].any() for name in rewritten)
    assert all(np.array_equal(before[name], after[name]) for name in first)


def test_without_data_inputs_are_made_up(mlp: Path, samples: Path, tmp_path: Path) -> None:
    cut, out = tmp_path / "cut.keras", tmp_path / "out.keras"
    kprune.remove(mlp, UNITS, output=cut)
    report = kprune.remove(mlp, UNITS, output=out, repair=True)
    assert report.repaired is not None and report.repaired.way == "noise"
    assert accuracy(out, samples) > accuracy(cut, samples) + 0.03


@pytest.mark.parametrize("way", ["bias", "bn"])
def test_the_cheap_ways_change_no_kernel(
    way: str, samples: Path, unlabelled: Path, tmp_path: Path
) -> None:
    cnn, cut, out = samples / "digits_cnn.keras", tmp_path / "cut.keras", tmp_path / "out.keras"
    kprune.remove(cnn, {"conv_2": range(12)}, output=cut)
    report = kprune.repair(cnn, cut, output=out, way=way, data=unlabelled)  # type: ignore[arg-type]
    before, after = weights(cut), weights(out)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and all(before[name].ndim == 1 for name in changed)
    assert report.repaired is not None
    assert report.repaired.repaired.divergence.distance < report.repaired.cut.divergence.distance


def test_classes_that_are_left_are_refitted_too(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    report = kprune.remove(mlp, {**UNITS, "classes": [3]}, output=out, repair=True, data=unlabelled)
    assert report.repaired is not None
    assert report.repaired.repaired.divergence.agreement > 0.95  # type: ignore[operator]


def test_a_plan_may_ask_for_it_in_a_step(mlp: Path, unlabelled: Path, tmp_path: Path) -> None:
    text = (
        "version: 1\nsteps:\n  - {backend: remove, layers: {hidden_1: 0-39}, repair: true, "
        f"data: {unlabelled}}}\n"
    )
    plan, by_plan, by_hand = tmp_path / "plan.yaml", tmp_path / "a.keras", tmp_path / "b.keras"
    plan.write_text(text)
    kprune.apply(mlp, plan, output=by_plan)
    kprune.remove(
        mlp, {"hidden_1": UNITS["hidden_1"]}, output=by_hand, repair=True, data=unlabelled
    )
    for name, value in contents(by_hand).items():
        np.testing.assert_array_equal(contents(by_plan)[name], value, err_msg=name)


def test_apply_refits_what_steps_leave_that_say_nothing_of_it(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    steps = [
        {"backend": "remove", "layers": {"hidden_1": "0-9"}, "repair": False},
        {"backend": "remove", "layers": {"hidden_2": "0-9"}},
    ]
    plan = parse_plan(json.dumps({"version": 1, "steps": steps}))
    out = tmp_path / "out.keras"
    kprune.apply(mlp, plan, output=out, repair="lstsq", data=unlabelled)
    with zipfile.ZipFile(out) as archive:
        own = json.loads(archive.read("metadata.json"))["kprune"]["plan"]["steps"]
    assert [step.get("repair") for step in own] == [None, "lstsq"]


def test_a_live_model_comes_back_smaller_and_near(mlp: Path, unlabelled: Path) -> None:
    import keras

    model = keras.models.load_model(mlp, compile=False)
    x = np.load(unlabelled)["x"]
    small = kprune.remove(model, UNITS, repair=True, data=x)
    cut = kprune.remove(model, UNITS)
    wanted = np.asarray(model(x))
    assert small.count_params() == cut.count_params()
    assert (
        np.abs(np.asarray(small(x)) - wanted).mean()
        < 0.2 * np.abs(np.asarray(cut(x)) - wanted).mean()
    )


def test_what_cannot_be_refitted_is_refused_and_nothing_is_written(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    with pytest.raises(UsageError, match="needs inputs"):
        kprune.remove(mlp, UNITS, output=out, repair="lstsq")
    with pytest.raises(UsageError, match="there is no way of repair called 'magic'"):
        kprune.remove(mlp, UNITS, output=out, repair="magic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not made from the first by kprune"):
        kprune.repair(mlp, mlp, output=out, data=unlabelled)
    assert not out.exists()


def test_made_up_tokens_are_refused(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8)(inputs)
    x = keras.layers.Dense(8, name="a")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    path = tmp_path / "tokens.keras"
    model.save(path)
    with pytest.raises(CannotPruneError, match="no inputs can be made up"):
        kprune.remove(path, {"a": [1]}, repair=True)


def test_equal_ratios_are_taken_where_they_come_nearer_and_the_report_says_so(
    mlp: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kprune.pruning import repairing

    tried = []

    def refit(*args: Any) -> Any:
        values, found = refitted(*args)
        tried.append(found.fitted.distance)
        return values, found

    refitted = repairing.refitted
    monkeypatch.setattr(repairing, "refitted", refit)
    small = Choice("obs", target=Budget("parameters", "15%"))
    report = kprune.remove(
        mlp, choice=small, output=tmp_path / "out.keras", repair=True, data=unlabelled
    )
    assert len(tried) == 2 and report.repaired is not None
    assert report.repaired.fitted.distance == min(tried)
    said = any(note.kind == "equal-ratios" for note in report.notes)
    assert said == (tried[1] < tried[0])


def test_a_kernel_whose_sums_are_too_large_for_the_memory_is_named(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    report = kprune.remove(
        mlp, UNITS, output=tmp_path / "out.keras", repair=True, data=unlabelled, memory=20_000
    )
    assert report.repaired is not None
    assert [(row.name, row.why) for row in report.repaired.left] == [("hidden_2", "memory")]
    assert any(note.kind == "not-repaired" and "--memory" in note.text for note in report.notes)


def test_what_follows_a_block_that_was_taken_out_is_refitted(
    samples: Path, unlabelled: Path, tmp_path: Path
) -> None:
    resnet, out = samples / "digits_resnet.keras", tmp_path / "out.keras"
    report = kprune.remove(
        resnet, whole_layers=["block_3_*"], output=out, repair=True, data=unlabelled
    )
    found = report.repaired
    assert found is not None and [row.name for row in found.kernels] == ["classes"]
    assert found.repaired.divergence.distance < found.cut.divergence.distance / 10


def test_with_targets_the_metrics_of_all_three_models_are_told(mlp: Path, samples: Path) -> None:
    data = samples / "digits_test.npz"
    report = kprune.remove(mlp, UNITS, dry_run=True, repair=True, data=data)
    found = report.repaired
    assert found is not None and found.metrics["accuracy"] > 0.9
    assert found.metrics.keys() == found.cut.metrics.keys() == found.repaired.metrics.keys()
    assert "original: accuracy" in str(report) or "original: loss" in str(report)


def test_the_schema_of_a_repair_describes_its_report(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    from kprune.report.repaired import repaired_schema

    report = kprune.remove(mlp, UNITS, dry_run=True, repair=True, data=unlabelled)
    schema, found = repaired_schema(), json.loads(report.to_json())
    assert schema["properties"].keys() == found.keys()
    assert schema["$defs"]["Repaired"]["properties"].keys() == found["repaired"].keys()
    assert "repaired" not in json.loads(kprune.remove(mlp, UNITS, dry_run=True).to_json())


def test_weights_stay_as_cut_where_refitting_would_make_it_worse(
    mlp: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair whose solutions are garbage: what is written is the plain cut, and a note says so."""
    from kprune.refitting.moments import Fit, Moments

    real = Moments.fit

    def spoilt(self: Moments, *args: Any, **kwargs: Any) -> Fit:
        fit = real(self, *args, **kwargs)
        return Fit(-fit.matrix, fit.shift, fit.before, fit.after)

    monkeypatch.setattr(Moments, "fit", spoilt)
    cut, out = tmp_path / "cut.keras", tmp_path / "out.keras"
    kprune.remove(mlp, UNITS, output=cut)
    report = kprune.remove(mlp, UNITS, output=out, repair=True, data=unlabelled)
    assert report.repaired is not None and not report.repaired.kept and report.exact
    assert any(note.kind == "not-repaired" for note in report.notes)
    assert cut.read_bytes() == out.read_bytes()


def test_few_inputs_make_it_no_worse_than_the_cut(samples: Path, tmp_path: Path) -> None:
    """Held out inputs see that the weights fit the few inputs alone; then the cut stays as it is."""
    x = np.load(samples / "digits_train.npz")["x"]
    cnn, cut, out = samples / "digits_cnn.keras", tmp_path / "cut.keras", tmp_path / "out.keras"
    choice = Choice("l1", ratio=0.3)
    kprune.remove(cnn, choice=choice, output=cut)
    report = kprune.remove(cnn, choice=choice, output=out, repair=True, data=x[:8])
    assert report.repaired is not None and report.repaired.judged == 4
    assert accuracy(out, samples) >= accuracy(cut, samples) - 0.02
    with pytest.raises(UsageError, match="at least 8 inputs, got 5"):
        kprune.remove(cnn, choice=choice, dry_run=True, repair=True, data=x[:5])


def test_inputs_that_are_no_numbers_are_refused(mlp: Path, unlabelled: Path) -> None:
    x = np.load(unlabelled)["x"].copy()
    x[3, 2, 2, 0] = np.nan
    with pytest.raises(UsageError, match="not finite"):
        kprune.remove(mlp, UNITS, dry_run=True, repair=True, data=x)
    with pytest.raises(UsageError, match="the memory must be"):
        kprune.remove(mlp, UNITS, dry_run=True, repair=True, data=x, memory=-1)


def test_data_of_the_command_serve_the_steps_of_a_plan_that_name_none(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    steps = [{"backend": "remove", "layers": {"hidden_1": "0-9"}, "repair": "lstsq"}]
    plan = parse_plan(json.dumps({"version": 1, "steps": steps}))
    report = kprune.apply(mlp, plan, output=tmp_path / "out.keras", data=unlabelled)
    assert report.repaired is not None and report.repaired.inputs == 256


def test_a_model_from_standard_input_is_refitted_as_a_file_is(
    mlp: Path, unlabelled: Path, tmp_path: Path
) -> None:
    import subprocess
    import sys

    one, other = tmp_path / "one.keras", tmp_path / "other.keras"
    kprune.remove(mlp, {"hidden_1": [0, 1, 2]}, output=one, repair=True, data=unlabelled)
    command = [sys.executable, "-m", "kprune", "remove", "-", "hidden_1:0-2", "--repair"]
    with open(mlp, "rb") as file:
        subprocess.run(
            [*command, "--data", str(unlabelled), "-o", str(other)], stdin=file, check=True
        )
    for name, value in contents(one).items():
        np.testing.assert_array_equal(contents(other)[name], value, err_msg=name)


def test_features_that_are_gone_are_made_up_for_by_the_others(tmp_path: Path) -> None:
    """The third feature is the sum of the first two, and goes."""
    import keras

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    x[:, 2] = x[:, 0] + x[:, 1]
    inputs = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(5, activation="tanh")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    path, out = tmp_path / "model.keras", tmp_path / "out.keras"
    model.save(path)
    report = kprune.remove(
        path, {"x": [2]}, allow_output_change=True, output=out, repair=True, data=x
    )
    assert report.repaired is not None and report.repaired.kept
    small = keras.models.load_model(out, compile=False)
    np.testing.assert_allclose(small(x[:, :2]), model(x), atol=0.02)
