"""tf.image, pooling and blocks of positions: channels pass, what slides or is resampled keeps its axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Labels, require_room
from kprune.rules.effects.reductions import reduced
from kprune.rules.pooling import pooling
from kprune.rules.shapes import replaced
from kprune.rules.tensorflow.registry import argument, function, only, plain_list, whole_number
from kprune.rules.tensorflow.sizes import hold_sizes, known_sizes, size_list
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell

Size = int | None


def resampled(call: LayerCall, rows: Size, columns: Size, *, keeps_zero: bool = True) -> Labels:
    """Images of another height and width, channel by channel; with a batch in front or without."""
    shape = call.shape()
    if len(shape) < 3:
        raise CannotTell(f"is called on a tensor of shape {shape}")
    axes = [len(shape) - 3, len(shape) - 2]
    x = call.keep_axes_whole(
        call.x, axes, f"stand along an axis that {call.layer.path!r} resamples"
    )
    return x.with_shape(replaced(shape, axes, [rows, columns])).with_keeps_zero(
        x.keeps_zero and keeps_zero
    )


@function(
    "image.resize", "image.resize_images", "image.resize_area", "image.resize_bicubic",
    "image.resize_bilinear", "image.resize_nearest_neighbor",
    takes="size preserve_aspect_ratio",
    idle="method antialias align_corners half_pixel_centers", reads_sizes=True,
)  # fmt: skip
def resize(call: LayerCall) -> Labels:
    """channel by channel"""
    rows, columns = known_sizes(size_list(call, "size"))
    hold_sizes(call, call.kwargs)
    if call.kwargs.get("preserve_aspect_ratio"):
        rows = columns = None
    return resampled(call, rows, columns)


@function(
    "image.resize_with_crop_or_pad", "image.resize_with_pad", "image.resize_image_with_pad",
    "image.crop_to_bounding_box", "image.pad_to_bounding_box",
    takes="target_height target_width", idle="offset_height offset_width method antialias align_corners",
)  # fmt: skip
def to_size(call: LayerCall) -> Labels:
    """channel by channel"""
    return resampled(call, whole_number(call, "target_height"), whole_number(call, "target_width"))


@function("image.central_crop", takes="central_fraction")
def central_crop(call: LayerCall) -> Labels:
    """channel by channel"""
    fraction = float(call.kwargs["central_fraction"])
    rows, columns = (
        None if size is None else size - 2 * int((size - size * fraction) / 2)
        for size in call.shape()[-3:-1]
    )
    return resampled(call, rows, columns)


@function("image.flip_left_right", "image.flip_up_down", "image.adjust_contrast",
          idle="contrast_factor")  # fmt: skip
def in_place(call: LayerCall) -> Labels:
    """channel by channel"""
    return resampled(call, *call.shape()[-3:-1])


@function("image.adjust_brightness", "image.adjust_gamma", "image.convert_image_dtype",
          idle="delta gamma gain saturate")  # fmt: skip
def brightness(call: LayerCall) -> Labels:
    """element by element"""
    return call.x.with_keeps_zero(False)


@function("image.per_image_standardization")
def standardized(call: LayerCall) -> Labels:
    """mean and deviation of a whole image"""
    for axis in range(call.x.rank - 3, call.x.rank):
        call.mix(call.x.axis(axis), f"are normalised together by {call.layer.path!r}")
    return call.x.with_keeps_zero(False)


@function("image.transpose", "image.rot90", takes="k")
def turned(call: LayerCall) -> Labels:
    """rows become columns; channels pass"""
    name = str(call.config.get("function"))
    rows, columns = call.shape()[-3:-1]
    odd = not name.endswith("rot90") or whole_number(call, "k", 1) % 2 == 1
    return resampled(call, columns, rows) if odd else resampled(call, rows, columns)


@function("image.sobel_edges")
def sobel_edges(call: LayerCall) -> Labels:
    """two edges of each channel, along a new last axis"""
    x = resampled(call, *call.shape()[-3:-1])
    return x.move(lambda f: f[..., None], (*call.shape(x), 2))


@function("image.image_gradients")
def gradients(call: LayerCall) -> list[Labels]:
    """differences of neighbours, channel by channel"""
    x = resampled(call, *call.shape()[-3:-1])
    return [x, x]


@function("image.total_variation")
def total_variation(call: LayerCall) -> Labels:
    """the sum of differences of neighbours, over all channels"""
    rank = len(call.shape())
    return reduced(
        call, call.x, list(range(rank - 3, rank)), exact=call.x.keeps_zero, keepdims=False
    )


@function("image.extract_patches", "image.extract_image_patches",
          takes="sizes ksizes strides rates padding")  # fmt: skip
def extract_patches(call: LayerCall) -> Labels:
    """all channels of each position in a patch, one after the other"""
    size = plain_list(call, call.kwargs.get("sizes") or call.kwargs.get("ksizes"))
    strides, rates = (plain_list(call, argument(call, k, [1] * 4)) for k in ("strides", "rates"))
    same = argument(call, "padding") == "SAME"
    sizes: list[Size] = []
    for axis, length in enumerate(call.shape()[1:3], 1):
        reach = (int(size[axis]) - 1) * int(rates[axis]) + 1
        step = int(strides[axis])
        room = None if length is None else length if same else length - reach + 1
        sizes.append(None if room is None else -(-room // step))
    x = resampled(call, *sizes)
    times, shape = int(size[1] * size[2]), call.shape(x)
    width = None if shape[-1] is None else shape[-1] * times
    require_room(width or 1)
    return x.move(
        lambda f: np.tile(f, (1, 1, 1, times)) if f.shape[-1] > 1 else f, (*shape[:-1], width)
    )


POOLING = "ksize strides padding data_format window_shape pooling_type dilations pool_size"


@function(
    "nn.max_pool", "nn.max_pool1d", "nn.max_pool2d", "nn.max_pool3d", "nn.avg_pool",
    "nn.avg_pool1d", "nn.avg_pool2d", "nn.avg_pool3d", "nn.pool", takes=POOLING, idle="input value",
)  # fmt: skip
def pool(call: LayerCall) -> Labels:
    """channel by channel"""
    only(call, "dilations", 1, [1], [1, 1], [1, 1, 1])
    padding = argument(call, "padding", "VALID")
    if not isinstance(padding, str):
        raise CannotTell("pads by numbers of its own")
    spatial = len(call.shape()) - 2
    layout = str(argument(call, "data_format", "channels_last"))
    first = layout.startswith("NC") or layout == "channels_first"
    window = argument(call, "ksize", call.kwargs.get("window_shape"))
    config = {
        "pool_size": _spatial(call, window, spatial, first),
        "strides": _spatial(call, argument(call, "strides", 1), spatial, first),
        "padding": padding.lower(),
        "data_format": "channels_first" if first else "channels_last",
    }
    return pooling(call.seen_as("MaxPool", call.args, {}, {}, config=config))


def _spatial(call: LayerCall, value: Any, rank: int, channels_first: bool) -> list[int]:
    """Sizes of a window along the spatial axes, from any of TensorFlow's spellings."""
    sizes = [int(size) for size in plain_list(call, value).ravel()]
    if len(sizes) == 1:
        return sizes * rank
    if len(sizes) == rank + 2:
        return sizes[2:] if channels_first else sizes[1:-1]
    if len(sizes) != rank:
        raise CannotTell(f"slides a window of {sizes}")
    return sizes


