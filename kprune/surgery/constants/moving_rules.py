"""What layers do to constant units: a rule for each kind of layer.

Those that sum over units, and so note a `SummingKernel`, are in `summing_rules` and `sequence_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kprune.elementwise.facts import names
from kprune.elementwise.table import FUNCTIONS, LAYER, OPERATION, Formula
from kprune.elementwise.written import written_layer
from kprune.graph.model import Constant
from kprune.labels.labels import Labels
from kprune.labels.map import LayerRecord
from kprune.rules.shapes import spatial_axes
from kprune.surgery.constants.constant_units import NOTHING, ConstantUnits, joined, read_off
from kprune.surgery.constants.walk import (
    OPERATIONS,
    Constants,
    LayerVisit,
    Tensor,
    border,
    number,
    rule,
)

RANKS = (1, 2, 3)

# A window on a constant gives the constant; padding is left out of averages and maxima.
POOLS = tuple(
    f"{start}{kind}{rank}D"
    for start in ("", "Global")
    for kind in ("MaxPooling", "AveragePooling", "MaxPool", "AvgPool")
    for rank in RANKS
)
CROPS = tuple(f"Cropping{rank}D" for rank in RANKS)
UPSAMPLING = tuple(f"UpSampling{rank}D" for rank in RANKS)
MOVES = (
    "Reshape", "Transpose", "Moveaxis", "Swapaxes", "ExpandDims", "Squeeze", "BroadcastTo",
    "Flip", "Fliplr", "Flipud", "Repeat", "Tile", "Unstack", "GetItem",
    "Split", "ArraySplit", "Hsplit", "Vsplit", "Dsplit",
    "SpaceToDepth", "DepthToSpace", "Rearrange", "Cast", "Copy", "StopGradient",
)  # fmt: skip


# Whole numbers and complex ones are not what a bias holds.
FUNCTIONS_OF_ONE = [
    name
    for name in names(OPERATION, operands=lambda count: count == 1)
    if name not in MOVES
    and not FUNCTIONS[OPERATION][name].integers
    and name not in ("Angle", "Imag", "SaturateCast", "ConvertToTensor", "Array")
]


def slides_over_units(labels: Labels, data_format: str | None) -> bool:
    """Whether units stand along an axis on which a window slides: they are then not told apart."""
    if labels.shape is None:
        return True
    return any(labels.varies(axis) for axis in spatial_axes(data_format, labels.rank))


@rule(*MOVES, table=OPERATIONS)
def moves(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    if len(at.xs) != 1:
        return walk.otherwise(at)
    return [walk.even(at.x)] * len(at.outputs)


@rule(*POOLS, *CROPS, *UPSAMPLING)
def channelwise(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    smooth = at.config.get("interpolation", "nearest") not in ("nearest", "bilinear")
    if smooth or slides_over_units(at.x.labels, at.config.get("data_format")):
        return walk.otherwise(at)
    return [walk.even(at.x)]


@rule("MaxPool", "AveragePool", table=OPERATIONS)
def pool_operation(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    return channelwise(walk, at)


@rule("Mean", "Max", "Amax", "Min", "Amin", table=OPERATIONS)
def figures(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """One figure of many equal numbers is that number."""
    axes = at.config.get("axis")
    if axes is None or at.x.labels.shape is None:
        return walk.otherwise(at)
    if any(at.x.labels.varies(axis) for axis in ([axes] if isinstance(axes, int) else axes)):
        return walk.otherwise(at)
    return [walk.even(at.x)]


@rule(*(f"ZeroPadding{rank}D" for rank in RANKS))
def zero_padding(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """Zeros beside a constant: what is constant from here on is 0 alone."""
    known = at.x.known
    if not np.any(ints_of(at.config.get("padding", 0))):
        return [known]
    kept = known.only(known.values == 0)
    walk.lose(known, kept, border(at.layer.path))
    return [kept]


def ints_of(value: object) -> np.ndarray:
    return np.asarray(value).ravel()


@rule("Activation", *names(LAYER, operands=lambda count: count == 1))
def activation(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    return apply_function(walk, at, at.config)


@rule(*FUNCTIONS_OF_ONE, table=OPERATIONS)
def function_operation(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    if len(at.xs) != 1:
        return walk.otherwise(at)
    # Arguments may stand in the call as well as in the config.
    named = {name: value for name, value in at.kwargs.items() if not isinstance(value, Tensor)}
    if len(at.args) > 1:
        return walk.otherwise(at)
    return apply_function(walk, at, {**at.config, **named})


def apply_function(
    walk: Constants, at: LayerVisit, parameters: Mapping[str, Any]
) -> list[ConstantUnits]:
    written = written_layer(at.layer.kind, parameters)
    function: Formula | None = written.formula if written is not None else None
    if function is None:
        return walk.otherwise(at)
    known = at.x.known
    with np.errstate(all="ignore"):
        return [ConstantUnits.of(known.ids, function(known.values))]


@rule("PReLU")
def prelu(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    weight, known = at.weight("alpha"), at.x.known
    along = at.x.labels.last
    if weight is None or not along.plain or not along.factors:
        kept = known.only(known.values >= 0)
        walk.lose(known, kept, f"'{at.layer.path}' gives them other values at other positions")
        return [kept]
    alpha = walk.read(weight.path).astype(np.float64)
    slopes = alpha.reshape(-1, alpha.shape[-1])
    even = slopes.min(axis=0) == slopes.max(axis=0)
    given = known.at(along.ids)
    below = np.where(even, slopes[0] * given, np.nan)
    return [joined([(along.ids, np.where(given >= 0, given, below))])]


@rule("BatchNormalization", "SyncBatchNormalization")
def batch_normalization(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """beta + gamma (x - mean) / sqrt(variance + epsilon), channel by channel"""
    mean, variance = walk.vector(at, "moving_mean"), walk.vector(at, "moving_variance")
    weight = at.weight("moving_mean")
    if mean is None or variance is None or weight is None:
        return walk.otherwise(at)
    axis = at.config["axis"]
    along = at.x.labels.axis(axis if isinstance(axis, int) else axis[0])
    if not along.factors or not along.plain:
        return [NOTHING]
    gamma, beta = walk.vector(at, "gamma"), walk.vector(at, "beta")
    scale = (1.0 if gamma is None else gamma) / np.sqrt(variance + at.config["epsilon"])
    shift = 0.0 if beta is None else beta
    # A channel of which gamma is 0 gives beta whatever comes in.
    given = np.where(np.broadcast_to(scale == 0, along.ids.shape), mean, at.x.known.at(along.ids))
    known = joined([(along.ids, shift + scale * (given - mean))])
    return [known]


@rule("LayerScale")
def layer_scale(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    gamma, along = walk.vector(at, "gamma"), at.x.labels.last
    if gamma is None or not along.plain or not along.factors:
        return walk.otherwise(at)
    given = np.where(gamma == 0, 0.0, at.x.known.at(along.ids))
    return [joined([(along.ids, gamma * given)])]


@rule("Rescaling")
def rescaling(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """scale * x + offset; a scale of 0, as in a mask of kprune's, gives the offset in any case"""
    scale, offset = number(at.config["scale"]), number(at.config["offset"])
    if scale is None or offset is None or at.x.labels.shape is None:
        return walk.otherwise(at)
    given = at.x.known.over(at.x.labels)
    result = np.where(scale == 0, 0.0, given) * scale + offset
    if result.ndim > at.x.labels.rank:
        return walk.otherwise(at)
    return [read_off(at.outputs[0], result)]


