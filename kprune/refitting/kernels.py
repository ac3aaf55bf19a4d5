"""Layers whose kernels sum over units: how their inputs become rows, and their outputs columns.

Every such layer is a batch of linear maps (G, D, M): G parts that share nothing (the groups of a
grouped convolution, the channels of a depthwise one), each of D rows (inputs, times the positions
of a window) and M columns. Rows and columns are in the order of the kernel's own axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.rules.effects.contractions import parse_equation
from kprune.rules.shapes import ints


class KernelKind(Struct, frozen=True):
    """How a class of layers uses its kernel.

    Attributes:
        kernel: the name of the weight.
        layout: from the layer and the kernel's rank, which of its axes are parts, rows and columns.
        rows: from the layer and its input, (G, R, D): what each place of the output is summed from.
        columns: from the layer and its output, (G, R, M): the same places, in the same order.
        axis: from the layer and the rank of its output, the axis that the columns stand along, part
            after part; None if it is not one.
        spread: how many numbers of a row each number of the input gives, to bound memory.
    """

    kernel: str
    layout: Callable[[Any, int], Layout]
    rows: Callable[[Any, np.ndarray], np.ndarray]
    columns: Callable[[Any, np.ndarray], np.ndarray]
    axis: Callable[[Any, int], int | None]
    spread: Callable[[Any], int] = lambda layer: 1


class Layout(Struct, frozen=True):
    """The axes of a kernel. `groups`: into how many runs the last column axis is divided, which are parts."""

    parts: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    groups: int = 1

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """A kernel as (G, D, M)."""
        order = (*self.parts, *self.rows, *self.columns)
        sizes = [
            math.prod(array.shape[axis] for axis in axes)
            for axes in (self.parts, self.rows, self.columns)
        ]
        flat = array.transpose(order).reshape(sizes)
        if self.groups == 1:
            return flat
        return flat.reshape(sizes[1], self.groups, -1).transpose(1, 0, 2)

    def array(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The kernel of a shape whose matrix this is."""
        if self.groups > 1:
            matrix = matrix.transpose(1, 0, 2)
        order = (*self.parts, *self.rows, *self.columns)
        return matrix.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def kind_of(layer: Any) -> KernelKind | None:
    """How a Keras layer uses its kernel; None for one that is none of these, or changes it on the way."""
    found = KINDS.get(type(layer).__name__)
    if found is None or not type(layer).__module__.startswith(("keras.", "tf_keras.")):
        return None
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return None
    if not isinstance(getattr(layer, "padding", ""), str):
        return None  # pairs of numbers, which TensorFlow takes and Keras does not document
    return found if type(layer).__name__ != "EinsumDense" or _sums_by_kernel(layer) else None


def constant_of(layer: Any, shape: tuple[int, int]) -> np.ndarray:
    """What a layer adds to each of its columns: float64 (G, M), 0 without a bias."""
    bias = getattr(layer, "bias", None)
    if bias is None:
        return np.zeros(shape)
    array = np.asarray(bias, np.float64)
    if type(layer).__name__ == "EinsumDense":
        return _einsum_constant(layer, array, shape)
    return array.reshape(shape)


def has_constant(layer: Any) -> bool:
    """Whether a layer has a bias with a number for each of its columns."""
    bias = getattr(layer, "bias", None)
    if bias is None or type(layer).__name__ != "EinsumDense":
        return bias is not None
    letters = _Einsum.of(layer, layer.input_spec.ndim)
    return set(letters.parts + letters.fresh) <= set(letters.output[-len(bias.shape) :]) and all(
        size == layer.kernel.shape[letters.kernel.index(letter)]
        for letter, size in letters.of_bias(bias.shape)
        if letter in letters.kernel
    )


