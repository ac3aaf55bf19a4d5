"""Layers that move data (keras/src/layers/reshaping): the same numpy operation, done to the labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kprune.graph.model import MOST_AXES
from kprune.labels.labels import Labels, Shape
from kprune.rules.shapes import ints, replaced, spatial_axes
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.regroup import regrouped
from kprune.tracing.rule_call import CannotTell


def reshaped(call: LayerCall, x: Labels, shape: Shape) -> Labels:
    """The labels of `reshape(x, shape)`.

    Args:
        shape: batch first. The batch is whatever is left over: windows or time steps may be folded
            into it or come out of it.
    """
    if len(shape) > MOST_AXES:
        raise CannotTell(f"makes a tensor of {len(shape)} axes")
    result = regrouped(call, x, (None, *call.shape(x)[1:]), (None, *shape[1:]))
    return result.with_shape(shape)


def filled_in(target: list[Any], old: Shape) -> Shape:
    """A target shape (without the batch) with its -1 worked out."""
    sizes: list[int | None] = [None if size is None else int(size) for size in target]
    if -1 in sizes:
        at = sizes.index(-1)
        rest = math.prod(size or 1 for size in sizes if size != -1)
        known = None not in old[1:]
        sizes[at] = math.prod(size or 1 for size in old[1:]) // rest if known else None
    return (old[0], *sizes)


@LAYERS.rule("Flatten", does="passes", values="moved")
def flatten(call: LayerCall) -> Labels:
    """reshape to one axis; channels_first is transposed to channels_last first"""
    x, shape = call.x, call.shape()
    if call.config.get("data_format") == "channels_first" and len(shape) > 2:
        # Flatten.call: channels move to the end before the reshape.
        shape = (shape[0], *shape[2:], shape[1])
        x = x.move(lambda factor: np.moveaxis(factor, 1, -1), shape)
    if len(shape) == 1:
        return Labels((*shape, 1))
    size = None if None in shape[1:] else math.prod(size or 1 for size in shape[1:])
    if size is None:
        x, size = _with_places(call, x, shape)
    return reshaped(call, x, (shape[0], size))


def _with_places(call: LayerCall, x: Labels, shape: Shape) -> tuple[Labels, int | None]:
    """A tensor whose sizes are unknown except the channels, as so many places as the output has room for."""
    width, channels = (call.recorded.get(0) or (None, None))[-1], shape[-1]
    inner = x.without(*range(1, len(shape) - 1))
    if not width or not channels or width % channels or len(inner.factors) != len(x.factors):
        return x, None
    sizes = (shape[0], width // channels, *[1] * (len(shape) - 3), channels)
    return (inner.with_shape(sizes), width) if len(shape) > 2 else (x, None)


@LAYERS.rule("Reshape", does="passes", values="moved")
def reshape(call: LayerCall) -> Labels:
    """target_shape follows what is left along each axis"""
    target = call.config["target_shape"]
    result = reshaped(call, call.x, filled_in(target, call.shape()))
    for index, size in enumerate(target):
        if size != -1 and result.varies(index + 1):
            call.size(("target_shape", index), result.axis(index + 1))
    return result


@LAYERS.rule("Permute", does="passes", values="moved")
def permute(call: LayerCall) -> Labels:
    """transpose"""
    order = [0, *(int(axis) for axis in call.config["dims"])]
    shape = call.shape()
    return call.x.move(lambda factor: factor.transpose(order), tuple(shape[axis] for axis in order))


@LAYERS.rule("RepeatVector", does="passes", values="moved")
def repeat_vector(call: LayerCall) -> Labels:
    """(batch, units) -> (batch, n, units)"""
    shape = call.shape()
    return call.x.move(lambda factor: factor[:, None], (shape[0], call.config["n"], *shape[1:]))


def _pairs(value: Any, rank: int) -> list[tuple[int, int]]:
    """Padding or cropping at both ends of each spatial axis, from any of Keras's spellings."""
    if isinstance(value, int):
        return [(value, value)] * rank
    if rank == 1:
        return [(int(value[0]), int(value[1]))]
    return [(v, v) if isinstance(v, int) else (int(v[0]), int(v[1])) for v in value]


def _resized(call: LayerCall, grow: Any) -> Labels:
    """Sizes of the spatial axes change; nothing may be labelled along them."""
    shape = call.shape()
    spatial = spatial_axes(call.config.get("data_format"), len(shape))
    x = call.keep_axes_whole(
        call.x, spatial, f"stand along an axis whose size {call.layer.path!r} changes"
    )
    sizes = [
        None if shape[axis] is None else grow(i, shape[axis]) for i, axis in enumerate(spatial)
    ]
    return x.with_shape(replaced(shape, spatial, sizes))


@LAYERS.rule("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", does="passes")
def zero_padding(call: LayerCall) -> Labels:
    """channel by channel"""
    pairs = _pairs(call.config["padding"], len(call.shape()) - 2)
    return _resized(call, lambda i, size: size + sum(pairs[i]))


@LAYERS.rule("Cropping1D", "Cropping2D", "Cropping3D", does="passes")
def cropping(call: LayerCall) -> Labels:
    """channel by channel"""
    pairs = _pairs(call.config["cropping"], len(call.shape()) - 2)
    return _resized(call, lambda i, size: size - sum(pairs[i]))


@LAYERS.rule("UpSampling1D", "UpSampling2D", "UpSampling3D", does="passes")
def up_sampling(call: LayerCall) -> Labels:
    """channel by channel"""
    if (
        call.config.get("data_format") is None
        and call.kind != "UpSampling1D"
        and len(call.shape()) < 4
    ):
        raise CannotTell(f"is called on a tensor of shape {call.shape()}")
    factors = ints(call.config["size"], len(call.shape()) - 2)
    return _resized(call, lambda i, size: size * factors[i])
