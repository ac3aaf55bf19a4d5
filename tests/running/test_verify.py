"""`verify` runs both models in plain Keras, passes what is right and fails what is not."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import CannotPruneError, CheckError, FileError, UsageError
from kprune.pruning import mask, remove, unmask, zero
from kprune.running.verify import verify
from tests.oracle.law import randomize

pytestmark = pytest.mark.oracle


def small_model():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), name="image"),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Flatten(),
            layers.Dense(8, "sigmoid", name="dense"),
            layers.Dense(4, "softmax", name="out"),
        ]
    )


@pytest.fixture
def original(tmp_path) -> Path:
    randomize(small_model()).save(tmp_path / "original.keras")
    return tmp_path / "original.keras"


@pytest.fixture
def small(tmp_path) -> Path:
    return tmp_path / "small.keras"


def saved(model, folder, name="original.keras") -> Path:
    randomize(model).save(folder / name)
    return folder / name


def rewritten(path, *, config=None, metadata=None, weights=None):
    """Change a file's parts in place, behind kprune's back."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, change in (("config.json", config), ("metadata.json", metadata)):
        if change is not None:
            value = json.loads(members[name])
            members[name] = json.dumps(change(value) or value).encode()
    if weights is not None:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            weights(file)
        members["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def kinds(found):
    return [note.kind for note in found.notes]


# -- what is right passes -------------------------------------------------------------------------


def test_a_removal_passes_and_is_exact(original, small):
    remove(str(original), {"conv": [0, 4], "dense": [1]}, output=str(small))
    found = verify(original, small, samples=5)
    assert found.passed and found.exact and found.against == "masked original"
    assert [output.name for output in found.outputs] == ["out"]
    assert found.outputs[0].relative < 1e-5 and found.samples == 5 and not found.notes
    for name, count in found.parameters.items():
        assert count.keras == count.kprune, name


def test_the_report_is_json_with_the_keys_of_the_others(original, small):
    remove(str(original), {"conv": [0]}, output=str(small))
    found = verify(original, small, samples=2)
    text = json.loads(found.to_json())
    assert text == found.to_dict()
    assert list(text)[:3] == ["kprune", "schema", "command"] and text["command"] == "verify"
    assert text["outputs"][0]["equal"] is True


def test_removals_one_after_the_other(original, small, tmp_path):
    """Each file can be held against each of those that it came from."""
    last = tmp_path / "last.keras"
    remove(str(original), {"conv": [0, 4], "dense": [1]}, output=str(small))
    remove(str(small), {"conv": [0], "dense": [6]}, output=str(last))
    for before in (original, small):
        found = verify(before, last, samples=3)
        assert found.passed and found.against == "masked original"


BACKENDS = {
    "zero": lambda path, out: zero(path, {"conv": [1], "dense": [0, 5]}, output=out),
    "zero outgoing": lambda path, out: zero(
        path, {"conv": [1], "dense": [0]}, outgoing=True, output=out
    ),
    "zero classes": lambda path, out: zero(path, {"out": [1]}, output=out),
    "silence": lambda path, out: zero(path, {"out": [1]}, silence=True, output=out),
    "mask": lambda path, out: mask(path, {"conv": [1], "relu": [0], "dense": [3]}, output=out),
    "mask below": lambda path, out: mask(path, layers=["relu", "dense"], below=0.5, output=out),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_passes_by_what_it_means(original, small, backend):
    BACKENDS[backend](str(original), str(small))
    found = verify(original, small, samples=4)
    assert found.passed and found.against == "masked original" and not found.notes
    same = verify(original, original, samples=4)
    assert same.passed


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_removal_on_top_of_another_backend(original, small, tmp_path, backend):
    """Indices count the units of the file that a step was applied to."""
    between = tmp_path / "between.keras"
    remove(str(original), {"conv": [0], "dense": [2]}, output=str(between))
    BACKENDS[backend](str(between), str(small))
    remove(str(small), {"conv": [3], "dense": [4]}, output=str(small), force=True)
    assert verify(original, small, samples=4).passed
    assert verify(between, small, samples=4).passed


@pytest.mark.parametrize("kind", ["lstm", "gru", "both", "embedding"])
def test_zeroed_units_of_layers_that_have_no_activation_at_their_end(tmp_path, small, kind):
    layer = {
        "lstm": layers.LSTM(6, name="a"),
        "gru": layers.GRU(6, name="a"),
        "both": layers.Bidirectional(layers.GRU(3), name="a"),
        "embedding": layers.Embedding(9, 6, name="a"),
    }[kind]
    start = keras.Input((4,), dtype="int32") if kind == "embedding" else keras.Input((4, 3))
    path = saved(
        keras.Sequential([start, layer, layers.Flatten(), layers.Dense(2, name="out")]), tmp_path
    )
    zero(str(path), {"a": [0, 5]}, output=str(small))
    assert verify(path, small, samples=4).passed


def test_a_mask_that_was_taken_out_again(original, small, tmp_path):
    back = tmp_path / "back.keras"
    remove(str(original), {"conv": [0]}, output=str(small))
    mask(str(small), {"dense": [3], "conv": [1]}, output=str(back))
    unmask(str(back), in_place=True)
    assert verify(original, back, samples=3).passed


def test_classes_that_went_are_renormalised_away(original, small):
    remove(str(original), {"out": [1], "conv": [2]}, output=str(small))
    found = verify(original, small, samples=4)
    assert found.passed and found.exact and kinds(found) == ["renormalised"]
    assert found.outputs[0].shape == [3]


def test_input_features_that_went(tmp_path, small):
    model = keras.Sequential(
        [keras.Input((5,), name="x"), layers.Dense(4, name="a"), layers.Dense(2, name="out")]
    )
    path = saved(model, tmp_path)
    remove(str(path), {"x": [0, 3]}, allow_output_change=True, output=str(small))
    assert verify(path, small, samples=4).passed


def test_mixed_units_are_expected_to_differ(tmp_path, small):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, name="a"),
            layers.LayerNormalization(name="norm"),
            layers.Dense(2),
        ]
    )
    path = saved(model, tmp_path)
    remove(str(path), {"a": [0]}, output=str(small))
    found = verify(path, small, samples=4)
    assert found.passed and not found.exact and not found.outputs[0].equal
    (note,) = found.notes
    assert note.kind == "inexact" and note.layer == "norm"


