"""Custom layers whose own code is traced (`--trust`) lose units as Keras's own do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.errors import FrozenUnitsError
from kprune.select.ranking.choice import Choice
from kprune.verbs.change import compact, remove
from kprune.verification.verify import verify
from tests.custom_code.custom_layers import (
    UNITS,
    Configured,
    GatedResidual,
    check,
    custom,
    saved,
    silenced,
)
from tests.oracle.law import assert_equal, outputs, random_inputs, randomize

pytestmark = pytest.mark.oracle


# -- channels that come in --------------------------------------------------------------------------


@custom
class ChannelGain(Configured):
    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(name="gain", shape=(shape[-1],))
        self.built = True

    def call(self, x: Any) -> Any:
        return x * self.gain


def test_a_gain_for_each_channel_goes_with_the_channels(tmp_path: Path) -> None:
    check(saved(tmp_path, ChannelGain(name="own")), {"own/gain": 0})


def test_without_trust_the_layer_is_named_and_trust_is_offered(tmp_path: Path) -> None:
    path = saved(tmp_path, ChannelGain(name="own"))
    with pytest.raises(FrozenUnitsError) as caught:
        remove(path, {"a": UNITS}, dry_run=True)
    assert "'own' is a traced_tests>ChannelGain layer" in caught.value.why
    assert "--trust" in caught.value.do


def test_a_model_in_memory_is_traced_as_well(tmp_path: Path) -> None:
    model = keras.models.load_model(saved(tmp_path, ChannelGain(name="own")))
    assert remove(model, {"a": UNITS}, trust=True).get_layer("own").gain.shape == (5,)


def test_a_gated_residual_block_loses_channels_and_keeps_its_hidden_layers(tmp_path: Path) -> None:
    inside = {"own/up/kernel": 0, "own/two/kernel": 1, "own/two/bias": 0}
    check(saved(tmp_path, GatedResidual(name="own")), {"own/gate": 0, **inside})


@custom
class Squared(Configured):
    """A kernel of its own, transposed on the way, and weights that are reshaped before use."""

    def build(self, shape: Any) -> None:
        self.mix = self.add_weight(name="mix", shape=(3, shape[-1]))
        self.back = self.add_weight(name="back", shape=(shape[-1], 3))
        self.scales = {"first": self.add_weight(name="scale", shape=(shape[-1],))}
        self.built = True

    def call(self, x: Any) -> Any:
        hidden = ops.tanh(ops.matmul(x, ops.transpose(self.mix)))
        y = ops.einsum("...h,ch->...c", hidden, self.back)
        return (
            ops.expand_dims(self.scales["first"], 0) * y
            + ops.reshape(self.scales["first"], (1, -1)) * x
        )


def test_weights_that_are_transposed_and_reshaped_are_cut_where_they_stand(tmp_path: Path) -> None:
    path = saved(tmp_path, Squared(name="own"))
    check(path, {"own/mix": 1, "own/back": 0, "own/scale": 0})


@custom
class Outer(Configured):
    """Holds another custom layer, and calls it twice."""

    def build(self, shape: Any) -> None:
        self.inner = ChannelGain(name="inner")
        self.norm = layers.BatchNormalization(name="norm")
        self.built = True

    def call(self, x: Any) -> Any:
        return self.norm(self.inner(ops.relu(self.inner(x))))


def test_the_code_of_custom_layers_inside_is_followed(tmp_path: Path) -> None:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    path = saved(tmp_path, Outer(name="own"))
    check(path, {"own/inner/gain": 0, **{f"own/norm/{name}": 0 for name in names}})


@custom
class Blend(Configured):
    """Two inputs, two outputs, in dicts."""

    def build(self, shapes: Any) -> None:
        self.share = self.add_weight(name="share", shape=(shapes["left"][-1],))
        self.built = True

    def call(self, x: Any) -> Any:
        return {
            "sum": self.share * x["left"] + (1.0 - self.share) * x["right"],
            "both": ops.concatenate([x["right"], x["left"]], axis=-1),
        }


def test_several_inputs_and_outputs_are_told_apart(tmp_path: Path) -> None:
    def middle(y: Any) -> Any:
        z = Blend(name="own")({"right": layers.ReLU()(y), "left": y})
        return layers.Concatenate()([z["sum"], z["both"]])

    path = saved(tmp_path, middle)
    report = remove(path, {"a": UNITS}, output=str(tmp_path / "small.keras"), trust=True)
    pruned = keras.models.load_model(tmp_path / "small.keras")
    masked = silenced(path, {"a/kernel": 1, "a/bias": 0, "own/share": 0}, UNITS)
    inputs = random_inputs(masked)
    assert_equal(outputs(pruned, inputs)[0], outputs(masked, inputs)[0])
    assert report.output.parameters == pruned.count_params()


def test_a_layer_called_twice_is_cut_alike_at_both_places(tmp_path: Path) -> None:
    own = ChannelGain(name="own")
    path = saved(tmp_path, lambda y: own(layers.ReLU()(own(y))))
    check(path, {"own/gain": 0})


def test_inside_wrappers_and_nested_models(tmp_path: Path) -> None:
    def middle(y: Any) -> Any:
        inner = keras.Input((4, 8))
        wrapped = layers.TimeDistributed(ChannelGain(name="gain"), name="each")
        model = keras.Model(inner, ChannelGain(name="own")(wrapped(inner)), name="nested")
        return layers.GlobalMaxPooling1D()(model(layers.RepeatVector(4)(y)))

    path = saved(tmp_path, middle)
    names = [w.path for w in keras.models.load_model(path).weights if w.path.endswith("gain")]
    check(path, dict.fromkeys(names, 0))


@custom
class Steps(Configured):
    """Looks at the mask of its time steps."""

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(name="gain", shape=(shape[-1],))
        self.built = True

    def call(self, x: Any, mask: Any = None) -> Any:
        if mask is not None:
            x = x * ops.cast(ops.expand_dims(mask, -1), "float32")
        return ops.sum(x * self.gain, axis=1)


def test_a_layer_that_takes_a_mask_is_traced_with_one_and_without(tmp_path: Path) -> None:
    x = keras.Input((4,), dtype="int32")
    y = layers.Dense(8, name="a")(layers.Embedding(5, 6, mask_zero=True)(x))
    model = keras.Model(x, layers.Dense(2, name="out")(Steps(name="own")(y)))
    path = str(tmp_path / "model.keras")
    randomize(model, 1).save(path)
    check(path, {"own/gain": 0})


@custom
class Halves(Configured):
    def call(self, x: Any) -> Any:
        value, gate = ops.split(x, 2, axis=-1)
        return value * ops.sigmoid(gate)


def test_halves_that_follow_the_width_lose_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path, Halves(name="own"))
    report = remove(path, {"a": [1, 3]}, output=str(tmp_path / "small.keras"), trust=True)
    assert report.changed == {"a": [1, 3, 5, 7]}
    pruned = keras.models.load_model(tmp_path / "small.keras")
    masked = silenced(path, {"a/kernel": 1, "a/bias": 0}, [1, 3, 5, 7])
    inputs = random_inputs(masked)
    assert_equal(outputs(pruned, inputs)[0], outputs(masked, inputs)[0])


@custom
class Block(Configured):
    """A transformer's: the width is its input's, heads and hidden units are in its config."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"heads": 2, "dim": 3, "hidden": 7}

    def build(self, shape: Any) -> None:
        heads, dim = self.given["heads"], self.given["dim"]
        self.attention = layers.MultiHeadAttention(heads, dim, name="attention")
        self.attention.build(shape, shape)
        self.up = layers.Dense(self.given["hidden"], "gelu", name="up")
        self.down = layers.Dense(shape[-1], name="down")
        self.built = True

    def call(self, x: Any) -> Any:
        x = x + self.attention(x, x)
        return x + self.down(self.up(x))


