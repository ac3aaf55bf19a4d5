"""Sensitivity: every figure is that of a model cut by hand, whoever measures it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.select.plans.curves import Curves

pytestmark = pytest.mark.oracle

RATIOS = (0.25, 0.5)


@pytest.fixture(scope="module")
def held_out(samples: Path) -> dict[str, np.ndarray]:
    with np.load(samples / "digits_test.npz") as arrays:
        return {"x": arrays["x"][:150], "y": arrays["y"][:150]}


@pytest.fixture(scope="module")
def data(held_out: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "test.npz"
    np.savez(path, **held_out)
    return path


@pytest.fixture(scope="module")
def mlp(samples: Path, data: Path) -> Curves:
    return kprune.sensitivity(samples / "digits_mlp.keras", data=data, ratios=RATIOS)


def lowest(kernel: np.ndarray, ratio: float) -> np.ndarray:
    """The units whose incoming weights have the least sum of magnitudes."""
    order = np.argsort(np.abs(kernel.astype(np.float64)).sum(axis=0), kind="stable")
    return np.sort(order[: int(ratio * kernel.shape[1])])


def test_the_curves_of_an_mlp_are_those_of_weights_sliced_by_hand(
    samples: Path, held_out: dict[str, np.ndarray], mlp: Curves
) -> None:
    import keras

    whole = keras.models.load_model(samples / "digits_mlp.keras")
    weights = [whole.get_layer(name).get_weights() for name in ("hidden_1", "hidden_2", "classes")]
    assert [list(candidate.layers) for candidate in mlp.candidates] == [
        ["hidden_1"], ["hidden_2"], ["classes"],
    ]  # fmt: skip
    for number, name in enumerate(("hidden_1", "hidden_2")):
        for ratio, point in zip(RATIOS, mlp.candidates[number].points, strict=True):
            gone = lowest(weights[number][0], ratio)
            assert point.removed == {name: gone.tolist()}
            cut = [[array.copy() for array in layer] for layer in weights]
            cut[number] = [np.delete(array, gone, axis=-1) for array in cut[number]]
            cut[number + 1][0] = np.delete(cut[number + 1][0], gone, axis=0)
            assert point.parameters == sum(array.size for layer in cut for array in layer)
            assert point.metrics == pytest.approx(by_hand(cut, held_out), rel=1e-5)
    assert mlp.baseline == pytest.approx(by_hand(weights, held_out), rel=1e-5)
    assert (mlp.metric, mlp.higher_is_better, mlp.samples) == ("accuracy", True, 150)


def by_hand(weights: list[list[np.ndarray]], data: dict[str, np.ndarray]) -> dict[str, float]:
    """Accuracy and cross-entropy of a stack of Dense layers, in numpy alone."""
    x = data["x"].reshape(len(data["x"]), -1).astype(np.float64)
    for kernel, bias in weights[:-1]:
        x = np.maximum(x @ kernel + bias, 0)
    scores = x @ weights[-1][0] + weights[-1][1]
    log_p = scores - scores.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(x)), data["y"]].mean()
    return {"accuracy": float((scores.argmax(axis=1) == data["y"]).mean()), "loss": float(loss)}


def test_a_layer_that_cannot_be_cut_is_shown_as_such(mlp: Curves) -> None:
    classes = mlp.candidates[-1]
    assert (classes.points, classes.layers) == ([], {"classes": 10})
    assert "output" in str(classes.why)


def test_tied_layers_are_one_candidate_and_a_layer_left_out_takes_its_partners_along(
    samples: Path, data: Path
) -> None:
    def measure(**options: Any) -> Curves:
        return kprune.sensitivity(
            samples / "digits_resnet.keras", data=data, ratios=[0.25], **options
        )

    found = measure(layers=["stem_*", "block_3_1_conv"])
    assert [candidate.layers for candidate in found.candidates] == [
        {"stem_conv": 16, "block_1_2_conv": 16},
        {"block_3_1_conv": 32},
    ]
    (point,) = found.candidates[0].points
    assert point.removed["stem_conv"] == point.removed["block_1_2_conv"]
    assert len(point.removed["stem_conv"]) == 4
    left = measure(layers=["stem_conv", "block_3_1_conv"], exclude=["block_1_2_conv"])
    assert left.candidates == found.candidates[1:]


def test_ratios_that_a_layer_cannot_lose_have_no_figure(tmp_path: Path) -> None:
    """Five of eight units are outputs of the model as well: no more than three can go."""
    import keras
    from keras import layers

    inputs = keras.Input((3,))
    x = layers.Dense(8, name="wide")(inputs)
    outputs = layers.Dense(2, name="end")(x), layers.Identity(name="raw")(x[:, :5])
    model = keras.Model(inputs, layers.Concatenate(name="all")(outputs))
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "d.npz", x=np.ones((4, 3), "float32"), y=np.zeros((4, 7), "float32"))
    found = kprune.sensitivity(
        tmp_path / "m.keras", data=tmp_path / "d.npz", ratios=[0.1, 0.2, 0.3, 0.6]
    )
    wide, end = found.candidates
    assert [point.ratio for point in wide.points] == [0.2, 0.3]  # a tenth of 8 is not one unit
    assert "'wide' at most 3 can go" in str(wide.why)
    assert end.points == []
    assert (found.metric, found.higher_is_better) == ("mean_squared_error", False)


def test_joblibs_active_backend_measures_the_same(samples: Path, data: Path, mlp: Curves) -> None:
    """Two threads of one process, which take turns."""
    import joblib

    with joblib.parallel_config(backend="threading", n_jobs=2):
        found = kprune.sensitivity(samples / "digits_mlp.keras", data=data, ratios=RATIOS)
    assert found == mlp


@pytest.mark.nightly
def test_two_processes_measure_the_same(samples: Path, data: Path, mlp: Curves) -> None:
    found = kprune.sensitivity(samples / "digits_mlp.keras", data=data, ratios=RATIOS, jobs=2)
    assert found == mlp


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")  # of what Dask's own threads leave behind
def test_a_dask_cluster_of_two_workers_measures_the_same(
    samples: Path, data: Path, mlp: Curves
) -> None:
    """Both workers take part: each process says so by its number."""
    import joblib
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask", wait_for_workers_timeout=60),
    ):
        found = kprune.sensitivity(samples / "digits_mlp.keras", data=data, ratios=RATIOS)
        loaded = client.run(lambda: "kprune.verbs.sensitivity" in __import__("sys").modules)
    assert found == mlp
    assert list(loaded.values()) == [True, True]


def test_progress_counts_every_model_once(samples: Path, data: Path) -> None:
    told: list[tuple[int, int]] = []
    kprune.sensitivity(
        samples / "digits_mlp.keras", data=data, ratios=[0.1], layers=["hidden_2"],
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(1, 2), (2, 2)]


def test_the_metric_can_be_another_of_the_files_own(samples: Path, data: Path) -> None:
    def measure(metric: str) -> Curves:
        return kprune.sensitivity(
            samples / "digits_mlp.keras",
            data=data,
            ratios=[0.5],
            layers=["hidden_2"],
            metric=metric,
        )

    assert measure("loss").higher_is_better is False
    with pytest.raises(kprune.UsageError, match="no metric 'recall'") as refusal:
        measure("recall")
    assert "loss" in refusal.value.do and "accuracy" in refusal.value.do


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ratios": []}, "no ratio"),
        ({"ratios": [0.5, 1.0]}, "a ratio must lie between 0 and 1, both excluded, got 1"),
        ({"jobs": 0}, "got 0"),
        ({"batch_size": 0}, "a batch must hold at least 1 sample, got 0"),
        ({"criterion": "l3"}, "no criterion 'l3'"),
        ({"exclude": ["*"]}, "no layer is left to measure"),
        ({"layers": ["hiden_1"]}, "did you mean 'hidden_1'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_run(
    wrong: dict[str, Any], words: str, samples: Path, data: Path
) -> None:
    with pytest.raises(kprune.UsageError, match=words):
        kprune.sensitivity(samples / "digits_mlp.keras", data=data, **wrong)


def test_data_without_labels_are_refused(
    samples: Path, held_out: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=held_out["x"])
    with pytest.raises(kprune.UsageError, match="training and judging need targets"):
        kprune.sensitivity(samples / "digits_mlp.keras", data=tmp_path / "x.npz", ratios=[0.5])


def test_a_plan_from_curves_takes_the_largest_cuts_that_were_good_enough(
    samples: Path, data: Path, mlp: Curves, tmp_path: Path
) -> None:
    """Each layer's cut, made alone and evaluated by Keras, is as good as the plan says."""
    import keras

    model = shutil.copy(samples / "digits_mlp.keras", tmp_path / "model.keras")
    plan = kprune.plan(model, sensitivity=mlp, max_drop=0.05)
    (step,) = plan.steps
    assert set(step.layers) <= {"hidden_1", "hidden_2"}
    with np.load(data) as arrays:
        x, y = arrays["x"], arrays["y"]
    for number, candidate in enumerate(mlp.candidates[:2]):
        (name,) = candidate.layers
        good = [
            point for point in candidate.points if point.metrics["accuracy"] >= mlp.whole - 0.05
        ]
        assert step.layers.get(name, []) == (good[-1].removed[name] if good else [])
        if good:
            small = tmp_path / f"{number}.keras"
            kprune.remove(model, {name: step.layers[name]}, output=small)
            accuracy = keras.models.load_model(small).evaluate(x, y, verbose=0)[1]
            assert accuracy == pytest.approx(good[-1].metrics["accuracy"], abs=1e-6)
