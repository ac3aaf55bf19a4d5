"""What consumers are given on data, and what their outputs are worth, against plain Keras and numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.errors import CannotPruneError
from kprune.opened import analyse, open_model, opened
from kprune.pruning.selection import statistics_of
from kprune.refitting.inputs import SAMPLES
from kprune.refitting.ordering.covariances import Observation
from kprune.refitting.ordering.fisher import information_of
from kprune.refitting.ordering.observations import observe
from kprune.refitting.ordering.on_data import OnData
from kprune.select.ranking.choice import Choice

pytestmark = pytest.mark.oracle


def observations(model: Any, x: np.ndarray, folder: Path, **how: Any) -> dict[str, Observation]:
    model.save(folder / "model.keras")
    with open_model(folder / "model.keras") as source:
        found = observe(model, analyse(source), [x], **how)
    return {one.consumer.name: one for one in found}


def given(model: Any, name: str, x: np.ndarray) -> np.ndarray:
    """What a layer is called with, float64."""
    return np.asarray(keras.Model(model.inputs, model.get_layer(name).input)(x), np.float64)


def patches(x: np.ndarray, size: int) -> np.ndarray:
    """The windows of a convolution with padding `same` and stride 1, one a row, channels last."""
    edge = size // 2
    wide = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    _, height, width, channels = x.shape
    rows = [
        wide[:, top : top + height, left : left + width].reshape(-1, channels)
        for top in range(size)
        for left in range(size)
    ]
    return np.concatenate(rows, axis=1)


@pytest.fixture(scope="module")
def network() -> Any:
    keras.utils.set_random_seed(1)
    x = keras.Input((5, 5, 2))
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="biased")(x)
    y = layers.Conv2D(3, 3, padding="same", use_bias=False, name="normed")(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, activation="relu", name="bare")(y)
    y = layers.Dense(6, activation="tanh", name="hidden")(layers.Flatten()(y))
    return keras.Model(x, layers.Dense(3, activation="softmax", name="out")(y))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(1.0, 1.0, (150, 5, 5, 2)).astype(np.float32)


def test_covariances_are_those_of_the_rows_about_their_mean_where_a_constant_does_no_harm(
    network: Any, x: np.ndarray, tmp_path: Path
) -> None:
    found = observations(network, x, tmp_path)
    assert set(found) == {"biased", "normed", "bare", "hidden", "out"}
    for name, one in found.items():
        rows = given(network, name, x)
        rows = patches(rows, 3) if rows.ndim == 4 else rows
        wanted = rows.T @ rows / len(rows) if name == "bare" else np.cov(rows.T, bias=True)
        np.testing.assert_allclose(one.covariance.matrix[0], wanted, rtol=1e-4, atol=1e-5)


def test_an_input_that_never_varies_has_no_variance_at_all(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")]
    )
    kernel, _ = model.get_layer("a").get_weights()
    kernel[:, 1] = 0
    model.get_layer("a").set_weights([kernel, np.array([0.1, 7.3, 0.0, 0.2])])
    data = np.random.default_rng(0).normal(size=(999, 3)).astype(np.float32)
    covariance = observations(model, data, tmp_path)["b"].covariance.matrix[0]
    assert not covariance[1].any() and not covariance[:, 1].any()
    assert (np.diag(covariance)[[0, 2, 3]] > 0.01).all()


def test_a_recurrent_layer_is_given_its_input_and_its_own_state(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((7, 3)),
            layers.LSTM(4, return_sequences=True, name="a"),
            layers.GRU(2, name="b"),
        ]
    )
    data = np.random.default_rng(0).normal(size=(60, 7, 3)).astype(np.float32)
    states = given(model, "b", data)
    earlier = np.concatenate([np.zeros((60, 1, 4)), states[:, :-1]], axis=1)
    rows = np.concatenate([data, earlier], axis=2).reshape(-1, 7)
    found = observations(model, data, tmp_path)["a"].covariance.matrix[0]
    np.testing.assert_allclose(found, np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-6)


def test_a_consumer_that_would_take_too_much_memory_is_kept_by_channels(
    network: Any, x: np.ndarray, tmp_path: Path
) -> None:
    whole = 8 * sum(size**2 for size in (18, 36, 27, 100, 6))
    found = observations(network, x, tmp_path, memory=4 * (whole - 8 * 90**2))
    assert {name: one.covariance.places for name, one in found.items()} == {
        "biased": 1, "normed": 1, "bare": 1, "hidden": 25, "out": 1
    }  # fmt: skip
    rows = given(network, "hidden", x).reshape(-1, 4)
    covariance = found["hidden"].covariance
    np.testing.assert_allclose(
        covariance.blocks[0], np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-6
    )
    assert covariance.matrix.shape == (1, 100, 100)


def softmax(z: np.ndarray) -> np.ndarray:
    shares = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("logits", [False, True])
def test_fisher_information_is_that_of_answers_drawn_from_the_models_own_output(
    logits: bool, tmp_path: Path
) -> None:
    """Against the expectation over all classes, place by place, in numpy."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4, 3))
    y = layers.Conv1D(5, 1, activation="tanh", name="a")(inputs)
    last = None if logits else "softmax"
    outputs = layers.Dense(3, activation=last, name="out")(layers.Flatten()(y))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    model.compile(loss=loss)
    data = np.random.default_rng(0).normal(size=(1500, 4, 3)).astype(np.float32)
    consumers: Any = [one.consumer for one in observations(model, data, tmp_path).values()]
    found = information_of(model, consumers, data, seed=1)
    kernel, shift, wide, last_shift = (np.asarray(w, np.float64) for w in model.get_weights())
    z = data @ kernel[0] + shift
    shares = softmax(np.tanh(z).reshape(len(data), -1) @ wide + last_shift)
    slopes = np.eye(3)[None] - shares[:, None]  # (samples, answers, outputs)
    inner = (slopes @ wide.T).reshape(len(data), 3, 4, 5) * (1 - np.tanh(z) ** 2)[:, None]
    wanted = {
        "out": (shares[:, :, None] * slopes**2).sum(axis=(0, 1)),
        "a": (shares[:, :, None, None] * inner**2).sum(axis=(0, 1, 2)),
    }
    for one in consumers:
        own = found[id(one)]
        np.testing.assert_allclose(own.squares[0], wanted[one.name], rtol=0.1)
        linear = z if one.name == "a" else np.log(shares)
        assert own.rows == linear[..., 0].size * 4