def test_half_precision_gets_a_wider_tolerance(tmp_path, small):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, "relu", name="a", dtype="mixed_float16"),
            layers.Dense(2, dtype="mixed_float16"),
        ]
    )
    path = saved(model, tmp_path)
    remove(str(path), {"a": [0]}, output=str(small))
    found = verify(path, small, samples=4)
    assert found.passed and found.tolerance > 1e-4
    assert verify(path, small, samples=4, tolerance=0.5).tolerance == 0.5


# -- what is not, fails ---------------------------------------------------------------------------


def test_a_wrong_row_fails(original, small):
    remove(str(original), {"dense": [1]}, output=str(small))

    def turn(file):
        kernel = file["layers/dense_1/vars/0"]
        kernel[...] = kernel[()][::-1]

    rewritten(small, weights=turn)
    found = verify(original, small, samples=4)
    assert not found.passed and not found.outputs[0].equal and found.outputs[0].relative > 1e-3


@pytest.mark.parametrize("backend", ["zero", "mask", "silence"])
def test_a_step_that_was_not_carried_out_fails(original, small, backend):
    """The file says that units were silenced, and its weights and layers say otherwise."""
    BACKENDS[backend](str(original), str(small))
    with zipfile.ZipFile(small) as archive:
        said = json.loads(archive.read("metadata.json"))
    small.write_bytes(original.read_bytes())
    rewritten(small, metadata=lambda _: said)
    assert not verify(original, small, samples=4).passed


def test_a_bias_that_keras_puts_on_the_wrong_axis_fails(tmp_path, small):
    """The report of the removal says so as well: nothing in the file could prevent it."""
    first = {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input((2, 5, 4)),
            layers.Conv2D(6, 1, name="a", **first),
            layers.Flatten(**first),
            layers.Dense(2),
        ]
    )
    path = saved(model, tmp_path)
    remove(str(path), {"a": [0, 1]}, output=str(small))
    assert not verify(path, small, samples=3).passed


def test_a_file_that_says_nothing_is_compared_as_it_is(original, tmp_path):
    other = saved(small_model(), tmp_path, "other.keras")
    found = verify(original, other, samples=3)
    assert found.against == "original" and kinds(found) == ["direct"] and found.passed
    rewritten(other, weights=lambda file: file["layers/dense/vars/1"].__setitem__(0, 3.0))
    assert not verify(original, other, samples=3).passed


