"""`verify` runs both models in plain Keras, passes what is right and fails what is not."""

from __future__ import annotations

import json
import zipfile

import keras
import pytest
from keras import layers

from kprune.errors import CheckError, UsageError
from kprune.verbs.change import mask, remove, unmask, zero
from kprune.verification.verify import verify
from tests.running.making import saved, small_model
from tests.verification.rewriting import rewritten

pytestmark = pytest.mark.oracle


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


def test_a_model_is_equal_to_itself(original):
    assert verify(original, original, samples=4).passed


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


# -- how it is called ------------------------------------------------------------------------------


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
    with pytest.raises(UsageError, match="number of samples must be at least 1"):
        verify(original, original, samples=0)


def test_a_seed_below_0_is_refused(original):
    with pytest.raises(UsageError, match="the seed must be at least 0, got -1"):
        verify(original, original, seed=-1)
