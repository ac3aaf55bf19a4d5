"""Products and convolutions: what is summed over is tied, what is left passes.

Convolutions stay apart from Keras's layers: these issue units, here a kernel brings its own along.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kprune.labels.labels import Labels, Shape
from kprune.rules.effects.contractions import contract, matmul_letters, parse_equation
from kprune.rules.shapes import positions
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.op_call import OpCall
from kprune.tracing.rule_call import CannotTell


def product(call: OpCall, operands: Sequence[tuple[Labels, str]], output: str) -> Labels:
    """An einsum of two tensors; a weight among them makes the units that it brings along."""
    for index, (labels, own) in enumerate(operands):
        others = "".join(letters for place, (_, letters) in enumerate(operands) if place != index)
        made = [
            axis for axis, letter in enumerate(own) if letter in output and letter not in others
        ]
        sizes = {
            letter: size
            for place, (other, letters) in enumerate(operands)
            if place != index
            for letter, size in zip(letters, other.shape or (), strict=False)
        }
        uses = positions([size for letter, size in list(sizes.items())[1:] if letter not in own])
        call.makes(labels, made, uses)
        keeps_zero = all(
            other.keeps_zero for place, (other, _) in enumerate(operands) if place != index
        )
        by_weight = any(
            value.fixed for place, value in enumerate(call.ins[: len(operands)]) if place != index
        )
        for axis, letter in enumerate(own):
            if letter not in output and not (by_weight and not call.ins[index].fixed):
                call.consumes(index, labels, axis, nonzero=not keeps_zero)
    return contract(call, operands, output)


@op("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", does="combines")
def matmul(call: OpCall) -> Labels:
    """the last axis of the first with the second-to-last of the second; batches meet"""
    one, other = call.labels(0), call.labels(1)
    flip = ("transpose_a", "transpose_b") if call.op == "MatMul" else ("adj_x", "adj_y")
    left, right, output = matmul_letters(
        len(call.shape(one)),
        len(call.shape(other)),
        turned=[call.attr(name, False) for name in flip],
    )
    return product(call, [(one, left), (other, right)], output)


@op("Einsum", does="combines")
def einsum(call: OpCall) -> Labels:
    """letters that meet are tied, letters that the output lacks are summed"""
    operands = [held.labels for held in call.ins]
    letters, output = parse_equation(
        call.attr("equation", ""), [len(call.shape(x)) for x in operands]
    )
    if len(operands) > 2:
        raise CannotTell("multiplies more than two tensors")
    return product(call, list(zip(operands, letters, strict=True)), output)


def axes_of_image(call: OpCall, rank: int) -> tuple[int, list[int]]:
    """(axis of the channels, axes of space) of an image."""
    layout = call.attr("data_format", "NHWC" if rank == 4 else "NDHWC")
    channels = layout.find("C") if len(layout) == rank else rank - 1
    return channels, [axis for axis in range(1, rank) if axis != channels]


def hold_space(call: OpCall, x: Labels, space: Sequence[int]) -> Labels:
    return call.keep_axes_whole(
        x, space, f"stand along an axis over which {call.layer.path!r} slides"
    )


@op("Conv1D", "Conv2D", "Conv3D", does="combines")
def convolution(call: OpCall) -> Labels:
    """the kernel's second-to-last axis meets the channels (of one group), its last makes new ones"""
    x, kernel = call.labels(0), call.labels(1)
    rank = len(call.shape(x))
    channels, space = axes_of_image(call, rank)
    x = hold_space(call, x, space)
    kernel = call.keep_axes_whole(
        kernel, range(rank - 2), f"are taps of the kernel of {call.layer.path!r}"
    )
    inputs, outputs = kernel.axis(rank - 2), kernel.axis(rank - 1)
    shape = _convolved(call, x, channels, space, kernel.shape[rank - 1] if kernel.shape else None)
    call.makes(call.labels(1), [rank - 1], positions([shape[axis] for axis in space]))
    if x.axis(channels).size == inputs.size:
        _meet(call, x, channels, kernel, rank - 2)
        call.consumes(1, kernel, rank - 2, nonzero=not x.keeps_zero)
    elif not call.grouped(x, channels, kernel):
        why = f"are channels of the groups of {call.layer.path!r}"
        call.freeze(x.axis(channels), why)
        call.freeze(kernel, why)
        return Labels(shape)
    if not outputs.factors:
        return Labels(shape)
    return Labels(shape).with_axis(channels, outputs, shape)