def test_models_that_have_nothing_in_common(original, tmp_path):
    other = saved(
        keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(2)]),
        tmp_path,
        "other.keras",
    )
    found = verify(original, other, samples=3)
    assert not found.passed and found.outputs[0].relative is None


def test_a_file_made_from_another_original(original, small, tmp_path):
    between = tmp_path / "between.keras"
    remove(str(original), {"conv": [0]}, output=str(small))
    remove(str(original), {"conv": [1]}, output=str(between))
    found = verify(between, small, samples=3)
    assert found.against == "original" and "not made from this original" in found.notes[0].text


def test_a_file_whose_account_of_itself_contradicts_itself(original, small):
    remove(str(original), {"conv": [0]}, output=str(small))

    def lie(metadata):
        metadata["kprune"]["units"]["conv"] = [0, 1, 2, 3, 4]

    rewritten(small, metadata=lie)
    found = verify(original, small, samples=3)
    assert found.against == "original" and "does not fit" in found.notes[0].text


def test_a_pruned_file_that_keras_does_not_load(original, small):
    remove(str(original), {"dense": [0]}, output=str(small))

    def wrong(config):
        next(x for x in config["config"]["layers"] if x["config"]["name"] == "dense")["config"][
            "units"
        ] = 6

    rewritten(small, config=wrong)
    with pytest.raises(CheckError, match=r"plain Keras loads the original, but not .*small\.keras"):
        verify(original, small)


# -- data -----------------------------------------------------------------------------------------


def test_accuracy_before_and_after(samples, tmp_path):
    before, data = samples / "digits_cnn.keras", samples / "digits_test.npz"
    after = tmp_path / "after.keras"
    remove(str(before), ["conv_3:0-7", "hidden:0-31"], output=str(after))
    found = verify(before, after, data=data)
    assert found.passed and found.samples == 450 and found.seed is None and found.data == str(data)
    assert found.metrics["before"]["accuracy"] > 0.98 > found.metrics["after"]["accuracy"] - 0.02
    assert found.metrics["after"]["loss"] > found.metrics["before"]["loss"]


def test_samples_of_classes_that_went_are_left_out(samples, tmp_path):
    before, data = samples / "digits_cnn.keras", samples / "digits_test.npz"
    after = tmp_path / "after.keras"
    remove(str(before), ["classes:3,5"], output=str(after))
    found = verify(before, after, data=data)
    labels = np.load(data)["y"]
    out = int(np.isin(labels, [3, 5]).sum())
    assert found.passed and found.metrics["after"]["accuracy"] > 0.98
    assert f"{out} of 450 samples" in found.notes[-1].text


def npz(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_data_without_labels_gives_no_metrics(original, tmp_path):
    found = verify(original, original, data=npz(tmp_path, x=np.ones((3, 6, 6, 3), "float32")))
    assert found.passed and found.metrics is None and found.samples == 3


@pytest.mark.parametrize("labels", ["numbers", "column", "one-hot"])
def test_accuracy_of_a_model_that_was_not_compiled(original, tmp_path, labels):
    model = keras.models.load_model(original)
    x = np.random.default_rng(0).normal(size=(20, 6, 6, 3)).astype("float32")
    right = np.argmax(model(x), axis=1)
    given = right.copy()
    given[:5] = (given[:5] + 1) % 4
    y = {"numbers": given, "column": given[:, None], "one-hot": np.eye(4, dtype="float32")[given]}[
        labels
    ]
    found = verify(original, original, data=npz(tmp_path, x=x, y=y))
    assert found.metrics == {"before": {"accuracy": 0.75}, "after": {"accuracy": 0.75}}


def test_labels_of_removed_classes_are_renumbered(original, small, tmp_path):
    remove(str(original), {"out": [1]}, output=str(small))
    x = np.random.default_rng(0).normal(size=(30, 6, 6, 3)).astype("float32")
    kept = np.array([0, 2, 3])
    y = kept[np.argmax(keras.models.load_model(small)(x), axis=1)]
    for labels in (y, np.eye(4, dtype="float32")[y]):
        found = verify(original, small, data=npz(tmp_path, x=x, y=labels))
        assert found.metrics["after"] == {"accuracy": 1.0}


def test_one_answer_is_right_above_a_half(tmp_path):
    path = saved(keras.Sequential([keras.Input((3,)), layers.Dense(1, "sigmoid")]), tmp_path)
    x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    y = (np.asarray(keras.models.load_model(path)(x))[:, 0] > 0.5).astype(int)
    assert verify(path, path, data=npz(tmp_path, x=x, y=y)).metrics["before"] == {"accuracy": 1.0}


def test_targets_that_are_numbers_get_a_squared_error(tmp_path):
    path = saved(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), tmp_path)
    x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    y = np.asarray(keras.models.load_model(path)(x)) + 0.5
    metrics = verify(path, path, data=npz(tmp_path, x=x, y=y)).metrics
    assert metrics["before"] == {"mean_squared_error": pytest.approx(0.25, rel=1e-4)}


