"""`mask` and `unmask`: stock Keras parts around weights that stay as they are."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import CannotPruneError, UsageError
from kprune.verbs.change import mask, unmask
from tests.oracle.law import assert_equal, outputs, random_inputs, randomize

pytestmark = pytest.mark.oracle


def sequential(**options):
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, "tanh", name="dense"),
            layers.Dense(2, name="out"),
        ],
        **options,
    )


def functional():
    x = keras.Input((6, 6, 3), name="image")
    a = layers.Conv2D(6, 3, padding="same", name="conv")(x)
    b = layers.Conv2D(6, 3, padding="same", name="other")(x)
    y = layers.Add(name="add")([a, layers.ReLU(name="relu")(b)])
    z = layers.GlobalAveragePooling2D(name="pool")(y)
    z = layers.Concatenate(name="join")([z, layers.Flatten(name="flatten")(a)])
    return keras.Model(
        x, [layers.Dense(2, name="out")(layers.Dense(5, "tanh", name="dense")(z)), y]
    )


def files(path):
    """Config, weights and metadata of a file."""
    archive = zipfile.ZipFile(path)
    weights = {}
    with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, item: (
                weights.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return (
        json.loads(archive.read("config.json")),
        weights,
        json.loads(archive.read("metadata.json")),
    )


def same_weights(one, other):
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path])


def by_path(model):
    """Weights by layer and name: a mask changes the order in which Keras lists layers."""
    return {weight.path: np.asarray(keras.ops.convert_to_numpy(weight)) for weight in model.weights}


class Masked:
    """A model with masks, loaded from the file, and the model as it was."""

    def __init__(self, folder, model, units=None, **options):
        randomize(model)
        self.before, self.after, self.back = (
            folder / f"{name}.keras" for name in ("before", "after", "back")
        )
        model.save(self.before)
        self.report = mask(str(self.before), units, output=str(self.after), **options)
        self.original = keras.models.load_model(self.before, compile=False)
        self.model = keras.models.load_model(self.after, compile=False)
        self.inputs = random_inputs(self.original)

    def check(self, function):
        """Compare with the original whose layers give `function(name, values)`, call by call.

        Then take the masks out, and compare the file with the one there was.
        """
        changed = keras.models.load_model(self.before, compile=False)
        expected = outputs(self._tapped(changed, function), self.inputs)
        got = outputs(self.model, self.inputs)
        for one, other in zip(got, expected, strict=True):
            assert_equal(one, other)
        assert any(
            np.abs(a - b).max() > 1e-3
            for a, b in zip(got, outputs(self.original, self.inputs), strict=True)
        )
        assert (
            self.model.count_params()
            == self.original.count_params()
            == self.report.output.parameters
        )
        same_weights(by_path(self.original), by_path(self.model))
        unmask(str(self.after), output=str(self.back), force=True)
        (config, weights, metadata), (was, had, noted) = files(self.back), files(self.before)
        assert config == was and metadata == noted
        same_weights(weights, had)

    @staticmethod
    def _tapped(model, function):
        for layer in model._flatten_layers():

            def call(*args, inner=layer.call, name=layer.name, **kwargs):
                values = inner(*args, **kwargs)
                return keras.tree.map_structure(lambda value: function(name, value), values)

            if layer is not model and not isinstance(layer, keras.Model):
                layer.call = call
        return model


def silence(units, axis=-1):
    def function(name, values):
        if name not in units:
            return values
        keep = np.ones(values.shape[axis], "float32")
        keep[units[name]] = 0
        shape = [1] * len(values.shape)
        shape[axis] = -1
        return values * keras.ops.cast(keep.reshape(shape), values.dtype)

    return function


CHOICES = [
    {"conv": [0, 3]},
    {"bn": [0, 3], "relu": [1], "dense": [4]},
    {"pool": [5], "flatten": [0, 7, 9]},
    {"out": [0]},
]


@pytest.mark.parametrize("units", CHOICES, ids=lambda units: "-".join(units))
def test_masks_in_a_sequential_model(tmp_path, units):
    Masked(tmp_path, sequential(), units).check(silence(units))


@pytest.mark.parametrize(
    "units",
    [
        {"conv": [0, 3]},
        {"add": [1, 2], "dense": [0]},
        {"relu": [5], "other": [0]},
        {"join": [0, 8], "out": [1]},
    ],
    ids=lambda units: "-".join(units),
)
def test_masks_in_a_functional_model(tmp_path, units):
    Masked(tmp_path, functional(), units).check(silence(units))


@pytest.mark.parametrize("model", [sequential, functional])
def test_a_dynamic_mask_on_whole_layers(tmp_path, model):
    def function(name, values):
        return (
            keras.ops.where(keras.ops.abs(values) < 0.3, 0.0, values)
            if name in ("relu", "dense")
            else values
        )

    Masked(tmp_path, model(), layers=["relu", "dense"], below=0.3).check(function)


@pytest.mark.parametrize("model", [sequential, functional])
def test_a_dynamic_mask_on_some_channels(tmp_path, model):
    def function(name, values):
        if name != "conv":
            return values
        on = np.isin(np.arange(6), [1, 4])
        return keras.ops.where(on & (keras.ops.abs(values) < 0.5), 0.0, values)

    Masked(tmp_path, model(), {"conv": [1, 4]}, below=0.5).check(function)


def test_the_threshold_itself_passes(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Identity(name="same")])
    model.save(tmp_path / "before.keras")
    mask(
        str(tmp_path / "before.keras"),
        layers=["same"],
        below=0.3,
        output=str(tmp_path / "after.keras"),
    )
    values = np.array([[0.3, -0.3, 0.29999, 5.0]], "float32")
    got = outputs(keras.models.load_model(tmp_path / "after.keras"), values)[0]
    np.testing.assert_array_equal(got, np.array([[0.3, -0.3, 0.0, 5.0]], "float32"))


def test_channels_first(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((3, 6, 24)),
            layers.Conv2D(6, 3, data_format="channels_first", name="conv"),
            layers.Flatten(data_format="channels_first"),
            layers.Dense(2, name="out"),
        ]
    )
    Masked(tmp_path, model, {"conv": [0, 3]}).check(silence({"conv": [0, 3]}, axis=1))


@pytest.mark.parametrize("as_model", ["sequential", "functional"])
def test_masks_in_a_nested_model(tmp_path, as_model):
    if as_model == "sequential":
        part = sequential(name="part")
    else:
        inner = keras.Input((6, 6, 3))
        part = keras.Model(
            inner,
            layers.Dense(5, name="dense")(layers.Conv2D(6, 3, name="conv")(inner)),
            name="part",
        )
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, layers.Dense(2, name="head")(part(x)))
    Masked(tmp_path, model, {"part/conv": [1], "part/dense": [0]}).check(
        silence({"conv": [1], "dense": [0]})
    )


def test_a_shared_layer_is_masked_at_every_call(tmp_path):
    x, y = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(5, name="shared")
    model = keras.Model(
        [x, y], layers.Dense(2, name="out")(layers.Concatenate()([shared(x), shared(y)]))
    )
    Masked(tmp_path, model, {"shared": [1, 4]}).check(silence({"shared": [1, 4]}))


def test_every_output_of_a_recurrent_layer_is_masked(tmp_path):
    x = keras.Input((4, 3))
    sequence, h, c = layers.LSTM(5, return_sequences=True, return_state=True, name="lstm")(x)
    joined = layers.Concatenate()([layers.Flatten()(sequence), h, c])
    model = keras.Model(x, layers.Dense(2, name="out")(joined))
    Masked(tmp_path, model, {"lstm": [1, 4]}).check(silence({"lstm": [1, 4]}))


def test_outputs_of_unequal_width_have_no_common_mask(tmp_path):
    """Bidirectional: 2 n channels joined, n in each state."""
    x = keras.Input((4, 3))
    both = layers.Bidirectional(layers.GRU(3, return_state=True), name="both")
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Concatenate()(both(x))))
    with pytest.raises(CannotPruneError, match="cannot be masked"):
        Masked(tmp_path, model, {"both": [1, 4]})


def test_outputs_of_unequal_rank_have_no_common_dynamic_mask(tmp_path):
    x = keras.Input((4, 3))
    sequence, h, _ = layers.LSTM(5, return_sequences=True, return_state=True, name="lstm")(x)
    model = keras.Model(x, layers.Concatenate()([layers.Flatten()(sequence), h]))
    with pytest.raises(CannotPruneError, match="differ in rank"):
        Masked(tmp_path, model, layers=["lstm"], below=0.1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(tmp_path, policy):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "relu", name="a", dtype=policy),
            layers.Dense(2, name="out", dtype=policy),
        ]
    )
    found = Masked(tmp_path, model, {"a": [1, 4]})
    assert [layer.compute_dtype for layer in found.model.layers] == [
        policy.removeprefix("mixed_")
    ] * 3
    found.check(silence({"a": [1, 4]}))


def test_masked_time_steps_stay_masked(tmp_path):
    """The mask of padded steps goes through the mask of units."""
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(5, 6, mask_zero=True, name="words"),
            layers.LSTM(3, name="lstm"),
            layers.Dense(2, name="out"),
        ]
    )

    def function(name, values):
        if name != "words":
            return values
        keep = np.isin(np.arange(6), [1, 4], invert=True).astype("float32")
        return values * keep

    randomized = Masked(tmp_path, model, {"words": [1, 4]})
    assert (randomized.inputs == 0).any()
    randomized.check(function)


def test_two_masks_on_one_layer_are_one(tmp_path):
    found = Masked(tmp_path, sequential(), {"conv": [0]})
    mask(str(found.after), {"conv": [3]}, output=str(found.after), force=True)
    again = keras.models.load_model(found.after)
    assert len(again.layers) == len(found.original.layers) + 1
    expected = outputs(found._tapped(found.original, silence({"conv": [0, 3]})), found.inputs)[0]
    assert_equal(outputs(again, found.inputs)[0], expected)


def test_one_mask_of_two_is_taken_out(tmp_path):
    found = Masked(tmp_path, sequential(), {"conv": [0], "dense": [1]})
    unmask(str(found.after), ["conv"], output=str(found.back))
    again = keras.models.load_model(found.back)
    expected = outputs(found._tapped(found.original, silence({"dense": [1]})), found.inputs)[0]
    assert_equal(outputs(again, found.inputs)[0], expected)
    steps = files(found.back)[2]["kprune"]["plan"]["steps"]
    assert steps == [{"backend": "mask", "layers": {"dense": [1]}}]


def test_there_is_nothing_to_unmask(tmp_path):
    sequential().save(tmp_path / "model.keras")
    with pytest.raises(UsageError, match="no mask"):
        unmask(str(tmp_path / "model.keras"), output=str(tmp_path / "out.keras"))


def test_masks_load_without_kprune(tmp_path):
    found = Masked(tmp_path, functional(), {"conv": [0, 3]})
    mask(str(found.after), layers=["dense"], below=0.2, output=str(found.back))
    probe = (
        "import sys, keras; [keras.models.load_model(path) for path in sys.argv[1:]]; "
        "sys.exit(any(name.partition('.')[0] == 'kprune' for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, found.after, found.back],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