def _meet(call: OpCall, x: Labels, channels: int, kernel: Labels, axis: int) -> None:
    """Channels are multiplied by rows of the kernel, and summed."""
    along, rows = x.axis(channels), kernel.axis(axis)
    if not along.factors and not rows.factors:
        return
    others = x.without(channels)
    if others.factors:
        call.freeze(others, f"stand along an axis over which {call.layer.path!r} slides")
    if along.plain and rows.plain and along.size is not None:
        call.tie(along.ids if along.factors else np.zeros(along.size, np.int64), rows)
    else:
        call.freeze(along, f"meet the kernel of {call.layer.path!r} along two axes at once")
        call.freeze(rows, f"meet channels of {call.layer.path!r} that stand along two axes at once")
    if not x.keeps_zero and not kernel.keeps_zero:
        call.mix(
            along,
            f"are multiplied and summed by {call.layer.path!r}, where a masked unit gives no 0",
        )


def _convolved(
    call: OpCall, x: Labels, channels: int, space: Sequence[int], width: int | None
) -> Shape:
    recorded = call.recorded.get(0)
    shape: list[int | None] = list(recorded) if recorded is not None else [None] * x.rank
    if recorded is None:
        shape[0] = call.shape(x)[0]
    shape[channels] = width
    return tuple(shape)


@op("DepthwiseConv2dNative", "DepthwiseConv2DNative", does="combines")
def depthwise(call: OpCall) -> Labels:
    """channel by channel"""
    x, kernel = call.labels(0), call.labels(1)
    channels, space = axes_of_image(call, 4)
    x = hold_space(call, x, space)
    kernel = call.keep_axes_whole(kernel, [0, 1], f"are taps of the kernel of {call.layer.path!r}")
    sizes = call.shape(kernel)
    kernel = call.keep_axes_whole(kernel, [3], f"are a multiplier of {call.layer.path!r}")
    width = None if None in sizes[2:] else (sizes[2] or 0) * (sizes[3] or 0)
    shape = _convolved(call, x, channels, space, width)
    call.makes(call.labels(1), [], positions([shape[axis] for axis in space]))
    _meet(call, x, channels, kernel, 2)
    along = kernel.axis(2)
    if not along.factors:
        return Labels(shape)
    return Labels(shape).with_axis(channels, along.repeat(sizes[3] or 1), shape)


@op(
    "Conv2DBackpropInput",
    "Conv3DBackpropInputV2",
    does="combines",
    note="the transposed convolution",
    numbers=True,
)
def transposed(call: OpCall) -> Labels:
    kernel, x = call.labels(1), call.labels(2)
    rank = len(call.shape(x))
    channels, space = axes_of_image(call, rank)
    x = hold_space(call, x, space)
    kernel = call.keep_axes_whole(
        kernel, range(rank - 2), f"are taps of the kernel of {call.layer.path!r}"
    )
    outputs = kernel.axis(rank - 2)
    shape = _convolved(call, x, channels, space, outputs.size)
    call.makes(call.labels(1), [rank - 2], positions([call.shape(x)[axis] for axis in space]))
    _meet(call, x, channels, kernel, rank - 1)
    call.consumes(1, kernel, rank - 1, nonzero=not x.keeps_zero)
    result = Labels(shape)
    if outputs.factors:
        result = result.with_axis(channels, outputs, shape)
    return call.shaped_by(result, call.numbers(0))
