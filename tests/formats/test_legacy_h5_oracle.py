"""What Keras itself saves as `.h5`, cut and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def chain(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((6, 4)), layers.Conv1D(8, 3, name="conv"), layers.BatchNormalization(name="norm"),
        layers.LSTM(5, return_sequences=True, name="lstm"), layers.Bidirectional(layers.GRU(4), name="both"),
        layers.Dense(6, "relu", name="hidden"), layers.Dense(3, name="out"),
    ])  # fmt: skip


def shuffled_branches(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((5,), name="x")
    q = layers.Dense(4, name="q")(x)
    p = layers.Dense(4, name="p")(x)
    deep = layers.Dense(4, name="deeper")(layers.Dense(4, name="deep")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Concatenate()([deep, p, q])))
    config = model.get_config()
    config["layers"].reverse()  # as a hand-written config might be
    return keras.Model.from_config(config)


def nested(keras: Any) -> Any:
    layers = keras.layers
    start = keras.Input((4,))
    inner = keras.Model(
        start,
        layers.Dense(3, name="e")(
            layers.BatchNormalization(name="n")(layers.Dense(6, name="d")(start))
        ),
        name="inner",
    )
    tail = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "relu", name="t"), layers.Dense(6, name="u")],
        name="tail",
    )
    x = keras.Input((2, 4))
    y = layers.TimeDistributed(inner, name="steps")(x)
    y = layers.MultiHeadAttention(2, 3, name="heads")(y, y)
    return keras.Model(x, tail(layers.Flatten()(y)))


CASES = [
    (chain, {"conv": [0, 5], "lstm": [1], "both": [2], "hidden": [0, 4]}),
    (shuffled_branches, {"q": [0], "p": [3], "deep": [1, 2]}),
    (nested, {"tail/t": [1, 3]}),
]


@pytest.mark.parametrize(("make", "units"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_cut_file_is_the_masked_original(
    keras: Any, tmp_path: Path, make: Any, units: dict[str, list[int]]
) -> None:
    from tests.oracle.law import outputs, random_inputs, randomize
    from tests.oracle.masked import MaskedOriginal

    model = randomize(make(keras))
    path = tmp_path / "m.h5"
    model.save(path)
    report = kprune.remove(path, units, output=tmp_path / "cut.h5")
    kprune.remove(path, units, output=tmp_path / "cut.keras")
    kprune.zero(path, units, output=tmp_path / "zero.h5", outgoing=True)
    inputs = random_inputs(model)
    loaded = {
        name: keras.models.load_model(tmp_path / name, compile=False)
        for name in ("m.h5", "cut.h5", "cut.keras", "zero.h5")
    }
    assert report.output.parameters == loaded["cut.h5"].count_params() < model.count_params()
    wanted = [marked.left() for marked in MaskedOriginal(loaded["m.h5"], report.changed)(inputs)]
    for name in ("cut.h5", "cut.keras", "zero.h5"):
        for got, want in zip(outputs(loaded[name], inputs), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_kernel_that_a_keras_file_has_twice_stands_once_in_a_legacy_file(
    keras: Any, tmp_path: Path
) -> None:
    from tests.oracle.law import outputs, random_inputs, randomize

    layers = keras.layers
    spectral = layers.SpectralNormalization(layers.Conv1D(4, 2, name="inner"), name="spectral")
    x = keras.Input((6, 3))
    y = layers.Dense(2, name="out")(spectral(layers.Dense(5, name="a")(x)))
    model = randomize(keras.Model(x, y))
    model.save(tmp_path / "m.h5")
    kprune.remove(tmp_path / "m.h5", {"spectral": [1]}, output=tmp_path / "cut.h5")
    out = model.get_layer("out")
    kernel, bias = out.get_weights()
    kernel[1] = 0
    out.set_weights([kernel, bias])
    inputs = random_inputs(model)
    (got,) = outputs(keras.models.load_model(tmp_path / "cut.h5", compile=False), inputs)
    np.testing.assert_allclose(got, outputs(model, inputs)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(kprune.CannotPruneError, match="cannot be written"):
        kprune.remove(tmp_path / "m.h5", {"spectral": [1]}, output=tmp_path / "cut.keras")


def test_a_compiled_file_still_compiles(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(2)]
    )
    model.compile("adam", keras.losses.MeanSquaredError())
    data = np.ones((4, 4), "f4"), np.ones((4, 2), "f4")
    model.fit(*data, verbose=0)
    model.save(tmp_path / "m.h5")
    report = kprune.remove(tmp_path / "m.h5", {"a": [1, 2]})
    assert not report.notes
    cut = keras.models.load_model(tmp_path / "m.pruned.h5")
    assert np.isfinite(cut.evaluate(*data, verbose=0))
