"""Convolution, pooling and image operations: what slides keeps its axes, channels pass or are multiplied."""

from __future__ import annotations

from typing import Any

from kprune.labels.labels import Labels
from kprune.rules.effects.movement import taken
from kprune.rules.operations.arguments import axes_of
from kprune.rules.pooling import pooling
from kprune.rules.shapes import ints, replaced, spatial_axes
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS

OPERATIONS.rule("MaxPool", "AveragePool", does="passes", note="channel by channel")(pooling)


@OPERATIONS.rule("AdaptiveMaxPool", "AdaptiveAveragePool", does="passes", note="channel by channel")
def adaptive_pool(call: LayerCall) -> Labels:
    return _channelwise(call, call.config.get("output_size"))


@OPERATIONS.rule(
    "Resize", "AffineTransform", "PerspectiveTransform", "GaussianBlur", "ElasticTransform", "PadImages", "CropImages",
    "ScaleAndTranslate", "SobelEdges",
    does="passes", note="channel by channel; the sizes of the other axes stay",
)  # fmt: skip
def image(call: LayerCall) -> Any:
    if call.kind == "SobelEdges":
        return call.opaque(f"{call.layer.path!r} makes new channels of others")
    return _channelwise(call, None)


def _channelwise(call: LayerCall, sizes: Any) -> Labels:
    """Channels pass; the other sizes are given, or as the config records them."""
    shape = call.shape()
    spatial = spatial_axes(call.config.get("data_format"), len(shape))
    x = call.keep_axes_whole(
        call.x, spatial, f"stand along an axis that {call.layer.path!r} resamples"
    )
    for other in call.xs[1:]:
        call.freeze(other, f"control {call.layer.path!r}")
    if sizes is not None:
        return x.with_shape(replaced(shape, spatial, ints(sizes, len(spatial))))
    recorded = call.recorded.get(0)
    return x.with_shape(
        recorded if recorded is not None else replaced(shape, spatial, [None] * len(spatial))
    )


@OPERATIONS.rule("OneHot", "MultiHot", does="opaque", note="turns values into positions")
def one_hot(call: LayerCall) -> Any:
    return call.opaque(f"{call.layer.path!r} turns values into positions")


@OPERATIONS.rule("BatchNorm", does="combines")
def batch_norm(call: LayerCall) -> Labels:
    """mean, variance, offset and scale meet the axis they normalise"""
    x = call.x
    (axis,) = axes_of(call.config.get("axis"), len(call.shape()))
    along = x.axis(axis)
    for other in call.xs[1:]:
        if other.rank == 1:
            call.tie(along, other.axis(0)) if along.factors or other.factors else None
        else:
            call.freeze(other, f"are statistics of {call.layer.path!r}")
    for array in call.constants:
        if array.shape == (along.size,):
            call.constant(array, along)
    return x.with_keeps_zero(False)


@OPERATIONS.rule("Glu", does="combines")
def glu(call: LayerCall) -> Labels:
    """first half of an axis times the sigmoid of the second: the halves are tied"""
    return gated_halves(call, int(call.config.get("axis", -1)))


def gated_halves(call: LayerCall, axis: int) -> Labels:
    """The labels of `first_half * gate(second_half)` along an axis."""
    x, shape = call.x, call.shape()
    axis %= len(shape)
    size = shape[axis]
    if size is None:
        return x.with_axis(axis, call.x.axis(axis))
    half = size // 2
    result = replaced(shape, [axis], [half])
    first, second = (taken(x, run, axis, result) for run in (range(half), range(half, size)))
    return call.combine([first, second]).with_keeps_zero(x.keeps_zero)
