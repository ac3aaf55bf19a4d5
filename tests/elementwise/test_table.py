"""Every row of the table of element-wise functions, on numbers, against Keras's and TensorFlow's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from kprune.elementwise.facts import formula, names
from kprune.elementwise.table import ACTIVATION, FUNCTIONS, LAYER, OPERATION, TENSORFLOW

pytestmark = pytest.mark.oracle

X = np.array([-2.5, -1.0, -0.75, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 7.0], np.float32)
Y = np.array([1.5, -1.0, 2.0, 0.5, 0.0, 0.25, -0.5, 3.0, 1.0, 0.0, 2.5, -2.0], np.float32)
WHOLE = (np.arange(-3, 9, dtype=np.int32), np.array([1, 2, 1, 0, 3, 1, 2, 0, 1, 2, 3, 1], np.int32))
NATURAL = (np.arange(12, dtype=np.int32), WHOLE[1])
TRUTH = (X > 0, Y > 0.5)

# Parameters other than the usual ones, by the keys under which they are written.
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "ReLU": [{}, {"negative_slope": 0.1, "max_value": 2.0, "threshold": 0.5}],
    "LeakyReLU": [{}, {"negative_slope": 0.5}],
    "ELU": [{}, {"alpha": 2.0}],
    "LeakyRelu": [{}, {"negative_slope": 0.5}],
    "Elu": [{}, {"alpha": 2.0}],
    "Celu": [{}, {"alpha": 2.0}],
    "Gelu": [{}, {"approximate": False}],
    "HardShrink": [{}, {"threshold": 1.0}],
    "SoftShrink": [{}, {"threshold": 1.0}],
    "Threshold": [{"threshold": 0.5, "default_value": 0.25}],
    "Squareplus": [{}, {"b": 1.0}],
    "Round": [{}, {"decimals": 1}],
    "NanToNum": [{}, {"nan": 2.0}],
    "Clip": [{"x_min": 0.0, "x_max": 1.0}, {"x_min": 0.5, "x_max": 6.0}],
}
# TensorFlow wants whole numbers, or truth values, of these, though numpy takes any.
ON_TRUTH = {"LogicalAnd", "LogicalOr", "LogicalNot"}
ON_NATURAL = {"Gcd", "Lcm", "LeftShift", "RightShift", "BitwiseLeftShift", "BitwiseRightShift"}
UNDEFINED = {"EmptyLike"}  # its values are whatever stood in memory


def samples(kind: str, name: str) -> list[np.ndarray]:
    """Operands for one function, all of one length."""
    known = FUNCTIONS[kind][name]
    count = known.name.operands or 3
    if name in ON_NATURAL:
        return list(NATURAL[:count])
    if kind == TENSORFLOW and name in ON_TRUTH:
        return list(TRUTH[:count])
    if kind == OPERATION and name == "Ldexp":
        return [X, WHOLE[1]]
    if known.integers or name == "TruncateDiv":
        return [WHOLE[0], np.maximum(WHOLE[1], 1)][:count]
    if name in ("Where", "ClipByValue"):
        return [X > 0, X, Y] if name == "Where" else [X, np.float32(-0.5), np.float32(1.0)]
    if kind == TENSORFLOW and name in ("Real", "Imag", "Conj", "Angle"):
        return [X.astype(np.complex64)]
    return [X, Y, X][:count]


def close(ours: Any, theirs: Any, what: str) -> None:
    theirs = np.asarray(theirs)
    ours = np.broadcast_to(np.asarray(ours), theirs.shape)
    if theirs.dtype == bool or ours.dtype == bool:
        np.testing.assert_array_equal(ours.astype(bool), theirs.astype(bool), err_msg=what)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6, err_msg=what)


def evaluated(kind: str, name: str, written: dict[str, Any], operands: list[np.ndarray]) -> Any:
    function = formula(kind, name, written)
    assert function is not None, (kind, name, written)
    wide = [
        one.astype(np.float64) if np.asarray(one).dtype == np.float32 else one for one in operands
    ]
    with np.errstate(all="ignore"):
        return function(*wide)


def keras_class(name: str) -> Callable[..., Any]:
    import importlib

    for module in ("numpy", "nn", "math", "core"):
        held = importlib.import_module(f"keras.src.ops.{module}")
        if hasattr(held, name):
            found: Callable[..., Any] = getattr(held, name)
            return found
    raise AssertionError(f"keras.ops has no {name}")


def test_keras_activations_are_what_the_table_says():
    import keras

    for name in names(ACTIVATION):
        theirs = keras.activations.get(name)(keras.ops.convert_to_tensor(X))
        close(evaluated(ACTIVATION, name, {}, [X]), theirs, name)


def test_the_table_has_every_element_wise_activation_of_keras():
    import keras
    from keras.src.activations import ALL_OBJECTS_DICT

    wide = keras.ops.convert_to_tensor(np.stack([X, X[::-1]]))
    for name, function in ALL_OBJECTS_DICT.items():
        if not name.islower() or name in ("threshold", "glu"):  # needs parameters; halves an axis
            continue
        one = np.asarray(function(wide))
        alone = np.stack([np.asarray(function(wide[:, i : i + 1]))[:, 0] for i in range(len(X))], 1)
        if np.allclose(one, alone, atol=1e-6):
            assert name in FUNCTIONS[ACTIVATION], name


def test_activation_layers_are_what_the_table_says():
    import keras
    import tf_keras

    for name in names(LAYER):
        made = getattr(keras.layers, name, None) or getattr(tf_keras.layers, name)
        if FUNCTIONS[LAYER][name].name.operands != 1:
            operands = [X[None], Y[None], X[None, ::-1]][
                : FUNCTIONS[LAYER][name].name.operands or 3
            ]
            close(evaluated(LAYER, name, {}, operands), made()(operands), name)
            continue
        for written in PARAMETERS.get(name, [{}]):
            theirs = made(**written)(X[None])
            close(evaluated(LAYER, name, written, [X[None]]), theirs, f"{name} {written}")


def test_operations_of_keras_are_what_the_table_says():
    for name in sorted(set(names(OPERATION)) - UNDEFINED):
        for written in PARAMETERS.get(name, [{}]):
            operands = samples(OPERATION, name)
            needed = {"dtype": "float32"} if name in ("Cast", "SaturateCast") else {}
            theirs = keras_class(name)(**written, **needed)(*operands)
            close(evaluated(OPERATION, name, written, operands), theirs, f"{name} {written}")


def tensorflow_calls(name: str) -> Iterator[tuple[dict[str, Any], Any]]:
    import tensorflow as tf

    operands = samples(TENSORFLOW, name)
    if name in ("BiasAdd", "BiasAddV1"):
        yield {}, tf.raw_ops.BiasAdd(value=operands[0][None], bias=operands[1])[0]
    elif name == "AddN":
        yield {}, tf.raw_ops.AddN(inputs=operands)
    elif name in ("CheckNumerics", "CheckNumericsV2", "PreventGradient", "Snapshot"):
        message = {"message": ""} if name != "Snapshot" else {}
        yield {}, getattr(tf.raw_ops, name)(**{_first(name): operands[0]}, **message)
    elif name == "LeakyRelu":
        for alpha in (0.2, 0.5):
            yield {"alpha": alpha}, tf.raw_ops.LeakyRelu(features=operands[0], alpha=alpha)
    elif name == "ApproximateEqual":
        for tolerance in (1e-5, 0.3):
            made = tf.raw_ops.ApproximateEqual(x=operands[0], y=operands[1], tolerance=tolerance)
            yield {"tolerance": tolerance}, made
    else:
        import inspect

        raw = getattr(tf.raw_ops, name)
        keys = [*inspect.signature(raw).parameters][: len(operands)]
        yield {}, raw(**dict(zip(keys, operands, strict=True)))


def _first(name: str) -> str:
    return {"CheckNumerics": "tensor", "CheckNumericsV2": "tensor"}.get(name, "input")


def test_operations_of_tensorflow_are_what_the_table_says():
    for name in names(TENSORFLOW):
        for written, theirs in tensorflow_calls(name):
            ours = evaluated(TENSORFLOW, name, written, samples(TENSORFLOW, name))
            close(ours, theirs, name)
