"""What units give on data, against plain Keras: statistics by numpy, derivatives by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.errors import CannotPruneError, ExpressionError, UsageError
from kprune.opened import opened
from kprune.pruning.selection import statistics_of
from kprune.select.ranking.scoring import LayerUnits, scores

pytestmark = pytest.mark.oracle

STEP = 1e-2  # of a gate: the error of a central difference goes with its square


def network() -> Any:
    """A convolution whose units are seen behind its activation, and a layer that is seen at once."""
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(5, 3, use_bias=True, name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Activation("relu", name="seen")(y)
    y = layers.Dense(7, activation="softplus", name="hidden")(layers.Flatten()(y))
    return keras.Model(x, layers.Dense(4, activation="softmax", name="out")(y))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("activations")


@pytest.fixture(scope="module")
def model(place: Path) -> Any:
    keras.utils.set_random_seed(3)
    made = network()
    rng = np.random.default_rng(3)
    norm = made.get_layer("norm")
    norm.set_weights([rng.uniform(0.5, 1.5, w.shape) - 0.2 for w in norm.get_weights()])
    made.compile(loss="sparse_categorical_crossentropy")
    made.save(place / "model.keras")
    return made


@pytest.fixture(scope="module")
def data(place: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(70, 6, 6, 2)).astype(np.float32)  # more than one batch of kprune's
    y = rng.integers(0, 4, 70)
    np.savez(place / "data.npz", x=x, y=y)
    return x, y


def run(model: Any, x: np.ndarray) -> np.ndarray:
    """Outputs as float64."""
    output = model(x.astype(np.float32), training=False)
    return np.asarray(output[0] if isinstance(output, list) else output, np.float64)


def found(place: Path, name: str, *addresses: str) -> list[np.ndarray]:
    with opened(place / "model.keras") as it:
        analysis, statistics = it.analysis, statistics_of(it, place / "data.npz")
        axes = [analysis.map.axes[address] for address in addresses]
        return [scores(name, LayerUnits(statistics, axis)) for axis in axes]


SEEN = {"conv": "seen", "hidden": "hidden"}
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "apoz": lambda a: 1 - (a == 0).mean(axis=0),
    "activation-mean": lambda a: a.mean(axis=0),
    "activation-std": lambda a: a.std(axis=0),
    "activation-absmax": lambda a: np.abs(a).max(axis=0),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_is_its_formula(
    name: str, model: Any, data: tuple[np.ndarray, np.ndarray], place: Path
) -> None:
    for address, own in zip(SEEN, found(place, name, *SEEN), strict=True):
        layer = model.get_layer(SEEN[address])
        given = run(keras.Model(model.inputs, layer.output), data[0])
        units = given.reshape(-1, given.shape[-1])
        np.testing.assert_allclose(own, STATISTICS[name](units), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("address", SEEN)
def test_a_criterion_may_look_at_the_activations_themselves(
    address: str, model: Any, data: tuple[np.ndarray, np.ndarray], place: Path
) -> None:
    given = run(keras.Model(model.inputs, model.get_layer(SEEN[address]).output), data[0])
    with opened(place / "model.keras") as it:
        units = LayerUnits(statistics_of(it, place / "data.npz"), it.analysis.map.axes[address])
        seen = np.concatenate(list(units.activations()))
        alone = LayerUnits(statistics_of(it), it.analysis.map.axes[address])
        with pytest.raises(ExpressionError, match="which are not in the file"):
            alone.activations()
    np.testing.assert_allclose(seen, given.reshape(-1, given.shape[-1]), rtol=1e-4, atol=1e-6)


def by_gate(model: Any, x: np.ndarray, layer: str, unit: int) -> Callable[[float], np.ndarray]:
    """The model's outputs, float64 (samples, outputs), when a unit's activation is scaled."""
    at = model.get_layer(layer).output
    before, behind = keras.Model(model.inputs, at), keras.Model(at, model.outputs)
    given = run(before, x)

    def outputs(gate: float) -> np.ndarray:
        scale = np.ones(given.shape[-1])
        scale[unit] = gate
        return run(behind, given * scale)

    return outputs


@pytest.mark.parametrize("address", SEEN)
def test_taylor_is_what_the_loss_does_when_a_gate_moves(
    address: str, model: Any, data: tuple[np.ndarray, np.ndarray], place: Path
) -> None:
    (own,) = found(place, "taylor", address)
    x, y = data
    expected = []
    for unit in range(len(own)):
        outputs = by_gate(model, x, SEEN[address], unit)
        up, down = (-np.log(outputs(1 + s)[np.arange(70), y]) for s in (STEP, -STEP))
        expected.append(np.abs((up - down) / (2 * STEP)).mean())
    np.testing.assert_allclose(own, expected, rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("address", SEEN)
def test_hessian_is_half_the_square_of_what_the_outputs_do_when_a_gate_moves(
    address: str, model: Any, data: tuple[np.ndarray, np.ndarray], place: Path
) -> None:
    (own,) = found(place, "hessian", address)
    expected = []
    for unit in range(len(own)):
        outputs = by_gate(model, data[0], SEEN[address], unit)
        slope = (outputs(1 + STEP) - outputs(1 - STEP)) / (2 * STEP)
        expected.append(0.5 * (slope**2).sum(axis=1).mean())
    np.testing.assert_allclose(own, expected, rtol=5e-3, atol=1e-6)


def test_many_outputs_are_followed_by_random_combinations(tmp_path: Path) -> None:
    keras.utils.set_random_seed(4)
    x = keras.Input((5,))
    wide = keras.Model(x, layers.Dense(300, name="out")(layers.Dense(6, name="a")(x)))
    wide.save(tmp_path / "model.keras")
    inputs = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=inputs)
    (own,) = found(tmp_path, "hessian", "a")
    # Without an activation the derivative by the gate of a unit is its share of every output.
    given = run(keras.Model(x, wide.get_layer("a").output), inputs)
    energy = (np.asarray(wide.get_layer("out").kernel) ** 2).sum(axis=1)
    # 32 combinations leave a spread of a quarter for each unit; a wrong factor would show in the mean.
    ratio = own / (0.5 * (given**2).mean(axis=0) * energy)
    assert abs(ratio.mean() - 1) < 0.4 and ratio.min() > 0.2


def test_taylor_without_labels_is_refused(model: Any, place: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 6, 6, 2), np.float32))
    with pytest.raises(UsageError, match="taylor needs targets"):
        kprune.plan(
            place / "model.keras",
            choice=kprune.Choice("taylor", ratio=0.5),
            data=tmp_path / "x.npz",
        )


def test_units_that_stand_at_no_output_are_refused_by_name(tmp_path: Path) -> None:
    x = keras.Input((4, 6))
    y = layers.MultiHeadAttention(3, 2, name="mha")(x, x)
    keras.Model(x, layers.Dense(2)(y)).save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 4, 6), np.float32))
    with pytest.raises(CannotPruneError, match=r"activations of 'mha.heads' cannot be observed"):
        kprune.plan(
            tmp_path / "model.keras",
            layers=["mha.heads"],
            choice=kprune.Choice("apoz", count=1),
            data=tmp_path / "data.npz",
        )


@pytest.mark.parametrize("name", ["random", "fpgm", "apoz", "taylor", "hessian"])
def test_the_same_command_gives_the_same_bytes(
    name: str, model: Any, data: Any, place: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / f"{number}.keras" for number in range(2)]
    for output in outputs:
        kprune.remove(
            place / "model.keras",
            choice=kprune.Choice(name, ratio=0.4, seed=11),
            data=place / "data.npz",
            output=output,
        )
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
