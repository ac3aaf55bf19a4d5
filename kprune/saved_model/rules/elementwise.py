"""Element by element: labels pass, what meets is tied. Sizes are calculated alike."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kprune.labels.labels import Labels
from kprune.saved_model.op_call import OpCall
from kprune.saved_model.rules.registry import op
from kprune.saved_model.values import Number, Value, computed, product

# f(0) = 0: a masked unit still gives 0 behind these.
KEEPS_ZERO = [
    "Abs", "Neg", "Sign", "Sqrt", "Square", "Expm1", "Log1p", "Sin", "Tan", "Sinh", "Tanh",
    "Asin", "Atan", "Asinh", "Atanh", "Ceil", "Floor", "Rint", "Round", "Erf", "Erfinv",
    "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softsign", "StopGradient",
    "PreventGradient", "CheckNumerics", "CheckNumericsV2", "Snapshot", "ZerosLike", "Conj",
    "Real", "Imag",
]  # fmt: skip
GIVES_OTHER = [
    "Exp", "Cos", "Cosh", "Acos", "Acosh", "Log", "Reciprocal", "Inv", "Rsqrt", "Erfc",
    "Sigmoid", "Softplus", "Digamma", "Lgamma", "IsFinite", "IsInf", "IsNan", "LogicalNot",
    "OnesLike", "Invert", "Angle",
]  # fmt: skip
SUMS = [
    "Add", "AddV2", "Sub", "Maximum", "Minimum", "BiasAdd", "BiasAddV1",
    "SquaredDifference", "AddN", "Mod", "FloorMod", "TruncateMod", "Atan2",
]  # fmt: skip
PRODUCTS = ["Mul", "MulNoNan"]
QUOTIENTS = ["RealDiv", "Div", "DivNoNan", "FloorDiv", "TruncateDiv", "Xdivy"]
OTHERS = [
    "Pow", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual",
    "LogicalAnd", "LogicalOr", "ApproximateEqual", "Xlogy", "BitwiseAnd", "BitwiseOr",
    "BitwiseXor", "LeftShift", "RightShift", "ClipByValue",
]  # fmt: skip

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "AddV2": operator.add,
    "Sub": operator.sub,
    "Maximum": max,
    "Minimum": min,
    "FloorDiv": operator.floordiv,
    "FloorMod": operator.mod,
}


@op(*KEEPS_ZERO, does="passes", note="element by element")
def elementwise(call: OpCall) -> Labels:
    return call.x


@op(
    *GIVES_OTHER,
    does="passes",
    note="element by element; a masked unit gives a constant other than 0",
)
def shifted(call: OpCall) -> Labels:
    return call.x.with_silence(False)


@op(
    "Identity",
    "IdentityN",
    "Cast",
    "EnsureShape",
    does="passes",
    note="hands on what it gets",
    numbers=True,
)
def unchanged(call: OpCall) -> Any:
    if call.op == "Cast" and call.ins[0].numbers is not None and not _integer(call):
        # A size that becomes a factor, such as 1 / sqrt(depth): it is smaller when units go.
        for number in call.ins[0].numbers.flat:
            for axis in number.of:
                call.mix(axis, f"are counted by {call.layer.path!r}")
            call.keep_value(number)
        return call.x
    return [Value(held.labels, held.numbers, held.parameter, held.items) for held in call.ins]


def _integer(call: OpCall) -> bool:
    return call.node.attr["DstT"].type in (3, 9, 22, 23)  # DT_INT32, DT_INT64, DT_UINT32, DT_UINT64


@op(
    *SUMS,
    *PRODUCTS,
    *QUOTIENTS,
    *OTHERS,
    does="combines",
    note="element by element: what meets is tied",
    numbers=True,
)
def combining(call: OpCall) -> Any:
    numbers = _arithmetic(call)
    if numbers is not None:
        return Value(call.combine([held.labels for held in call.ins]), numbers)
    for held in call.ins:
        if held.numbers is not None:
            for number in held.numbers.flat:
                call.use_value(number)
    operands = [held.labels for held in call.ins]
    if call.op.startswith("BiasAdd"):
        operands = _with_bias(call, operands)
    combined = call.combine(operands)
    _count_uses(call, operands)
    if combined.shape is None:
        return combined
    return combined.with_silence(_silent(call.op, operands, call))


def _count_uses(call: OpCall, operands: list[Labels]) -> None:
    for mine, other in ((operands[0], operands[-1]), (operands[-1], operands[0])):
        ids = mine.all_ids()
        if ids.size and other is not mine:
            shape = other.shape or ()
            total = 1.0
            for axis, size in enumerate(shape[1:], 1):
                if not (
                    mine.shape
                    and len(mine.shape) + axis >= len(shape)
                    and mine.shape[axis - len(shape)] != 1
                ):
                    total *= size or 1
            call.tracer.owners.note_use(int(ids[0]), total, 1.0)


def _with_bias(call: OpCall, operands: list[Labels]) -> list[Labels]:
    """The bias stands along the last axis, or along axis 1 (NCHW)."""
    x, bias = operands
    if call.attr("data_format", "NHWC").startswith("NC") and x.rank > 2:
        tail = (1,) * (x.rank - 2)
        size = call.shape(bias)[0]
        return [x, bias.move(lambda f: f.reshape((1, f.shape[0], *tail)), (1, size, *tail))]
    return [x, bias]


def _silent(kind: str, operands: list[Labels], call: OpCall) -> bool:
    def zero(index: int) -> bool:
        # An operand without units is 0 only if it is a constant 0.
        labels = operands[index]
        return labels.silent and bool(labels.factors)

    count = len(operands)
    if kind in PRODUCTS:
        # One flag speaks for all axes: a factor that is 0 silences units on its own axes only.
        axes = [_axes_from_the_end(labels) for labels in operands]
        together = frozenset().union(*axes)
        return any(zero(index) and axes[index] == together for index in range(count)) or all(
            zero(index) for index in range(count)
        )
    if kind in QUOTIENTS:
        return zero(0) and not (operands[-1].factors and operands[-1].silent)
    return kind in SUMS and all(
        zero(index) or _constant_zero(call, index) for index in range(count)
    )


def _axes_from_the_end(labels: Labels) -> frozenset[int]:
    """The axes along which units stand, counted as broadcasting does."""
    return frozenset(
        axis - labels.rank for factor in labels.factors for axis in labels.support(factor)
    )


def _constant_zero(call: OpCall, index: int) -> bool:
    value = call.scalar(index)
    if call.op in ("Maximum", "Minimum") and value is not None:
        # max(x, 0), min(x, 6): 0 stays 0.
        return value <= 0 if call.op == "Maximum" else value >= 0
    return value == 0


def _arithmetic(call: OpCall) -> np.ndarray | None:
    """The same done to sizes, where all operands are integers that are known."""
    held = [value.numbers for value in call.ins]
    if len(held) != 2 or any(numbers is None for numbers in held):
        return None
    left, right = (np.asarray(one, object) for one in np.broadcast_arrays(*held))
    result = np.empty(left.shape, object)
    for index in np.ndindex(left.shape):
        result[index] = _calculated(call, left[index], right[index])
    return result


def _calculated(call: OpCall, one: Any, other: Any) -> Number:
    for number in (one, other):
        call.keep_value(number)
    if call.op == "Mul":
        return product(
            [
                Number(one.value, of=one.of, lost=one.lost),
                Number(other.value, of=other.of, lost=other.lost),
            ]
        )
    value = None
    function = _ARITHMETIC.get(call.op)
    by_zero = call.op in ("FloorDiv", "FloorMod") and other.value == 0
    if function is not None and one.value is not None and other.value is not None and not by_zero:
        value = function(one.value, other.value)
    return computed(value, [one, other])


@op("Select", "SelectV2", does="combines", note="one or the other, element by element")
def select(call: OpCall) -> Labels:
    condition, one, other = (held.labels for held in call.ins)
    both = call.combine([one, other])
    if call.op == "Select" and condition.rank == 1 and both.rank > 1:
        return both  # chooses whole samples
    result = call.combine([condition, both]) if condition.rank else both
    return result.with_silence(
        one.silent and other.silent and bool(one.factors) and bool(other.factors)
    )


@op(
    "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxArgs",
    does="passes",
    note="one range for all units: none is missed",
)
def fake_quantised(call: OpCall) -> Labels:
    return call.x
