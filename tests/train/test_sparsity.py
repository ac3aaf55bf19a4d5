"""Training for pruning: the penalty is that of the formula, and what it makes small can go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.opened import analyse, open_model
from kprune.train.sparsity import NEAR_ZERO, PENALTY, Sparsity
from tests.running.making import small_problem, state

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_problem(tmp_path_factory.mktemp("problem"))


def penalty_of(model: Any, folder: Path) -> float:
    """What kprune penalizes of a Keras model, at a strength of 1."""
    path = folder / "penalized.keras"
    model.save(path)
    with open_model(path) as source:
        return Sparsity(model, analyse(source), 1.0).figures()[PENALTY]


def norm(*parts: Any) -> float:
    """sqrt(n) * norm of n numbers."""
    numbers = np.concatenate([np.ravel(part) for part in parts])
    return float(np.sqrt(numbers.size) * np.linalg.norm(numbers))


def test_units_are_penalized_with_what_makes_and_what_reads_them(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, "relu", bias_initializer="ones"),
            keras.layers.Dense(2),
        ]
    )
    way_in, bias, way_out, _ = model.get_weights()
    want = sum(norm(way_in[:, unit], bias[unit], way_out[unit]) for unit in range(3))
    assert penalty_of(model, tmp_path) == pytest.approx(want, rel=1e-5)


def test_behind_a_flatten_all_rows_of_a_filter_are_penalized_and_its_gamma_for_its_kernel(
    tmp_path: Path,
) -> None:
    import keras

    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.BatchNormalization(
                gamma_initializer="random_normal", beta_initializer="random_normal"
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    gamma, beta = model.layers[1].get_weights()[:2]
    rows = model.layers[3].get_weights()[0].reshape(4, 3, 2)
    want = sum(abs(gamma[unit]) + norm(beta[unit], rows[:, unit]) for unit in range(3))
    assert penalty_of(model, tmp_path) == pytest.approx(want, rel=1e-5)


def test_gammas_of_a_residual_sum_are_penalized_together(tmp_path: Path) -> None:
    import keras
    from keras import layers

    x = keras.Input((4, 4, 1))
    one, two = (
        layers.BatchNormalization(gamma_initializer="random_normal")(layers.Conv2D(2, 1)(x))
        for _ in range(2)
    )
    y = layers.Dense(1)(layers.GlobalAveragePooling2D()(layers.Add()([one, two])))
    model = keras.Model(x, y)
    gammas = [v.numpy() for v in model.trainable_variables if v.name == "gamma"]
    betas = [v.numpy() for v in model.trainable_variables if v.name == "beta"]
    way_out = model.layers[-1].get_weights()[0]
    want = sum(
        norm(*(gamma[unit] for gamma in gammas))
        + norm(*(beta[unit] for beta in betas), way_out[unit])
        for unit in range(2)
    )
    assert penalty_of(model, tmp_path) == pytest.approx(want, rel=1e-5)


def test_what_it_makes_small_can_go(problem: Path, tmp_path: Path) -> None:
    accuracy, near = {}, {}
    for strength in (None, 0.02):
        tuned, small = tmp_path / f"{strength}.keras", tmp_path / f"{strength}.small.keras"
        found = kprune.tune(
            problem / "model.keras", data=problem / "data.npz", output=tuned, epochs=8,
            sparsify=strength, learning_rate=4e-2,
        )  # fmt: skip
        near[strength] = found.epochs[found.best].get(NEAR_ZERO)
        kprune.remove(tuned, choice=kprune.Choice("bn-scale", ratio=0.6), output=small)
        proof = kprune.verify(problem / "model.keras", small, data=problem / "data.npz")
        assert proof.metrics is not None
        accuracy[strength] = proof.metrics["after"]["accuracy"]
    assert accuracy[0.02] > max(accuracy[None], 0.9)
    assert near[None] is None
    assert near[0.02] is not None
    assert near[0.02] > 0


def test_the_best_epoch_is_that_of_the_least_loss_with_the_penalty(
    problem: Path, tmp_path: Path
) -> None:
    found = kprune.tune(
        problem / "model.keras", data=problem / "data.npz", output=tmp_path / "t.keras", epochs=3,
        sparsify=1e-3,
    )  # fmt: skip
    whole = [epoch["val_loss"] + epoch[PENALTY] for epoch in found.epochs]
    assert found.best == int(np.argmin(whole))
    assert found.watched == "val_loss + penalty"
    assert found.epochs[3][PENALTY] < found.epochs[0][PENALTY]


def test_it_goes_with_a_teacher_and_with_zeros_that_are_held(problem: Path, tmp_path: Path) -> None:
    zeroed, out = tmp_path / "zeroed.keras", tmp_path / "t.keras"
    kprune.zero(problem / "model.keras", {"hidden": "0-3"}, output=zeroed)
    found = kprune.tune(
        zeroed, data=problem / "data.npz", output=out, epochs=2, sparsify=1e-2, keep_zeros=True,
        teacher=problem / "model.keras",
    )  # fmt: skip
    assert found.held_zero == 4
    assert found.epochs[2][PENALTY] < found.epochs[0][PENALTY]
    import keras

    assert (keras.models.load_model(out).get_layer("hidden").get_weights()[0][:, :4] == 0).all()


def test_a_resumed_training_ends_as_if_it_had_not_been_interrupted(
    problem: Path, tmp_path: Path
) -> None:
    def train(name: str, **more: Any) -> Path:
        out = tmp_path / name
        kprune.tune(
            problem / "model.keras", data=problem / "data.npz", output=out, epochs=3,
            sparsify=1e-3, learning_rate=1e-3, **more,
        )  # fmt: skip
        return out

    def stop(epoch: int, *_: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("resumed.keras", on_epoch=stop)
    with pytest.raises(kprune.UsageError, match="sparsify"):
        kprune.tune(
            problem / "model.keras", data=problem / "data.npz", output=tmp_path / "resumed.keras",
            epochs=3, sparsify=1e-2, learning_rate=1e-3, resume=True,
        )  # fmt: skip
    one, other = state(train("resumed.keras", resume=True)), state(train("whole.keras"))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_models_of_keras_2_are_trained_so_too(problem: Path, tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential(
        [
            tf_keras.Input((8,)),
            tf_keras.layers.Dense(6, "relu"),
            tf_keras.layers.BatchNormalization(),
            tf_keras.layers.Dense(2, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(tmp_path / "old.keras")
    found = kprune.tune(
        tmp_path / "old.keras", data=problem / "data.npz", output=tmp_path / "t.keras", epochs=4,
        sparsify=0.1, learning_rate=1e-2,
    )  # fmt: skip
    assert found.epochs[4][PENALTY] < 0.9 * found.epochs[0][PENALTY]


def test_models_of_keras_2_in_mixed_precision_lose_units_and_hold_zeros(
    problem: Path, tmp_path: Path
) -> None:
    """Their policy is called Policy, and their variables' dtypes have no numpy name."""
    import tf_keras

    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layers = [tf_keras.layers.Dense(6, "relu", name="a"), tf_keras.layers.Dense(4, "relu")]
        last = tf_keras.layers.Dense(2, "softmax", dtype="float32")
        model = tf_keras.Sequential([tf_keras.Input((8,)), *layers, last])
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    model.compile("sgd", "sparse_categorical_crossentropy")
    for name in ("old.keras", "old.h5"):
        model.save(tmp_path / name)
        kprune.remove(tmp_path / name, {"a": [1, 4]}, output=tmp_path / f"small_{name}")
        small = tf_keras.models.load_model(tmp_path / f"small_{name}", compile=False)
        x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
        whole = tf_keras.models.load_model(tmp_path / name, compile=False)
        kernel, bias = whole.get_layer("a").get_weights()
        kernel[:, [1, 4]], bias[[1, 4]] = 0, 0
        whole.get_layer("a").set_weights([kernel, bias])
        np.testing.assert_allclose(np.asarray(small(x)), np.asarray(whole(x)), atol=2e-3)
    kprune.zero(tmp_path / "old.keras", {"a": [1, 4]}, output=tmp_path / "zeroed.keras")
    found = kprune.tune(
        tmp_path / "zeroed.keras", data=problem / "data.npz", output=tmp_path / "t.keras", epochs=1,
        keep_zeros=True, learning_rate=1e-2, optimizer="sgd", sparsify=1e-3,
    )  # fmt: skip
    assert found.held_zero == 2
    kernel, bias = tf_keras.models.load_model(tmp_path / "t.keras").get_layer("a").get_weights()
    assert not kernel[:, [1, 4]].any() and not bias[[1, 4]].any()


