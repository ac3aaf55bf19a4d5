"""Convolutions (keras/src/layers/convolutional). Kernels are (window…, inputs, filters)."""

from __future__ import annotations

import numpy as np

from kprune.labels.labels import Axis, Labels
from kprune.rules.activations import activate
from kprune.rules.lora import adapters, has_adapters
from kprune.rules.shapes import (
    channel_axis,
    ints,
    positions,
    replaced,
    spatial_axes,
    transposed_window,
    window,
)
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


class Geometry:
    """Axes and sizes of one convolution.

    Attributes:
        x: its input, with nothing labelled along the axes on which it slides.
        channels: the axis of the channels.
        spatial: the axes on which it slides; kernel, stride, dilation have an entry for each.
    """

    def __init__(self, call: LayerCall) -> None:
        config = call.config
        shape = call.shape()
        rank = len(shape)
        self.channels = channel_axis(config.get("data_format"), rank)
        self.spatial = spatial_axes(config.get("data_format"), rank)
        self.x = call.keep_axes_whole(
            call.x, self.spatial, f"stand along an axis on which {call.layer.path!r} slides"
        )
        self.shape = shape
        self.kernel = ints(config["kernel_size"], len(self.spatial))
        self.stride = ints(config.get("strides", 1), len(self.spatial))
        self.dilation = ints(config.get("dilation_rate", 1), len(self.spatial))
        self.padding = str(config.get("padding", "valid"))
        self.inputs = self.x.axis(self.channels)

    def output(self, filters: np.ndarray | Axis) -> tuple[Labels, int]:
        """The labels of what an ordinary convolution gives, and at how many places it works."""
        sizes = [
            window(self.shape[axis], k, s, self.padding, d)
            for axis, k, s, d in zip(
                self.spatial, self.kernel, self.stride, self.dilation, strict=True
            )
        ]
        axis = filters if isinstance(filters, Axis) else Axis.of(filters)
        shape = replaced(self.shape, [*self.spatial, self.channels], [*sizes, axis.size])
        return self.x.with_axis(self.channels, axis, shape), positions(sizes)


@LAYERS.rule(
    "Conv1D", "Conv2D", "Conv3D", "Convolution1D", "Convolution2D", "Convolution3D", does="issues"
)
def conv(call: LayerCall) -> Labels:
    """units: filters; kernel (…, inputs / groups, units), bias (units)"""
    geometry = Geometry(call)
    filters = call.units("filters")
    labels, places = geometry.output(filters)
    groups = call.config.get("groups", 1)
    if groups == 1:
        call.weight(
            "kernel",
            *geometry.kernel,
            geometry.inputs,
            filters,
            uses=places,
            out=len(geometry.kernel) + 1,
            trainable=not has_adapters(call),
        )
    else:
        _grouped(call, geometry, filters, groups, places)
    call.weight("bias", filters, when=call.config["use_bias"], uses=places, flops=1, out=0)
    inputs = geometry.inputs if groups == 1 else (geometry.inputs.size or 0) // groups or None
    adapters(call, *geometry.kernel, inputs, filters, out=-1)
    return activate(call, labels)


def _grouped(
    call: LayerCall, geometry: Geometry, filters: np.ndarray, groups: int, places: int
) -> None:
    """Input run g feeds filter run g alone, and the kernel's input axis is as long as one run."""
    size, trained = geometry.inputs.size, not has_adapters(call)
    if not trained:
        call.freeze(
            geometry.inputs,
            f"reach {call.layer.path!r}, a grouped convolution whose adapters (LoRA) are of all groups",
            do="choose other units, or merge the adapters into the kernel and build the layer without them",
        )
    if size is None or size % groups:
        call.weight(
            "kernel", *geometry.kernel, None, filters,
            uses=places, out=len(geometry.kernel) + 1, trainable=trained,
        )  # fmt: skip
        call.freeze(
            geometry.inputs, f"reach {call.layer.path!r}, a grouped convolution, in unknown number"
        )
        return
    # Where no unit stands the ids are 0, which never go: then no run of filters can go as a whole.
    inputs = geometry.inputs.ids.reshape(groups, -1)
    outputs = filters.reshape(groups, -1)
    if not geometry.inputs.plain:
        call.freeze(
            geometry.inputs,
            f"reach the grouped convolution {call.layer.path!r} along two axes at once",
        )
    elif geometry.inputs.factors and inputs.shape[1] == 1:
        # One input a run: a filter cannot outlive its only input.
        call.tie(np.repeat(inputs[:, 0], outputs.shape[1]), outputs.ravel())
    runs = call.blocks("groups", inputs, outputs)
    call.weight(
        "kernel",
        *geometry.kernel,
        size // groups,
        filters,
        uses=places,
        out=len(geometry.kernel) + 1,
        grouped=runs,
        trainable=trained,
    )


