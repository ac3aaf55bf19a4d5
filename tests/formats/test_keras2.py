"""Files that Keras 2 (tf_keras) wrote come out as files that Keras 2 loads, and compute what they should."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kprune
from kprune.checking.outline import Outline
from kprune.checking.output import complaints
from kprune.graph import parse_model
from kprune.graph.order import snake_case
from tests.formats.making import contents

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("tf_keras")


def network(keras: Any) -> Any:
    """Branches, a nested model, TensorFlow functions, recurrent and attention layers."""
    import tensorflow as tf

    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    a = layers.ReLU()(layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, name="c1")(image)))
    b = layers.Conv2D(6, 3, name="c2")(image)
    x = layers.GlobalAveragePooling2D()(tf.nn.relu(layers.Add()([a, b])))
    start = keras.Input((6,))
    y = layers.BatchNormalization(name="inner_norm")(layers.Dense(5, name="d")(start))
    x = keras.Model(start, layers.Dense(4, name="e")(y), name="inner")(x) * 2.0 + 1.0
    x = tf.reshape(tf.concat([x[:, :2], x[:, 2:]], axis=-1), [-1, 4])
    r = layers.Bidirectional(layers.LSTM(3), name="both")(layers.Reshape((2, 2))(x))
    m = layers.MultiHeadAttention(2, 3, name="heads")(
        layers.Reshape((2, 2))(x), layers.Reshape((2, 2))(x)
    )
    out = layers.Dense(3, name="out")(layers.Concatenate()([r, layers.Flatten()(m)]))
    model = keras.Model(image, out, name="whole")
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(4, 8, 8, 3)), rng.normal(size=(4, 3)), verbose=0)
    model.set_weights([
        rng.uniform(0.5, 1.5, w.shape) * (1 if "variance" in w.name else rng.choice([-1, 1], w.shape))
        for w in model.weights
    ])  # fmt: skip
    return model


UNITS = {"inner/d": [1, 2], "both": [1, 4], "heads.heads": [0], "c1": [0, 2]}
IMAGES = np.random.default_rng(1).normal(size=(3, 8, 8, 3)).astype("f4")


def unzipped(path: Path) -> Path:
    folder = path.with_name("folder")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("kind", ["h5", "keras", "folder"])
def test_a_cut_file_of_keras_2_is_the_masked_original(
    keras: Any, tmp_path: Path, kind: str
) -> None:
    model = network(keras)
    path = tmp_path / f"m.{'h5' if kind == 'h5' else 'keras'}"
    model.save(path)
    wanted = ["cut", "zero"]
    if kind == "folder":
        path = unzipped(path)
        names = {name: tmp_path / name for name in wanted}
    else:
        names = {name: tmp_path / f"{name}.{kind}" for name in wanted}
    report = kprune.remove(path, UNITS, output=names["cut"])
    kprune.zero(path, UNITS, output=names["zero"], outgoing=True)
    assert not report.notes and report.exact
    if kind == "folder":
        # tf_keras loads zips only, so the folder is zipped again.
        names = {
            name: Path(shutil.make_archive(str(folder), "zip", folder)).rename(f"{folder}.keras")
            for name, folder in names.items()
        }
    cut, zeroed = (keras.models.load_model(names[name]) for name in wanted)
    assert cut.count_params() == report.output.parameters < model.count_params()
    np.testing.assert_allclose(cut(IMAGES), zeroed(IMAGES), rtol=1e-4, atol=1e-5)
    assert len(cut.optimizer.variables) == len(model.optimizer.variables)
    cut.fit(IMAGES, np.zeros((3, 3)), verbose=0)  # slots that were not cut would not fit


def further(keras: Any) -> Any:
    """What `network` lacks: cells, wrappers, a Sequential, a layer that is called twice."""
    layers = keras.layers
    x = keras.Input((4, 6))
    twice = layers.Dense(6, "tanh", name="twice")
    y = layers.TimeDistributed(layers.Dense(6, name="each"))(twice(twice(x)))
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum")(y)
    y = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(3)]), name="cells")(y)
    inner = keras.Sequential(
        [layers.Input((3,)), layers.Dense(5, name="s"), layers.PReLU()], "stack"
    )
    z = layers.Reshape((2, 2, 5))(layers.RepeatVector(4)(inner(y)))
    z = layers.SeparableConv2D(3, 2, padding="same")(layers.LayerNormalization()(z))
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(z)))


@pytest.mark.parametrize("build", [network, further])
def test_a_legacy_file_of_keras_2_becomes_a_keras_file_of_keras_2(
    keras: Any, tmp_path: Path, build: Any
) -> None:
    model = build(keras)
    model.save(tmp_path / "m.h5")
    units = UNITS if build is network else {"stack/s": [1, 2]}
    for name in ("cut.h5", "cut.keras"):
        report = kprune.remove(tmp_path / "m.h5", units, output=tmp_path / name)
    assert report.output.format == "keras"
    assert [note.text for note in report.notes if "Keras 2 (2.14 or newer)" in note.text]
    old, new = (
        keras.models.load_model(tmp_path / name, compile=False) for name in ("cut.h5", "cut.keras")
    )
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("f4")
    np.testing.assert_array_equal(new(x), old(x))
    again = kprune.remove(tmp_path / "cut.keras", {"out": [0]}, output=tmp_path / "again.keras")
    cut = keras.models.load_model(tmp_path / "again.keras", compile=False)
    assert cut.count_params() == again.output.parameters
    np.testing.assert_allclose(cut(x), old(x)[:, 1:], rtol=1e-5, atol=1e-6)


def test_a_nested_unit_that_goes_is_one_that_nobody_reads(keras: Any, tmp_path: Path) -> None:
    model = network(keras)
    model.save(tmp_path / "m.h5")
    kprune.remove(tmp_path / "m.h5", {"inner/d": [1, 2]})
    kernel, bias = model.get_layer("inner").get_layer("e").get_weights()
    kernel[[1, 2]] = 0
    model.get_layer("inner").get_layer("e").set_weights([kernel, bias])
    cut = keras.models.load_model(tmp_path / "m.pruned.h5")
    np.testing.assert_allclose(cut(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)


def test_verify_runs_files_of_keras_2_in_keras_2(keras: Any, tmp_path: Path) -> None:
    network(keras).save(tmp_path / "m.keras")
    kprune.remove(tmp_path / "m.keras", UNITS)
    assert kprune.verify(tmp_path / "m.keras", tmp_path / "m.pruned.keras").passed


def test_a_sequential_without_an_input_layer(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.layers.Dense(5, "relu", input_shape=(4,), name="a"), keras.layers.Dense(2, name="b")]
    )
    model.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        del config["config"]["layers"][0]  # as Keras before 2.2 wrote it
        file.attrs["model_config"] = json.dumps(config)
        names = [name for name in file["model_weights"].attrs["layer_names"] if name in ("a", "b")]
        file["model_weights"].attrs["layer_names"] = names
    kprune.remove(tmp_path / "m.h5", {"a": [0]})
    kernel, bias = model.get_layer("b").get_weights()
    kernel[0] = 0
    model.get_layer("b").set_weights([kernel, bias])
    cut = keras.models.load_model(tmp_path / "m.pruned.h5", compile=False)
    x = np.ones((2, 4), "f4")
    np.testing.assert_allclose(cut(x), model(x), rtol=1e-6)


def as_2_12(path: Path, output: Path) -> dict[str, str]:
    """The same model with its weights where Keras 2.12 puts them; new paths by old ones.

    There a layer that has weights stands twice in the list that is counted, and is saved the first
    time (keras/saving/saving_lib.py and keras/engine/functional.py of 2.12).
    """
    tensors = contents(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    places: dict[str, str] = {}

    def count(model: Any, old: str, new: str) -> None:
        used: dict[str, int] = {}
        for layer in model.layers.values():
            name = snake_case(layer.kind)
            for _ in range(2 if any(path.startswith(layer.store + "/") for path in tensors) else 1):
                used[name] = used.get(name, -1) + 1
                number = used[name] - 1 if _ else used[name]
            place = f"{new}_layer_checkpoint_dependencies/{name}" + (f"_{number}" if number else "")
            places[layer.store] = place
            if layer.model is not None:
                count(layer.model, layer.store + "/", place + "/")

    count(parse_model(json.loads(members["config.json"])), "", "")
    moved = {}
    for tensor in tensors:
        group = tensor
        while group and group not in places:
            group = group.rpartition("/")[0]
        moved[tensor] = places[group] + tensor[len(group) :] if group else tensor
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for old, new in moved.items():
            file[new] = tensors[old]
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(output, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return moved


def test_the_places_of_keras_2_12_hold_the_same_tensors(keras: Any, tmp_path: Path) -> None:
    network(keras).save(tmp_path / "new.keras")
    moved = as_2_12(tmp_path / "new.keras", tmp_path / "old.keras")
    assert "_layer_checkpoint_dependencies/conv2d_2/vars/0" in moved.values(), "counted twice"
    for name in ("new", "old"):
        kprune.remove(tmp_path / f"{name}.keras", UNITS, output=tmp_path / f"{name}_cut.keras")
    new, old = contents(tmp_path / "new_cut.keras"), contents(tmp_path / "old_cut.keras")
    assert {moved[path] for path in new} == set(old)
    assert all(np.array_equal(new[path], old[moved[path]]) for path in new)
    kprune.mask(tmp_path / "old.keras", {"c2": [1]}, output=tmp_path / "masked.keras")
    assert set(contents(tmp_path / "masked.keras")) <= set(moved.values()), "nothing moves"


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_squeeze_of_all_axes_says_which_once_one_filter_is_left(
    keras: Any, tmp_path: Path, suffix: str
) -> None:
    import tensorflow as tf

    inputs = keras.Input(batch_shape=(4, 3, 3, 2))
    x = keras.layers.Conv2D(4, 3, name="a")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(tf.squeeze(x)))
    model.save(tmp_path / f"m.{suffix}")
    kprune.remove(tmp_path / f"m.{suffix}", {"a": [0, 1, 3]}, output=tmp_path / f"p.{suffix}")
    pruned = keras.models.load_model(tmp_path / f"p.{suffix}", compile=False)
    kernel, bias = model.get_layer("out").get_weights()
    kernel[[0, 1, 3]] = 0
    model.get_layer("out").set_weights([kernel, bias])
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype("float32")
    np.testing.assert_allclose(pruned(x).numpy(), model(x).numpy(), 1e-4, 1e-5)


def looked_up(keras: Any, before: str) -> Any:
    """Values that become numbers of rows, of a shape that a legacy file does not record."""
    layers = keras.layers
    kind, made = {
        "lookup": ("string", lambda: layers.StringLookup(vocabulary=["a", "b", "c"])),
        "hashing": ("string", lambda: layers.Hashing(4)),
        "bins": ("float32", lambda: layers.Discretization(bin_boundaries=[0.0, 1.0, 2.0])),
        "lambda": ("float32", lambda: layers.Lambda(abs)),
    }[before]
    inputs = keras.Input((3,), dtype=kind)
    x = layers.Embedding(4, 6, name="emb")(made()(inputs))
    x = layers.Dense(5, name="mid")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


@pytest.mark.parametrize("before", ["lookup", "hashing", "bins"])
def test_rows_of_an_embedding_behind_a_preprocessing_layer(
    keras: Any, tmp_path: Path, before: str
) -> None:
    import tensorflow as tf

    model = looked_up(keras, before)
    model.save(tmp_path / "m.h5")
    kprune.remove(tmp_path / "m.h5", {"emb": [0, 4]})
    cut = keras.models.load_model(tmp_path / "m.pruned.h5", compile=False)
    assert cut.get_layer("mid").kernel.shape == (12, 5)
    (table,) = model.get_layer("emb").get_weights()
    table[:, [0, 4]] = 0
    model.get_layer("emb").set_weights([table])
    x = tf.constant([["a", "b", "c"], ["b", "x", "a"]])
    if before == "bins":
        x = tf.constant([[-1.0, 0.5, 3.0], [1.5, 0.5, -2.0]])
    np.testing.assert_allclose(cut(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot"])
def test_a_vocabulary_beside_what_is_flattened(keras: Any, tmp_path: Path, mode: str) -> None:
    import tensorflow as tf

    layers = keras.layers
    word, number = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    x = layers.StringLookup(vocabulary=["a", "b"])(word)
    x = layers.Flatten()(layers.Embedding(4, 6, name="emb")(x))
    coded = layers.IntegerLookup(vocabulary=[3, 5, 9], mask_token=0, output_mode=mode)(number)
    x = layers.Dense(2, name="out")(layers.Concatenate()([x, coded]))
    model = keras.Model([word, number], x)
    model.save(tmp_path / "m.h5")
    kprune.remove(tmp_path / "m.h5", {"emb": [0]})
    cut = keras.models.load_model(tmp_path / "m.pruned.h5", compile=False)
    (table,) = model.get_layer("emb").get_weights()
    table[:, 0] = 0
    model.get_layer("emb").set_weights([table])
    x = [tf.constant([["a"], ["x"]]), tf.constant([[3], [4]], tf.int64)]
    np.testing.assert_allclose(cut(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooled", [False, True])
def test_what_meets_a_tensor_of_unknown_shape_stays(
    keras: Any, tmp_path: Path, pooled: bool
) -> None:
    model = looked_up(keras, "lambda")
    if pooled:
        x = keras.layers.GlobalAveragePooling1D()(model.get_layer("emb").output)
        model = keras.Model(model.input, keras.layers.Dense(2)(x))
    model.save(tmp_path / "m.h5")
    with pytest.raises(kprune.CannotPruneError, match="unknown shape"):
        kprune.remove(tmp_path / "m.h5", {"emb": [0]})
    assert not (tmp_path / "m.pruned.h5").exists()


@pytest.mark.parametrize("before", ["lookup", "lambda"])
def test_rows_of_a_kernel_that_do_not_fit_what_is_flattened_are_noticed(
    keras: Any, tmp_path: Path, before: str
) -> None:
    looked_up(keras, before).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        config = json.loads(file.attrs["model_config"])
    order = {"emb": ["e"], "mid": ["k", "b"], "out": ["l", "c"]}
    shapes = {"e": (4, 6), "k": (18, 5), "b": (5,), "l": (5, 2), "c": (2,)}
    assert complaints(Outline(config, shapes, order)) == []
    (embedding,) = (one for one in config["config"]["layers"] if one["class_name"] == "Embedding")
    embedding["config"]["output_dim"] = 5
    (found,) = complaints(Outline(config, {**shapes, "e": (4, 5)}, order))
    assert "kernel of 'mid'" in found.text
