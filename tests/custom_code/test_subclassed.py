"""Models with a call() of their own: drawn once on symbolic inputs, and pruned like any other."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.custom_code.flatten import flatten
from kprune.errors import CannotPruneError
from kprune.verbs.change import compact, remove
from kprune.verification.verify import verify
from kprune.views.inspect import inspect
from tests.oracle.law import assert_equal, outputs, randomize

pytestmark = pytest.mark.oracle
custom = keras.saving.register_keras_serializable("subclass_tests")


class Plain(keras.Model):
    def get_config(self) -> dict[str, Any]:
        return {}


@custom
class Block(Plain):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(8, 3, padding="same", name="conv")
        self.drop = layers.Dropout(0.3)

    def call(self, x: Any, training: bool = False) -> Any:
        return x + self.drop(ops.relu(self.conv(x)), training=training)


@custom
class Residual(Plain):
    """Models inside in a list, a Sequential, and a layer that inference does not use."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stem = layers.Conv2D(8, 3)
        self.blocks = [Block(), Block()]
        self.head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(5)])
        self.out = layers.Dense(3)

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, training=training)
        return self.out(self.head(x))


@custom
class Tokens(Plain):
    """Inputs and outputs in dicts; tokens are whole numbers, which no file says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table, self.rnn = layers.Embedding(20, 6), layers.LSTM(5)
        self.side, self.out = layers.Dense(4), layers.Dense(2)

    def call(self, given: Any) -> Any:
        side = self.side(given["x"])
        both = ops.concatenate([self.rnn(self.table(given["tokens"])), side], -1)
        return {"out": self.out(both), "side": side}


def saved(model: Any, folder: Path, *inputs: Any) -> str:
    model(*inputs)
    path = str(folder / "model.keras")
    randomize(model, 3).save(path)
    return path


IMAGES = np.random.default_rng(0).normal(size=(2, 10, 10, 3)).astype("float32")
ROWS = np.ones((2, 7), "float32")


def test_a_subclassed_model_is_pruned_by_the_names_of_its_attributes(tmp_path: Path) -> None:
    model = Residual()
    path, small = saved(model, tmp_path, IMAGES), str(tmp_path / "small.keras")
    units = {row.name: row.units for row in inspect(path, trust=True).layers if row.units}
    assert units == {"stem": 8, "conv": 8, "blocks_1_conv": 8, "head/dense": 5, "out": 3}
    report = remove(path, {"stem": [1, 4], "head/dense": [2]}, output=small, trust=True)
    assert any("Residual" in note.text for note in report.notes)
    for layer in (model.stem, model.blocks[0].conv, model.blocks[1].conv):
        layer.kernel.assign(silenced(layer.kernel.numpy(), [1, 4]))
        layer.bias.assign(silenced(layer.bias.numpy(), [1, 4]))
    dense = model.head.layers[1]
    dense.kernel.assign(silenced(dense.kernel.numpy(), [2]))
    dense.bias.assign(silenced(dense.bias.numpy(), [2]))
    pruned = keras.models.load_model(small)  # no class of the model's is needed
    assert pruned.count_params() < model.count_params()
    assert_equal(outputs(pruned, IMAGES)[0], outputs(model, IMAGES)[0])
    assert verify(path, small, trust=True).passed


def silenced(weight: np.ndarray, units: list[int]) -> np.ndarray:
    weight = weight.copy()
    weight[..., units] = 0
    return weight


def test_structures_of_inputs_and_outputs_stay(tmp_path: Path) -> None:
    given = {"tokens": np.ones((2, 5), "int32"), "x": ROWS}
    model = Tokens()
    path = saved(model, tmp_path, given)
    report = flatten(path, tmp_path / "flat.keras", trust=True)
    assert report.flattened == ["Tokens"] and report.difference == 0
    flat = keras.models.load_model(tmp_path / "flat.keras")
    assert set(flat(given)) == {"out", "side"}
    assert {row.name for row in inspect(path, trust=True).layers} >= {"table", "rnn", "side", "out"}


def test_without_trust_nothing_is_run_and_trust_is_offered(tmp_path: Path) -> None:
    path = saved(Residual(), tmp_path, IMAGES)
    with pytest.raises(CannotPruneError, match="holds no graph") as caught:
        inspect(path)
    assert "--trust" in caught.value.do and "model.export" in caught.value.do


def test_an_unzipped_model_becomes_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with zipfile.ZipFile(saved(Residual(), tmp_path, IMAGES)) as archive:
        archive.extractall(folder)
    report = remove(folder, {"stem": [1]}, trust=True)
    assert report.output.path == str(tmp_path / "model.pruned.keras")
    keras.models.load_model(report.output.path)


def test_a_model_in_memory_is_drawn_as_well() -> None:
    model = Residual()
    model(IMAGES)
    pruned = remove(model, {"stem": [1]}, trust=True)
    assert pruned.get_layer("blocks_1_conv").filters == 7
    assert len(compact(model, trust=True).get_layer("stem").get_weights()) == 2


@custom
class OwnWeight(Plain):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden, self.out = layers.Dense(6), layers.Dense(2)

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(6,), name="gain", initializer="ones")
        self.hidden.build(shape)
        self.out.build((None, 6))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.out(self.hidden(x) * self.gain)


@custom
class Asks(Plain):
    """Code that depends on values, which no symbolic tensor has."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.out = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.out(x) if float(ops.sum(x)) > 0 else x


@custom
class Counts(Asks):
    """The same in a model that says how it is built."""

    def build(self, shape: Any) -> None:
        self.out.build(shape)
        self.built = True


@custom
class Two(Plain):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.out = layers.Dense(2)

    def call(self, x: Any, y: Any) -> Any:
        return self.out(x + y)


@pytest.mark.parametrize(
    ("kind", "what", "inputs"),
    [
        (OwnWeight, "uses the weight 'gain' directly", [ROWS]),
        (Asks, "does not say which inputs", [ROWS]),
        (Counts, "cannot be traced", [ROWS]),
        (Two, "also takes 'y'", [ROWS, ROWS]),
    ],
)
def test_what_cannot_be_drawn_names_the_way_that_works(
    kind: Any, what: str, inputs: list[Any], tmp_path: Path
) -> None:
    path = saved(kind(), tmp_path, *inputs)
    for command in (inspect, flatten):
        with pytest.raises(CannotPruneError, match=what) as caught:
            command(path, trust=True)
        assert "model.export" in caught.value.do


def test_trust_is_not_offered_where_it_does_not_help(tmp_path: Path) -> None:
    model = Residual()
    model(IMAGES)
    path = tmp_path / "model.h5"  # which does not say where a class is
    model.save(path)
    for trust in (False, True):
        with pytest.raises(CannotPruneError, match="holds no graph") as caught:
            inspect(path, trust=trust)
        assert "--trust" not in caught.value.do and "model.export" in caught.value.do


def test_the_way_that_is_named_works(tmp_path: Path) -> None:
    model = OwnWeight()
    model(ROWS)
    randomize(model).export(str(tmp_path / "saved"), verbose=False)
    free = {row.name: row.free for row in inspect(tmp_path / "saved").layers if row.free}
    assert 6 in free.values()
    name = next(name for name, count in free.items() if count == 6)
    remove(tmp_path / "saved", {name: [1]}, output=tmp_path / "small")
    assert verify(tmp_path / "saved", tmp_path / "small").passed