def put_constant(layer: Any, constant: np.ndarray) -> None:
    """Have a layer add a constant, (G, M). It must have one for each column."""
    shape = tuple(layer.bias.shape)
    if type(layer).__name__ != "EinsumDense":
        layer.bias.assign(constant.reshape(shape))
        return
    letters = _Einsum.of(layer, layer.input_spec.ndim)
    columns = letters.parts + letters.fresh
    sizes = [layer.kernel.shape[letters.kernel.index(letter)] for letter in columns]
    order = [columns.index(letter) for letter, _ in letters.of_bias(shape) if letter in columns]
    layer.bias.assign(constant.reshape(sizes).transpose(order).reshape(shape))


# -- dense ---------------------------------------------------------------------------------------


def _dense_layout(layer: Any, rank: int) -> Layout:
    return Layout((), (0,), (1,))


def _flat(layer: Any, x: np.ndarray) -> np.ndarray:
    return x.reshape(1, -1, x.shape[-1])


def _last(layer: Any, rank: int) -> int:
    return rank - 1


class _Einsum(Struct, frozen=True):
    """The letters of an EinsumDense, by what becomes of them; an ellipsis is spelled out.

    Attributes:
        own, kernel, output: of its input, its kernel and its output.
        parts: letters that all three have; summed: those that the output lacks; fresh: those that
            only the kernel brings; places: those that the kernel lacks.
    """

    own: str
    kernel: str
    output: str
    parts: str
    summed: str
    fresh: str
    places: str

    @classmethod
    def of(cls, layer: Any, rank: int | None = None, output_rank: int = 0) -> _Einsum:
        """Args: rank of the input, or else that of the output."""
        left, _, right = layer.equation.replace(" ", "").partition("->")
        named, kernel = left.split(",")
        if rank is None:
            hidden = output_rank - len(right.replace("...", "")) if "..." in right else 0
            rank = len(named.replace("...", "")) + hidden
        (own, kernel), output = parse_equation(layer.equation, [rank, len(kernel)])
        return cls(
            own,
            kernel,
            output,
            parts="".join(c for c in output if c in own and c in kernel),
            summed="".join(c for c in kernel if c in own and c not in output),
            fresh="".join(c for c in output if c not in own),
            places="".join(c for c in output if c in own and c not in kernel),
        )

    def of_bias(self, shape: Sequence[int]) -> list[tuple[str, int]]:
        """The letters of a bias, which has the output's last axes, each with its size."""
        return list(zip(self.output[len(self.output) - len(shape) :], shape, strict=True))


def _sums_by_kernel(layer: Any) -> bool:
    """Whether an EinsumDense is sums over its kernel's letters, one a place and column, with a bias a column."""
    letters = _Einsum.of(layer, layer.input_spec.ndim)
    own, kernel, output = letters.own, letters.kernel, letters.output
    plain = all(len(set(term)) == len(term) for term in (own, kernel, output))
    # Samples come first, in what is given and in what is made.
    samples = own[:1] == output[:1] and own[:1] not in kernel
    summed = set(own) <= set(kernel + output) and set(kernel) <= set(own + output)
    bias = () if layer.bias is None else letters.of_bias(layer.bias.shape)
    columns = all(size == 1 or letter in kernel for letter, size in bias)
    return plain and samples and summed and columns and set(output) <= set(own + kernel)


