"""One door for model files and for models in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kprune
from kprune.opened import LiveModel, opened
from tests.running.making import small_model

pytestmark = pytest.mark.oracle


@pytest.fixture
def live() -> Any:
    return small_model()


@pytest.fixture
def path(live: Any, tmp_path: Path) -> Path:
    live.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_a_live_model_is_inspected_as_its_file_is(live: Any, path: Path) -> None:
    of_model, of_file = kprune.inspect(live), kprune.inspect(path)
    assert of_model.layers == of_file.layers and of_model.carries == of_file.carries
    assert of_model.file.parameters == live.count_params()
    assert of_model.file.path is None and of_file.file.path == str(path)


def test_a_live_model_is_explained_as_its_file_is(live: Any, path: Path) -> None:
    assert kprune.explain(live, {"conv": [0, 4]}) == kprune.explain(path, {"conv": [0, 4]})


def test_a_plan_of_a_live_model_is_the_one_of_its_file(
    live: Any, path: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.npz"
    shape = (8, *live.inputs[0].shape[1:])
    np.savez(data, x=np.random.default_rng(0).normal(size=shape).astype("float32"))
    for choice in (kprune.Choice("l1", ratio=0.5), kprune.Choice("activation-mean", ratio=0.5)):
        made = kprune.plan(live, choice=choice, data=data)
        assert made == kprune.plan(path, choice=choice, data=data)


def test_live_models_differ_from_files_as_files_do(live: Any, path: Path) -> None:
    assert kprune.diff(live, path).equal
    smaller = kprune.remove(live, {"dense": [1]})
    found = kprune.diff(path, smaller)
    assert not found.equal and found.b.path is None
    assert found.b.parameters == smaller.count_params() < found.a.parameters


def test_what_a_live_model_is_read_from_lives_as_long_as_it_is_open(live: Any) -> None:
    with opened(live) as it:
        place = it.source.path
        assert it.live and it.path is None and place is not None and place.exists()
    assert not place.exists() and not place.parent.exists()


def test_a_live_model_stays_as_it_is_and_another_of_its_class_comes_back() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(2, name="b")]
    )
    before = [weight.copy() for weight in model.get_weights()]
    for change in (kprune.remove, kprune.zero, kprune.mask):
        result = change(model, {"a": [1, 4]})
        assert type(result) is keras.Sequential and result is not model
        kernel = model.get_layer("b").kernel.numpy()
        kernel[[1, 4]] = 0
        x = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
        hidden = np.asarray(model.get_layer("a")(x))
        np.testing.assert_allclose(result(x), hidden @ kernel, atol=1e-6)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("place", [{"output": "x.keras"}, {"in_place": True}, {"dry_run": True}])
def test_what_comes_of_a_live_model_goes_to_no_file(
    place: dict[str, Any], live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(live), "save", lambda *_: pytest.fail("it was saved"))
    for call in (
        lambda: kprune.remove(live, {"dense": [1]}, **place),
        lambda: kprune.compact(live, **place),
        lambda: kprune.apply(live, "no.yaml", **place),
    ):
        with pytest.raises(kprune.UsageError, match="need a model file"):
            call()


def test_a_model_is_live_if_keras_could_save_it(live: Any) -> None:
    assert isinstance(live, LiveModel)
    assert not any(isinstance(other, LiveModel) for other in ("a.keras", Path("a"), 3, os, {}))
