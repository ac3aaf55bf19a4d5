"""Arrays that units meet in exported graphs and in what Keras 2 wrote: cut along, or the units stay."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import ops

from kprune.errors import FrozenUnitsError
from kprune.verbs.change import remove
from kprune.verification.verify import verify

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.uniform(0.4, 0.9, shape).astype("float32")


def exported(function, folder):
    x = keras.Input((5, 4))
    y = function(keras.layers.Dense(8, name="a")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="out")(keras.layers.Flatten()(y)))
    model.export(folder, verbose=False)
    return model


def without(model, unit):
    """What a model gives whose unit of `a` nobody reads."""
    kernel, bias = model.get_layer("out").get_weights()
    kernel.reshape(5, 8, 2)[:, unit] = 0
    model.get_layer("out").set_weights([kernel, bias])
    return model


def test_constants_of_a_normalisation_are_cut_in_a_graph_and_verified(tmp_path):
    model = exported(
        lambda x: ops.batch_normalization(x, array(8), array(8), -1, array(8), array(8)),
        tmp_path / "m",
    )
    remove(str(tmp_path / "m"), {"a": [1]}, output=str(tmp_path / "p"))
    pruned = tf.saved_model.load(str(tmp_path / "p"))
    x = array(3, 5, 4)
    np.testing.assert_allclose(pruned.serve(x), without(model, 1)(x), rtol=1e-5, atol=1e-5)
    assert verify(str(tmp_path / "m"), str(tmp_path / "p")).passed


def test_a_constant_that_a_function_captured_holds_the_units_it_counts(tmp_path):
    constant = ops.convert_to_tensor(array(1, 5, 8))
    exported(lambda x: keras.layers.Add()([x, constant]), tmp_path / "m")
    with pytest.raises(FrozenUnitsError):
        remove(str(tmp_path / "m"), {"a": [1]}, dry_run=True)


def keras2(function, **options):
    x = tf_keras.Input((5, 4))
    y = function(tf_keras.layers.Dense(8, name="a", **options)(x))
    return tf_keras.Model(x, tf_keras.layers.Dense(2)(tf_keras.layers.Flatten()(y)))


def start(*shape):
    return tf_keras.initializers.Constant(array(*shape).tolist())


KERAS2 = {
    "starts": lambda: keras2(
        tf_keras.layers.PReLU(alpha_initializer=start(40)),
        kernel_initializer=start(4, 8),
        bias_initializer=start(8),
    ),
    "functions": lambda: keras2(
        lambda x: tf.nn.batch_normalization(
            tf.clip_by_value(x * array(8), -array(8), array(8)),
            array(8),
            array(8),
            None,
            None,
            1e-3,
        )
    ),
    "an array first": lambda: keras2(lambda x: tf.subtract(array(8), x)),
}


@pytest.mark.parametrize("form", ["m.h5", "m.keras", "m"])
def test_arrays_that_keras_2_wrote_are_cut(form, tmp_path):
    for kind, make in KERAS2.items():
        if kind == "an array first" and form == "m":
            continue  # there each number of it is a call's argument of its own: the units stay
        before, after = tmp_path / f"{kind} {form}", tmp_path / f"{kind} pruned {form}"
        make().save(before)
        remove(str(before), {"a": [1, 2]}, output=str(after))
        pruned = tf_keras.models.load_model(after, compile=False)
        assert pruned(array(3, 5, 4)).shape == (3, 2)
        assert kind != "functions" or verify(str(before), str(after)).passed
