"""Units removed from SavedModels, against the same models masked by plain TensorFlow."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import kprune
from kprune.errors import CannotPruneError, FrozenUnitsError
from tests.saved_model import making, plain

pytestmark = pytest.mark.oracle

SAMPLES = Path(__file__).parents[2] / "sample_models"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders of exported models, each made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            import keras

            folder = tmp_path_factory.mktemp(name) / "model"
            if name.startswith("digits"):
                making.export(keras.models.load_model(SAMPLES / f"{name}.keras"), folder)
            elif name == "module":
                making.two_signatures(folder)
            elif name == "encoder":
                making.export(making.randomised(making.encoder()), folder)
            else:
                making.export(making.randomised(making.MODELS[name]()), folder)
            made[name] = folder
        return made[name]

    return get


LARGER = [pytest.param(f"digits_{name}", marks=pytest.mark.nightly) for name in ("resnet", "lstm")]


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", *LARGER, *making.MODELS, "module"])
def test_a_third_of_all_free_units_can_go(exported, tmp_path, name):
    plain.removal_equals_masked_original(exported(name), tmp_path / "small")


def test_layers_are_named_as_in_keras(exported):
    assert [
        layer.name for layer in kprune.inspect(exported("digits_cnn")).layers if layer.units
    ] == [
        "conv_1",
        "conv_2",
        "conv_3",
        "hidden",
        "classes",
    ]
    rows = {layer.name: layer for layer in kprune.inspect(exported("digits_mlp")).layers}
    assert [row.output for row in rows.values()] == [[None, 96], [None, 48], [None, 10]]
    rows = {layer.name: layer for layer in kprune.inspect(exported("digits_lstm")).layers}
    assert (rows["lstm"].units, rows["gru"].units) == (48, 32)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("digits_mlp", {"hidden_1": [0, 5, 95], "hidden_2": [7]}),
        ("digits_cnn", {"conv_1": [3], "conv_3": [0, 31], "hidden": [9, 10]}),
        ("digits_resnet", {"stem_conv": [0, 9], "block_2_1_conv": [3, 4, 31]}),
        ("digits_lstm", {"lstm": [1, 40], "gru": [0, 31]}),
    ],
)
def test_the_keras_file_and_its_export_are_cut_alike(exported, tmp_path, name, units):
    kprune.remove(SAMPLES / f"{name}.keras", units, output=tmp_path / "small.keras")
    kprune.remove(exported(name), units, output=tmp_path / "small")
    assert plain.same_weights(tmp_path / "small.keras", tmp_path / "small") >= 6


def test_units_that_a_statistic_is_taken_over_are_said_not_to_be_exact(exported, tmp_path):
    report = plain.removal_equals_masked_original(
        exported("encoder"), tmp_path / "small", exact=False
    )
    assert any(note.kind == "inexact" for note in report.notes)


def test_an_encoder_loses_a_third_of_what_no_statistic_is_taken_over(exported, tmp_path):
    units = plain.random_free_units(exported("encoder"), mixed=False)
    assert units
    plain.removal_equals_masked_original(exported("encoder"), tmp_path / "small", units)


@pytest.mark.parametrize("axis", ["heads", "key_dim", "value_dim"])
def test_attention_loses_heads_and_dimensions(exported, tmp_path, axis):
    report = plain.removal_equals_masked_original(
        exported("encoder"), tmp_path / "small", {f"mha.{axis}": [1, 3], "wide": [0, 4]}
    )
    assert report.changed[f"mha.{axis}"] == [1, 3]


def test_signatures_that_share_variables_lose_the_same_units(exported, tmp_path):
    import tensorflow as tf

    report = kprune.remove(
        exported("module"), {"first": [0, 15], "second": [3]}, output=tmp_path / "small"
    )
    assert {row.path: row.shape_after for row in report.weights} == {
        "first/kernel": [8, 14],
        "first/bias": [14],
        "second/kernel": [14, 11],
        "second/bias": [11],
        "third/kernel": [11, 4],
    }
    original, small = (
        tf.saved_model.load(str(path)) for path in (exported("module"), tmp_path / "small")
    )
    plain.mask(original, report)
    for batch, time in ((1, 1), (4, 9)):
        sizes = {"batch": batch, "time": time}
        assert plain.worst(plain.outputs(original, **sizes), plain.outputs(small, **sizes)) < 1e-4


def test_the_result_serves_wherever_the_original_did(exported, tmp_path):
    import keras
    import tensorflow as tf

    folder, small = exported("digits_cnn"), tmp_path / "small"
    kprune.remove(folder, {"conv_2": [0, 1, 2], "hidden": list(range(20))}, output=small)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    expected = tf.saved_model.load(str(small)).signatures["serving_default"](image=tf.constant(x))
    layer = keras.layers.TFSMLayer(str(small), call_endpoint="serving_default")
    np.testing.assert_allclose(layer(x)["output_0"], expected["output_0"], rtol=1e-6)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(small))
        signature = meta.signature_def["serving_default"]
        feed = {signature.inputs["image"].name: x}
        got = session.run(signature.outputs["output_0"].name, feed)
    np.testing.assert_allclose(got, expected["output_0"], rtol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name",
    ["digits_mlp", "digits_cnn", "digits_resnet", "convolutions", "shapes", "module", "lstm"],
)
def test_tflite_converts_the_result_to_a_smaller_file_with_the_same_outputs(
    exported, tmp_path, name
):
    folder, small = exported(name), tmp_path / "small"
    kprune.remove(folder, plain.random_free_units(folder), output=small)
    plain.serves_in_keras(small)
    plain.converts_to_less(folder, small, runs=name != "lstm")


# -- zero and mask --------------------------------------------------------------------------------


def test_zero_changes_the_units_own_weights_and_nothing_else(exported, tmp_path):
    import tensorflow as tf

    report = kprune.zero(exported("digits_lstm"), {"lstm": [2]}, output=tmp_path / "zeroed")
    before, after = (
        plain.variables(tf.saved_model.load(str(path)))
        for path in (exported("digits_lstm"), tmp_path / "zeroed")
    )
    changed = {name for name in before if (before[name].numpy() != after[name].numpy()).any()}
    assert changed == {
        f"lstm/lstm_cell/{part}:0" for part in ("kernel", "recurrent_kernel", "bias")
    }
    kernel = after["lstm/lstm_cell/kernel:0"].numpy()
    assert not kernel[:, 2::48].any() and kernel[:, 3::48].any()
    assert {row.path for row in report.weights} == {name.removesuffix(":0") for name in changed}


def test_zero_with_outgoing_computes_what_remove_does(exported, tmp_path):
    import tensorflow as tf

    units = {"first": [1, 2], "second": [0]}
    kprune.zero(exported("module"), units, outgoing=True, output=tmp_path / "zeroed")
    kprune.remove(exported("module"), units, output=tmp_path / "small")
    zeroed, small = (
        plain.outputs(tf.saved_model.load(str(tmp_path / name))) for name in ("zeroed", "small")
    )
    assert plain.worst(zeroed, small) < 1e-5


def test_a_mask_multiplies_what_the_layer_gives_and_can_be_taken_out(exported, tmp_path):
    import keras
    import tensorflow as tf

    folder, masked, freed = exported("digits_cnn"), tmp_path / "masked", tmp_path / "freed"
    kprune.mask(folder, {"hidden": [0, 5]}, output=masked)
    kprune.mask(SAMPLES / "digits_cnn.keras", {"hidden": [0, 5]}, output=tmp_path / "masked.keras")
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    signature = tf.saved_model.load(str(masked)).signatures["serving_default"]
    expected = keras.models.load_model(tmp_path / "masked.keras")(x, training=False)
    np.testing.assert_allclose(
        signature(image=tf.constant(x))["output_0"], expected, rtol=1e-4, atol=1e-6
    )
    assert plain.interface(masked) == plain.interface(folder)
    kprune.unmask(masked, output=freed)
    assert (freed / "saved_model.pb").read_bytes() == (folder / "saved_model.pb").read_bytes()


def test_a_dynamic_mask_silences_what_is_small(exported, tmp_path):
    import tensorflow as tf

    kprune.mask(exported("module"), layers=["first"], below=0.5, output=tmp_path / "masked")
    original, masked = (
        tf.saved_model.load(str(p)) for p in (exported("module"), tmp_path / "masked")
    )
    x = plain.random_inputs(original.signatures["vector"])["x"]
    held = {name: v.numpy() for name, v in plain.variables(original).items()}
    hidden = np.maximum(x @ held["first/kernel:0"] + held["first/bias:0"], 0)
    hidden = np.where(np.abs(hidden) < 0.5, 0, hidden)
    got = masked.signatures["vector"](x=tf.constant(x))["sum"]
    np.testing.assert_allclose(got, (hidden @ held["second/kernel:0"]).sum(-1), rtol=1e-4)


def test_compact_takes_out_what_nobody_would_miss(exported, tmp_path):
    import tensorflow as tf

    folder, zeroed, small = exported("module"), tmp_path / "zeroed", tmp_path / "small"
    kprune.zero(folder, {"first": [1, 2]}, output=zeroed)
    kprune.compact(zeroed, output=small)
    rows = {layer.name: layer.units for layer in kprune.inspect(small).layers}
    assert (rows["first"], rows["second"]) == (14, 12)
    before, after = (plain.outputs(tf.saved_model.load(str(path))) for path in (zeroed, small))
    assert plain.worst(before, after) < 1e-5


def test_compact_keeps_units_that_still_give_a_constant(exported, tmp_path):
    kprune.zero(exported("digits_cnn"), {"conv_1": [0]}, output=tmp_path / "zeroed")
    report = kprune.compact(tmp_path / "zeroed", output=tmp_path / "small")
    assert not report.changed  # a BatchNormalization behind it makes something of its zeros
    units = {"conv_1": [0], "hidden": [4, 5]}
    kprune.zero(exported("digits_cnn"), units, outgoing=True, output=tmp_path / "through")
    report = kprune.compact(tmp_path / "through", output=tmp_path / "smaller")
    assert {layer: report.changed[layer] for layer in units} == units


# -- what is refused, and what stays ---------------------------------------------------------------


def test_outputs_are_refused_unless_they_are_named_themselves(exported, tmp_path):
    with pytest.raises(FrozenUnitsError, match="model's output"):
        kprune.remove(
            making_residual(tmp_path / "residual"), {"one": [0]}, output=tmp_path / "small"
        )
    report = kprune.remove(exported("digits_mlp"), {"classes": [1]}, output=tmp_path / "nine")
    assert report.output.units == report.input.units - 1
    assert plain.interface(tmp_path / "nine")["serving_default"]["out"]["output_0"][1] == [-1, 9]
    found = kprune.verify(exported("digits_mlp"), tmp_path / "nine")
    assert found.passed and found.outputs[0].shape == [9]


def making_residual(folder):
    import keras

    inputs = keras.Input((6,))
    one, other = (
        keras.layers.Dense(4, name="one")(inputs),
        keras.layers.Dense(4, name="other")(inputs),
    )
    return making.export(keras.Model(inputs, keras.layers.Add()([one, other])), folder)


def test_an_operation_without_a_rule_freezes_what_reaches_it_by_its_name(tmp_path):
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(tf.ones([4, 6]), name="dense/kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def __call__(self, x):
            return {"y": tf.math.top_k(x @ self.kernel, 2, name="best").values}

    tf.saved_model.save(module := Module(), str(tmp_path / "model"), signatures=module.__call__)
    with pytest.raises(FrozenUnitsError) as refused:
        kprune.remove(tmp_path / "model", {"dense": [0]}, output=tmp_path / "small")
    assert "TopKV2" in str(refused.value) and "best" in refused.value.where
    assert not (tmp_path / "small").exists()


def test_everything_else_in_the_folder_stays(exported, tmp_path):
    import tensorflow as tf

    folder = tmp_path / "model"
    shutil.copytree(exported("digits_mlp"), folder)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "requests.txt").write_text("warm up")
    kprune.remove(folder, {"hidden_1": [0, 1]}, output=tmp_path / "small")
    assert (tmp_path / "small" / "assets.extra" / "requests.txt").read_text() == "warm up"
    note = json.loads((tmp_path / "small" / "assets.extra" / "kprune.json").read_text())["kprune"]
    assert note["plan"]["steps"] == [{"backend": "remove", "layers": {"hidden_1": [0, 1]}}]
    assert note["units"]["hidden_1"][:2] == [2, 3]
    small = tf.saved_model.load(str(tmp_path / "small"))
    assert {v.name: v.trainable for v in plain.variables(small).values()} == {
        v.name: v.trainable for v in plain.variables(tf.saved_model.load(str(folder))).values()
    }
    fingerprints = [(path / "fingerprint.pb").read_bytes() for path in (folder, tmp_path / "small")]
    assert fingerprints[0] != fingerprints[1]


def test_the_same_command_gives_the_same_bytes(exported, tmp_path):
    for name in ("one", "other"):
        kprune.remove(exported("digits_cnn"), {"conv_1": [0, 3]}, output=tmp_path / name)
    files = sorted(
        p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()
    )
    assert len(files) == 5
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), (
            path
        )


def test_a_second_pruning_starts_from_the_first(exported, tmp_path):
    kprune.remove(exported("digits_mlp"), {"hidden_1": [0, 1]}, output=tmp_path / "one")
    kprune.remove(tmp_path / "one", {"hidden_1": [0]}, output=tmp_path / "two")
    note = json.loads((tmp_path / "two" / "assets.extra" / "kprune.json").read_text())["kprune"]
    assert note["units"]["hidden_1"] == list(range(3, 96))


def test_a_dry_run_writes_nothing_and_says_the_same(exported, tmp_path):
    units = {"conv_1": [0, 3]}
    dry = kprune.remove(exported("digits_cnn"), units, output=tmp_path / "small", dry_run=True)
    assert not os.listdir(tmp_path)
    real = kprune.remove(exported("digits_cnn"), units, output=tmp_path / "small")
    assert (dry.weights, dry.changed, dry.output.parameters) == (
        real.weights,
        real.changed,
        real.output.parameters,
    )
    assert abs(dry.output.bytes - real.output.bytes) < 2000


UNFIT = {
    "constants are not folded": lambda path: kprune.remove(path, {"hidden_1": [0]}, fold=True),
    "whole layers cannot be removed": lambda path: kprune.remove(path, whole_layers=["hidden_1"]),
    "rows of embeddings are removed from Keras files": lambda path: kprune.remove(
        path, keep_tokens=["a"]
    ),
    "the inputs of a SavedModel's layers cannot be observed": lambda path: kprune.plan(
        path, choice=kprune.Choice("obs", ratio=0.5), data=np.zeros((2, 64), np.float32)
    ),
    "units of a SavedModel are not merged": lambda path: kprune.compact(path, merge=True),
    "sensitivity of a SavedModel cannot be measured": lambda path: kprune.sensitivity(
        path, data="none.npz"
    ),
    "format savedmodel cannot be trained on": lambda path: kprune.tune(path, data="none.npz"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_a_graph_of_operations_cannot_be_put_to_is_refused(exported, what):
    with pytest.raises(CannotPruneError, match=what):
        UNFIT[what](exported("digits_mlp"))


# -- damage ---------------------------------------------------------------------------------------

INDEX, SHARD = "variables/variables.index", "variables/variables.data-00000-of-00001"


def _truncate(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def _flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0xFF
    path.write_bytes(bytes(data))


DAMAGE = {
    "missing shard": lambda folder: (folder / SHARD).unlink(),
    "missing index": lambda folder: (folder / INDEX).unlink(),
    "missing variables": lambda folder: shutil.rmtree(folder / "variables"),
    "empty pb": lambda folder: _truncate(folder / "saved_model.pb", 0),
    "truncated pb": lambda folder: _truncate(folder / "saved_model.pb", 0.7),
    "truncated index": lambda folder: _truncate(folder / INDEX, 0.5),
    "truncated shard": lambda folder: _truncate(folder / SHARD, 0.5),
    "flipped index": lambda folder: _flip(folder / INDEX, 0.5),
    "flipped shard": lambda folder: _flip(folder / SHARD, 0.5),
    "flipped end of shard": lambda folder: _flip(folder / SHARD, 0.999),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_folder_is_refused_and_nothing_is_written(exported, tmp_path, what):
    folder = tmp_path / "model"
    shutil.copytree(exported("digits_mlp"), folder)
    DAMAGE[what](folder)
    with pytest.raises(kprune.errors.FileError) as refused:
        kprune.remove(folder, {"hidden_1": [0]}, output=tmp_path / "small")
    assert refused.value.exit_code == 4
    assert os.listdir(tmp_path) == ["model"]


def test_what_does_not_fit_into_one_shard_is_written_in_several(exported, tmp_path, monkeypatch):
    import tensorflow as tf

    from kprune.saved_model.files import checkpoint

    units = {"conv_1": [0, 3], "hidden": [1]}
    kprune.remove(exported("digits_cnn"), units, output=tmp_path / "one")
    monkeypatch.setattr(checkpoint, "SHARD", 20_000)
    kprune.remove(exported("digits_cnn"), units, output=tmp_path / "many")
    names = sorted(path.name for path in (tmp_path / "many" / "variables").iterdir())
    assert len(names) > 3 and names[-1] == "variables.index"
    one, many = (
        tf.train.load_checkpoint(str(tmp_path / name / "variables" / "variables"))
        for name in ("one", "many")
    )
    assert one.get_variable_to_shape_map() == many.get_variable_to_shape_map()
    for key in one.get_variable_to_shape_map():
        np.testing.assert_array_equal(one.get_tensor(key), many.get_tensor(key))
    again = kprune.remove(tmp_path / "many", {"conv_2": [5]}, output=tmp_path / "again")
    assert again.output.parameters < again.input.parameters


# -- inputs ---------------------------------------------------------------------------------------


def test_features_of_the_input_go_if_inputs_may_change(exported, tmp_path):
    import tensorflow as tf

    folder, small = exported("module"), tmp_path / "small"
    with pytest.raises(FrozenUnitsError, match="input"):
        kprune.remove(folder, {"x": [1, 6]}, output=small)
    report = kprune.remove(folder, {"x": [1, 6]}, output=small, allow_output_change=True)
    assert {row.path: row.shape_after for row in report.weights} == {"first/kernel": [6, 16]}
    takes = {n: both["in"]["x"][1] for n, both in plain.interface(small).items() if both["in"]}
    assert takes == {"serving_default": [-1, -1, 6], "vector": [-1, 6]}
    original, loaded = (tf.saved_model.load(str(path)) for path in (folder, small))
    kept = [0, 2, 3, 4, 5, 7]
    for name, rank in (("serving_default", 3), ("vector", 2)):
        x = np.random.default_rng(3).normal(size=(4, 5, 8)[-rank:]).astype("float32")
        silenced = x.copy()
        silenced[..., [1, 6]] = 0
        expected = original.signatures[name](x=tf.constant(silenced))
        got = loaded.signatures[name](x=tf.constant(x[..., kept]))
        for key, value in expected.items():
            np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-5)
    # The function itself takes the smaller input as well, beside the signatures.
    np.testing.assert_allclose(
        loaded.vector(tf.constant(x[..., kept]))["sum"], expected["sum"], rtol=1e-4
    )
    assert kprune.verify(folder, small).passed


def test_a_saved_model_is_not_written_under_the_name_of_another_format(exported, tmp_path):
    with pytest.raises(kprune.errors.UsageError, match="not written as"):
        kprune.remove(exported("digits_mlp"), {"hidden_1": [0]}, output=tmp_path / "small.keras")
    assert not os.listdir(tmp_path)


def test_compact_leaves_units_whose_bias_alone_is_zero(tmp_path):
    import tensorflow as tf

    making.two_signatures(tmp_path / "model")
    before = tf.saved_model.load(str(tmp_path / "model"))
    held = plain.variables(before)
    bias = held["first/bias:0"].numpy()
    bias[[1, 5]] = 0
    held["first/bias:0"].assign(bias)
    tf.saved_model.save(before, str(tmp_path / "zero"), signatures=before.signatures)
    report = kprune.compact(tmp_path / "zero", dry_run=True, check=False)
    assert not report.changed
