"""What a rule says of values lets constants, factors and what is observed through the layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kprune
from kprune.analysis.user_rules import load_rules
from kprune.tracing.registry import Table

pytestmark = pytest.mark.oracle

RULES = """
import keras
import kprune

class Same(keras.layers.Layer):
    def call(self, x, training=False):
        return x

class Silent(Same):
    pass

for kind in (Same, Silent):
    keras.saving.register_keras_serializable("quiet")(kind)

@kprune.rule("quiet>Same", does="passes", values="same")
@kprune.rule("quiet>Silent", does="passes")
def quiet(call):
    return call.x
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rules, data, and two models with such a layer, whose units 1 and 2 nobody needs."""
    folder = tmp_path_factory.mktemp("values")
    (folder / "rules.py").write_text(RULES)
    load_rules([str(folder / "rules.py")])
    for name in ("Same", "Silent"):
        model(keras.saving.get_registered_object(f"quiet>{name}")).save(folder / f"{name}.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)).astype("float32"), rng.normal(size=(20, 2)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=y)
    return folder


def model(quiet: Any) -> Any:
    keras.utils.set_random_seed(0)
    x = keras.Input((5,))
    a = keras.layers.Dense(6, activation="relu", name="a", bias_initializer="normal")(x)
    made = keras.Model(x, keras.layers.Dense(2, name="b")(quiet(name="quiet")(a)))
    kernel, bias = made.get_layer("a").get_weights()
    kernel[:, 1], bias[1] = 0, 0.5  # always 0.5
    kernel[:, 2], bias[2] = 2 * kernel[:, 0], 2 * bias[0]
    made.get_layer("a").set_weights([kernel, bias])
    made.compile(loss="mse")
    return made


def compacted(place: Path, name: str) -> dict[str, list[int]]:
    out = place / "small.keras"
    return kprune.compact(place / f"{name}.keras", merge=True, output=out, force=True).changed


def test_constants_and_factors_go_through_values_that_stay_the_same(place: Path) -> None:
    assert compacted(place, "Same") == {"a": [1, 2]}
    x = np.load(place / "data.npz")["x"]
    whole, small = (keras.models.load_model(place / f"{name}.keras") for name in ("Same", "small"))
    np.testing.assert_allclose(small(x), whole(x), rtol=1e-4, atol=1e-6)


def test_nothing_is_known_of_values_of_which_a_rule_says_nothing(place: Path) -> None:
    assert compacted(place, "Silent") == {}


def test_units_are_observed_behind_values_that_stay_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    from kprune.running import activations

    captured = activations.captured

    def noted(model: Any, paths: set[str]) -> Any:
        seen.append(paths)
        return captured(model, paths)

    monkeypatch.setattr(activations, "captured", noted)
    for name, layer in (("Same", "quiet"), ("Silent", "a")):
        choice = kprune.Choice("taylor", count=2)
        data = place / "data.npz"
        kprune.plan(place / f"{name}.keras", choice=choice, layers=["a"], data=data)
        assert layer in seen.pop()


@pytest.mark.parametrize(
    "wrong", [{"does": "mixes", "values": "same"}, {"does": "passes", "values": "new"}]
)
def test_what_a_rule_says_of_values_is_one_of_two_words_of_what_passes(
    wrong: dict[str, str],
) -> None:
    with pytest.raises(ValueError, match="values="):
        Table(builtin=False).rule("X", **wrong)
