"""A model in a wrapper: its layers are layers of the whole, under the wrapper's name and its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.errors import UsageError
from kprune.opened import opened
from kprune.pruning.selection import statistics_of
from kprune.views.diff import diff
from tests.oracle.law import assert_equal, randomize

pytestmark = pytest.mark.oracle

X = np.random.default_rng(0).normal(size=(4, 3, 6, 6, 2)).astype(np.float32)


def per_frame(functional: bool) -> keras.Model:
    x = keras.Input((6, 6, 2))
    parts = [
        layers.Conv2D(6, 3, activation="relu", name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(4, name="feat"),
    ]
    if not functional:
        return keras.Sequential([x, *parts], name="cnn")
    y = x
    for part in parts:
        y = part(y)
    return keras.Model(x, y, name="cnn")


def frames(functional: bool) -> keras.Model:
    """TimeDistributed(CNN) and an LSTM: 17 units and the 2 of the output."""
    x = keras.Input((3, 6, 6, 2))
    y = layers.TimeDistributed(per_frame(functional), name="td")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.LSTM(7, name="lstm")(y)))
    randomize(model)
    return model


@pytest.fixture(scope="module", params=["sequential.keras", "functional.keras", "functional.h5"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = frames(request.param.startswith("functional"))
    path = tmp_path_factory.mktemp("frames") / request.param
    model.save(path)
    return model, path


def given(model: keras.Model) -> np.ndarray:
    return np.asarray(model(X, training=False))


def loaded(path: Path) -> keras.Model:
    return keras.models.load_model(path, compile=False)


def test_inspect_and_counts_know_the_layers_inside(saved: Any) -> None:
    model, path = saved
    found = kprune.inspect(path)
    inside = model.get_layer("td").layer
    rows = {row.name: row for row in found.layers}
    for name in ("conv", "norm", "feat"):
        assert rows[f"td/cnn/{name}"].parameters == inside.get_layer(name).count_params()
    assert {name: row.units for name, row in rows.items() if row.units} == {
        "td/cnn/conv": 6, "td/cnn/feat": 4, "lstm": 7, "out": 2,
    }  # fmt: skip
    assert found.file.units == 19 and found.free == 17
    assert found.file.parameters == model.count_params()
    assert rows["td"].parameters == 0


def test_units_inside_are_named_with_and_without_the_inner_models_name(
    saved: Any, tmp_path: Path
) -> None:
    model, path = saved
    small = tmp_path / f"small{path.suffix}"
    inside = model.get_layer("td").layer
    kernel, bias = inside.get_layer("feat").get_weights()
    silenced = kernel.copy()
    silenced[[1, 2]] = 0
    inside.get_layer("feat").set_weights([silenced, bias])
    want = given(model)
    inside.get_layer("feat").set_weights([kernel, bias])
    for spec in ("td/conv:1,2", "td/cnn/conv:1,2", "td/con*:1,2"):
        report = kprune.remove(path, [spec], output=small, force=True)
        assert report.changed == {"td/cnn/conv": [1, 2]}
        assert [row.name for row in report.layers] == ["td/cnn/conv", "td/cnn/norm", "td/cnn/feat"]
        left = loaded(small)
        assert_equal(given(left), want)
        assert left.count_params() == report.output.parameters


def test_the_wrapper_itself_is_told_whose_units_it_gives(saved: Any) -> None:
    for name in ("td", "td/cnn"):
        with pytest.raises(
            UsageError, match="what it gives are the units of td/cnn/feat"
        ) as caught:
            kprune.remove(saved[1], [f"{name}:1"])
        assert caught.value.exit_code == 2


def test_layers_inside_are_masked_and_unmasked(saved: Any, tmp_path: Path) -> None:
    model, path = saved
    masked, free = (tmp_path / f"{name}{path.suffix}" for name in ("masked", "free"))
    kprune.mask(path, ["td/feat:1"], output=masked)
    (kernel, recurrent, bias), lstm = model.get_layer("lstm").get_weights(), model.get_layer("lstm")
    silenced = kernel.copy()
    silenced[1] = 0
    lstm.set_weights([silenced, recurrent, bias])
    want = given(model)
    lstm.set_weights([kernel, recurrent, bias])
    assert_equal(given(loaded(masked)), want)
    kprune.unmask(masked, output=free)
    assert_equal(given(loaded(free)), given(model))


def test_verify_and_diff_know_the_layers_inside(saved: Any, tmp_path: Path) -> None:
    path, small = saved[1], tmp_path / f"small{saved[1].suffix}"
    kprune.remove(path, ["td/conv:0", "td/feat:2"], output=small)
    assert kprune.verify(path, small, samples=4).passed
    changed = diff(path, small)
    assert [row.name for row in changed.layers if row.status != "same"] == [
        "td/cnn/conv", "td/cnn/norm", "td/cnn/feat", "lstm",
    ]  # fmt: skip
    assert {field.layer for row in changed.layers for field in row.fields} <= {
        "td/cnn/conv", "td/cnn/feat"
    }  # fmt: skip


def test_activations_inside_are_those_of_every_step(saved: Any, tmp_path: Path) -> None:
    model, path = saved
    np.savez(tmp_path / "x.npz", x=X)
    flat = np.asarray(model.get_layer("td").layer(X.reshape(-1, 6, 6, 2), training=False))
    with opened(path) as it:
        analysis, statistics = it.analysis, statistics_of(it, tmp_path / "x.npz")
        axis = analysis.map.axes["td/cnn/feat"]
        found = statistics.env(axis, ["activation_mean"])["activation_mean"]
    np.testing.assert_allclose(found, flat.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_a_wrapper_in_a_wrapper_in_a_nested_model(tmp_path: Path) -> None:
    x = keras.Input((2, 3, 6, 6, 2))
    inner = layers.TimeDistributed(per_frame(False), name="inner")
    clips = keras.Model(x, layers.TimeDistributed(inner, name="outer")(x), name="clips")
    y = keras.Input((2, 3, 6, 6, 2))
    model = keras.Model(y, layers.Dense(2, name="out")(layers.Flatten()(clips(y))))
    randomize(model)
    path, small = tmp_path / "model.keras", tmp_path / "small.keras"
    model.save(path)
    found = {row.name: row.units for row in kprune.inspect(path).layers if row.units}
    assert found == {"clips/outer/inner/cnn/conv": 6, "clips/outer/inner/cnn/feat": 4, "out": 2}
    report = kprune.remove(path, ["clips/outer/conv:0", "clips/outer/feat:1"], output=small)
    assert loaded(small).count_params() == report.output.parameters
    assert kprune.verify(path, small, samples=2).passed
