"""TensorFlow functions in Keras 2's graphs: which there are, and what a cut through each of them computes."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.rules import OPERATIONS, builtin
from kprune.rules.tensorflow import functions
from kprune.rules.tensorflow.unmapped import reason

pytestmark = pytest.mark.oracle

UNITS = [1, 3, 5, 7]
ROWS = np.random.default_rng(3).normal(size=(3, 4, 4, 3)).astype("f4")


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("tf_keras")


@pytest.fixture(scope="module")
def dispatched(keras: Any) -> dict[str, Any]:
    """Every public function of TensorFlow that Keras 2 turns into a layer, by the name it writes."""
    import tensorflow as tf
    from tensorflow.python.util import tf_export

    builtin()
    found: dict[str, Any] = {}

    def walk(module: Any, seen: set[int]) -> Iterator[Any]:
        seen.add(id(module))
        for name in dir(module):
            if name in ("app", "flags", "keras") or (
                name.startswith("_") and name != "__operators__"
            ):
                continue
            held = getattr(module, name, None)
            if "KerasLazyLoader" in type(held).__name__:
                continue
            if isinstance(held, types.ModuleType):
                if "tensorflow" in held.__name__ and "keras" not in held.__name__:
                    yield from walk(held, seen) if id(held) not in seen else ()
            elif callable(held) and any(
                hasattr(held, mark)
                for mark in ("_tf_fallback_dispatchers", "_tf_type_based_dispatcher")
            ):
                yield held

    for held in walk(tf, set()):
        name = tf_export.get_canonical_name_for_symbol(held, add_prefix_to_v1_names=True)
        if name:
            found[name] = held
    return found


def test_every_function_that_keras_2_can_write_is_mapped_or_held_for_a_reason(
    dispatched: dict[str, Any],
) -> None:
    assert len(dispatched) > 700
    names = {name.removeprefix("compat.v1.") for name in dispatched} - {"__operators__.getitem"}
    assert not [name for name in sorted(names) if name not in functions() and not reason(name)]


# -- a cut through each of them --------------------------------------------------------------------
#
# For each function a branch of its own: a convolution whose units go, the function, a Dense.

Sample = Callable[[Any, Any, Any], Any]  # (tf, call, x); call(...) is the function as a layer


def _positive(tf: Any, call: Any, x: Any) -> Any:
    return call(tf.abs(x) + 1.5)


def _small(tf: Any, call: Any, x: Any) -> Any:
    return call(tf.tanh(x) * 0.8)


def _integer(tf: Any, call: Any, x: Any) -> Any:
    return tf.cast(call(tf.cast(x * 10.0, "int32")), "float32")


def _integers(tf: Any, call: Any, x: Any) -> Any:
    y = tf.cast(tf.abs(x) * 3.0, "int32")
    return tf.cast(call(y, y=y + 1), "float32")


def _truth(tf: Any, call: Any, x: Any) -> Any:
    return tf.cast(call(x), "float32")


def _truths(tf: Any, call: Any, x: Any) -> Any:
    return tf.cast(call(x > 0.3, y=x > -0.3), "float32")


def _complex(tf: Any, call: Any, x: Any) -> Any:
    return tf.math.real(call(tf.dtypes.complex(x, x)))


def _same(tf: Any, call: Any, x: Any) -> Any:
    return call(x)


def _pair(tf: Any, call: Any, x: Any) -> Any:
    return call(tf.abs(x) + 0.5, y=tf.abs(x) * 0.5 + 0.7)


def _compared(tf: Any, call: Any, x: Any) -> Any:
    return tf.cast(call(tf.round(x), y=tf.round(x * 0.5)), "float32")


def _named(**kwargs: Any) -> Sample:
    return lambda tf, call, x: call(x, **kwargs)


def _image(**kwargs: Any) -> Sample:
    return lambda tf, call, x: call(tf.abs(x) + 0.1, **kwargs)


def _second(name: str) -> Sample:
    return lambda tf, call, x: call(tf.abs(x) + 0.5, **{name: tf.abs(x) * 0.5 + 0.7})


SAMPLES: dict[str, Sample] = {
    **dict.fromkeys(
        "math.acosh math.log math.lgamma math.digamma math.rsqrt math.sqrt math.reciprocal "
        "math.ndtri".split(), _positive),
    **dict.fromkeys(
        "math.acos math.asin math.atanh math.erfinv math.ndtri math.erfcinv math.log1p".split(), _small),
    **dict.fromkeys(["math.erfcinv"], lambda tf, call, x: call(tf.sigmoid(x))),
    **dict.fromkeys(["math.ndtri"], lambda tf, call, x: call(tf.sigmoid(x))),
    **dict.fromkeys(
        "math.special.bessel_k0 math.special.bessel_k0e math.special.bessel_k1 "
        "math.special.bessel_k1e math.special.bessel_y0 math.special.bessel_y1 math.special.spence "
        "math.special.expint".split(), _positive),
    "bitwise.invert": _integer,
    **dict.fromkeys(
        "bitwise.bitwise_and bitwise.bitwise_or bitwise.bitwise_xor bitwise.left_shift "
        "bitwise.right_shift truncatediv truncatemod".split(), _integers),
    **dict.fromkeys("math.is_finite math.is_inf math.is_nan".split(), _truth),
    "math.logical_not": lambda tf, call, x: tf.cast(call(x > 0.1), "float32"),
    **dict.fromkeys("math.logical_and math.logical_or math.logical_xor".split(), _truths),
    **dict.fromkeys("math.real math.imag math.angle".split(),
                    lambda tf, call, x: call(tf.dtypes.complex(x, x))),
    "math.conj": _complex,
    "dtypes.complex": lambda tf, call, x: tf.math.real(call(x, imag=x)),
    **dict.fromkeys("math.add __operators__.add math.subtract math.multiply math.divide "
        "math.truediv realdiv compat.v1.div math.floordiv math.floormod compat.v1.floor_div "
        "math.divide_no_nan math.maximum math.minimum math.pow math.squared_difference math.xdivy "
        "math.xlogy math.xlog1py math.multiply_no_nan".split(), _pair),
    **dict.fromkeys("math.equal math.not_equal math.greater math.greater_equal math.less "
                    "math.less_equal".split(), _compared),
    "math.atan2": _second("x"), "math.igamma": _second("x"), "math.igammac": _second("x"),
    "math.nextafter": _second("x2"),
    "math.zeta": lambda tf, call, x: call(tf.abs(x) + 1.5, q=tf.abs(x) + 1.0),
    "math.polygamma": lambda tf, call, x: call(tf.zeros_like(x) + 1.0, x=tf.abs(x) + 1.0),
    "math.betainc": lambda tf, call, x: call(tf.abs(x) + 1, b=tf.abs(x) + 2, x=tf.sigmoid(x)),
    "math.scalar_mul": lambda tf, call, x: call(2.0, x=x),
    "compat.v1.math.scalar_mul": lambda tf, call, x: call(2.0, x=x),
    "math.add_n": lambda tf, call, x: call([x, x * 2.0]),
    "math.accumulate_n": lambda tf, call, x: call([x, x * 2.0]),
    "identity_n": lambda tf, call, x: tf.add_n(call([x, x * 2.0])),
    "cast": _named(dtype="float32"), "dtypes.saturate_cast": _named(dtype="float32"),
    "debugging.check_numerics": _named(message="m"),
    "debugging.assert_all_finite": lambda tf, call, x: call(x, message="m"),
    "compat.v1.debugging.assert_all_finite": lambda tf, call, x: call(x, msg="m"),
    "nn.dropout": _named(rate=0.0), "compat.v1.nn.dropout": _named(rate=0.0),
    "clip_by_value": _named(clip_value_min=-0.2, clip_value_max=0.4),
    "clip_by_norm": _named(clip_norm=0.5, axes=[3]),
    "where": lambda tf, call, x: call(x > 0, x=x, y=x * 0.1),
    "compat.v1.where": lambda tf, call, x: call(x > 0, x=x, y=x * 0.1),
    "nn.bias_add": lambda tf, call, x: call(x, bias=tf.reduce_mean(x, [0, 1, 2])),
    **dict.fromkeys("math.reduce_sum math.reduce_mean math.reduce_max math.reduce_min "
        "math.reduce_prod math.reduce_std math.reduce_variance math.reduce_logsumexp "
        "compat.v1.math.reduce_sum compat.v1.math.reduce_mean compat.v1.math.reduce_max "
        "compat.v1.math.reduce_min compat.v1.math.reduce_prod compat.v1.math.reduce_logsumexp "
        "math.reduce_euclidean_norm".split(), _named(axis=[1, 2])),
    **dict.fromkeys("math.reduce_all math.reduce_any compat.v1.math.reduce_all "
        "compat.v1.math.reduce_any".split(),
        lambda tf, call, x: tf.cast(call(x > 0, axis=1), "float32")),
    **dict.fromkeys("math.count_nonzero math.argmax math.argmin compat.v1.math.argmax "
        "compat.v1.math.argmin compat.v1.math.count_nonzero".split(),
        lambda tf, call, x: tf.cast(call(tf.nn.relu(x), axis=1), "float32")),
    **dict.fromkeys("norm compat.v1.norm math.l2_normalize nn.softmax nn.log_softmax "
        "compat.v1.nn.softmax compat.v1.nn.log_softmax".split(), _named(axis=1)),
    "nn.moments": lambda tf, call, x: call(x, axes=[1, 2])[0],
    "compat.v1.nn.moments": lambda tf, call, x: call(x, axes=[1, 2])[1],
    **dict.fromkeys("math.cumsum math.cumprod math.cumulative_logsumexp sort".split(), _named(axis=1)),
    "argsort": lambda tf, call, x: tf.cast(call(x, axis=1), "float32"),
    "math.top_k": lambda tf, call, x: call(tf.transpose(x, [0, 1, 3, 2]), k=2)[0],
    "transpose": _named(perm=[0, 3, 1, 2]), "compat.v1.transpose": _named(perm=[0, 3, 1, 2]),
    "expand_dims": _named(axis=2), "compat.v1.expand_dims": _named(axis=2),
    "squeeze": lambda tf, call, x: call(tf.expand_dims(x, 2), axis=2),
    "compat.v1.squeeze": lambda tf, call, x: call(tf.expand_dims(x, 2), axis=[2]),
    "reverse": _named(axis=[3]), "repeat": _named(repeats=2, axis=3), "roll": _named(shift=3, axis=3),
    "concat": lambda tf, call, x: call([x, x * 2.0], axis=3),
    "stack": lambda tf, call, x: call([x, x * 2.0], axis=1),
    "unstack": lambda tf, call, x: tf.add_n(call(x, axis=1)),
    "split": lambda tf, call, x: tf.concat(call(x, num_or_size_splits=[3, 5], axis=3)[::-1], 3),
    "tile": _named(multiples=[1, 2, 1, 3]), "reshape": _named(shape=[-1, 16, 2, 4]),
    "broadcast_to": lambda tf, call, x: call(x[:, :1], shape=[3, 4, 4, 8]),
    "ensure_shape": _named(shape=[None, 4, 4, 8]),
    "pad": _named(paddings=[[0, 0], [1, 0], [0, 2], [1, 2]]),
    "compat.v1.pad": _named(paddings=[[0, 0], [1, 0], [0, 2], [0, 0]], mode="REFLECT"),
    "gather": _named(indices=[0, 3, 2, 6], axis=3),
    "compat.v1.gather": _named(indices=[0, 3, 2, 6], axis=3),
    "boolean_mask": lambda tf, call, x: tf.ensure_shape(
        call(x, mask=[True, True, False, True, True, False, True, True], axis=3), [None, 4, 4, 6]),
    "compat.v1.boolean_mask": lambda tf, call, x: tf.ensure_shape(
        call(x, mask=[True] * 4 + [False] * 4, axis=3), [None, 4, 4, 4]),
    "slice": _named(begin=[0, 1, 0, 2], size=[-1, 2, -1, 5]),
    "strided_slice": _named(begin=[0, 1], end=[0, 3], begin_mask=1, end_mask=1),
    "linalg.matmul": lambda tf, call, x: call(x, b=x * 0.5, transpose_b=True),
    "linalg.matvec": lambda tf, call, x: call(x, b=x[:, :, 0]),
    "linalg.matrix_transpose": _same, "linalg.adjoint": _same,
    "tensordot": lambda tf, call, x: call(x, b=tf.reduce_mean(x, [0, 1, 2]), axes=[[3], [0]]),
    "nn.crelu": _same, "compat.v1.nn.crelu": _same,
    "one_hot": lambda tf, call, x: call(tf.argmax(x, -1), depth=3),
    "shape": lambda tf, call, x: tf.reshape(x, [call(x)[0], 2, 8, 8]),
    "compat.v1.shape": lambda tf, call, x: tf.reshape(x, tf.concat([call(x)[:1], [16, 8]], 0)),
    "size": lambda tf, call, x: tf.reshape(x, [-1, call(x[0])]),
    "compat.v1.size": lambda tf, call, x: tf.reshape(x, [-1, call(x[0])]),
    "rank": lambda tf, call, x: x * tf.cast(call(x), "float32"),
    "zeros": lambda tf, call, x: x + call([tf.shape(x)[0], 4, 4, 8]),
    "ones": lambda tf, call, x: x + call([tf.shape(x)[0], 4, 4, 8]),
    "fill": lambda tf, call, x: x + call([tf.shape(x)[0], 4, 4, 8], value=0.3),
    "random.normal": lambda tf, call, x: x + 0.0 * call([tf.shape(x)[0], 4, 4, 8]),
    "random.uniform": lambda tf, call, x: x + 0.0 * call([tf.shape(x)[0], 4, 4, 8]),
    "random.truncated_normal": lambda tf, call, x: x + 0.0 * call([tf.shape(x)[0], 4, 4, 8]),
    "image.resize": _named(size=[8, 6]), "compat.v1.image.resize_images": _named(size=[8, 6]),
    **dict.fromkeys("compat.v1.image.resize_area compat.v1.image.resize_bicubic "
        "compat.v1.image.resize_bilinear compat.v1.image.resize_nearest_neighbor".split(),
        _named(size=[8, 6])),
    **dict.fromkeys("image.resize_with_crop_or_pad image.resize_with_pad "
        "compat.v1.image.resize_image_with_pad".split(), _named(target_height=5, target_width=3)),
    "image.crop_to_bounding_box":
        _named(offset_height=1, offset_width=0, target_height=2, target_width=3),
    "image.pad_to_bounding_box":
        _named(offset_height=1, offset_width=0, target_height=6, target_width=5),
    "image.central_crop": _named(central_fraction=0.5),
    "image.flip_left_right": _same, "image.flip_up_down": _same, "image.transpose": _same,
    "image.rot90": _named(k=1), "image.sobel_edges": _same, "image.image_gradients":
        lambda tf, call, x: tf.add_n(call(x)),
    "image.total_variation": _same, "image.adjust_contrast": _named(contrast_factor=2.0),
    "image.adjust_brightness": _named(delta=0.1), "image.adjust_gamma": _image(gamma=1.5),
    "image.convert_image_dtype": _image(dtype="float32"),
    "image.extract_patches":
        _named(sizes=[1, 2, 2, 1], strides=[1, 1, 1, 1], rates=[1, 1, 1, 1], padding="VALID"),
    "compat.v1.image.extract_image_patches":
        _named(ksizes=[1, 2, 2, 1], strides=[1, 2, 1, 1], rates=[1, 1, 1, 1], padding="SAME"),
    **dict.fromkeys("nn.max_pool nn.avg_pool nn.max_pool2d nn.avg_pool2d "
        "compat.v1.nn.avg_pool compat.v1.nn.max_pool".split(), _named(ksize=2, strides=2, padding="SAME")),
    **dict.fromkeys("nn.max_pool1d nn.avg_pool1d".split(),
        lambda tf, call, x: call(x[:, 0], ksize=2, strides=1, padding="VALID")),
    **dict.fromkeys("nn.max_pool3d nn.avg_pool3d".split(),
        lambda tf, call, x: call(x[:, None], ksize=[1, 1, 2, 2, 1], strides=1, padding="VALID")),
    "nn.pool": _named(window_shape=[2, 2], pooling_type="MAX", strides=[2, 2], padding="VALID"),
    "compat.v1.nn.pool": _named(window_shape=[2, 2], pooling_type="AVG", padding="SAME"),
    **dict.fromkeys("nn.depth_to_space compat.v1.nn.depth_to_space nn.space_to_depth "
        "compat.v1.nn.space_to_depth".split(), _named(block_size=2)),
    "space_to_batch": _named(block_shape=[2, 2], paddings=[[0, 0], [1, 1]]),
    "space_to_batch_nd": _named(block_shape=[2, 2], paddings=[[0, 0], [1, 1]]),
    "compat.v1.nn.space_to_batch": _named(block_size=2, paddings=[[0, 0], [0, 0]]),
    "batch_to_space": lambda tf, call, x: call(
        tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), block_shape=[2, 2], crops=[[0, 0], [0, 0]]),
    "compat.v1.batch_to_space_nd": lambda tf, call, x: call(
        tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), block_shape=[2, 2], crops=[[0, 0], [0, 0]]),
    "compat.v1.batch_to_space": lambda tf, call, x: call(
        tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), block_size=2, crops=[[0, 0], [0, 0]]),
    **dict.fromkeys(["quantization.fake_quant_with_min_max_args"], _same),
}  # fmt: skip


HELD = {"one_hot", "__operators__.eq", "__operators__.ne"}
"""One turns units into positions; of the others tf_keras does not write the second operand."""
MIXED = {"image.per_image_standardization"}


def _names(dispatched: dict[str, Any], *, all_of_them: bool) -> list[str]:
    """The functions that are mapped: all, or one for each rule."""
    rules: dict[int, str] = {}
    names = sorted(
        name
        for name in dispatched
        if name.removeprefix("compat.v1.") in functions() and name not in HELD | MIXED
    )
    for name in names:
        known = functions()[name.removeprefix("compat.v1.")]
        rule: Any = OPERATIONS.rules[known.twin].function if known.twin else known.rule
        rules.setdefault(id(rule), name)
    return names if all_of_them else sorted(rules.values())


def _branches(keras: Any, dispatched: dict[str, Any], names: list[str], xs: list[Any]) -> list[Any]:
    """What each function makes of its tensor, each as a layer that is named after it."""
    import tensorflow as tf
    from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda, TFOpLambda

    def branch(name: str, x: Any) -> Any:
        kind = SlicingOpLambda if name.endswith("boolean_mask") else TFOpLambda
        return SAMPLES.get(name, _same)(tf, kind(dispatched[name]), x)

    return [branch(name, x) for name, x in zip(names, xs, strict=True)]


def network(keras: Any, dispatched: dict[str, Any], names: list[str]) -> Any:
    layers = keras.layers
    image = keras.Input((4, 4, 3))
    xs = [
        layers.Conv2D(8, 1, name=f"a{n}", bias_initializer="ones")(image) for n in range(len(names))
    ]
    ys = _branches(keras, dispatched, names, xs)
    outs = [layers.Dense(2, name=f"o{n}")(layers.Flatten()(y)) for n, y in enumerate(ys)]
    return keras.Model(image, outs)


def moved(keras: Any, dispatched: dict[str, Any], names: list[str]) -> list[np.ndarray]:
    """For each function which positions of what it gives depend on the units, found by changing them."""
    z = keras.Input((4, 4, 8))
    flat = keras.layers.Flatten()
    probe = keras.Model(z, [flat(y) for y in _branches(keras, dispatched, names, [z] * len(names))])
    rng = np.random.default_rng(5)
    base = rng.normal(size=(3, 4, 4, 8)).astype("f4")
    plain = [np.asarray(y) for y in probe(base)]
    found = [np.zeros(y.shape[1], bool) for y in plain]
    for scale in (0.0, 0.3, 1.0, 1.0, 1.0, 3.0, 30.0):
        other = base.copy()
        other[..., UNITS] = scale * rng.normal(size=other[..., UNITS].shape)
        for spot, one, two in zip(found, plain, probe(other), strict=True):
            spot |= ~np.isclose(one, np.asarray(two), equal_nan=True).all(axis=0)
    constant = np.isin(np.arange(128) % 8, UNITS)  # what depends on nothing stands where it did
    return [constant if not spot.any() else spot for spot in found]


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_cut_through_any_mapped_function_is_the_masked_original(
    keras: Any, dispatched: dict[str, Any], tmp_path: Path, all_of_them: bool
) -> None:
    names = _names(dispatched, all_of_them=all_of_them)
    assert not [name for name in SAMPLES if name not in dispatched]
    model = network(keras, dispatched, names)
    model.save(tmp_path / "m.keras")
    wanted = {f"a{n}": UNITS for n in range(len(names))}
    report = kprune.remove(tmp_path / "m.keras", wanted, output=tmp_path / "cut.keras")
    assert report.changed == wanted and report.exact
    cut = keras.models.load_model(tmp_path / "cut.keras")
    for n, positions in enumerate(moved(keras, dispatched, names)):
        kernel, bias = model.get_layer(f"a{n}").get_weights()
        kernel[..., UNITS], bias[UNITS] = 0.0, 0.0
        model.get_layer(f"a{n}").set_weights([kernel, bias])
        rows, offset = model.get_layer(f"o{n}").get_weights()
        if not positions.all():  # else the function sums over units, and 0 is not missed
            rows[positions] = 0.0
        model.get_layer(f"o{n}").set_weights([rows, offset])
    wrong = [
        name
        for name, got, expected in zip(names, cut(ROWS), model(ROWS), strict=True)
        if not np.isfinite(expected).all() or not np.allclose(got, expected, rtol=1e-3, atol=1e-4)
    ]
    assert not wrong


def attention(tf: Any, layers: Any, x: Any) -> Any:
    """Heads by reshape and transpose, with the batch read from tf.shape."""
    batch = tf.shape(x)[0]
    tokens = tf.reshape(x, [batch, 16, 8])
    q, k, v = (
        tf.transpose(tf.reshape(layers.Dense(8)(tokens), [-1, 16, 2, 4]), [0, 2, 1, 3])
        for _ in range(3)
    )
    scores = tf.nn.softmax(tf.matmul(q, k, transpose_b=True))
    return tf.reshape(tf.transpose(tf.matmul(scores, v), [0, 2, 1, 3]), tf.stack([batch, 16, 8]))


def windows(tf: Any, layers: Any, x: Any) -> Any:
    y = tf.transpose(tf.reshape(x, [-1, 2, 2, 2, 2, 8]), [0, 1, 3, 2, 4, 5])
    y = layers.Dense(7, name="w")(tf.reshape(y, [-1, 4, 8]))
    y = tf.transpose(tf.reshape(y, [-1, 2, 2, 2, 2, 7]), [0, 1, 3, 2, 4, 5])
    return tf.reshape(y, [-1, 4, 4, 7])


def shuffled(tf: Any, layers: Any, x: Any) -> Any:
    size = tf.shape(x)
    y = tf.transpose(tf.reshape(x, [size[0], size[1], size[2], 2, 4]), [0, 1, 2, 4, 3])
    return tf.reshape(y, [-1, 4, 4, 8])


def sampled(tf: Any, layers: Any, x: Any) -> Any:
    y = layers.GlobalAveragePooling2D()(x)
    mean, spread = layers.Dense(6, name="mean")(y), layers.Dense(6, name="spread")(y)
    return mean + tf.exp(spread) * tf.random.normal([tf.shape(mean)[0], 6], stddev=0.0)


def halved(tf: Any, layers: Any, x: Any) -> Any:
    return tf.image.resize(x[:, : tf.shape(x)[1] // 2, 1:-1], tf.shape(x)[1:3])


def flattened(tf: Any, layers: Any, x: Any) -> Any:
    return tf.reshape(x, [-1, tf.reduce_prod(tf.shape(x)[1:])])


def unpacked(tf: Any, layers: Any, x: Any) -> Any:
    batch, height, width, channels = tf.unstack(tf.shape(x))
    return tf.reshape(x, [batch, height * width, channels])


def rolled(tf: Any, layers: Any, x: Any) -> Any:
    return tf.roll(x, [1, 2], axis=[1, 2])


def repeated(tf: Any, layers: Any, x: Any) -> Any:
    return tf.repeat(x, [1, 3, 0, 2], axis=1)


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_sizes_that_the_graph_computes_follow(keras: Any, tmp_path: Path, kind: str) -> None:
    import tensorflow as tf

    layers = keras.layers
    parts = [
        attention, windows, shuffled, sampled, halved, flattened, unpacked, rolled, repeated,
    ]  # fmt: skip
    image = keras.Input((4, 4, 3))
    outs = []
    for number, part in enumerate(parts):
        x = layers.Conv2D(8, 1, name=f"a{number}", bias_initializer="ones")(image)
        y = part(tf, layers, x)
        if part is not flattened:
            outs.append(layers.Dense(2)(layers.Flatten()(y) if None not in y.shape[1:] else
                                        tf.reduce_mean(y, [1, 2])))  # fmt: skip
        else:
            outs.append(layers.Dense(2)(tf.ensure_shape(y, [None, 128])))
    keras.Model(image, outs).save(tmp_path / f"m.{kind}")
    wanted = {f"a{n}": UNITS for n in range(len(parts))} | {"w": [1, 2], "mean": [0]}
    cut, zeroed = tmp_path / f"cut.{kind}", tmp_path / f"zero.{kind}"
    report = kprune.remove(tmp_path / f"m.{kind}", wanted, output=cut)
    assert report.changed == wanted | {"spread": [0]} and report.exact
    kprune.zero(tmp_path / f"m.{kind}", report.changed, output=zeroed, outgoing=True)
    small, whole = (keras.models.load_model(path, compile=False) for path in (cut, zeroed))
    for got, expected in zip(small(ROWS), whole(ROWS), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_units_that_are_counted_for_their_number_stay(keras: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(8, 1, name="a")(image)
    x = x / tf.cast(tf.shape(x)[-1], "float32")
    keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x))).save(tmp_path / "m.keras")
    with pytest.raises(kprune.FrozenUnitsError, match="are counted by"):
        kprune.remove(tmp_path / "m.keras", {"a": [1]}, output=tmp_path / "n.keras")