def test_a_block_with_attention_loses_width(tmp_path: Path) -> None:
    attention = {f"own/attention/{name}/kernel": 0 for name in ("query", "key", "value")}
    output = {"own/attention/attention_output/kernel": 2, "own/attention/attention_output/bias": 0}
    dense = {"own/up/kernel": 0, "own/down/kernel": 1, "own/down/bias": 0}
    check(saved(tmp_path, Block(name="own"), (4, 5)), {**attention, **output, **dense})


def test_a_legacy_file_and_the_optimizers_state_are_cut_along(tmp_path: Path) -> None:
    path = saved(tmp_path, GatedResidual(name="own"))
    model = keras.models.load_model(path)
    model.compile("adam", keras.losses.MeanSquaredError())
    model.fit(np.ones((8, 5)), np.ones((8, 2)), verbose=0)
    for name in ("trained.keras", "trained.h5"):
        model.save(tmp_path / name)
        small = tmp_path / f"small_{name}"
        report = remove(str(tmp_path / name), {"a": UNITS}, output=str(small), trust=True)
        assert not [note for note in report.notes if note.kind == "optimizer"]
        pruned = keras.models.load_model(small)
        moved = keras.models.load_model(tmp_path / name).optimizer.variables
        for one, other in zip(pruned.optimizer.variables, moved, strict=True):
            assert np.isin(one.numpy(), other.numpy()).all()
        # Keras itself restores no slots of a legacy file that holds custom layers.
        slots = [w.numpy().shape for w in pruned.optimizer.variables if w.numpy().ndim]
        trained = [tuple(w.shape) for w in pruned.trainable_weights for _ in range(2)]
        assert slots == (trained if name.endswith(".keras") else [])