def test_sigmoids_and_numbers_have_information_as_well(tmp_path: Path) -> None:
    """Of independent answers p (1 - p); of numbers, one over their variance."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, name="hidden")(inputs)
    outputs = [
        layers.Dense(2, activation="sigmoid", name="yes")(hidden),
        layers.Dense(2, name="number")(hidden),
    ]
    model = keras.Model(inputs, outputs)
    data = np.random.default_rng(0).normal(size=(1600, 3)).astype(np.float32)
    consumers: Any = [one.consumer for one in observations(model, data, tmp_path).values()]
    found = {one.name: information_of(model, consumers, data)[id(one)] for one in consumers}
    yes, number = (np.asarray(output, np.float64) for output in model(data))
    np.testing.assert_allclose(found["yes"].squares[0], (yes * (1 - yes)).sum(axis=0), rtol=0.1)
    np.testing.assert_allclose(found["number"].squares[0], len(data) / number.var(axis=0), rtol=0.1)


def test_a_recurrent_layer_counts_as_much_as_the_others_on_average(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.LSTM(4),
            layers.Dense(5, name="a"),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.save(tmp_path / "model.keras")
    data = np.random.default_rng(0).normal(size=(40, 5, 3)).astype(np.float32)
    with open_model(tmp_path / "model.keras") as source:
        found = OnData(source, analyse(source), {"x": data}).observations("fisher")
    recurrent, *others = found
    assert recurrent.weights is None and recurrent.importance > 0
    assert all(one.weights is not None and one.importance == 1 for one in others)


def test_where_there_are_no_data_inputs_are_made_up(network: Any, tmp_path: Path) -> None:
    network.save(tmp_path / "model.keras")
    with opened(tmp_path / "model.keras") as it:
        observed = statistics_of(it, made_up=True).observed
        assert observed is not None and observed.samples == SAMPLES
        names = [one.consumer.name for one in observed.observations("relmean")]
        assert names == ["biased", "normed", "bare", "hidden", "out"]
        assert statistics_of(it).observed is None


def rescaled(model: Any, factors: np.ndarray) -> Any:
    """The same function, with the units of `a` made larger and what reads them smaller."""
    other = keras.models.clone_model(model)
    kernel, bias, reading, *rest = model.get_weights()
    other.set_weights([kernel * factors, bias * factors, reading / factors[:, None], *rest])
    return other


def test_units_are_chosen_alike_whatever_their_scale(tmp_path: Path) -> None:
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu", name="a"),
            layers.Dense(9, activation="relu", name="b"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(0)
    scaled = rescaled(model, (10 ** rng.uniform(-2, 2, 12)).astype(np.float32))
    data = rng.normal(size=(300, 8)).astype(np.float32)
    np.testing.assert_allclose(model(data), scaled(data), atol=1e-5)
    for weighting in ("relmean", "fisher"):
        choice = Choice("obs", ratio=0.5, together=True, weighting=weighting)
        chosen = []
        for number, own in enumerate((model, scaled)):
            own.save(tmp_path / f"{number}.keras")
            report = kprune.remove(
                tmp_path / f"{number}.keras", choice=choice, data={"x": data}, dry_run=True
            )
            chosen.append(report.changed)
        assert chosen[0] == chosen[1] and sum(map(len, chosen[0].values())) == 10


def test_a_model_that_is_not_run_layer_by_layer_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
    model.export(tmp_path / "saved", verbose=False)
    with pytest.raises(CannotPruneError, match="SavedModel"):
        kprune.remove(
            tmp_path / "saved",
            choice=Choice("obs", ratio=0.5),
            data={"x": np.ones((9, 3))},
            dry_run=True,
        )
