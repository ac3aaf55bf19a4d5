"""How layers are put together: nested, shared, several inputs and outputs, dtype policies."""

from __future__ import annotations

import json
import random
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import kprune.verbs.change as kp
from kprune.errors import CannotPruneError, DamagedFileError, FrozenUnitsError
from tests.oracle.law import Removal, assert_equal, check_removal, outputs, random_inputs, randomize

pytestmark = pytest.mark.oracle


def block(name, functional):
    if functional:
        x = keras.Input((6, 6, 3))
        y = layers.Conv2D(5, 3, name="conv")(x)
        y = layers.ReLU()(layers.BatchNormalization(name="bn")(y))
        return keras.Model(x, layers.Dense(4, name="dense")(y), name=name)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.Dense(4, name="dense"),
        ],
        name=name,
    )


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("outer", [True, False])
def test_nested_models(outer, inner):
    part = block("part", inner)
    if outer:
        x = keras.Input((6, 6, 3))
        model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(part(x))))
    else:
        model = keras.Sequential(
            [keras.Input((6, 6, 3)), part, layers.Flatten(), layers.Dense(2, name="out")]
        )
    report = check_removal(model, {"part/conv": [0, 3], "part/dense": [1]})
    assert report.changed == {"part/conv": [0, 3], "part/dense": [1]}


def test_models_nested_three_deep():
    x = keras.Input((6, 6, 3))
    middle = keras.Model(x, layers.ReLU()(block("inner", True)(x)), name="middle")
    z = keras.Input((6, 6, 3))
    model = keras.Model(z, layers.Dense(2, name="out")(layers.Flatten()(middle(z))))
    check_removal(model, {"middle/inner/conv": [0, 3], "middle/inner/dense": [1]})


def test_a_nested_model_on_another_layers_units():
    """The inner model's input is narrowed along with what feeds it."""
    x = keras.Input((6, 6, 2))
    fed = layers.Conv2D(3, 1, name="feed")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(block("part", True)(fed))))
    check_removal(model, {"feed": [1], "part/conv": [0]})


def test_a_nested_model_called_twice():
    """A siamese network: both calls share the weights, and the two inputs' units are tied."""
    part = block("part", True)
    x, y = keras.Input((6, 6, 2)), keras.Input((6, 6, 2))
    one = part(layers.Conv2D(3, 1, name="a")(x))
    two = part(layers.Conv2D(3, 1, name="b")(y))
    out = layers.Dense(2, name="out")(layers.Flatten()(layers.Subtract()([one, two])))
    report = check_removal(
        keras.Model([x, y], out), {"a": [1], "part/conv": [0], "part/dense": [3]}
    )
    assert report.changed == {"a": [1], "b": [1], "part/conv": [0], "part/dense": [3]}


def test_a_shared_layer_ties_what_it_is_called_on():
    shared = layers.Dense(5, name="shared")
    x, y = keras.Input((4,)), keras.Input((3,))
    one = shared(layers.Dense(6, "relu", name="a")(x))
    two = shared(layers.Dense(6, "relu", name="b")(y))
    out = layers.Dense(2, name="out")(layers.Concatenate()([one, two]))
    report = check_removal(keras.Model([x, y], out), {"a": [1], "shared": [0]})
    assert report.changed == {"a": [1], "b": [1], "shared": [0]}


def test_a_shared_layer_on_its_own_output_ties_input_and_units():
    shared = layers.Dense(6, "relu", name="shared")
    x = keras.Input((4,))
    y = shared(shared(layers.Dense(6, name="a")(x)))
    report = check_removal(keras.Model(x, layers.Dense(2, name="out")(y)), {"shared": [2]})
    assert report.changed == {"a": [2], "shared": [2]}


def test_a_shared_normalisation_ties():
    norm = layers.BatchNormalization(name="norm")
    x = keras.Input((4,))
    one, two = norm(layers.Dense(6, name="a")(x)), norm(layers.Dense(6, name="b")(x))
    out = layers.Dense(2, name="out")(layers.Concatenate()([one, two]))
    assert check_removal(keras.Model(x, out), {"a": [2]}).changed == {"a": [2], "b": [2]}