def test_units_that_reach_such_code_are_never_taken_for_dead(tmp_path: Path) -> None:
    """What the last layer does not read may still count inside."""
    path = saved(tmp_path, Squared(name="own"))
    model = keras.models.load_model(path)
    kernel = model.get_layer("out").kernel
    kernel.assign(kernel * np.array([[1], [0], [1], [1], [0], [1], [1], [1]]))
    model.save(path)
    report = compact(path, output=str(tmp_path / "compact.keras"), trust=True)
    assert report.changed == {}


# -- what goes with a note --------------------------------------------------------------------------


@custom
class Centred(Configured):
    def call(self, x: Any) -> Any:
        return x - ops.mean(x, axis=-1, keepdims=True)


def test_a_mean_over_the_channels_mixes_them(tmp_path: Path) -> None:
    path = saved(tmp_path, Centred(name="own"))
    report = remove(path, {"a": UNITS}, output=str(tmp_path / "small.keras"), trust=True)
    assert not report.exact
    assert keras.models.load_model(tmp_path / "small.keras").get_layer("own").output.shape[-1] == 5


# -- tables on constants, noise, tokens --------------------------------------------------------------


@custom
class PositionTable(Configured):
    """ViT's patch encoder: an Embedding of 0, 1, 2 … is added to every sample."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"dim": 8}

    def build(self, shape: Any) -> None:
        self.table = layers.Embedding(shape[1], self.given["dim"], name="table")
        self.table.build((None, shape[1]))
        self.built = True

    def call(self, x: Any) -> Any:
        return x + self.table(ops.arange(0, x.shape[1]))


def test_the_dimensions_of_a_table_of_positions_go_with_the_channels(tmp_path: Path) -> None:
    path = saved(tmp_path, PositionTable(name="own"), shape=(4, 5))
    check(path, {"own/table/embeddings": 1})


@custom
class Sampling(Configured):
    """A VAE's: noise for a batch of any size."""

    def build(self, shape: Any) -> None:
        self.seed = keras.random.SeedGenerator(1)
        self.built = True

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[0]

    def call(self, given: Any) -> Any:
        mean, log_variance = given
        size = (ops.shape(mean)[0], ops.shape(mean)[1])
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(size, seed=self.seed)