def test_greyscale_images_come_without_a_channel_axis(tmp_path):
    path = saved(
        keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(2)]), tmp_path
    )
    assert verify(path, path, data=npz(tmp_path, x=np.ones((3, 6, 6)))).samples == 3


BAD_DATA = {
    "missing": ({"images": np.ones((3, 6, 6, 3))}, "has no array 'x'", "it holds images"),
    "shape": ({"x": np.ones((3, 5, 6, 3))}, r"has shape \(3, 5, 6, 3\)", "6, 6, 3"),
    "rank": ({"x": np.ones(3)}, r"has shape \(3,\)", "6, 6, 3"),
    "counts": ({"x": np.ones((3, 6, 6, 3)), "y": np.ones(4)}, "different numbers of samples", ""),
    "empty": ({"x": np.ones((0, 6, 6, 3))}, "are empty", ""),
    "labels": ({"x": np.ones((3, 6, 6, 3)), "y": np.ones((3, 7))}, "labels have shape", ""),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_do_not_fit_are_said_to(original, tmp_path, kind):
    arrays, what, more = BAD_DATA[kind]
    with pytest.raises(UsageError, match=what) as error:
        verify(original, original, data=npz(tmp_path, **arrays))
    assert more in str(error.value)


def test_a_seed_below_0_is_refused(original):
    with pytest.raises(UsageError, match="a seed of -1"):
        verify(original, original, seed=-1)


def test_files_that_are_no_data(original, tmp_path):
    with pytest.raises(FileError, match="cannot read") as missing:
        verify(original, original, data=tmp_path / "none.npz")
    assert "no such file" in str(missing.value)
    np.save(tmp_path / "single.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("x,y\n")
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    for name in ("single.npy", "text.npz", "pickled.npz"):
        with pytest.raises(FileError):
            verify(original, original, data=tmp_path / name)


# -- inputs of every kind -------------------------------------------------------------------------


def test_several_inputs_of_every_kind(tmp_path, small):
    words = keras.Input((None,), dtype="int32", name="words")
    image = keras.Input((None, None, 2), name="image")
    numbers = keras.Input((3,), name="numbers")
    flags = keras.Input((2,), dtype="bool", name="flags")
    a = layers.GlobalAveragePooling1D()(layers.Embedding(4, 6, name="embedding")(words))
    b = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="conv")(image))
    c = layers.Concatenate()([layers.Add()([a, b]), numbers, keras.ops.cast(flags, "float32")])
    path = saved(
        keras.Model([words, image, numbers, flags], layers.Dense(2, name="out")(c)), tmp_path
    )
    remove(str(path), {"conv": [1]}, output=str(small))
    assert verify(path, small, samples=3).passed
    arrays = {
        "words": np.zeros((2, 5), int),
        "image": np.ones((2, 9, 9, 2)),
        "numbers": np.ones((2, 3)),
        "flags": np.ones((2, 2), bool),
    }
    assert verify(path, small, data=npz(tmp_path, **arrays)).samples == 2
    del arrays["numbers"]
    with pytest.raises(UsageError, match="no array 'numbers'"):
        verify(path, small, data=npz(tmp_path, **arrays))


def test_inputs_in_a_dict(tmp_path, small):
    x, y = keras.Input((4,), name="one"), keras.Input((3,), name="two")
    a = layers.Add()([layers.Dense(6, name="a")(x), layers.Dense(6, name="b")(y)])
    path = saved(
        keras.Model({"second": y, "first": x}, {"z": layers.Dense(2, name="out")(a)}), tmp_path
    )
    remove(str(path), {"a": [1]}, output=str(small))
    assert verify(path, small, samples=3).passed
    data = npz(tmp_path, first=np.ones((2, 4)), second=np.ones((2, 3)))
    assert verify(path, small, data=data).samples == 2