def test_a_shared_layer_that_once_reads_the_input_keeps_its_rows():
    shared = layers.Dense(5, name="shared")
    x = keras.Input((4,))
    out = layers.Dense(2, name="out")(
        layers.Concatenate()([shared(x), shared(layers.Dense(4, name="a")(x))])
    )
    model = keras.Model(x, out)
    with pytest.raises(FrozenUnitsError, match="model's input"):
        Removal(model, {"a": [1]})
    check_removal(model, {"shared": [1]})


def test_a_layer_shared_between_two_models_is_refused_as_keras_refuses_it():
    """Keras 3.15.1 saves such a layer once and does not find it again when it loads the file."""
    shared = layers.Dense(5, "relu", name="shared")
    z = keras.Input((4,))
    inner = keras.Model(z, shared(z), name="inner")
    x = keras.Input((3,))
    y = layers.Dense(4, name="a")(x)
    out = layers.Dense(2, name="out")(layers.Concatenate()([inner(y), shared(layers.ReLU()(y))]))
    with pytest.raises(DamagedFileError, match="'shared' is not in the file"):
        Removal(keras.Model(x, out), {"a": [1]})


def test_several_inputs_and_outputs():
    x, y = keras.Input((4,), name="x"), keras.Input((6, 5), name="y")
    a = layers.Dense(6, "relu", name="a")(x)
    b = layers.LSTM(6, name="b")(y)
    both = layers.Add()([a, b])
    model = keras.Model(
        [x, y],
        [
            layers.Dense(2, name="one")(both),
            layers.Dense(3, name="two")(a),
            layers.Dense(1, name="three")(b),
        ],
    )
    assert check_removal(model, {"a": [1, 2]}).changed == {"a": [1, 2], "b": [1, 2]}


def test_inputs_and_outputs_in_dicts():
    x, y = keras.Input((4,), name="x"), keras.Input((3,), name="y")
    a = layers.Dense(6, "relu", name="a")(x)
    b = layers.Dense(6, "relu", name="b")(y)
    model = keras.Model(
        {"second": y, "first": x},
        {
            "sum": layers.Dense(2, name="one")(layers.Add()([a, b])),
            "a": layers.Dense(3, name="two")(a),
        },
    )
    check_removal(model, {"b": [1, 2]})


def test_an_output_in_the_middle_of_the_graph_freezes_its_units():
    x = keras.Input((4,))
    a = layers.Dense(6, name="a")(x)
    b = layers.Dense(5, name="b")(a)
    model = keras.Model(x, [a, layers.Dense(2, name="out")(layers.ReLU()(b))])
    # An output layer that is named itself may lose units; what else reads it follows.
    check_removal(model, {"b": [0]})
    assert check_removal(model, {"a": [0]}).changed == {"a": [0]}


