"""A model of a class of its own becomes a plain graph: the same network, or nothing is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kprune.custom_code.flatten import flatten
from kprune.errors import CannotPruneError, CheckError, FileError, SetupError, UsageError
from kprune.graph import parse_model
from kprune.verbs.change import remove
from tests.oracle.law import outputs, random_inputs, randomize
from tests.oracle.zeroed import analysis_of

pytestmark = pytest.mark.oracle

MODULE = "kprune_flatten_models"
SOURCE = '''
"""Models as packages make them: subclasses whose config holds the constructor's arguments."""
import keras
from keras import layers

print("imported", flush=True)


class Configured:
    """What the models share: a config of the constructor's arguments."""

    def get_config(self):
        return {"name": self.name, "width": self.width}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("flatten_tests")
class Tower(Configured, keras.Model):
    """A Functional model by descent."""

    def __init__(self, width=6, **kwargs):
        x = keras.Input((5,), name="x")
        y = layers.Dense(width, "relu", name="a")(x)
        super().__init__(x, layers.Dense(4, name="b")(y), **kwargs)
        self.width = width


@keras.saving.register_keras_serializable("flatten_tests")
class Pair(Configured, keras.Model):
    """Two of them inside, one called twice; inputs and outputs in dicts."""

    def __init__(self, width=6, **kwargs):
        left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
        twin, other = Tower(width, name="twin"), Tower(width + 1, name="other")
        one, two = twin(left), twin(right)
        super().__init__(
            {"left": left, "right": right},
            {"both": layers.Add(name="sum")([one, two]), "third": other(left * 2.0)},
            **kwargs,
        )
        self.width = width


@keras.saving.register_keras_serializable("flatten_tests")
class Chain(Configured, keras.Sequential):
    """A Sequential by descent."""

    def __init__(self, width=6, **kwargs):
        super().__init__([keras.Input((5,)), layers.Dense(width), layers.Dense(3)], **kwargs)
        self.width = width


