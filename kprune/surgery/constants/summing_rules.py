"""Layers that sum over units and make others: what they read, and when their own units are constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kprune.elementwise.written import activation_formula, activation_name
from kprune.graph.model import Call, Layer
from kprune.labels.labels import Axis
from kprune.labels.map import Blocks, Weight
from kprune.rules.effects.contractions import parse_equation
from kprune.rules.shapes import ints, spatial_axes
from kprune.sets import without
from kprune.surgery.constants.constant_units import NOTHING, ConstantUnits, read_off
from kprune.surgery.constants.moving_rules import POOLS, slides_over_units
from kprune.surgery.constants.summing_kernels import BiasTarget, Kernel, Scan
from kprune.surgery.constants.walk import Constants, LayerVisit, Tensor, border, rule

RANKS = (1, 2, 3)

# A number added to what goes in is added to what comes out.
PASSES_SHIFTS = frozenset((*POOLS, "Concatenate"))

NO_BIAS = "has no bias to which a constant could be added, nor a BatchNormalization right behind it"


def _passes_shift(walk: Constants, layer: Layer) -> bool:
    if walk.analysis.map.record(layer).values:
        return True
    return layer.is_builtin and not layer.is_operation and layer.kind in PASSES_SHIFTS


def same(shift: np.ndarray) -> np.ndarray:
    return shift


def row_values(along: Axis, x: Tensor) -> np.ndarray:
    """float64 (size,): what each position of an axis always gives; NaN where that is not known."""
    if not along.factors or not along.plain:
        return np.full(along.size or 0, np.nan)
    return x.known.at(along.ids)


def bias_target(
    walk: Constants, at: LayerVisit, bias: Weight | None, columns: np.ndarray
) -> BiasTarget:
    """Where a layer's constant share can go: into its bias, or a BatchNormalization that reads it.

    Args:
        columns: int64 (columns,), the units it makes.
    """
    if bias is not None:
        return BiasTarget([(bias.path, same)])
    name = f"'{at.layer.path}' {NO_BIAS}"
    if at.model is None or at.call is None or len(at.record.visits) > 1:
        return BiasTarget(why=name)
    if activation_name(at.config.get("activation")) != "linear":
        return BiasTarget(why=name)
    room = BiasTarget()
    todo = [(at.call.layer, at.call)]
    while todo:
        layer, call = todo.pop()
        readers = walk.consumers(at.model, (layer.name, call.node, 0))
        if not readers:
            return BiasTarget(why=name)
        for reader in readers:
            if reader.kwargs.get("training") is True:
                return BiasTarget(why=name)
            if _passes_shift(walk, reader.layer):
                todo.append((reader.layer, reader))
                continue
            target = _normalisation(walk, reader, columns)
            if target is None:
                return BiasTarget(why=name)
            room.targets.append(target)
    return room


def _normalisation(
    walk: Constants, call: Call, columns: np.ndarray
) -> tuple[str, Callable[[np.ndarray], np.ndarray]] | None:
    """The moving mean of a BatchNormalization, where a shift of its input goes, sign changed."""
    record = walk.analysis.map.record(call.layer)
    weight = record.weights.get("moving_mean")
    if call.layer.kind != "BatchNormalization" or weight is None or len(record.visits) > 1:
        return None
    along = weight.axes[0]
    if not along.factors or not along.plain:
        return None
    # Each unit stands there once; else the other place may be where it came by another path.
    places = [np.flatnonzero(along.ids == label) for label in columns]
    if any(len(found) != 1 for found in places):
        return None
    order = np.concatenate(places)

    def shifted(shift: np.ndarray) -> np.ndarray:
        result = np.zeros(along.size or 0)
        result[order] = -shift
        return result

    return weight.path, shifted


def made_by(
    walk: Constants, at: LayerVisit, found: Scan, bias: np.ndarray | None, ids: np.ndarray
) -> ConstantUnits:
    """The units that a layer makes of constants alone.

    Args:
        bias: float64 (columns,).
        ids: int64 (columns,).
    """
    function = activation_formula(at.config.get("activation"))
    if function is None:
        return NOTHING
    sums = found.constant if bias is None else found.constant + bias
    known = ConstantUnits.of(ids, np.where(found.varying, np.nan, function(sums)))
    walk.make([Axis.of(ids)], known)
    return known


@rule("Dense")
def dense(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    return weighted(walk, at, (0,), (1,), at.x.labels.last, uneven=False)


def weighted(
    walk: Constants,
    at: LayerVisit,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    along: Axis,
    *,
    uneven: bool,
    grouped: Blocks | None = None,
) -> list[ConstantUnits]:
    """A kernel over one axis, and a bias."""
    kernel, bias = at.weight("kernel"), at.weight("bias")
    if kernel is None or any(kernel.axes[axis].size is None for axis in (*inputs, *outputs)):
        return walk.otherwise(at)
    ids = kernel.axes[outputs[0]].ids
    values = (
        at.x.known.at(grouped.sides[0].ravel()) if grouped is not None else row_values(along, at.x)
    )
    found = walk.site(
        at,
        Kernel(kernel, inputs, outputs, grouped),
        values,
        bias_target(walk, at, bias, ids),
        uneven=uneven,
    )
    return [made_by(walk, at, found, walk.vector(at, "bias"), ids)]


# -- convolutions --------------------------------------------------------------------------------


@rule(*(f"Conv{rank}D" for rank in RANKS), *(f"Convolution{rank}D" for rank in RANKS))
def conv(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    kernel = at.weight("kernel")
    if kernel is None or slides_over_units(at.x.labels, at.config.get("data_format")):
        return walk.otherwise(at)
    last = len(kernel.axes) - 1
    grouped = kernel.grouped
    if grouped is None and at.config.get("groups", 1) != 1:
        return walk.otherwise(at)
    if grouped is not None and len(grouped.sides) < 2:
        return walk.otherwise(at)
    return weighted(
        walk,
        at,
        (last - 1,),
        (last,),
        at.x.labels.axis(channels_of(at)),
        uneven=meets_border(at),
        grouped=grouped,
    )


def channels_of(at: LayerVisit) -> int:
    return 1 if at.config.get("data_format") == "channels_first" else at.x.labels.rank - 1


def meets_border(at: LayerVisit) -> bool:
    """Whether the window of a convolution reaches beyond the tensor, where zeros are put."""
    padding = str(at.config.get("padding", "valid"))
    shape = at.x.labels.shape or ()
    spatial = spatial_axes(at.config.get("data_format"), len(shape))
    windows = ints(at.config["kernel_size"], len(spatial))
    strides = ints(at.config.get("strides", 1), len(spatial))
    dilations = ints(at.config.get("dilation_rate", 1), len(spatial))
    for axis, window, stride, dilation in zip(spatial, windows, strides, dilations, strict=True):
        reach = (window - 1) * dilation + 1
        size = shape[axis]
        if padding == "valid" or reach == 1:
            continue
        if padding == "causal" or size is None:
            return True
        if (-(-size // stride) - 1) * stride + reach > size:
            return True
    return False


@rule(
    *(f"Conv{rank}DTranspose" for rank in RANKS),
    *(f"Convolution{rank}DTranspose" for rank in RANKS),
)
def conv_transpose(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """How many windows meet at a place differs from place to place, unless each is alone."""
    kernel = at.weight("kernel")
    if kernel is None or slides_over_units(at.x.labels, at.config.get("data_format")):
        return walk.otherwise(at)
    rank = len(kernel.axes) - 2
    single = {*ints(at.config["kernel_size"], rank), *ints(at.config.get("strides", 1), rank)} == {
        1
    }
    return weighted(
        walk, at, (rank + 1,), (rank,), at.x.labels.axis(channels_of(at)), uneven=not single
    )


@rule(
    *(f"DepthwiseConv{rank}D" for rank in (1, 2)),
    *(f"DepthwiseConvolution{rank}D" for rank in (1, 2)),
)
def depthwise_conv(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """Each output comes from one input alone, so there is nothing to sum up."""
    kernel, labels = at.weight("depthwise_kernel"), at.x.labels
    if kernel is None or slides_over_units(labels, at.config.get("data_format")):
        return walk.otherwise(at)
    along = labels.axis(channels_of(at))
    array = walk.read(kernel.path).astype(np.float64)
    array = array.reshape(-1, *array.shape[-2:])  # (window, inputs, multiplier)
    given = np.repeat(row_values(along, at.x), array.shape[2])
    used = (array != 0).any(axis=0).ravel()
    given = np.where(used, given, 0.0)
    if meets_border(at):
        broken = ~np.isnan(given) & (given != 0)
        given = np.where(broken, np.nan, given)
        for label in np.repeat(along.ids, array.shape[2])[broken]:
            walk.lost.setdefault(int(label), border(at.layer.path))
    found = Scan(
        np.zeros((0, 0), np.uint8),
        np.isnan(given),
        np.nan_to_num(given) * array.sum(axis=0).ravel(),
    )
    ids = at.record.axes["units"].ids
    known = made_by(walk, at, found, walk.vector(at, "bias"), ids)
    for label in without(ids, known.ids):
        before = walk.lost.get(
            int(np.repeat(along.ids, array.shape[2])[np.flatnonzero(ids == label)[0]])
        )
        if before:
            walk.lost.setdefault(int(label), before)
    return [known]


@rule("SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D")
def separable_conv(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    depthwise, pointwise = at.weight("depthwise_kernel"), at.weight("pointwise_kernel")
    if (
        depthwise is None
        or pointwise is None
        or slides_over_units(at.x.labels, at.config.get("data_format"))
    ):
        return walk.otherwise(at)
    array = walk.read(depthwise.path).astype(np.float64)
    array = array.reshape(-1, *array.shape[-2:])
    used = (array != 0).any(axis=0).ravel()
    given = np.repeat(row_values(at.x.labels.axis(channels_of(at)), at.x), array.shape[2])
    uneven = meets_border(at)
    # What reaches the second kernel: the window's sum of each input, one for each multiplier.
    values = np.where(used, given * array.sum(axis=0).ravel(), 0.0)
    if uneven:
        values = np.where(used & (given != 0), np.nan, values)
    last = len(pointwise.axes) - 1
    ids = pointwise.axes[last].ids
    room = bias_target(walk, at, at.weight("bias"), ids)
    found = walk.site(at, Kernel(pointwise, (last - 1,), (last,)), values, room)
    if uneven:
        walk.summing_kernels[pointwise.path].padded |= used & ~np.isnan(given) & (given != 0)
    return [made_by(walk, at, found, walk.vector(at, "bias"), ids)]


# -- embeddings, einsum --------------------------------------------------------------------------


@rule("Embedding")
def embedding(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """A dimension that is the same for every token."""
    weight = at.weight("embeddings")
    if weight is None:
        return walk.otherwise(at)
    low = high = None
    for _, block in walk.read.blocks(weight.path):
        least, most = block.min(axis=0), block.max(axis=0)
        low = least if low is None else np.minimum(low, least)
        high = most if high is None else np.maximum(high, most)
    assert low is not None and high is not None
    ids = weight.axes[1].ids
    known = ConstantUnits.of(ids, np.where(low == high, low, np.nan))
    walk.make([weight.axes[1]], known)
    return [known]


@rule("EinsumDense")
def einsum_dense(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """Where every letter of the kernel is either summed over or new, as in a dense layer."""
    kernel, bias, x = at.weight("kernel"), at.weight("bias"), at.x
    function = activation_formula(at.config.get("activation"))
    if kernel is None or x.labels.shape is None or function is None:
        return walk.otherwise(at)
    letters = at.config["equation"].replace(" ", "").partition("->")[0].split(",")[1]
    (own, letters), output = parse_equation(at.config["equation"], [x.labels.rank, len(letters)])
    summed = tuple(i for i, letter in enumerate(letters) if letter in own)
    fresh = tuple(i for i, letter in enumerate(letters) if letter not in own)
    stays = any(letters[i] in output for i in summed)
    if stays or not summed or not fresh or any(axis.size is None for axis in kernel.axes):
        return walk.otherwise(at)
    read = [own.index(letters[i]) for i in summed]
    if any(x.labels.varies(axis) for axis in range(x.labels.rank) if axis not in read):
        return walk.otherwise(at)
    values = x.known.over(x.labels)
    values = values.transpose([*read, *(axis for axis in range(x.labels.rank) if axis not in read)])
    sizes = [kernel.axes[i].size or 0 for i in summed]
    values = np.broadcast_to(values.reshape(values.shape[: len(read)]), sizes).ravel()
    room = BiasTarget(why=f"'{at.layer.path}' {NO_BIAS}")
    added: np.ndarray | float = 0.0
    extents = [kernel.axes[i].size or 0 for i in fresh]
    names = [letter for letter in output if letter in (at.config.get("bias_axes") or "")]
    if bias is not None and set(names) == {letters[i] for i in fresh}:
        order = [[letters[i] for i in fresh].index(letter) for letter in names]
        room = BiasTarget([(bias.path, lambda shift: shift.reshape(extents).transpose(order))])
        added = walk.read(bias.path).astype(np.float64).transpose(np.argsort(order)).ravel()
    found = walk.site(at, Kernel(kernel, summed, fresh), values, room)
    if bias is not None and room.why:
        return [NOTHING]
    made = np.where(found.varying, np.nan, function(found.constant + added)).reshape(extents)
    place = [output.index(letters[i]) for i in fresh]
    wide = made.transpose(np.argsort(place)).reshape(
        [extents[place.index(axis)] if axis in place else 1 for axis in range(len(output))]
    )
    known = read_off(at.outputs[0], wide)
    walk.make([kernel.axes[i] for i in fresh], known)
    return [known]
