"""Sizes that Keras computes when it calls a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Size = int | None


def positions(sizes: Iterable[Size]) -> int:
    """How many places a layer works at, per sample; a size that is not known counts as 1."""
    return math.prod(size or 1 for size in sizes)


def ints(value: Any, rank: int) -> list[int]:
    """An int, or a list of them, as a list of `rank` ints."""
    if isinstance(value, int):
        return [value] * rank
    return [int(item) for item in value]


def window(size: Size, kernel: int, stride: int, padding: str, dilation: int = 1) -> Size:
    """How often a window fits along an axis: convolution and pooling."""
    if size is None:
        return None
    if padding in ("same", "causal"):
        return -(-size // stride)
    return max(-(-(size - dilation * (kernel - 1)) // stride), 0)


def transposed_window(
    size: Size, kernel: int, stride: int, padding: str, output_padding: int | None, dilation: int
) -> Size:
    """The size that a transposed convolution gives (keras/src/backend/common/backend_utils.py)."""
    if size is None:
        return None
    reach = kernel + (kernel - 1) * (dilation - 1)
    if output_padding is None:
        return size * stride if padding == "same" else size * stride + max(reach - stride, 0)
    pad = reach // 2 if padding == "same" else 0
    return (size - 1) * stride + reach - 2 * pad + output_padding


def channel_axis(data_format: str | None, rank: int) -> int:
    """Where the channels are, from 0, in a tensor of `rank` axes with the batch first."""
    return 1 if data_format == "channels_first" else rank - 1


def spatial_axes(data_format: str | None, rank: int) -> list[int]:
    """Every axis but the batch and the channels."""
    channels = channel_axis(data_format, rank)
    return [axis for axis in range(1, rank) if axis != channels]


def replaced(
    shape: tuple[Size, ...], axes: Iterable[int], sizes: Iterable[Size]
) -> tuple[Size, ...]:
    """The shape with other sizes along some axes."""
    result = list(shape)
    for axis, size in zip(axes, sizes, strict=True):
        result[axis] = size
    return tuple(result)
