"""Arrays in a config whose sizes count units: cut along, or the units stay. Never a file that Keras refuses."""

from __future__ import annotations

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.errors import FrozenUnitsError
from kprune.verbs.change import compact, remove
from tests.oracle.law import (
    Removal,
    assert_equal,
    check_removal,
    outputs,
    random_inputs,
    randomize,
)

pytestmark = pytest.mark.oracle

Constant, MaxNorm = keras.initializers.Constant, keras.constraints.MaxNorm
RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.uniform(0.4, 0.9, shape).astype("float32")


def chain(shape, *middle, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *middle, layers.Flatten(), out()])


def out():
    return layers.Dense(2, kernel_initializer="ones", name="out")


def behind(function, shape=(5, 4), batch=None):
    x = keras.Input(shape, batch_size=batch)
    y = function(layers.Dense(8, name="a")(x))
    return keras.Model(x, out()(layers.Flatten()(y)))


def embedding(start):
    return chain(
        (6,),
        layers.Embedding(5, 8, embeddings_initializer=Constant(start), name="a"),
        dtype="int32",
    )


def dense(**options):
    return layers.Dense(8, name="a", **options)


STARTS = {
    "embedding": lambda: embedding(array(5, 8)),
    "embedding, a list": lambda: embedding(array(5, 8).tolist()),
    "embedding, one row": lambda: embedding(array(8)),
    "embedding, one column": lambda: embedding(array(5, 1)),
    "embedding, a tensor": lambda: embedding(ops.convert_to_tensor(array(5, 8))),
    "embedding, a tuple": lambda: embedding(tuple(array(8).tolist())),
    "dense": lambda: chain(
        (4,), dense(kernel_initializer=Constant(array(4, 8)), bias_initializer=Constant(array(8)))
    ),
    "what reads them": lambda: chain(
        (4,), dense(), layers.Dense(3, kernel_initializer=Constant(array(8, 1)))
    ),
    "constraint": lambda: chain((4,), dense(kernel_constraint=MaxNorm(array(8)))),
    "convolution": lambda: chain(
        (6, 6, 3),
        layers.Conv2D(8, 3, kernel_initializer=Constant(array(3, 3, 3, 8)), name="a"),
        layers.Conv2DTranspose(3, 2, kernel_initializer=Constant(array(2, 2, 3, 8))),
    ),
    "depthwise and separable": lambda: chain(
        (6, 6, 3),
        layers.Conv2D(8, 1, name="a"),
        layers.DepthwiseConv2D(2, 2, depthwise_initializer=Constant(array(2, 2, 8, 1))),
        layers.SeparableConv2D(
            3,
            2,
            depthwise_initializer=Constant(array(2, 2, 8, 1)),
            pointwise_initializer=Constant(array(8, 3)),
        ),
    ),
    "batch normalisation": lambda: chain(
        (4,),
        dense(),
        layers.BatchNormalization(
            gamma_initializer=Constant(array(8)),
            beta_initializer=Constant(array(8).tolist()),
            moving_mean_initializer=Constant(array(8)),
            moving_variance_initializer=Constant(array(8)),
        ),
    ),
    "PReLU": lambda: chain((5, 4), dense(), layers.PReLU(alpha_initializer=Constant(array(5, 8)))),
    "LSTM": lambda: chain(
        (5, 4),
        layers.LSTM(
            8,
            unit_forget_bias=False,
            kernel_initializer=Constant(array(4, 32)),
            recurrent_initializer=Constant(array(8, 32)),
            bias_initializer=Constant(array(32)),
            name="a",
        ),
    ),
    "Bidirectional": lambda: chain(
        (5, 4), layers.Bidirectional(layers.GRU(4, bias_initializer=Constant(array(2, 12))), name="a")
    ),
    "TimeDistributed": lambda: chain(
        (5, 4),
        layers.TimeDistributed(layers.Dense(8, bias_initializer=Constant(array(8))), name="a"),
    ),
    "Normalization": lambda: chain((4,), dense(), layers.Normalization(mean=array(8), variance=array(8))),
    "Rescaling": lambda: chain((4,), dense(), layers.Rescaling(array(8), array(8).tolist())),
    "noise shape": lambda: chain((5, 4), dense(), layers.Dropout(0.3, noise_shape=(None, 1, 8))),
}  # fmt: skip