@LAYERS.rule(
    "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose",
    "Convolution1DTranspose", "Convolution2DTranspose", "Convolution3DTranspose",
    does="issues",
)  # fmt: skip
def conv_transpose(call: LayerCall) -> Labels:
    """units: filters; kernel (…, units, inputs), bias (units)"""
    geometry = Geometry(call)
    filters = call.units("filters")
    padding = call.config.get("output_padding")
    paddings = (
        [None] * len(geometry.kernel) if padding is None else ints(padding, len(geometry.kernel))
    )
    sizes = [
        transposed_window(geometry.shape[axis], k, s, geometry.padding, p, d)
        for axis, k, s, p, d in zip(
            geometry.spatial,
            geometry.kernel,
            geometry.stride,
            paddings,
            geometry.dilation,
            strict=True,
        )
    ]
    shape = replaced(geometry.shape, [*geometry.spatial, geometry.channels], [*sizes, len(filters)])
    read = positions(geometry.shape[axis] for axis in geometry.spatial)
    call.weight(
        "kernel", *geometry.kernel, filters, geometry.inputs, uses=read, out=len(geometry.kernel)
    )
    call.weight(
        "bias", filters, when=call.config["use_bias"], uses=positions(sizes), flops=1, out=0
    )
    return activate(call, geometry.x.with_axis(geometry.channels, filters, shape))


@LAYERS.rule(
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseConvolution1D",
    "DepthwiseConvolution2D",
    does="issues",
)
def depthwise_conv(call: LayerCall) -> Labels:
    """units: inputs x depth_multiplier, each tied to the input it comes from; kernel (…, inputs, multiplier)"""
    geometry = Geometry(call)
    multiplier = call.config.get("depth_multiplier", 1)
    units = _depthwise_units(call, geometry, multiplier)
    labels, places = geometry.output(units)
    call.weight(
        "depthwise_kernel", *geometry.kernel, _per_input(units, multiplier), multiplier,
        uses=places, out=len(geometry.kernel),
    )  # fmt: skip
    call.weight("bias", units, when=call.config["use_bias"], uses=places, flops=1, out=0)
    return activate(call, labels)


def _depthwise_units(call: LayerCall, geometry: Geometry, multiplier: int) -> np.ndarray:
    """Output m + multiplier * c comes from input c alone: they go together."""
    size = geometry.inputs.size
    if size is None:
        raise CannotTell("is a depthwise convolution of an unknown number of channels")
    units = call.issue(size * multiplier)
    if geometry.inputs.plain:
        call.tie(geometry.inputs.repeat(multiplier), units)
    else:
        call.freeze(geometry.inputs, f"reach {call.layer.path!r} along two axes at once")
        call.freeze(units, f"come from units that reach {call.layer.path!r} along two axes at once")
    return units


def _per_input(units: np.ndarray, multiplier: int) -> Axis:
    """The kernel's input axis, in terms of the layer's own units: gone when all of an input's are."""
    return Axis(len(units) // multiplier, (units.reshape(-1, multiplier).T,))


@LAYERS.rule(
    "SeparableConv1D",
    "SeparableConv2D",
    "SeparableConvolution1D",
    "SeparableConvolution2D",
    does="issues",
)
def separable_conv(call: LayerCall) -> Labels:
    """units: filters; depthwise_kernel (…, inputs, multiplier), pointwise_kernel (1…, inputs x multiplier, units)"""
    geometry = Geometry(call)
    multiplier = call.config.get("depth_multiplier", 1)
    filters = call.units("filters")
    labels, places = geometry.output(filters)
    inputs = geometry.inputs
    call.weight("depthwise_kernel", *geometry.kernel, inputs, multiplier, uses=places)
    call.weight(
        "pointwise_kernel", *[1] * len(geometry.kernel), inputs.repeat(multiplier), filters,
        uses=places, out=len(geometry.kernel) + 1,
    )  # fmt: skip
    call.weight("bias", filters, when=call.config["use_bias"], uses=places, flops=1, out=0)
    return activate(call, labels)