def _einsum_constant(layer: Any, bias: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A bias as (G, M); along axes that it lacks it is the same everywhere."""
    letters = _Einsum.of(layer, layer.input_spec.ndim)
    columns = letters.parts + letters.fresh
    sizes = [layer.kernel.shape[letters.kernel.index(letter)] for letter in columns]
    found = {letter: size for letter, size in letters.of_bias(bias.shape) if letter in columns}
    own = "".join(found)
    ordered = bias.reshape(list(found.values())).transpose(
        [own.index(c) for c in columns if c in own]
    )
    form = [found.get(letter, 1) for letter in columns]
    return np.broadcast_to(ordered.reshape(form), sizes).reshape(shape)


def _einsum_layout(layer: Any, rank: int) -> Layout:
    letters = _Einsum.of(layer, layer.input_spec.ndim)

    def axes(group: str) -> tuple[int, ...]:
        return tuple(letters.kernel.index(letter) for letter in group)

    return Layout(axes(letters.parts), axes(letters.summed), axes(letters.fresh))


def _einsum_rows(layer: Any, x: np.ndarray) -> np.ndarray:
    letters = _Einsum.of(layer, x.ndim)
    return _arranged(x, letters.own, letters.parts, letters.places, letters.summed)


def _einsum_columns(layer: Any, y: np.ndarray) -> np.ndarray:
    letters = _Einsum.of(layer, output_rank=y.ndim)
    return _arranged(y, letters.output, letters.parts, letters.places, letters.fresh)


def _einsum_axis(layer: Any, rank: int) -> int | None:
    letters = _Einsum.of(layer, output_rank=rank)
    columns = letters.parts + letters.fresh
    return letters.output.index(columns) if len(columns) == 1 else None


def _arranged(x: np.ndarray, letters: str, *groups: str) -> np.ndarray:
    """An array with its axes in groups, each of them one axis."""
    order = [letters.index(letter) for group in groups for letter in group]
    sizes = [math.prod(x.shape[letters.index(letter)] for letter in group) for group in groups]
    return x.transpose(order).reshape(sizes)


# -- convolutions --------------------------------------------------------------------------------


def _conv_layout(layer: Any, rank: int) -> Layout:
    groups = getattr(layer, "groups", 1) or 1
    return Layout((), tuple(range(rank - 1)), (rank - 1,), groups)


def _transposed_layout(layer: Any, rank: int) -> Layout:
    return Layout((), (*range(rank - 2), rank - 1), (rank - 2,))


def _depthwise_layout(layer: Any, rank: int) -> Layout:
    return Layout((rank - 2,), tuple(range(rank - 2)), (rank - 1,))


def _channels_last(layer: Any, x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1) if layer.data_format == "channels_first" else x


def _channels(layer: Any, rank: int) -> int:
    return 1 if layer.data_format == "channels_first" else rank - 1


def _conv_rows(layer: Any, x: np.ndarray) -> np.ndarray:
    groups = getattr(layer, "groups", 1) or 1
    taps = windows(layer, _channels_last(layer, x))
    count, window, channels = taps.shape
    if groups == 1:
        return taps.reshape(1, count, window * channels)
    parts = taps.reshape(count, window, groups, -1).transpose(2, 0, 1, 3)
    return parts.reshape(groups, count, -1)


def _conv_columns(layer: Any, y: np.ndarray) -> np.ndarray:
    flat = _channels_last(layer, y)
    groups = getattr(layer, "groups", 1) or 1
    return flat.reshape(-1, groups, flat.shape[-1] // groups).transpose(1, 0, 2)


def _depthwise_rows(layer: Any, x: np.ndarray) -> np.ndarray:
    return windows(layer, _channels_last(layer, x)).transpose(2, 0, 1)


def _depthwise_columns(layer: Any, y: np.ndarray) -> np.ndarray:
    flat = _channels_last(layer, y)
    return flat.reshape(-1, flat.shape[-1] // layer.depth_multiplier, layer.depth_multiplier
    ).transpose(1, 0, 2)  # fmt: skip


def _window(layer: Any) -> int:
    return math.prod(layer.kernel_size)


def windows(layer: Any, x: np.ndarray) -> np.ndarray:
    """What a convolution sees at each place, float (places, window, channels).

    Args:
        layer: a Keras convolution, depthwise ones among them.
        x: (samples, …, channels).
    """
    rank = x.ndim - 2
    kernel, strides = ints(layer.kernel_size, rank), ints(layer.strides, rank)
    dilations = ints(layer.dilation_rate, rank)
    spans = [
        _span(size, k, s, d, layer.padding)
        for size, k, s, d in zip(x.shape[1:-1], kernel, strides, dilations, strict=True)
    ]
    padded = np.pad(x, [(0, 0), *((before, after) for _, before, after in spans), (0, 0)])
    places = [number for number, *_ in spans]
    result = np.empty((len(x), *places, math.prod(kernel), x.shape[-1]), x.dtype)
    for number, tap in enumerate(product(*map(range, kernel))):
        cut = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilations, places, strides, strict=True)
        )
        result[..., number, :] = padded[(slice(None), *cut)]
    return result.reshape(-1, math.prod(kernel), x.shape[-1])


def _span(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int, int]:
    """How many places a window takes along an axis, and how many zeros are put before and after it."""
    reach = (kernel - 1) * dilation + 1
    if padding == "valid":
        return (size - reach) // stride + 1, 0, 0
    places = -(-size // stride)
    total = max((places - 1) * stride + reach - size, 0)
    before = reach - 1 if padding == "causal" else total // 2
    return places, before, max(total - before, 0)


def _transposed_rows(layer: Any, x: np.ndarray) -> np.ndarray:
    """What each place of a transposed convolution's output is summed from: (1, places, window · channels)."""
    x = _channels_last(layer, x)
    rank = x.ndim - 2
    kernel, strides = ints(layer.kernel_size, rank), ints(layer.strides, rank)
    dilations = ints(layer.dilation_rate, rank)
    given = layer.compute_output_shape(
        x.shape if layer.data_format != "channels_first" else np.moveaxis(x, -1, 1).shape
    )
    sizes = list(given[2:] if layer.data_format == "channels_first" else given[1:-1])
    before = [
        _span(size, k, s, d, layer.padding)[1]
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    result = np.zeros((len(x), *sizes, math.prod(kernel), x.shape[-1]), x.dtype)
    for number, tap in enumerate(product(*map(range, kernel))):
        read: list[slice] = []
        written: list[slice] = []
        for t, d, s, b, n, m in zip(
            tap, dilations, strides, before, x.shape[1:-1], sizes, strict=True
        ):
            shift = t * d - b  # input i is added at i * s + shift
            first = max(0, -(shift // s))
            last = min(n - 1, (m - 1 - shift) // s)
            read.append(slice(first, last + 1))
            written.append(slice(first * s + shift, last * s + shift + 1, s))
        if all(cut.stop > cut.start for cut in read):
            result[(slice(None), *written)][..., number, :] = x[(slice(None), *read)]
    return result.reshape(1, -1, math.prod(kernel) * x.shape[-1])


def _pointwise_rows(layer: Any, x: np.ndarray) -> np.ndarray:
    """What the second kernel of a separable convolution is given: the first one's outputs."""
    import keras

    y = keras.ops.depthwise_conv(
        x,
        layer.depthwise_kernel,
        strides=layer.strides[0] if len(set(layer.strides)) == 1 else layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    return _flat(layer, _channels_last(layer, np.asarray(y)))


KINDS: dict[str, KernelKind] = {
    "Dense": KernelKind("kernel", _dense_layout, _flat, _flat, _last),
    "EinsumDense": KernelKind(
        "kernel", _einsum_layout, _einsum_rows, _einsum_columns, _einsum_axis
    ),
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "Conv3D"),
        KernelKind("kernel", _conv_layout, _conv_rows, _conv_columns, _channels, _window),
    ),
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
        KernelKind(
            "kernel", _transposed_layout, _transposed_rows, _conv_columns, _channels, _window
        ),
    ),
    **dict.fromkeys(
        ("DepthwiseConv1D", "DepthwiseConv2D"),
        KernelKind(
            "kernel", _depthwise_layout, _depthwise_rows, _depthwise_columns, _channels, _window
        ),
    ),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"),
        KernelKind("pointwise_kernel", _conv_layout, _pointwise_rows, _conv_columns, _channels),
    ),
}


def pieces(kind: KernelKind, layer: Any, x: np.ndarray, limit: int) -> Iterator[slice]:
    """Runs of samples whose rows take at most some bytes, one sample at least."""
    each = max(x[:1].size * 4 * kind.spread(layer), 1)
    step = max(limit // each, 1)
    for start in range(0, len(x), step):
        yield slice(start, start + step)