@function("nn.depth_to_space", "nn.space_to_depth", takes="block_size data_format")
def depth_space(call: LayerCall) -> Any:
    """blocks of positions become channels, or the reverse"""
    only(call, "data_format", "NHWC", "NCHW")
    grow = str(call.config.get("function")).endswith("depth_to_space")
    first = call.kwargs.get("data_format") == "NCHW"
    view = call.seen_as(
        "DepthToSpace" if grow else "SpaceToDepth",
        call.args,
        {"block_size": call.kwargs["block_size"]},
        {},
        config={"data_format": "channels_first" if first else "channels_last"},
    )
    return OPERATIONS.rules[view.kind].function(view)


BLOCKS = "block_shape block_size paddings crops"


@function("space_to_batch", "space_to_batch_nd", "nn.space_to_batch", "batch_to_space",
          "batch_to_space_nd", takes=BLOCKS)  # fmt: skip
def blocks_in_batch(call: LayerCall) -> Labels:
    """blocks of positions go into the batch, or come out of it; the other axes pass"""
    shape, kwargs = call.shape(), call.kwargs
    block = plain_list(call, argument(call, "block_shape", kwargs.get("block_size"))).ravel()
    margins = plain_list(call, argument(call, "paddings", kwargs.get("crops")))
    count = len(margins)
    block = np.repeat(block, count) if len(block) == 1 else block
    axes = list(range(1, 1 + count))
    x = call.keep_axes_whole(call.x, axes, f"stand along an axis that {call.layer.path!r} folds")
    into = "space_to_batch" in str(call.config.get("function"))
    sizes: list[Size] = []
    for axis, edge, margin in zip(axes, block, margins, strict=True):
        size = shape[axis]
        if size is None:
            sizes.append(None)
        elif into:
            sizes.append((size + int(margin.sum())) // int(edge))
        else:
            sizes.append(size * int(edge) - int(margin.sum()))
    return x.with_shape((None, *replaced(shape, axes, sizes)[1:]))
