"""SavedModels verified after masks and after several steps: what is right passes, what is wrong fails."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import kprune
from kprune.errors import CannotPruneError
from tests.saved_model import making, plain

pytestmark = pytest.mark.oracle


def residual(folder):
    import keras

    inputs = keras.Input((6,))
    a = keras.layers.Dense(8, activation="tanh", name="a")(inputs)
    b = keras.layers.Dense(8, activation="relu", name="b")(a)
    x = keras.layers.Add()([a, b])
    x = keras.layers.Dense(7, activation="relu", name="c")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="out")(x))
    return making.export(making.randomised(model), folder)


MAKE = {
    "residual": residual,
    "module": making.two_signatures,
    "lstm": lambda folder: making.export(making.randomised(making.recurrent("LSTM")), folder),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / name) for name, make in MAKE.items()}


def carried_out(model, steps, folder):
    """What comes of a model after some steps: (command, what it is given)."""
    folder.mkdir(exist_ok=True)
    for number, (command, given) in enumerate(steps):
        output = folder / str(number)
        if isinstance(given, dict):
            getattr(kprune, command)(model, given, output=output)
        else:
            kprune.mask(model, layers=given[:-1], below=given[-1], output=output)
        model = output
    return model


RIGHT = {
    "a mask": ("residual", [("mask", {"c": [0, 5]})]),
    "a mask of units that a sum ties": ("residual", [("mask", {"a": [1, 2]})]),
    "masks one behind the other": ("residual", [("mask", {"a": [1], "b": [4], "c": [3]})]),
    "two masks behind one layer": ("residual", [("mask", {"c": [0]}), ("mask", {"c": [4, 5]})]),
    "of what is small": ("residual", [("mask", ["a", "c", 0.4])]),
    "of classes": ("residual", [("mask", {"out": [1]})]),
    "in a recurrent model": ("lstm", [("mask", {"first": [2], "rnn": [0, 11]})]),
    "in functions that several signatures call": ("module", [("mask", {"first": [1], "second": [0]})]),
    "removed twice": ("residual", [("remove", {"a": [1], "c": [0]}), ("remove", {"a": [1], "c": [0, 3]})]),
    "zeroed, then removed": ("residual", [("zero", {"a": [0], "c": [1]}), ("remove", {"a": [0], "c": [2]})]),
    "masked, then removed": ("residual", [("mask", {"c": [0, 5]}), ("remove", {"a": [1], "c": [0, 1]})]),
    "removed, then masked": ("residual", [("remove", {"a": [1], "c": [0, 1]}), ("mask", {"c": [0, 3], "a": [1]})]),
    "of what is small, then removed": ("residual", [("mask", ["c", 0.4]), ("remove", {"c": [2]})]),
    "in a recurrent model, then removed": ("lstm", [("mask", {"rnn": [0]}), ("remove", {"rnn": [3], "first": [0]})]),
}  # fmt: skip


@pytest.mark.parametrize("what", RIGHT)
def test_every_chain_of_steps_passes_by_what_it_means(models, tmp_path, what):
    import tensorflow as tf

    name, steps = RIGHT[what]
    result = carried_out(models[name], steps, tmp_path)
    found = kprune.verify(models[name], result, samples=9)
    assert found.passed and found.exact and found.against == "masked original" and not found.notes
    one, other = (plain.outputs(tf.saved_model.load(str(path))) for path in (models[name], result))
    assert plain.worst(one, other) > 1e-3, "the steps must matter, or nothing is shown"


def test_a_mask_that_was_taken_out_again_leaves_what_else_was_done(models, tmp_path):
    steps = [("mask", {"c": [0, 5], "a": [1]}), ("remove", {"c": [2], "a": [1]})]
    kprune.unmask(carried_out(models["residual"], steps, tmp_path), output=tmp_path / "free")
    found = kprune.verify(models["residual"], tmp_path / "free")
    assert found.passed and found.against == "masked original"
    kprune.unmask(tmp_path / "0", output=tmp_path / "as it was")
    found = kprune.verify(models["residual"], tmp_path / "as it was")
    assert found.passed and found.against == "original"


# -- what is wrong fails --------------------------------------------------------------------------

WRONG = {
    "other units are masked": ("mask", {"c": [0, 4]}),
    "units of another layer are masked": ("mask", {"b": [0, 5]}),
    "a unit more is masked": ("mask", {"c": [0, 4, 5]}),
    "what is small is masked": ("mask", ["c", 0.4]),
    "the units are zeroed in another layer": ("zero", {"b": [0, 5]}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_claims_another_mask_than_it_has_fails(models, tmp_path, what):
    right = carried_out(models["residual"], [("mask", {"c": [0, 5]})], tmp_path / "right")
    wrong = carried_out(models["residual"], [WRONG[what]], tmp_path / "wrong")
    claim(wrong, right)
    found = kprune.verify(models["residual"], wrong, samples=9)
    assert not found.passed and found.exact and found.against == "masked original"


def test_another_threshold_than_it_claims_fails(models, tmp_path):
    right, wrong = (
        carried_out(models["residual"], [("mask", ["c", below])], tmp_path / str(below))
        for below in (0.4, 0.6)
    )
    claim(wrong, right)
    assert not kprune.verify(models["residual"], wrong, samples=9).passed


def test_a_second_removal_of_other_units_than_it_claims_fails(models, tmp_path):
    first = carried_out(models["residual"], [("remove", {"c": [0]})], tmp_path / "first")
    right, wrong = (
        carried_out(first, [("remove", {"c": [unit]})], tmp_path / str(unit)) for unit in (2, 3)
    )
    claim(wrong, right)
    assert not kprune.verify(models["residual"], wrong, samples=9).passed


def claim(folder, other):
    """Have a SavedModel say of itself what another one says."""
    shutil.copy(other / "assets.extra" / "kprune.json", folder / "assets.extra" / "kprune.json")


def test_an_account_that_does_not_fit_is_said_and_the_two_are_compared_as_they_are(
    models, tmp_path
):
    masked = carried_out(models["residual"], [("mask", {"c": [0, 5]})], tmp_path)
    note = masked / "assets.extra" / "kprune.json"
    told = json.loads(note.read_text())
    told["kprune"]["plan"]["steps"][0]["layers"] = {"no such layer": [0]}
    note.write_text(json.dumps(told))
    found = kprune.verify(models["residual"], masked)
    assert found.against == "original" and not found.passed
    (said,) = found.notes
    assert said.kind == "direct" and "does not fit this original" in said.text


# -- what cannot be checked -----------------------------------------------------------------------


def test_a_mask_inside_a_branch_is_neither_passed_nor_failed(tmp_path):
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            rng = np.random.default_rng(0)
            self.kernel = tf.Variable(rng.normal(size=(4, 6)).astype("float32"), name="a/kernel")
            self.last = tf.Variable(rng.normal(size=(6, 2)).astype("float32"), name="b/kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def __call__(self, x):
            def hidden():
                return tf.nn.relu(x @ self.kernel)

            wide = tf.cond(tf.reduce_sum(x) > 0, hidden, lambda: hidden() * 2)
            return {"y": wide @ self.last}

    tf.saved_model.save(module := Module(), str(tmp_path / "model"), signatures=module.__call__)
    kprune.mask(tmp_path / "model", {"a": [0, 3]}, output=tmp_path / "masked")
    with pytest.raises(CannotPruneError, match="cannot check the mask behind 'a'") as refused:
        kprune.verify(tmp_path / "model", tmp_path / "masked")
    assert "branch" in refused.value.why and "unmask" in refused.value.do
