"""Slices, single positions and padding among units: the numbers that say which follow in the graph."""

from __future__ import annotations

import numpy as np
import pytest

import kprune
from kprune.errors import FrozenUnitsError

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(6, 12)).astype("float32")
BIAS = RNG.normal(size=12).astype("float32")

# On (batch, 4, 12); numpy's own functions are the oracle.
TAKEN = {  # `lib` is numpy, or TensorFlow under its names
    "from the end": lambda h, lib: h[:, :, -5:],
    "up to some before the end": lambda h, lib: h[:, :, :-4],
    "between two places from the end": lambda h, lib: h[:, :, -9:-2],
    "between two places": lambda h, lib: h[:, :, 2:9],
    "beyond the end": lambda h, lib: h[:, :, 4:99],
    "turned round": lambda h, lib: h[:, :, ::-1],
    "last but one": lambda h, lib: h[:, :, -2],
    "last": lambda h, lib: h[:, :, -1],
    "padded": lambda h, lib: lib.pad(h, [[0, 0], [0, 0], [2, 3]]),
    "padded with another value": lambda h, lib: lib.pad(
        h, [[0, 0], [0, 0], [2, 3]], constant_values=1.5
    ),
    "padded along time as well": lambda h, lib: lib.pad(h, [[0, 0], [1, 0], [2, 0]]),
}


def exported(folder, function):
    """`function` between two products, as TensorFlow saves it; the second kernel."""
    import tensorflow as tf

    width = function(np.zeros((1, 4, 12)), np).shape[-1]
    last = RNG.normal(size=(width, 5)).astype("float32")

    class Numpy:
        pad = staticmethod(tf.pad)

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = [
                tf.Variable(KERNEL, name="a/kernel"),
                tf.Variable(BIAS, name="a/bias"),
                tf.Variable(last, name="c/kernel"),
            ]

        @tf.function(input_signature=[tf.TensorSpec([None, 4, 6], name="x")])
        def run(self, x):
            kernel, bias, last = self.w
            h = function(tf.tensordot(x, kernel, 1) + bias, Numpy)
            return {"y": tf.tensordot(h, last, 1)}

    module = Module()
    tf.saved_model.save(module, str(folder), signatures=module.run)
    return last


def run(folder, x):
    import tensorflow as tf

    return tf.saved_model.load(str(folder)).signatures["serving_default"](x=x)["y"]


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_taken_stays_the_same_positions(tmp_path, kind):
    function, gone = TAKEN[kind], [0, 4, 5, 8]
    if kind == "last but one":
        gone += [11]  # what stands behind it goes: it is the last one then
    last = exported(tmp_path / "model", function)
    kprune.remove(tmp_path / "model", {"a": gone}, output=tmp_path / "small")
    x = RNG.normal(size=(3, 4, 6)).astype("float32")
    hidden = x @ KERNEL + BIAS
    hidden[:, :, gone] = 0
    expected = function(hidden, np) @ last
    np.testing.assert_allclose(run(tmp_path / "small", x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind, unit", [("last but one", 10), ("last", 11)])
def test_a_position_that_is_picked_by_number_stays(tmp_path, kind, unit):
    exported(tmp_path / "model", TAKEN[kind])
    with pytest.raises(FrozenUnitsError, match="picked out by number"):
        kprune.remove(tmp_path / "model", {"a": [unit]}, output=tmp_path / "small")
