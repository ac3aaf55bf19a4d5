"""Models with layers and losses of one's own: run where the user trusts the file or gives their code, else refused."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice

pytestmark = pytest.mark.oracle

CODE = """
import keras

{register}
class Gain(keras.layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")
        self.built = True

    def call(self, x):
        return x * self.gain

    def compute_output_shape(self, shape):
        return shape


class OwnLoss(keras.losses.SparseCategoricalCrossentropy):
    pass


def own_loss(y, p):
    return keras.losses.sparse_categorical_crossentropy(y, p)
"""
PLAN = """\
version: 1
choose: {criterion: l1}
target: {parameters: 70%}
schedule: {rounds: 2}
tune: {epochs: 1}
"""


def made(folder: Path, module: str, register: str = "", loss: str | None = None) -> Path:
    """model.keras with a Gain of that module, data.npz, plan.yaml; the module itself is beside them."""
    import keras

    (folder / f"{module}.py").write_text(CODE.format(register=register))
    (folder / "plan.yaml").write_text(PLAN)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] > x[:, 1]).astype("int64"))
    sys.path.insert(0, str(folder))
    try:
        own: Any = __import__(module)
    finally:
        sys.path.remove(str(folder))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "relu", name="hidden"),
            own.Gain(name="gain"),
            keras.layers.Dense(2, "softmax", name="classes"),
        ]
    )
    model.compile(
        "sgd", own.OwnLoss() if loss is None else getattr(own, loss), metrics=["accuracy"]
    )
    model.save(folder / "model.keras")
    del sys.modules[module]
    return folder


def _tune(place: Path, **how: Any) -> Any:
    return kprune.tune(
        place / "model.keras", data=place / "data.npz", output=place / "tuned.keras",
        epochs=1, force=True, **how,
    )  # fmt: skip


def _iterate(place: Path, **how: Any) -> Any:
    return kprune.iterate(
        place / "model.keras", place / "plan.yaml", data=place / "data.npz",
        output=place / "iterated.keras", force=True, **how,
    )  # fmt: skip


def _sensitivity(place: Path, **how: Any) -> Any:
    return kprune.sensitivity(place / "model.keras", data=place / "data.npz", ratios=[0.5], **how)


def _verify(place: Path, **how: Any) -> Any:
    return kprune.verify(place / "model.keras", place / "model.keras", **how)


COMMANDS: list[Callable[..., Any]] = [_tune, _iterate, _sensitivity, _verify]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_module_that_a_file_names_is_imported_without_trust(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made(tmp_path, "untrusted_layers")
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(kprune.CannotPruneError, match="cannot run") as refused:
        command(place)
    assert refused.value.where == "'gain' imports untrusted_layers.Gain"
    assert "--trust" in refused.value.do and "registers Gain" in refused.value.do
    assert "untrusted_layers" not in sys.modules
    assert sorted(path.name for path in place.iterdir() if path.suffix == ".keras") == [
        "model.keras"
    ]


def test_a_trusted_files_classes_are_imported_from_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made(tmp_path, "trusted_layers")
    monkeypatch.syspath_prepend(str(place))
    assert _verify(place, trust=True).passed
    found = _tune(place, trust=True)
    assert found.samples == 54
    assert found.notes == []  # compiled as the file says, by a loss of its own
    found = _iterate(place, trust=True)
    assert [round_.units for round_ in found.rounds] == [10, 8, 7]
    (hidden, _) = _sensitivity(place, trust=True).candidates
    assert hidden.layers == {"hidden": 8} and len(hidden.points) == 1


@pytest.mark.parametrize("amount", [{"ratio": 0.5}, {"target": Budget("parameters", "50%")}])
def test_a_layer_that_holds_every_unit_is_named_by_a_choice_by_rank(
    tmp_path: Path, amount: dict[str, Any]
) -> None:
    place = made(tmp_path, "holding_layers")
    with pytest.raises(
        kprune.FrozenUnitsError, match="no unit of any layer can be removed"
    ) as refused:
        kprune.remove(place / "model.keras", choice=Choice("l1", **amount), dry_run=True)
    assert "'gain' is a Gain layer, for which kprune has no rule" in refused.value.why
    assert "--trust" in refused.value.do


def test_a_loss_of_which_keras_keeps_only_the_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made(tmp_path, "named_losses", loss="own_loss")
    monkeypatch.syspath_prepend(str(place))
    (note,) = _tune(place, trust=True).notes
    assert note.kind == "loss" and note.text == (
        "Keras does not know all that the file was compiled with (--rules can register it): "
        "the loss follows from the targets (sparse_categorical_crossentropy)"
    )


def test_what_a_file_of_rules_registers_needs_no_trust_and_keeps_its_module(tmp_path: Path) -> None:
    """The file of rules is run under a name that nobody can import later on."""
    register = '@keras.saving.register_keras_serializable("own_classes_tests")'
    place = made(tmp_path, "registered_layers", register)
    import keras

    keras.saving.get_custom_objects().pop("own_classes_tests>Gain")
    rules = [str(place / "registered_layers.py")]
    _tune(place, rules=rules)
    with zipfile.ZipFile(place / "tuned.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    (gain,) = [layer for layer in layers if layer["class_name"] == "Gain"]
    assert (gain["module"], gain["registered_name"]) == (
        "registered_layers", "own_classes_tests>Gain",
    )  # fmt: skip
