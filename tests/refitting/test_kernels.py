"""Rows and columns of every kind of kernel, against what the Keras layer itself computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.refitting.kernels import (
    constant_of,
    has_constant,
    kind_of,
    pieces,
    put_constant,
)

pytestmark = pytest.mark.oracle


def built(layer: Any, shape: tuple[int, ...]) -> tuple[Any, np.ndarray]:
    """A layer with random weights, and a random input of 3 samples."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    layer.build((None, *shape))
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer, x


def by_rows(layer: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What rows and matrix make of an input, and what the layer makes of it, both (G, R, M)."""
    kind = kind_of(layer)
    assert kind is not None
    kernel = np.asarray(getattr(layer, kind.kernel))
    layout = kind.layout(layer, kernel.ndim)
    matrix = layout.matrix(kernel)
    assert np.array_equal(layout.array(matrix, kernel.shape), kernel)
    made = kind.rows(layer, x) @ matrix
    made = made + constant_of(layer, (matrix.shape[0], matrix.shape[2]))[:, None]
    return made, kind.columns(layer, np.asarray(layer(x)))


def agree(layer: Any, *shape: int) -> None:
    made, wanted = by_rows(*built(layer, shape))
    assert made.shape == wanted.shape
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 4, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_dense(shape: tuple[int, ...], bias: bool) -> None:
    from keras import layers

    agree(layers.Dense(3, use_bias=bias), *shape)


@pytest.mark.parametrize(
    ("equation", "output", "bias", "shape"),
    [
        ("ab,bc->ac", 3, "c", (5,)),
        ("abc,cd->abd", (4, 3), None, (4, 5)),
        ("abc,cde->abde", (4, 2, 3), "de", (4, 5)),  # heads
        ("abc,cde->abde", (4, 2, 3), "e", (4, 5)),  # one bias for all heads
        ("abc,cde->abde", (4, 2, 3), "d", (4, 5)),
        ("abde,dec->abc", (4, 5), "c", (4, 2, 3)),  # heads summed
        ("abc,bcd->abd", (4, 3), "bd", (4, 5)),  # a part for each place
        ("abc,bcd->abd", (4, 3), "d", (4, 5)),
        ("abc,bcd->adb", (3, 4), "db", (4, 5)),  # the part after the columns
        ("abc,cbd->abd", (4, 3), "b", (4, 5)),
        ("abcd,cde->abec", (2, 3, 4), "ec", (2, 4, 5)),
        ("...b,bc->...c", 3, "c", (5,)),
        ("ab...,bc->ac...", (3, None), "c", (5, 4)),
        ("abc,cd->adb", (3, 4), "d", (4, 5)),  # columns before places
        ("abcd,de->aceb", (3, 6, 2), "e", (2, 3, 5)),
    ],
)  # fmt: skip
def test_einsum_dense(equation: str, output: Any, bias: str | None, shape: tuple[int, ...]) -> None:
    from keras import layers

    agree(layers.EinsumDense(equation, output, bias_axes=bias), *shape)


@pytest.mark.parametrize(
    ("equation", "output", "bias", "shape"),
    [
        ("abc,cd->ad", 3, None, (4, 5)),  # places are summed without a weight
        ("abc,cd->abd", (4, 3), "bd", (4, 5)),  # a bias for each place
        ("abc,cde->abd", (4, 2), None, (4, 5)),  # the kernel is summed without an input
        ("ab,bc->ca", (None,), None, (5,)),  # samples last
    ],
)
def test_an_einsum_that_is_no_sum_per_place_is_refused(
    equation: str, output: Any, bias: str | None, shape: tuple[int, ...]
) -> None:
    from keras import layers

    layer = layers.EinsumDense(equation, output, bias_axes=bias)
    try:
        layer.build((None, *shape))
    except Exception:
        pytest.skip("Keras does not build it")
    assert kind_of(layer) is None


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
@pytest.mark.parametrize("how", [{}, {"strides": 2}, {"dilation_rate": 2}, {"groups": 2}])
@pytest.mark.parametrize("size", [7, 8])
def test_conv1d(padding: str, how: dict[str, Any], size: int) -> None:
    from keras import layers

    agree(layers.Conv1D(6, 3, padding=padding, **how), size, 4)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "how",
    [{}, {"strides": (2, 3)}, {"dilation_rate": (1, 2)}, {"groups": 2}, {"groups": 2, "strides": 2}],
)  # fmt: skip
@pytest.mark.parametrize("first", [False, True])
def test_conv2d(padding: str, how: dict[str, Any], first: bool) -> None:
    from keras import layers

    if first and "groups" in how:
        pytest.skip("TensorFlow has no grouped convolution of channels_first on the CPU")
    format_ = "channels_first" if first else "channels_last"
    layer = layers.Conv2D(6, (3, 2), padding=padding, data_format=format_, **how)
    # Where the width is the number of filters, Keras adds a bias along the wrong axis.
    agree(layer, *((4, 7, 9) if first else (7, 9, 4)))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("how", [{}, {"strides": (2, 1, 2)}, {"dilation_rate": 2}])
def test_conv3d(padding: str, how: dict[str, Any]) -> None:
    from keras import layers

    agree(layers.Conv3D(3, (2, 3, 2), padding=padding, **how), 5, 6, 7, 2)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "how",
    [
        {}, {"strides": 2}, {"strides": 3}, {"strides": 2, "output_padding": 1},
        {"strides": 3, "output_padding": 2}, {"dilation_rate": 2},
    ],
)  # fmt: skip
@pytest.mark.parametrize(("rank", "kernel"), [(1, 3), (1, 4), (2, 3), (2, (2, 3)), (1, 1), (3, 2)])
def test_transposed(padding: str, how: dict[str, Any], rank: int, kernel: Any) -> None:
    from keras import layers

    kind = getattr(layers, f"Conv{rank}DTranspose")
    agree(kind(3, kernel, padding=padding, **how), *(5, 4, 3)[:rank], 2)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("how", [{}, {"strides": 2}, {"dilation_rate": 2}, {"depth_multiplier": 3}])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("family", ["DepthwiseConv", "SeparableConv"])
def test_depthwise_and_separable(
    padding: str, how: dict[str, Any], rank: int, first: bool, family: str
) -> None:
    from keras import layers

    format_ = "channels_first" if first else "channels_last"
    own = (5,) if family == "SeparableConv" else ()
    layer = getattr(layers, f"{family}{rank}D")(
        *own, 3, padding=padding, data_format=format_, **how
    )
    places = (13, 17)[:rank]  # no output is as wide as it has channels
    agree(layer, *((4, *places) if first else (*places, 4)))


@pytest.mark.parametrize("first", [False, True])
def test_transposed_and_1d_with_channels_first(first: bool) -> None:
    from keras import layers

    format_ = "channels_first" if first else "channels_last"
    shape = (4, 9) if first else (9, 4)
    agree(layers.Conv1D(3, 3, strides=2, data_format=format_), *shape)
    agree(layers.Conv1DTranspose(3, 3, strides=2, data_format=format_), *shape)


@pytest.mark.parametrize(
    ("equation", "output", "axes", "shape", "one_each"),
    [
        ("abc,cde->abde", (4, 2, 3), "de", (4, 5), True),
        ("abc,bcd->adb", (3, 4), "db", (4, 5), True),
        ("abc,cde->abde", (4, 2, 3), "e", (4, 5), False),
    ],
)
def test_a_constant_is_written_where_the_layer_has_one_for_each_column(
    equation: str, output: Any, axes: str, shape: tuple[int, ...], one_each: bool
) -> None:
    from keras import layers

    layer, _ = built(layers.EinsumDense(equation, output, bias_axes=axes), shape)
    assert has_constant(layer) == one_each
    if one_each:
        kind = kind_of(layer)
        assert kind is not None
        parts, _, columns = kind.layout(layer, 3).matrix(np.asarray(layer.kernel)).shape
        wanted = np.arange(parts * columns, dtype=float).reshape(parts, columns)
        put_constant(layer, wanted)
        assert np.array_equal(constant_of(layer, (parts, columns)), wanted)


def test_adapted_and_quantized_layers_have_no_kernel_of_their_own() -> None:
    from keras import layers

    adapted, _ = built(layers.Dense(3), (5,))
    assert kind_of(adapted) is not None
    adapted.enable_lora(2)
    assert kind_of(adapted) is None
    quantized, _ = built(layers.Dense(3), (5,))
    quantized.quantize("int8")
    assert kind_of(quantized) is None


def test_a_class_of_the_users_that_is_called_dense_is_none_of_these() -> None:
    import keras

    class Dense(keras.layers.Dense):
        def call(self, inputs: Any) -> Any:
            return super().call(inputs) * 2

    layer, _ = built(Dense(3), (5,))
    assert kind_of(layer) is None


def test_pieces_take_what_fits_and_one_sample_at_least() -> None:
    from keras import layers

    layer, x = built(layers.Conv1D(6, 3), (8, 4))
    kind = kind_of(layer)
    assert kind is not None
    whole = 3 * 8 * 4 * 4 * 3
    assert list(pieces(kind, layer, x, whole)) == [slice(0, 3)]
    assert list(pieces(kind, layer, x, 1)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