@pytest.mark.parametrize("kind", STARTS)
def test_what_a_weight_starts_with_is_cut_like_the_weight(kind):
    assert 1 in check_removal(STARTS[kind](), {"a": [1]}).changed["a"]


FUNCTIONS = {
    "batch_normalization": lambda x: ops.batch_normalization(
        x, array(8), array(8), axis=-1, offset=array(8), scale=array(8)
    ),
    "clip": lambda x: ops.clip(x, (-array(8)).tolist(), array(8).tolist()),
    "elu": lambda x: ops.elu(x, array(8).tolist()),
    "where": lambda x: ops.where(x > 0.1, x, array(8)),
    "layer of a constant": lambda x: layers.Add()([x, ops.convert_to_tensor(array(1, 5, 8))]),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_constant_arguments_are_cut_along_with_the_units_they_meet(kind):
    assert check_removal(behind(FUNCTIONS[kind]), {"a": [1, 6]}).changed == {"a": [1, 6]}


def silenced(model, indices):
    """The model whose layer `a` gives 0 at some units: what is summed over them loses nothing else."""
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., indices], bias[indices] = 0, 0
    model.get_layer("a").set_weights([kernel, bias])
    return model


SUMS = {
    "matmul": lambda x: ops.matmul(x, array(8, 8)),
    "einsum": lambda x: ops.einsum("btc,cd->btd", x, array(8, 3)),
    "attention": lambda x: ops.dot_product_attention(
        ops.reshape(x, (-1, 5, 2, 4)), array(3, 4, 2, 4), array(3, 4, 2, 4), scale=0.5
    ),
    "Attention": lambda x: layers.Attention()([x, ops.convert_to_tensor(array(3, 4, 8)), x[:, :4]]),
}


@pytest.mark.parametrize("kind", SUMS)
def test_arrays_that_units_are_multiplied_with_lose_their_rows(kind):
    model = behind(SUMS[kind], batch=3 if "ttention" in kind else None)
    indices = [1, 5] if kind == "attention" else [1]
    try:
        removal = Removal(model, {"a": indices}, inputs=np.ones((3, 5, 4), "float32"))
    except FrozenUnitsError:
        assert kind == "attention"  # heads stand on an axis of their own
        return
    expected = outputs(silenced(removal.original, indices), removal.inputs)
    if removal.report.exact and kind != "Attention":
        assert_equal(outputs(removal.pruned, removal.inputs)[0], expected[0])
    assert outputs(removal.pruned, removal.inputs)[0].shape == expected[0].shape


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.layer_normalization(x, array(8), array(8)),
        lambda x: ops.layer_normalization(x, array(5), array(5), axis=1),
        lambda x: ops.layer_normalization(x, array(5, 8), axis=(1, 2)),
        lambda x: ops.rms_normalization(x, array(8)),
        lambda x: ops.average(x, axis=-1, weights=array(8)),
        lambda x: layers.LayerNormalization(gamma_initializer=Constant(array(8)))(x),
    ],
)
def test_a_normalisation_scaled_by_an_array_loads_and_runs(function):
    removal = Removal(behind(function), {"a": [1]})
    assert outputs(removal.pruned, removal.inputs)[0].shape == (3, 2)


def test_a_cell_and_attention_start_with_arrays_too():
    cells = [
        layers.GRUCell(3, bias_initializer=Constant(array(9))),
        layers.SimpleRNNCell(8, kernel_initializer=Constant(array(3, 8))),
    ]
    x = keras.Input((5, 4))
    y = layers.RNN(cells, return_sequences=True, name="r")(x)
    y = layers.MultiHeadAttention(2, 8, kernel_initializer=Constant(array(8)), name="m")(y, y)
    model = keras.Model(x, out()(layers.Flatten()(y)))
    removal = Removal(model, {"r": [1], "r.cell_0": [0], "m.key_dim": [2], "m.heads": [0]})
    removal.check_counts()
    assert np.isfinite(outputs(removal.pruned, removal.inputs)[0]).all()


@keras.saving.register_keras_serializable("test_config_arrays")
class Own(keras.initializers.Initializer):
    def __init__(self, values):
        self.values = values

    def __call__(self, shape, dtype=None):
        return ops.cast(self.values, dtype or "float32") * ops.ones(shape)

    def get_config(self):
        return {"values": self.values}