# -- several tensors -----------------------------------------------------------------------------


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """0 times anything is 0."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


MERGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Subtract": np.subtract,
    "Multiply": product,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
}


@rule(*MERGES, "Average", "CustomScaleLayer")
def merge(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    if any(x.labels.shape is None for x in at.xs):
        return walk.otherwise(at)
    arrays = [x.known.over(x.labels) for x in at.xs]
    if at.layer.kind == "CustomScaleLayer":
        arrays[1] = arrays[1] * float(at.config.get("scale", 1.0))
    combine = MERGES.get(at.layer.kind, np.add)
    total = arrays[0]
    for array in arrays[1:]:
        total = combine(total, array)
    if at.layer.kind == "Average":
        total = total / len(arrays)
    return [settled(walk, at, total)]


@rule(*MERGES, table=OPERATIONS)
def merge_operation(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """The same for keras.ops, where an operand may be a number or an array in the config."""
    arrays = []
    for operand in [*at.args, *at.kwargs.values()]:
        if isinstance(operand, Tensor):
            array = None if operand.labels.shape is None else operand.known.over(operand.labels)
        else:
            array = number(operand.value if isinstance(operand, Constant) else operand)
        if array is None:
            return walk.otherwise(at)
        arrays.append(array)
    if len(arrays) != 2:
        return walk.otherwise(at)
    return [settled(walk, at, MERGES[at.layer.kind](*arrays))]


def settled(walk: Constants, at: LayerVisit, values: np.ndarray) -> ConstantUnits:
    """What a combination leaves known, and why the rest is not."""
    known = read_off(at.outputs[0], values)
    for x in at.xs:
        # Its own labels: of those that are tied, only the first operand's stand in what comes out.
        walk.lose(
            x.known,
            read_off(x.labels, values),
            f"they are combined by '{at.layer.path}' with units that are not constant",
        )
    return known


@rule("Concatenate")
def concatenate(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """Along the joined axis each part keeps its own; nothing is known of units along others."""
    axis = int(at.config.get("axis", -1))
    if any(x.labels.shape is None for x in at.xs):
        return walk.otherwise(at)
    parts = []
    for x in at.xs:
        along = x.labels.axis(axis)
        parts += [(factor, x.known.at(factor)) for factor in along.factors]
    return [joined(parts)]


@rule("Concatenate", "Stack", table=OPERATIONS)
def concatenate_operation(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    if any(x.labels.shape is None for x in at.xs):
        return walk.otherwise(at)
    if at.layer.kind == "Concatenate":
        return concatenate(walk, at)
    return [NOTHING]


# -- layers that hold layers ---------------------------------------------------------------------


@rule("TimeDistributed")
def time_distributed(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    known = walk.even(at.x)
    if at.x.labels.shape is None:
        known = NOTHING
    return walk.inside(at, "layer", [known])


@rule("Bidirectional")
def bidirectional(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    if len(at.xs) > 1:
        return walk.otherwise(at)
    ahead = walk.inside(at, "forward_layer", [at.x.known])
    back = walk.inside(at, "backward_layer", [at.x.known])
    mode = at.config.get("merge_mode", "concat")
    one, other = ahead[0], back[0]
    if mode is None:
        return [one, other, *ahead[1:], *back[1:]]
    if mode == "concat":
        return [both(one, other), *ahead[1:], *back[1:]]
    units = [child_units(at.record.children[name]) for name in ("forward_layer", "backward_layer")]
    a, b = one.at(units[0]), other.at(units[1])
    merged = {"sum": a + b, "mul": product(a, b), "ave": (a + b) / 2}[mode]
    return [joined([(units[0], merged)]), *ahead[1:], *back[1:]]


def both(one: ConstantUnits, other: ConstantUnits) -> ConstantUnits:
    return joined([(one.ids, one.values), (other.ids, other.values)])


def child_units(record: LayerRecord) -> np.ndarray:
    return record.axes["units"].ids
