"""Element by element: labels pass, what meets is tied, constants are cut along."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.graph.model import Constant
from kprune.labels.combine import broadcast_shape
from kprune.labels.labels import Axis, Labels
from kprune.labels.layer_call import LayerCall
from kprune.labels.rule_call import CannotTell
from kprune.rules.registry import OPERATIONS

# f(0) = 0: a masked unit still gives 0 behind these.
KEEPS_ZERO = (
    "Abs Absolute Fabs Negative Sign Sqrt Square Cbrt Expm1 Log1p Sin Tan Sinh Tanh Arcsin Arctan Arcsinh Arctanh "
    "Ceil Floor Round Trunc Erf Erfinv NanToNum Copy Cast SaturateCast StopGradient ConvertToTensor Array Real "
    "Conj Conjugate Deg2rad Rad2deg ZerosLike "
    "Relu Relu6 LeakyRelu Elu Selu Celu Gelu Silu HardSilu HardTanh HardShrink SoftShrink TanhShrink Softsign"
).split()
GIVES_OTHER = (
    "Angle Arccos Arccosh Cos Cosh Exp Exp2 Log Log10 Log2 Reciprocal Rsqrt Erfc Sinc I0 Imag Clip Signbit "
    "Isfinite Isinf Isnan Isneginf Isposinf Isreal LogicalNot BitwiseInvert BitwiseNot "
    "Sigmoid SparseSigmoid HardSigmoid LogSigmoid Softplus Squareplus SparsePlus Threshold "
    "OnesLike EmptyLike FullLike"
).split()

# Zero where all operands are.
SUMS = (
    "Add Subtract Maximum Minimum Fmax Fmin Hypot Arctan2 Mod Fmod Nextafter LeftShift RightShift BitwiseAnd "
    "BitwiseOr BitwiseXor BitwiseLeftShift BitwiseRightShift NotEqual Greater Less LogicalOr LogicalXor"
).split()
PRODUCTS = "Multiply LogicalAnd".split()
QUOTIENTS = "Divide TrueDivide FloorDivide DivideNoNan".split()
OTHERS = (
    "Power Heaviside Logaddexp Logaddexp2 Ldexp Gcd Lcm Equal GreaterEqual LessEqual Isclose Where Polar"
).split()


@OPERATIONS.rule(*KEEPS_ZERO, does="passes", note="element by element")
def elementwise(call: LayerCall) -> Labels:
    return call.x


@OPERATIONS.rule(
    *GIVES_OTHER,
    does="passes",
    note="element by element; a masked unit gives a constant other than 0",
)
def elementwise_shifted(call: LayerCall) -> Labels:
    return call.x.with_silence(False)


@OPERATIONS.rule(
    *SUMS, *PRODUCTS, *QUOTIENTS, *OTHERS,
    does="combines", note="element by element: what meets is tied; a constant is cut along with what it meets",
)  # fmt: skip
def combining(call: LayerCall) -> Labels:
    operands = [*call.args, *call.kwargs.values()]
    tensors = [operand for operand in operands if isinstance(operand, Labels)]
    combined = call.combine(tensors)
    if combined.shape is None:
        return combined
    for operand in operands:
        if isinstance(operand, (Constant, list, tuple)):
            combined = with_constant(call, combined, operand)
    return combined.with_silence(_silent(call.kind, operands))


def _silent(kind: str, operands: list[Any]) -> bool:
    def zero(operand: Any) -> bool:
        if isinstance(operand, Labels):
            return operand.silent
        value = operand.value if isinstance(operand, Constant) else operand
        return value is None or not np.any(value)

    if kind in PRODUCTS:
        return any(zero(operand) for operand in operands)
    if kind in QUOTIENTS:
        return zero(operands[0]) and not isinstance(operands[-1], Labels)
    return kind in SUMS and all(zero(operand) for operand in operands)


def with_constant(call: LayerCall, x: Labels, constant: Any) -> Labels:
    """The labels of a tensor combined with an array in the config, which is cut where units meet it."""
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
            x = call.hold_axes(
                x, [axis], f"are spread along an axis by a constant in {call.layer.path!r}"
            )
            axes.append(size)
    call.constant(constant, *axes)
    return x.with_shape(shape)
