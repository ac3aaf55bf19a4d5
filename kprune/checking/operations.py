"""Operations of graphs (`keras.ops`, and TensorFlow's functions in Keras 2) whose arguments must fit each other.

The rest are taken at the shapes that the config records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kprune.checking.configs import Config, array_shape, at, axes_of
from kprune.checking.layer_shapes import joined
from kprune.checking.shapes import Contradiction, MaybeShape, agree, broadcast
from kprune.graph.model import Constant

BROADCAST = frozenset(
    "Add Subtract Multiply Divide TrueDivide FloorDivide Mod Power Maximum Minimum Where Equal NotEqual "
    "Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalXor Arctan2 SquaredDifference".split()
)
# The names of TensorFlow's functions in Keras 2's TFOpLambda (tf_keras/src/layers/core/tf_op_layer.py).
BROADCAST_2 = frozenset(
    f"{room}{name}"
    for room in ("math.", "__operators__.", "")
    for name in (
        "add subtract multiply divide truediv floordiv pow maximum minimum squared_difference "
        "less less_equal greater greater_equal equal not_equal".split()
    )
)
SAME_2 = frozenset(
    "nn.relu nn.relu6 nn.elu nn.gelu nn.selu nn.silu nn.swish nn.leaky_relu nn.softmax nn.softplus math.abs "
    "math.exp math.log math.negative math.sigmoid math.sqrt math.rsqrt math.square math.tanh cast identity "
    "clip_by_value stop_gradient".split()
)


def operation_shape(kind: str, config: Config, args: Any, kwargs: Mapping[str, Any]) -> MaybeShape:
    """What an operation gives; None if that is not known here.

    Args:
        args, kwargs: shapes (as `Shaped`) in place of tensors.
    Raises: Contradiction if the arguments do not fit each other.
    """
    given = [*args, *(value for key, value in kwargs.items() if key != "name")]
    operands = [shape_of_argument(argument) for argument in given if argument is not None]
    if kind in BROADCAST or (kind == "TFOpLambda" and config.get("function") in BROADCAST_2):
        return broadcast(operands)
    if kind == "TFOpLambda" and config.get("function") in SAME_2:
        return operands[0]
    if kind == "Concatenate" and args and isinstance(args[0], list):
        parts = [shape_of_argument(part) for part in args[0]]
        return joined(parts, int(config.get("axis", -1)))
    if kind in ("BatchNorm", "LayerNorm", "RMSNorm"):
        _check_statistics(config, operands)
        return operands[0]
    return None


class Shaped(tuple[int | None, ...]):
    """The shape of a tensor among an operation's arguments, told from a list of numbers by its type."""


def shape_of_argument(argument: Any) -> MaybeShape:
    """The shape of a tensor, a constant or a number; None for anything else, and if it is not known."""
    if isinstance(argument, Shaped):
        return tuple(argument)
    if isinstance(argument, Constant):
        return argument.shape
    return array_shape(argument) if isinstance(argument, (int, float, list)) else None


def _check_statistics(config: Config, operands: Sequence[MaybeShape]) -> None:
    """Means, variances, scales and offsets are as long as the axes that they stand along."""
    shape, *arrays = operands
    if shape is None:
        return
    wanted = tuple(at(shape, axis) for axis in axes_of(config))
    for array in arrays:
        if array and not agree(array, wanted):
            raise Contradiction(f"an argument of shape {array} stands along {wanted} of {shape}")