def test_tokens_stay_below_what_the_embedding_holds(tmp_path):
    words = keras.Input((50,), dtype="int32")
    y = layers.Embedding(3, 4)(layers.Identity()(words))
    path = saved(keras.Model(words, layers.Flatten()(y)), tmp_path)
    assert verify(path, path, samples=20).passed


def test_a_fixed_batch(tmp_path, small):
    model = keras.Sequential(
        [
            keras.Input((4, 3), batch_size=3),
            layers.LSTM(6, stateful=True, name="a"),
            layers.Dense(2),
        ]
    )
    path = saved(model, tmp_path)
    remove(str(path), {"a": [1]}, output=str(small))
    found = verify(path, small, samples=8)
    assert found.passed and found.samples == 6


@pytest.mark.parametrize("kind", ["folder", "other name"])
def test_files_are_known_by_their_content(original, small, tmp_path, kind):
    remove(str(original), {"conv": [1]}, output=str(small))
    if kind == "folder":
        here = tmp_path / "folder"
        with zipfile.ZipFile(small) as archive:
            archive.extractall(here)
    else:
        here = small.rename(tmp_path / "small.bin")
    assert verify(original, here, samples=3).passed


def test_progress_is_told(original, small):
    remove(str(original), {"conv": [1]}, output=str(small))
    told = []
    verify(
        original,
        small,
        samples=10,
        batch_size=4,
        progress=lambda done, whole: told.append((done, whole)),
    )
    assert told == [(4, 20), (8, 20), (10, 20), (14, 20), (18, 20), (20, 20)]


def test_no_samples_at_all(original):
    with pytest.raises(UsageError, match="at least one sample"):
        verify(original, original, samples=0)


# -- what plain Keras does not have ---------------------------------------------------------------


def run_alone(code: str, *args: str) -> subprocess.CompletedProcess:
    """In a process of its own, where nothing was registered and Keras was not imported."""
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
    )


VERIFY = """
import sys
from kprune.errors import KpruneError
from kprune.running.verify import verify
try:
    found = verify(*sys.argv[1:3], rules=sys.argv[3:], samples=2)
    print(found.passed)
except KpruneError as error:
    print(type(error).__name__, error.exit_code, error)
"""

RULES = """
import keras

@keras.saving.register_keras_serializable("kprune_tests")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


def test_a_class_that_is_not_there_is_named_and_can_be_brought_along(tmp_path):
    rules = tmp_path / "my_layers.py"
    rules.write_text(RULES)
    scope: dict = {}
    exec(RULES, scope)
    path = str(
        saved(keras.Sequential([keras.Input((3,)), scope["Twice"](), layers.Dense(2)]), tmp_path)
    )
    done = run_alone(VERIFY, path, path)
    assert done.stdout.startswith("CannotPruneError 3") and "'Twice'" in done.stdout, done
    assert "--rules" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert run_alone(VERIFY, path, path, str(rules)).stdout == "True\n"


def test_a_lambda_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
    path = saved(model, tmp_path)
    with pytest.raises(CannotPruneError, match="cannot run") as error:
        verify(path, path)
    assert "Lambda" in error.value.why


def test_keras_is_imported_without_chatter():
    code = (
        "from kprune.running.keras_runtime import import_keras\n"
        "print(import_keras().ops.ones(2).shape)"
    )
    done = run_alone(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2,)\n", "")


def test_what_was_held_back_is_shown_when_something_fails():
    code = """
import os
from kprune.running.keras_runtime import quiet
with quiet():
    os.write(2, b"lost\\n")
try:
    with quiet():
        os.write(2, b"shown\\n")
        raise ValueError
except ValueError:
    os.write(2, b"after\\n")
"""
    assert run_alone(code).stderr == "shown\nafter\n"


def test_a_keras_that_does_not_import_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('no such thing')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from kprune.running.keras_runtime import import_keras\n"
        "from kprune.errors import KpruneError\n"
        "try: import_keras()\n"
        "except KpruneError as error: print(error)"
    )
    assert "why:   ImportError: no such thing" in run_alone(code).stdout