def test_a_round_of_an_iteration_is_trained_so_if_its_plan_says_so(
    problem: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "rounds.yaml"
    plan.write_text(
        "version: 1\nchoose: {criterion: bn-scale}\ntarget: {parameters: 60%}\n"
        "schedule: {rounds: 1}\ntune: {epochs: 1, sparsify: 0.01}\n"
    )
    found = kprune.iterate(
        problem / "model.keras", plan, data=problem / "data.npz", output=tmp_path / "t.keras"
    )
    assert found.metric == "accuracy"
    assert found.rounds[1].tuned[PENALTY] < found.rounds[0].tuned[PENALTY]


@pytest.mark.parametrize("strength", [0.0, -1e-4, float("inf"), float("nan")])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    with pytest.raises(kprune.UsageError, match="sparsify"):
        kprune.tune("model.keras", data="data.npz", sparsify=strength)


def test_a_model_of_which_no_unit_can_go_is_refused(tmp_path: Path, problem: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "m.keras")
    held = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(5), keras.layers.Dense(2, "softmax")]
    )
    held.layers[0].trainable = held.layers[1].trainable = False
    held.compile("adam", "sparse_categorical_crossentropy")
    held.save(tmp_path / "held.keras")
    for name, why in (("m", "none of the model's units"), ("held", "is trainable")):
        with pytest.raises(kprune.CannotPruneError, match="no unit to make sparse") as caught:
            kprune.tune(
                tmp_path / f"{name}.keras", data=problem / "data.npz", output=tmp_path / "t.keras",
                sparsify=1e-3,
            )  # fmt: skip
        assert why in caught.value.why
