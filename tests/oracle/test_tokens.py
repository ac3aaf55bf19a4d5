"""Rows of embeddings: what is left computes what it did, tokens that are gone are unknown, ids are renumbered."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune

pytestmark = pytest.mark.oracle

WORDS = ["cat", "dog", "fish", "bird", "cow"]


def saved(model: Any, folder: Path, name: str = "m.keras") -> Path:
    from tests.oracle.law import randomize

    path = folder / name
    randomize(model).save(path)
    return path


def reader(keras: Any, lookup: Any, rows: int, **embedding: Any) -> Any:
    """Tokens, looked up or not, through an embedding to three numbers."""
    layers = keras.layers
    if lookup is None:
        x = ids = keras.Input((4,), dtype="int32", name="ids")
    else:
        texts = type(lookup).__name__ == "TextVectorization"
        words = type(lookup).__name__ != "IntegerLookup"
        x = keras.Input((1,) if texts else (4,), dtype="string" if words else "int64")
        ids = lookup(x)
    y = layers.Embedding(rows, 6, name="emb", **embedding)(ids)
    return keras.Model(x, layers.Dense(3, name="out")(layers.GlobalAveragePooling1D()(y)))


def listed(keras: Any) -> Any:
    return keras.layers.StringLookup(vocabulary=WORDS, name="look")


def learned(keras: Any) -> Any:
    layer = keras.layers.StringLookup(mask_token="", name="look")
    layer.adapt(np.array([WORDS]))
    return layer


def numbers(keras: Any) -> Any:
    return keras.layers.IntegerLookup(vocabulary=[5, 7, 9, 11, 13], mask_token=0, name="look")


def texts(keras: Any) -> Any:
    layer = keras.layers.TextVectorization(output_sequence_length=4, name="look")
    layer.adapt(np.array([" ".join(WORDS)]))
    return layer


def tf_keras() -> Any:
    import tf_keras

    return tf_keras


def keras() -> Any:
    import keras

    return keras


def samples(vocabulary: list[Any], kind: str) -> np.ndarray:
    """Sixteen rows of four tokens each, or texts of them."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(np.array(vocabulary, object), (16, 4))
    if kind == "TextVectorization":
        return np.array([[" ".join(row)] for row in drawn])
    return drawn.astype("int64" if kind == "IntegerLookup" else str)