UNSPOKEN = {
    "an initializer of one's own": lambda: chain((4,), dense(bias_initializer=Own(list(range(8))))),
    "mask_value": lambda: chain((5, 4), dense(), layers.Masking(array(8)), layers.LSTM(3)),
    "a grouped kernel": lambda: chain(
        (6, 6, 3),
        layers.Conv2D(8, 1, name="a"),
        layers.Conv2D(4, 2, groups=2, kernel_initializer=Constant(array(4, 1))),
    ),
}


@pytest.mark.parametrize("kind", UNSPOKEN)
def test_units_counted_by_an_array_that_no_rule_knows_stay(kind, tmp_path):
    model = UNSPOKEN[kind]()
    model.save(tmp_path / "m.keras")
    with pytest.raises(FrozenUnitsError, match="an array of"):
        remove(str(tmp_path / "m.keras"), {"a": [1]}, dry_run=True)


SHARED = {
    "Rescaling": lambda: layers.Rescaling(array(8)),
    "Normalization": lambda: layers.Normalization(mean=array(8), variance=array(8)),
    "noise shape": lambda: layers.Dropout(0.2, noise_shape=(None, 1, 8)),
    "Reshape": lambda: layers.Reshape((1, 5, 8)),
    "a model of functions": lambda: function_model(),
}


def function_model():
    x = keras.Input((5, 8))
    return keras.Model(x, ops.reshape(x[..., :6] * array(6), (-1, 1, 5, 6)))


@pytest.mark.parametrize("kind", SHARED)
def test_what_two_calls_read_from_one_config_goes_from_both(kind):
    layer, x = SHARED[kind](), keras.Input((5, 4))
    parts = [layer(layers.Dense(8, name=name)(x)) for name in ("a", "b")]
    model = keras.Model(x, out()(layers.Concatenate()([layers.Flatten()(y) for y in parts])))
    assert check_removal(model, {"a": [1]}).changed == {"a": [1], "b": [1]}


@pytest.mark.parametrize("form", ["folder", "h5"])
def test_arrays_are_cut_in_every_form_of_a_file(form, tmp_path):
    """And the config that is left builds the model anew: its arrays have the sizes of the weights."""
    model = randomize(STARTS["batch normalisation"]())
    before, after = tmp_path / f"m.{form}", tmp_path / f"p.{form}"
    if form == "h5":
        model.save(before)
    else:
        model.save(tmp_path / "m.keras")
        zipfile.ZipFile(tmp_path / "m.keras").extractall(before)
    remove(str(before), {"a": [1, 2]}, output=str(after))
    pruned = keras.models.load_model(after, compile=False)
    assert outputs(pruned, random_inputs(model))[0].shape == (3, 2)
    assert keras.models.clone_model(pruned).get_layer("a").units == 6


def test_keras_2_takes_as_many_numbers_as_a_weight_has(tmp_path):
    """`Constant` reshapes there: a flat list, or the transposed shape, is cut in the weight's own."""
    model = embedding(array(5, 8))
    randomize(model).save(tmp_path / "m.h5")
    flat = array(40).tolist()
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        spec = next(e for e in config["config"]["layers"] if e["config"]["name"] == "a")
        spec["config"]["embeddings_initializer"]["config"]["value"] = flat
        file.attrs["model_config"] = json.dumps(config)
    remove(str(tmp_path / "m.h5"), {"a": [1]}, output=str(tmp_path / "p.h5"))
    with h5py.File(tmp_path / "p.h5") as file:
        config = json.loads(file.attrs["model_config"])
    spec = next(e for e in config["config"]["layers"] if e["config"]["name"] == "a")
    value = spec["config"]["embeddings_initializer"]["config"]["value"]
    np.testing.assert_array_equal(value, np.delete(np.reshape(flat, (5, 8)), 1, axis=1))


def test_compacting_follows_constants_past_a_layer_that_is_called_on_an_array(tmp_path):
    model = behind(FUNCTIONS["layer of a constant"])
    silenced(model, [1, 6]).save(tmp_path / "m.keras")
    compact(str(tmp_path / "m.keras"), output=str(tmp_path / "p.keras"))
    left = keras.models.load_model(tmp_path / "p.keras", compile=False)
    x = array(3, 5, 4)
    assert_equal(outputs(left, x)[0], outputs(model, x)[0])