def test_layers_that_share_a_class_and_a_shape_keep_their_own_weights():
    """Weights are stored by graph order, not by config order: a shuffled config is cut the same."""
    x = keras.Input((4,))
    p, q = layers.Dense(6, "relu", name="p")(x), layers.Dense(6, "relu", name="q")(x)
    out = layers.Dense(2, name="out")(layers.Concatenate()([p, layers.Dense(6, name="r")(q)]))
    model = randomize(keras.Model(x, out))
    inputs = random_inputs(model)
    expected = outputs(model, inputs)[0]

    def shuffled(path, seed):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(members["config.json"])
        random.Random(seed).shuffle(config["config"]["layers"])
        members["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        for seed in range(4):
            path, after = Path(folder) / "model.keras", Path(folder) / "pruned.keras"
            model.save(path)
            shuffled(path, seed)
            again = keras.models.load_model(path)
            assert_equal(outputs(again, inputs)[0], expected)
            kp.remove(str(path), {"p": [0, 1], "q": [5], "r": [2]}, output=str(after), force=True)
            pruned = keras.models.load_model(after)
            from tests.oracle.masked import MaskedOriginal

            (masked,) = MaskedOriginal(again, {"p": [0, 1], "q": [5], "r": [2]})(inputs)
            assert_equal(outputs(pruned, inputs)[0], masked.left())


def test_a_name_that_is_used_inside_and_outside():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="dense")], name="part")
    x = keras.Input((3,))
    y = layers.Dense(4, name="dense")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(inner(y)))
    report = check_removal(model, {"dense": [1], "part/dense": [0, 4]})
    assert report.changed == {"dense": [1], "part/dense": [0, 4]}


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float16", "float64"]
)
def test_dtype_policies(policy):
    """Storage follows the variables' dtype: bfloat16 is two opaque bytes in the file."""
    model = keras.Sequential(
        [
            keras.Input((7, 7, 3), dtype="float32"),
            layers.Conv2D(6, 3, name="a", dtype=policy),
            layers.BatchNormalization(dtype=policy),
            layers.ReLU(dtype=policy),
            layers.Flatten(dtype=policy),
            layers.Dense(5, name="b", dtype=policy),
            layers.Dense(2, name="out", dtype="float32"),
        ]
    )
    tolerance = {"float64": 1e-6, "float16": 2e-2, "mixed_float16": 2e-2}.get(policy, 8e-2)
    removal = Removal(model, {"a": [0, 4], "b": [2]}, tolerance=tolerance)
    removal.check_counts()
    removal.check_outputs()
    # What is left is left bit for bit.
    kept = np.asarray(keras.ops.convert_to_numpy(removal.original.get_layer("a").kernel))[
        ..., [1, 2, 3, 5]
    ]
    np.testing.assert_array_equal(
        kept, keras.ops.convert_to_numpy(removal.pruned.get_layer("a").kernel)
    )


def test_a_frozen_layer_is_cut_like_any_other():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, name="a", trainable=False),
            layers.Dense(5, name="b"),
            layers.Dense(2, name="out"),
        ]
    )
    report = check_removal(model, {"a": [0], "b": [1]})
    assert report.output.trainable_parameters == 4 * 5 - 5 * 4 + 5 * 4 + 4 + 4 * 2 + 2


def test_a_sequential_without_an_input_layer():
    model = keras.Sequential([layers.Dense(6, name="a"), layers.Dense(2, name="out")])
    model.build((None, 4))
    check_removal(model, {"a": [0]})


def test_a_model_within_a_sequential_without_an_input_layer():
    model = keras.Sequential(
        [
            keras.Sequential([layers.Dense(6, name="a"), layers.ReLU()], name="part"),
            layers.Dense(2, name="out"),
        ]
    )
    model.build((None, 4))
    model(np.zeros((1, 4), "float32"))
    check_removal(model, {"part/a": [0]})


def test_two_removals_one_after_the_other_equal_one_removal(tmp_path):
    model = randomize(
        keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                layers.Conv2D(6, 3, name="a"),
                layers.BatchNormalization(),
                layers.Flatten(),
                layers.Dense(8, name="b"),
                layers.Dense(2, name="out"),
            ]
        )
    )
    model.save(tmp_path / "model.keras")
    kp.remove(
        str(tmp_path / "model.keras"), {"a": [1], "b": [0, 7]}, output=str(tmp_path / "1.keras")
    )
    kp.remove(str(tmp_path / "1.keras"), {"a": [2], "b": [0]}, output=str(tmp_path / "2.keras"))
    kp.remove(
        str(tmp_path / "model.keras"),
        {"a": [1, 3], "b": [0, 1, 7]},
        output=str(tmp_path / "both.keras"),
    )
    two, both = (keras.models.load_model(tmp_path / name) for name in ("2.keras", "both.keras"))
    for one, other in zip(two.get_weights(), both.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)

    def left(name):
        return json.loads(zipfile.ZipFile(tmp_path / name).read("metadata.json"))["kprune"]["units"]

    assert left("2.keras") == left("both.keras") == {"a": [0, 2, 4, 5], "b": [2, 3, 4, 5, 6]}


def test_an_empty_choice_among_frozen_layers_names_the_path():
    x = keras.Input((4,))
    y = layers.Dense(4, name="a")(x)
    model = keras.Model(x, layers.Add(name="sum")([y, x]))
    with pytest.raises(CannotPruneError):
        Removal(model, {"a": [0]})