def test_a_sampling_layer_ties_means_and_variances(tmp_path: Path) -> None:
    x = keras.Input((5,))
    both = [layers.Dense(8, name="mean")(x), layers.Dense(8, name="spread")(x)]
    model = keras.Model(x, layers.Dense(2, name="out")(Sampling(name="own")(both)))
    randomize(model, 1)
    model.get_layer("spread").kernel.assign(np.zeros((5, 8)))
    model.get_layer("spread").bias.assign(np.full(8, -100.0))  # noise of no weight
    path, small = str(tmp_path / "model.keras"), str(tmp_path / "small.keras")
    model.save(path)
    report = remove(path, {"mean": UNITS}, output=small, trust=True)
    assert report.changed == {"mean": UNITS, "spread": UNITS}
    model.get_layer("spread").bias.assign(np.zeros(8))
    noisy, small_noisy = str(tmp_path / "noisy.keras"), str(tmp_path / "less.keras")
    model.save(noisy)
    remove(noisy, {"mean": UNITS}, output=small_noisy, trust=True)
    found = verify(noisy, small_noisy, trust=True)
    assert found.passed and "random" in [note.kind for note in found.notes]
    masked = silenced(path, {"mean/kernel": 1, "mean/bias": 0, "out/kernel": 0}, UNITS)
    given = random_inputs(masked)
    assert_equal(outputs(keras.models.load_model(small), given)[0], outputs(masked, given)[0])


@custom
class Prefixed(Configured):
    """ViT's class token, and another, put before each sample of a batch of any size."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"dim": 8}

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, self.given["dim"]), name="token")
        self.other = self.add_weight(shape=(1, 1, self.given["dim"]), name="other")
        self.built = True

    def call(self, x: Any) -> Any:
        batch = ops.shape(x)[0]
        token = ops.tile(self.token, (batch, 1, 1))
        return ops.concatenate([token, ops.repeat(self.other, batch, axis=0), x], axis=1)


def test_a_token_before_each_sample_goes_with_the_channels(tmp_path: Path) -> None:
    path = saved(tmp_path, Prefixed(name="own"), shape=(4, 5))
    check(path, {"own/token": 2, "own/other": 2})


@custom
class Tokens(Configured):
    """An embedding of the tokens that come in, and of their positions."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"vocabulary": 20, "length": 6, "dim": 7}

    def build(self, shape: Any) -> None:
        self.table = layers.Embedding(self.given["vocabulary"], self.given["dim"], name="table")
        self.places = layers.Embedding(self.given["length"], self.given["dim"], name="places")
        self.table.build(shape)
        self.places.build((self.given["length"],))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.table(x) + self.places(ops.arange(0, self.given["length"]))


def test_tokens_of_an_embedding_inside_are_no_units(tmp_path: Path) -> None:
    x = keras.Input((6,), dtype="int32")
    y = layers.Dense(3, name="out")(layers.Flatten()(Tokens(name="own")(x)))
    path, small = str(tmp_path / "model.keras"), str(tmp_path / "small.keras")
    randomize(keras.Model(x, y), 1).save(path)
    report = remove(path, choice=Choice("l1", ratio=0.3), output=small, trust=True)
    assert list(report.changed) == ["own.dim"]
    gone = report.changed["own.dim"]
    ends = [7 * place + unit for place in range(6) for unit in gone]
    masked = silenced(path, {"own/table/embeddings": 1, "own/places/embeddings": 1}, gone)
    ids = np.arange(18).reshape(3, 6) + 2
    kernel = masked.get_layer("out").kernel
    kernel.assign(np.where(np.isin(np.arange(42), ends)[:, None], 0, kernel.numpy()))
    assert_equal(keras.models.load_model(small)(ids).numpy(), masked(ids).numpy())