def loaded(module: Any, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    model = module.models.load_model(path, compile=False)
    return lambda x: np.asarray(model(tf.constant(x)))


@pytest.mark.parametrize("lookup", [listed, learned, numbers, texts])
@pytest.mark.parametrize("module", [keras, tf_keras])
def test_the_vocabulary_in_front_is_cut_along(
    lookup: Callable[[Any], Any], module: Callable[[], Any], tmp_path: Path
) -> None:
    own = module()
    layer = lookup(own)
    vocabulary = layer.get_vocabulary()
    model = reader(own, layer, len(vocabulary))
    path = tmp_path / "m.keras"
    rng = np.random.default_rng(1)
    for one in (model.get_layer("emb"), model.get_layer("out")):
        one.set_weights([rng.normal(size=weight.shape) for weight in one.get_weights()])
    model.save(path)
    gone = [len(vocabulary) - 2, len(vocabulary) - 4]
    kprune.remove(path, {"emb.tokens": gone, "emb": [2]}, output=tmp_path / "s.keras")
    kind = type(layer).__name__
    left = [
        vocabulary[i] for i in range(len(vocabulary)) if i not in gone and i >= len(vocabulary) - 5
    ]
    small = loaded(own, tmp_path / "s.keras")
    kept = model.get_layer("emb").get_weights()[0].copy()
    kept[:, 2] = 0
    model.get_layer("emb").set_weights([kept])
    import tensorflow as tf

    known = samples(left, kind)
    want = np.asarray(model(tf.constant(known)))
    np.testing.assert_allclose(small(known), want, rtol=1e-5, atol=1e-6)
    # What was taken away is unknown now, as any other token is.
    strange = samples([vocabulary[i] for i in gone], kind)
    never = samples([99] if kind == "IntegerLookup" else ["unicorn"], kind)
    np.testing.assert_allclose(
        small(strange), np.asarray(model(tf.constant(never))), rtol=1e-5, atol=1e-6
    )
    assert kprune.verify(path, tmp_path / "s.keras").passed


def test_folders_and_legacy_files_are_cut_too(tmp_path: Path) -> None:
    own = keras()
    path = saved(reader(own, texts(own), 7), tmp_path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    old = tmp_path / "m.h5"
    saved(reader(own, listed(own), 6), tmp_path, "m.h5")
    kprune.remove(tmp_path / "folder", {"emb.tokens": [3]}, output=tmp_path / "bare")
    kprune.remove(path, {"emb.tokens": [3]}, output=tmp_path / "small.keras")
    known = samples(["dog", "bird"], "TextVectorization")
    assert (
        loaded(own, tmp_path / "bare")(known) == loaded(own, tmp_path / "small.keras")(known)
    ).all()
    with zipfile.ZipFile(tmp_path / "small.keras") as archive:
        for name in (name for name in archive.namelist() if name.startswith("assets")):
            assert (tmp_path / "bare" / name).read_bytes() == archive.read(name)
    kprune.remove(old, {"emb.tokens": [3]}, output=tmp_path / "old.h5")
    known = samples(["cat", "dog", "bird"], "StringLookup")
    np.testing.assert_allclose(
        loaded(own, tmp_path / "old.h5")(known), loaded(own, old)(known), rtol=1e-5, atol=1e-6
    )


def test_ids_that_come_in_are_renumbered_by_the_table_beside_the_result(tmp_path: Path) -> None:
    own = keras()
    path = saved(reader(own, None, 9, mask_zero=True), tmp_path)
    report = kprune.remove(path, {"emb.tokens": "2,5-6"}, output=tmp_path / "s.keras")
    table = json.loads((tmp_path / "s.tokens.json").read_text())
    assert table == {
        "emb": {"before": 9, "after": 6, "new_ids": [0, 1, None, 2, 3, None, None, 4, 5]}
    }
    assert any("renumber" in note.text for note in report.notes)
    old = np.random.default_rng(0).choice([0, 1, 3, 4, 7, 8], (16, 4))
    new = np.array(table["emb"]["new_ids"], object)[old].astype("int32")
    np.testing.assert_allclose(
        loaded(own, tmp_path / "s.keras")(new), loaded(own, path)(old.astype("int32")), rtol=1e-5
    )
    assert kprune.verify(path, tmp_path / "s.keras").passed


def test_embeddings_of_the_same_ids_lose_the_same_rows(tmp_path: Path) -> None:
    own = keras()
    from keras import layers, ops

    x = own.Input((4,), dtype="int32")
    wide, narrow = layers.Embedding(8, 5, name="wide")(x), layers.Embedding(8, 1, name="narrow")(x)
    mask = ops.cast(ops.not_equal(x, 0), "float32")
    y = layers.Concatenate()([wide, narrow * ops.expand_dims(mask, -1)])
    path = saved(own.Model(x, layers.Dense(2)(layers.Flatten()(y))), tmp_path)
    report = kprune.remove(path, {"wide.tokens": [3, 4]}, output=tmp_path / "s.keras")
    assert report.changed == {"wide.tokens": [3, 4], "narrow.tokens": [3, 4]}
    assert kprune.verify(path, tmp_path / "s.keras").passed
    with pytest.raises(kprune.FrozenUnitsError, match="token id 0"):
        kprune.remove(path, {"wide.tokens": [0]}, output=tmp_path / "t.keras")


def test_logits_of_an_embedding_that_is_used_backwards_lose_the_same_tokens(tmp_path: Path) -> None:
    own = keras()
    from keras import layers

    x = own.Input((4,), dtype="int32")
    embedding = layers.ReversibleEmbedding(9, 6, name="emb")
    hidden = layers.Dense(6, "relu", name="hidden")(embedding(x))
    path = saved(own.Model(x, embedding(hidden, reverse=True)), tmp_path)
    kprune.remove(path, {"emb.tokens": [1, 7]}, output=tmp_path / "s.keras")
    left = np.delete(np.arange(9), [1, 7])
    old = np.random.default_rng(0).choice(left, (16, 4)).astype("int32")
    new = np.searchsorted(left, old).astype("int32")
    np.testing.assert_allclose(
        loaded(own, tmp_path / "s.keras")(new),
        loaded(own, path)(old)[..., left],
        rtol=1e-4,
        atol=1e-5,
    )
    assert kprune.verify(path, tmp_path / "s.keras").passed


def test_the_state_of_the_optimizer_loses_the_rows(tmp_path: Path) -> None:
    own = keras()
    model = reader(own, None, 9)
    model.compile("adam", "mse")
    x = np.random.default_rng(0).integers(0, 9, (32, 4))
    model.fit(x, np.ones((32, 3)), verbose=0)
    model.save(tmp_path / "m.keras")
    kprune.remove(tmp_path / "m.keras", {"emb.tokens": [0, 4]}, output=tmp_path / "s.keras")
    small = own.models.load_model(tmp_path / "s.keras")
    (before, after) = (
        next(v for v in one.optimizer.variables if "emb" in v.path and v.shape[-1] == 6)
        for one in (model, small)
    )
    assert (np.delete(np.asarray(before), [0, 4], axis=0) == np.asarray(after)).all()
    assert np.asarray(before).any()
    small.fit(np.minimum(x, 6), np.ones((32, 3)), verbose=0)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = keras()
    return saved(reader(own, listed(own), 6), tmp_path_factory.mktemp("told"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.txt", "cow\ncat\nunicorn\n"), ("t.json", '["cow", "cat"]'), ("ids.json", "[1, 5]")],
)
def test_tokens_that_stay_are_listed_in_a_file(
    told: Path, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    report = kprune.remove(told, keep_tokens=tmp_path / name, output=tmp_path / "s.keras")
    assert report.changed == {"emb.tokens": [2, 3, 4]}
    assert any("1 of 3" in note.text for note in report.notes) == ("unicorn" in content)


def test_tokens_that_stay_are_given_in_python(told: Path, tmp_path: Path) -> None:
    for kept in (["cat", "cow"], [1, 5], np.array([1, 5])):
        report = kprune.remove(told, keep_tokens=kept, dry_run=True)
        assert report.changed == {"emb.tokens": [2, 3, 4]}
    with pytest.raises(kprune.UsageError, match="none of the tokens"):
        kprune.remove(told, keep_tokens=["Cat"], dry_run=True)
    with pytest.raises(kprune.UsageError, match="no row 77"):
        kprune.remove(told, keep_tokens=[77], dry_run=True)
    with pytest.raises(kprune.UsageError, match="all 6 rows"):
        kprune.remove(told, keep_tokens=WORDS, dry_run=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.txt", "dog\nfish\nbird\n"), ("t.json", '["dog", "fish", "bird"]'), ("i.txt", "2-4")],
)
def test_tokens_that_go_are_listed_in_a_file(
    told: Path, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    spec = f"emb.tokens:@{tmp_path / name}"
    assert kprune.remove(told, spec, dry_run=True).changed == {"emb.tokens": [2, 3, 4]}
    with pytest.raises(kprune.FrozenUnitsError):  # all others: what is unknown stays
        kprune.remove(told, spec.replace("@", "!@"), dry_run=True)


def test_a_file_of_tokens_that_are_none_is_refused(told: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("dog\nunicorn\n")
    with pytest.raises(kprune.UsageError, match=r"entry 2 of .*t\.txt is not a token"):
        kprune.remove(told, f"emb.tokens:@{tmp_path / 't.txt'}", dry_run=True)
    with pytest.raises(kprune.UsageError, match="is not a list of units"):
        kprune.remove(told, f"emb:@{tmp_path / 't.txt'}", dry_run=True)
    (tmp_path / "t.txt").write_text("")
    for nothing in (tmp_path / "t.txt", []):
        with pytest.raises(kprune.UsageError, match="no token to keep is listed"):
            kprune.remove(told, keep_tokens=nothing, dry_run=True)


def test_a_mask_is_put_on_what_an_embedding_gives(told: Path) -> None:
    with pytest.raises(kprune.UsageError, match="'tokens' is not an axis of it"):
        kprune.mask(told, "emb.tokens:2", dry_run=True)


def test_rows_go_only_where_they_are_named(told: Path, tmp_path: Path) -> None:
    chosen = kprune.remove(told, choice=kprune.Choice("l1", ratio=0.5), dry_run=True)
    assert set(chosen.changed) == {"emb"}
    assert chosen.input.units == 9
    zeroed = tmp_path / "z.keras"
    kprune.zero(told, {"emb.tokens": "2"}, output=zeroed)
    table = keras().models.load_model(zeroed).get_layer("emb").get_weights()[0]
    assert not table[2].any()
    assert table[1].all()
    assert kprune.compact(zeroed, check=False, dry_run=True).changed == {}


def test_a_table_of_two_steps_tells_the_ids_of_the_first_input(tmp_path: Path) -> None:
    own = keras()
    path = saved(reader(own, None, 9), tmp_path)
    plan = tmp_path / "plan.yaml"
    step = '  - {{backend: remove, layers: {{emb.tokens: "{}"}}}}\n'
    plan.write_text("version: 1\nsteps:\n" + step.format("1-2") + step.format("0,6"))
    kprune.apply(path, plan, output=tmp_path / "s.keras")
    table = json.loads((tmp_path / "s.tokens.json").read_text())["emb"]
    assert table["new_ids"] == [None, None, None, 0, 1, 2, 3, 4, None]
    assert kprune.verify(path, tmp_path / "s.keras").passed
    kprune.remove(tmp_path / "s.keras", {"emb.tokens": [0]}, output=tmp_path / "t.keras")
    table = json.loads((tmp_path / "t.tokens.json").read_text())["emb"]
    assert table["new_ids"] == [None, 0, 1, 2, 3]
    assert kprune.verify(path, tmp_path / "t.keras").passed
    kprune.remove(tmp_path / "t.keras", {"emb": [0]}, output=tmp_path / "u.keras")
    assert not (tmp_path / "u.tokens.json").exists()


def test_data_with_tokens_that_are_gone_are_left_out_or_unknown(tmp_path: Path, told: Path) -> None:
    own = keras()
    path = saved(reader(own, None, 9), tmp_path)
    x = np.random.default_rng(0).integers(0, 9, (32, 4))
    np.savez(tmp_path / "ids.npz", x=x)
    kprune.remove(path, {"emb.tokens": [2]}, output=tmp_path / "s.keras")
    found = kprune.verify(path, tmp_path / "s.keras", data=tmp_path / "ids.npz")
    assert found.passed
    assert found.samples == int((x != 2).all(axis=1).sum())
    np.savez(tmp_path / "words.npz", x=samples(WORDS, "StringLookup"))
    kprune.remove(told, {"emb.tokens": [2]}, output=tmp_path / "t.keras")
    found = kprune.verify(told, tmp_path / "t.keras", data=tmp_path / "words.npz")
    assert (found.passed, found.samples) == (True, 16)


def test_a_vocabulary_that_was_cut_otherwise_than_its_embedding_is_noticed(
    told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kprune.surgery import rewrite

    def wrong(source: Any, gone: np.ndarray) -> list[Any]:
        return list(source.layer.config["vocabulary"][:-1])

    monkeypatch.setattr(rewrite, "entries_left", wrong)
    kprune.remove(told, {"emb.tokens": [2]}, output=tmp_path / "s.keras")
    assert not kprune.verify(told, tmp_path / "s.keras").passed


def test_rows_stay_where_nobody_knows_what_else_reads_the_ids(tmp_path: Path) -> None:
    own = keras()
    from keras import layers, ops

    def refused(y: Any, x: Any, why: str, spec: str = "emb.tokens") -> None:
        path = saved(own.Model(x, y), tmp_path)
        with pytest.raises(kprune.FrozenUnitsError) as error:
            kprune.remove(path, {spec: [3]}, output=tmp_path / "s.keras", force=True)
        assert why in str(error.value.why)
        kprune.remove(path, {"emb": [3]}, output=tmp_path / "s.keras", force=True)

    x = own.Input((4,), dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(8, 5, name="emb")(x))
    refused(
        layers.Dense(2)(layers.Concatenate()([embedded, ops.cast(x, "float32")])),
        x,
        "too, which takes ids",
    )
    refused([layers.Dense(2)(embedded), x], x, "given as they are")
    moved = layers.Flatten()(layers.Embedding(8, 5, name="emb")(x + 1))
    refused(layers.Dense(2)(moved), x, "computes ids")
    inside = layers.TimeDistributed(layers.Embedding(8, 5, name="emb"), name="emb")(
        ops.expand_dims(x, -1)
    )
    path = saved(own.Model(x, layers.Dense(2)(layers.Flatten()(inside))), tmp_path)
    with pytest.raises(kprune.KpruneError):
        kprune.remove(path, {"emb.tokens": [3]}, output=tmp_path / "s.keras", force=True)
    words = own.Input((4,), dtype="string")
    shared = layers.Embedding(6, 5, name="emb")
    both = [
        shared(layers.StringLookup(vocabulary=vocabulary)(words))
        for vocabulary in (WORDS, WORDS[::-1])
    ]
    refused(layers.Dense(2)(layers.Flatten()(layers.Add()(both))), words, "several vocabularies")
    hashed = layers.Hashing(8)(words)
    refused(
        layers.Dense(2)(layers.Flatten()(layers.Embedding(8, 5, name="emb")(hashed))),
        words,
        "computes ids",
    )


@pytest.mark.parametrize("module", [keras, tf_keras])
def test_ids_are_followed_through_what_hands_them_on_or_compares_them(
    module: Callable[[], Any], tmp_path: Path
) -> None:
    """Keras 2 writes TensorFlow's functions into its graphs."""
    own = module()
    import tensorflow as tf

    ops = own.ops if hasattr(own, "ops") else tf
    x = own.Input((4,), dtype="int32")
    emb, lstm = own.layers.Embedding(8, 5, name="emb"), own.layers.LSTM(3)
    cast = ops.cast(x, "int64")
    twice = ops.concatenate([x, x], 1) if hasattr(own, "ops") else tf.concat([x, x], 1)
    mask = ops.not_equal(x, 0)
    given = [
        lstm(emb(x[:, 1:])), lstm(emb(cast)), lstm(emb(twice)), lstm(emb(x), mask=mask),
        lstm(emb(x), mask=x > 1),
    ]  # fmt: skip
    model = own.Model(x, given)
    table = np.random.default_rng(0).normal(size=(8, 5))
    emb.set_weights([table])
    model.save(tmp_path / "m.keras")
    kprune.remove(tmp_path / "m.keras", {"emb.tokens": [2, 5]}, output=tmp_path / "s.keras")
    small = own.models.load_model(tmp_path / "s.keras", compile=False)
    ids = np.array([[0, 1, 3, 7], [4, 6, 0, 1], [3, 3, 1, 0]], np.int32)
    new = np.array([0, 1, -1, 2, 3, -1, 4, 5], np.int32)[ids]
    for got, want in zip(small(tf.constant(new)), model(tf.constant(ids)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    with pytest.raises(kprune.FrozenUnitsError, match=r"emb\.tokens"):
        kprune.remove(tmp_path / "m.keras", {"emb.tokens": [1]}, dry_run=True)


def test_an_embedding_inside_a_model_is_followed_to_the_input_of_the_outer_one(
    tmp_path: Path,
) -> None:
    own = keras()
    from keras import layers

    tokens = own.Input((4,), dtype="int32")
    inner = own.Model(
        tokens,
        layers.GlobalAveragePooling1D()(layers.Embedding(8, 5, name="emb")(tokens)),
        name="tower",
    )
    x = own.Input((4,), dtype="int32")
    path = saved(own.Model(x, layers.Dense(2)(inner(x))), tmp_path)
    kprune.remove(path, {"tower/emb.tokens": [1, 2]}, output=tmp_path / "s.keras")
    assert kprune.verify(path, tmp_path / "s.keras").passed


def test_a_teacher_loses_the_same_tokens(tmp_path: Path) -> None:
    own = keras()
    model = reader(own, None, 9)
    model.compile(own.optimizers.SGD(), "mse")
    path = saved(model, tmp_path)
    kprune.remove(path, {"emb.tokens": [0, 4]}, output=tmp_path / "s.keras")
    x = np.random.default_rng(0).integers(0, 7, (32, 4))
    np.savez(tmp_path / "data.npz", x=x, y=np.ones((32, 3)))
    found = kprune.tune(
        tmp_path / "s.keras", data=tmp_path / "data.npz", teacher=path, epochs=1,
        learning_rate=1e-9, output=tmp_path / "t.keras",
    )  # fmt: skip
    assert found.learned[1]["distillation_loss"] < 1e-6


def test_statistics_of_columns_do_not_look_at_rows(tmp_path: Path) -> None:
    from kprune.opened import opened
    from kprune.pruning.selection import statistics_of

    path = saved(reader(keras(), None, 9), tmp_path)
    with opened(path) as it:
        analysis, statistics = it.analysis, statistics_of(it)
        columns = statistics.gram(analysis.map.axes["emb"])
        assert columns.shape == (6, 6)
        assert list(statistics._grams) == ["emb"]
        rows = statistics.env(analysis.map.axes["emb.tokens"], ["l1"])["l1"]
    table = keras().models.load_model(path).get_layer("emb").get_weights()[0]
    np.testing.assert_allclose(rows, np.abs(table).sum(axis=1), rtol=1e-5)
