"""Nodes of `keras.ops` in Functional graphs: a table of kinds, not a rule for each of three hundred.

An operation's arguments are given by position or by name, or stand in its config; constants are
written into the config and are cut along with the units that meet them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.graph.model import Constant
from kprune.labels.combine import broadcast_shape
from kprune.labels.labels import Axis, Labels
from kprune.labels.layer_call import CannotTell, LayerCall
from kprune.rules.registry import OPERATIONS

ONE_ARGUMENT = (
    "Abs Absolute Negative Sign Sqrt Square Rsqrt Exp Exp2 Expm1 Log Log10 Log1p Log2 Reciprocal Sin Cos Tan "
    "Sinh Cosh Tanh Arcsin Arccos Arctan Arcsinh Arccosh Arctanh Ceil Floor Round Trunc Rint Erf Erfinv "
    "Isnan Isinf Isfinite LogicalNot NanToNum Clip Cast Copy Identity StopGradient "
    "Relu Relu6 LeakyRelu Elu Selu Celu Gelu Silu Sigmoid HardSigmoid HardSilu HardTanh HardShrink SoftShrink "
    "TanhShrink Softplus Softsign SparsePlus SparseSigmoid Squareplus LogSigmoid Threshold"
).split()

TWO_ARGUMENTS = (
    "Add Subtract Multiply Divide TrueDivide FloorDivide DivideNoNan Power Mod Maximum Minimum Arctan2 Hypot "
    "Logaddexp Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalXor Where"
).split()


@OPERATIONS.rule(*ONE_ARGUMENT, does="passes", note="element by element")
def elementwise(call: LayerCall) -> Labels:
    return call.x


@OPERATIONS.rule(*TWO_ARGUMENTS, does="combines", note="element by element; a constant is cut along with what it meets")
def binary(call: LayerCall) -> Labels:
    operands = [*call.args, *call.kwargs.values()]
    tensors = [operand for operand in operands if isinstance(operand, Labels)]
    combined = call.combine(tensors)
    if combined.shape is None:
        return combined
    for operand in operands:
        if isinstance(operand, (Constant, list, tuple)):
            combined = _with_constant(call, combined, operand)
    return combined


def _with_constant(call: LayerCall, x: Labels, constant: Any) -> Labels:
    if not isinstance(constant, Constant):
        if x.factors and np.size(constant) > 1:
            raise CannotTell("has a list of numbers as an operand")
        return x
    sizes = constant.value.shape
    try:
        shape = broadcast_shape([x.shape or (), sizes])
    except ValueError as error:
        raise CannotTell(str(error)) from error
    if len(shape) != x.rank:
        call.freeze(x, f"is combined by {call.layer.path!r} with a constant of higher rank")
        return Labels(shape)
    axes: list[Axis | int] = []
    for offset, size in enumerate(sizes):
        axis = len(shape) - len(sizes) + offset
        if size == 1:
            axes.append(1)
        elif (x.shape or ())[axis] == size:
            axes.append(x.axis(axis))
        else:
            # The constant widens an axis of size 1 (or of unknown size): no unit can go there.
            x = call.hold_axes(x, [axis], f"are spread along an axis by a constant in {call.layer.path!r}")
            axes.append(size)
    call.constant(constant, *axes)
    return x.with_shape(shape)