@keras.saving.register_keras_serializable("flatten_tests")
class Scale(layers.Layer):
    """Its config forgets an argument; nobody notices while the model builds it."""

    def __init__(self, factor, offset=0.0, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.offset = factor, offset

    def call(self, x):
        return x * self.factor + self.offset

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("flatten_tests")
class Scaled(Configured, keras.Model):
    def __init__(self, width=6, **kwargs):
        x = keras.Input((5,))
        y = Scale(2.0, offset=3.0, name="scale")(layers.Dense(width, name="a")(x))
        super().__init__(x, layers.Dense(2)(y), **kwargs)
        self.width = width


@keras.saving.register_keras_serializable("flatten_tests")
class Keeper(layers.Layer):
    """Cannot be built from its config at all."""

    def __init__(self, held, **kwargs):
        super().__init__(**kwargs)
        self.held = held

    def call(self, x):
        return x

    def get_config(self):
        raise RuntimeError("not me")


@keras.saving.register_keras_serializable("flatten_tests")
class Kept(Configured, keras.Model):
    def __init__(self, width=6, **kwargs):
        x = keras.Input((5,))
        super().__init__(x, Keeper(object(), name="keeper")(x), **kwargs)
        self.width = width


@keras.saving.register_keras_serializable("flatten_tests")
class Doubling(Tower):
    """Does more than its graph says."""

    def call(self, *args, **kwargs):
        return 2 * super().call(*args, **kwargs)


@keras.saving.register_keras_serializable("flatten_tests")
class Code(Configured, keras.Model):
    """No graph at all."""

    def __init__(self, width=6, **kwargs):
        super().__init__(**kwargs)
        self.width, self.dense = width, layers.Dense(width)

    def call(self, x):
        return self.dense(x)


class Unregistered(Tower):
    """Known by its module and name alone."""
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module, importable for this test run."""
    folder = tmp_path_factory.mktemp("package")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    try:
        yield __import__(MODULE)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(MODULE, None)


def saved(model: Any, folder: Path) -> Path:
    path = folder / "model.keras"
    randomize(model).save(path)
    return path


@pytest.mark.parametrize("name", ["Tower", "Pair", "Chain", "Scaled", "Unregistered"])
def test_the_flat_file_is_the_same_network(made: Any, name: str, tmp_path: Path) -> None:
    model = getattr(made, name)()
    path, flat = saved(model, tmp_path), tmp_path / "flat.keras"
    report = flatten(path, flat, trust=True)
    assert report.flattened[-1] == name
    assert report.bytes == flat.stat().st_size
    again = keras.models.load_model(flat)
    assert type(again).__module__.startswith("keras.")
    assert again.count_params() == model.count_params() == report.parameters
    inputs = random_inputs(model)
    for one, other in zip(outputs(again, inputs), outputs(model, inputs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nested_models_are_unfolded_and_a_model_called_twice_stays_one(
    made: Any, tmp_path: Path
) -> None:
    flat = tmp_path / "flat.keras"
    report = flatten(saved(made.Pair(), tmp_path), flat, trust=True)
    assert report.flattened == ["Tower", "Tower", "Pair"]
    assert report.needs == []
    analysis = analysis_of(flat)
    assert {"twin/a", "other/a"} < set(analysis.map.axes)
    small = remove(str(flat), {"twin/a": [1, 4]}, output=str(tmp_path / "small.keras"))
    assert small.changed == {"twin/a": [1, 4]}
    assert (
        keras.models.load_model(tmp_path / "small.keras").count_params() == small.output.parameters
    )


def test_a_model_that_ends_in_one_is_read_and_unfolded(made: Any, tmp_path: Path) -> None:
    x = keras.Input((5,))
    y = keras.layers.Dense(5, name="first")(x)
    path, flat = saved(keras.Model(x, made.Tower(name="tower")(y)), tmp_path), tmp_path / "f.keras"
    before = analysis_of(path)
    assert before.groups.frozen()[before.map.axes["first"].ids].all()
    assert flatten(path, flat, trust=True).flattened == ["Tower"]
    after = analysis_of(flat)
    assert not after.groups.frozen()[after.map.axes["first"].ids].any()
    assert not after.groups.frozen()[after.map.axes["tower/a"].ids].any()


def test_a_config_that_forgets_an_argument_is_completed(made: Any, tmp_path: Path) -> None:
    report = flatten(saved(made.Scaled(), tmp_path), tmp_path / "flat.keras", trust=True)
    assert report.mended == ["Scale"]
    assert report.needs == [MODULE]
    layer = keras.models.load_model(tmp_path / "flat.keras").get_layer("scale")
    assert (layer.factor, layer.offset) == (2.0, 3.0)


def test_a_layer_that_cannot_be_written_by_itself_is_named(made: Any, tmp_path: Path) -> None:
    with pytest.raises(CannotPruneError, match="'keeper' cannot be written by itself") as caught:
        flatten(saved(made.Kept(), tmp_path), tmp_path / "flat.keras", trust=True)
    assert caught.value.where == f"{MODULE}.Keeper"
    assert not (tmp_path / "flat.keras").exists()


def test_a_class_that_does_more_than_its_graph_is_found_out(made: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="not the same network"):
        flatten(saved(made.Doubling(), tmp_path), tmp_path / "flat.keras", trust=True)
    assert not (tmp_path / "flat.keras").exists()


def test_a_model_without_a_graph_is_drawn_by_its_call(made: Any, tmp_path: Path) -> None:
    model = made.Code()
    model(np.zeros((1, 5), "float32"))
    assert flatten(saved(model, tmp_path), tmp_path / "flat.keras", trust=True).flattened == [
        "Code"
    ]


def test_a_plain_model_needs_no_trust_and_stays_as_it_is(tmp_path: Path) -> None:
    x = keras.Input((5,))
    path = saved(keras.Model(x, keras.layers.Dense(3)(x)), tmp_path)
    report = flatten(path, tmp_path / "flat.keras")
    assert report.flattened == []
    assert report.difference == 0


def test_without_trust_nothing_is_imported(made: Any, tmp_path: Path) -> None:
    """In a process of its own, where the module prints when it is run."""
    path = saved(made.Tower(), tmp_path)
    script = f"import sys; sys.path.insert(0, {str(Path(made.__file__).parent)!r})\n" + (
        "from kprune.errors import CannotPruneError\n"
        "from kprune.custom_code.flatten import flatten\n"
        "try:\n"
        f"    flatten({str(path)!r})\n"
        "except CannotPruneError as error:\n"
        "    print(error)\n"
        f"assert {MODULE!r} not in sys.modules and 'keras' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"where: {MODULE}\n" in run.stdout
    assert "pass --trust" in run.stdout
    assert "imported\n" not in run.stdout
    assert list(tmp_path.iterdir()) == [path]


def test_the_refusal_of_every_other_command_points_here(made: Any, tmp_path: Path) -> None:
    with pytest.raises(CannotPruneError, match="a Tower, whose config holds no graph") as caught:
        analysis_of(saved(made.Tower(), tmp_path))
    assert "kprune flatten MODEL --trust" in caught.value.do


def test_a_package_that_is_not_there_is_named(made: Any, tmp_path: Path) -> None:
    path = saved(made.Tower(), tmp_path)
    data = path.read_bytes()
    import zipfile

    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "other.keras", "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename == "config.json":
                content = content.replace(MODULE.encode(), b"nowhere_to_be_found")
                content = content.replace(b"flatten_tests>", b"not_registered>")
            new.writestr(item, content)
    with pytest.raises(SetupError, match="cannot import nowhere_to_be_found") as caught:
        flatten(tmp_path / "other.keras", trust=True)
    assert "no package 'nowhere_to_be_found' is installed" in caught.value.why
    assert path.read_bytes() == data


def test_an_existing_file_stands_unless_forced(made: Any, tmp_path: Path) -> None:
    path, flat = saved(made.Tower(), tmp_path), tmp_path / "model.flat.keras"
    flat.write_text("old")
    with pytest.raises(UsageError, match="exists already"):
        flatten(path, trust=True)
    assert flat.read_text() == "old"
    assert flatten(path, trust=True, force=True).output == str(flat)
    assert parse_model(analysis_of(flat).config).kind == "Functional"


def test_a_file_that_keras_cannot_load_is_said_to_be_so(made: Any, tmp_path: Path) -> None:
    path = saved(made.Tower(), tmp_path)
    import zipfile

    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bad.keras", "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename == "config.json":
                content = content.replace(b'"width": 6', b'"width": 7')
            new.writestr(item, content)
    with pytest.raises(FileError, match="Keras cannot load"):
        flatten(tmp_path / "bad.keras", tmp_path / "flat.keras", trust=True)
    assert not (tmp_path / "flat.keras").exists()
