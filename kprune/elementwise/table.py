"""The element-wise functions that kprune knows, each with the names it goes by.

A row is a fact about one function. What else is asked of it (does it keep zeros, does a positive
factor pass through it) is not written here: `facts` computes it from the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.elementwise import formulas as f

Formula = Callable[..., Any]

LAYER, ACTIVATION, OPERATION, TENSORFLOW = "layer", "activation", "operation", "tensorflow"
"""What a name is: a Keras layer class, a Keras activation, a class of `keras.ops`, a TensorFlow operation."""


class Name(Struct, frozen=True):
    """One name of a function.

    Attributes:
        name: as files have it.
        parameters: for each parameter of the formula that can be written beside the name, the keys
            it may stand under; the first that is there counts.
        defaults: of parameters, where they are not the formula's own.
        operands: how many operands the formula takes under this name; 0 for any number.
    """

    name: str
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    operands: int = 1


class Function(Struct, frozen=True):
    """A formula under one of its names.

    Attributes:
        formula: takes the operands, then parameters by name.
        integers: whether it is defined for whole numbers only.
    """

    formula: Formula
    name: Name
    integers: bool = False


FUNCTIONS: dict[str, dict[str, Function]] = {
    kind: {} for kind in (LAYER, ACTIVATION, OPERATION, TENSORFLOW)
}


def _row(
    formula: Formula, *, operands: int = 1, integers: bool = False, **names: str | Name
) -> None:
    """Enter a function; each of `names` is a list of words, or a `Name` where parameters are written."""
    for kind, given in names.items():
        words = (
            [given]
            if isinstance(given, Name)
            else [Name(word, operands=operands) for word in given.split()]
        )
        for name in words:
            FUNCTIONS[kind][name.name] = Function(formula, name, integers)


def _keys(**parameters: str) -> dict[str, tuple[str, ...]]:
    """Parameters by the keys they are written under; several keys stand in one string."""
    return {name: tuple(keys.split()) for name, keys in parameters.items()}


# -- activations ------------------------------------------------------------------------------------

_row(f.identity, activation="linear")
_row(
    f.relu,
    activation="relu",
    operation="Relu",
    tensorflow="Relu",
    # Keras 2 has the same keys.
    layer=Name(
        "ReLU",
        _keys(negative_slope="negative_slope", max_value="max_value", threshold="threshold"),
    ),
)
_row(f.relu6, activation="relu6", operation="Relu6", tensorflow="Relu6")
_row(
    f.leaky_relu,
    activation="leaky_relu",
    operation=Name("LeakyRelu", _keys(negative_slope="negative_slope alpha")),
    tensorflow=Name("LeakyRelu", _keys(negative_slope="alpha")),
    # Keras 2 called it alpha.
    layer=Name("LeakyReLU", _keys(negative_slope="negative_slope alpha"), {"negative_slope": 0.3}),
)
_row(
    f.threshold,
    operation=Name("Threshold", _keys(threshold="threshold", default_value="default_value")),
    layer=Name("ThresholdedReLU", _keys(threshold="theta")),  # of Keras 2
)
_row(
    f.elu,
    activation="elu",
    operation=Name("Elu", _keys(alpha="alpha")),
    tensorflow="Elu",
    layer=Name("ELU", _keys(alpha="alpha")),
)
_row(f.selu, activation="selu", operation="Selu", tensorflow="Selu")
_row(f.celu, activation="celu", operation=Name("Celu", _keys(alpha="alpha")))
_row(f.gelu, activation="gelu")
_row(f.gelu, operation=Name("Gelu", _keys(approximate="approximate"), {"approximate": True}))
_row(f.silu, activation="silu swish", operation="Silu")
_row(f.hard_silu, activation="hard_silu hard_swish", operation="HardSilu")
_row(f.mish, activation="mish")
_row(f.sigmoid, activation="sigmoid", operation="Sigmoid", tensorflow="Sigmoid")
_row(f.hard_sigmoid, activation="hard_sigmoid", operation="HardSigmoid")
_row(f.log_sigmoid, activation="log_sigmoid", operation="LogSigmoid")
_row(f.sparse_sigmoid, activation="sparse_sigmoid", operation="SparseSigmoid")
_row(f.hard_tanh, activation="hard_tanh", operation="HardTanh")
_row(np.tanh, activation="tanh", operation="Tanh", tensorflow="Tanh")
_row(f.tanh_shrink, activation="tanh_shrink", operation="TanhShrink")
_row(
    f.soft_shrink,
    activation="soft_shrink",
    operation=Name("SoftShrink", _keys(threshold="threshold")),
)
_row(
    f.hard_shrink,
    activation="hard_shrink",
    operation=Name("HardShrink", _keys(threshold="threshold")),
)
_row(f.softplus, activation="softplus", operation="Softplus", tensorflow="Softplus")
_row(f.softsign, activation="softsign", operation="Softsign", tensorflow="Softsign")
_row(f.sparse_plus, activation="sparse_plus", operation="SparsePlus")
_row(f.squareplus, activation="squareplus", operation=Name("Squareplus", _keys(b="b")))
_row(np.exp, activation="exponential", operation="Exp", tensorflow="Exp")

# -- of one operand ---------------------------------------------------------------------------------

_row(
    f.identity,
    operation="Cast SaturateCast Copy StopGradient ConvertToTensor Array",
    tensorflow="StopGradient PreventGradient CheckNumerics CheckNumericsV2 Snapshot",
)
_row(f.zeros_like, operation="ZerosLike", tensorflow="ZerosLike")
_row(f.ones_like, operation="OnesLike", tensorflow="OnesLike")
_row(f.anything_like, operation="EmptyLike")
_row(np.abs, operation="Abs Absolute Fabs", tensorflow="Abs")
_row(np.negative, operation="Negative", tensorflow="Neg")
_row(np.sign, operation="Sign", tensorflow="Sign")
_row(np.sqrt, operation="Sqrt", tensorflow="Sqrt")
_row(np.square, operation="Square", tensorflow="Square")
_row(np.cbrt, operation="Cbrt")
_row(np.exp2, operation="Exp2")
_row(np.expm1, operation="Expm1", tensorflow="Expm1")
_row(np.log, operation="Log", tensorflow="Log")
_row(np.log1p, operation="Log1p", tensorflow="Log1p")
_row(np.log2, operation="Log2")
_row(np.log10, operation="Log10")
_row(np.sin, operation="Sin", tensorflow="Sin")
_row(np.cos, operation="Cos", tensorflow="Cos")
_row(np.tan, operation="Tan", tensorflow="Tan")
_row(np.sinh, operation="Sinh", tensorflow="Sinh")
_row(np.cosh, operation="Cosh", tensorflow="Cosh")
_row(np.arcsin, operation="Arcsin", tensorflow="Asin")
_row(np.arccos, operation="Arccos", tensorflow="Acos")
_row(np.arctan, operation="Arctan", tensorflow="Atan")
_row(np.arcsinh, operation="Arcsinh", tensorflow="Asinh")
_row(np.arccosh, operation="Arccosh", tensorflow="Acosh")
_row(np.arctanh, operation="Arctanh", tensorflow="Atanh")
_row(np.ceil, operation="Ceil", tensorflow="Ceil")
_row(np.floor, operation="Floor", tensorflow="Floor")
_row(np.trunc, operation="Trunc")
_row(
    f.round_to,
    operation=Name("Round", _keys(decimals="decimals")),
    tensorflow="Round Rint",
)
_row(f.erf, operation="Erf", tensorflow="Erf")
_row(f.erfc, operation="Erfc", tensorflow="Erfc")
_row(f.erfinv, operation="Erfinv", tensorflow="Erfinv")
_row(f.lgamma, tensorflow="Lgamma")
_row(f.digamma, tensorflow="Digamma")
_row(np.sinc, operation="Sinc")
_row(np.i0, operation="I0")
_row(np.reciprocal, operation="Reciprocal", tensorflow="Reciprocal Inv")
_row(f.rsqrt, operation="Rsqrt", tensorflow="Rsqrt")
_row(np.deg2rad, operation="Deg2rad")
_row(np.rad2deg, operation="Rad2deg")
_row(np.real, operation="Real", tensorflow="Real")
_row(np.imag, operation="Imag", tensorflow="Imag")
_row(np.angle, operation="Angle", tensorflow="Angle")
_row(np.conj, operation="Conj Conjugate", tensorflow="Conj")
_row(np.signbit, operation="Signbit")
_row(np.isfinite, operation="Isfinite", tensorflow="IsFinite")
_row(np.isinf, operation="Isinf", tensorflow="IsInf")
_row(np.isnan, operation="Isnan", tensorflow="IsNan")
_row(np.isposinf, operation="Isposinf")
_row(np.isneginf, operation="Isneginf")
_row(np.isreal, operation="Isreal")
_row(np.logical_not, operation="LogicalNot", tensorflow="LogicalNot")
_row(np.invert, operation="BitwiseInvert BitwiseNot", tensorflow="Invert", integers=True)
_row(
    f.nan_to_num,
    operation=Name("NanToNum", _keys(nan="nan", posinf="posinf", neginf="neginf")),
)
_row(
    f.clip,
    operation=Name("Clip", _keys(x_min="x_min", x_max="x_max")),
    tensorflow=Name("ClipByValue", operands=3),
)

# -- of several operands ----------------------------------------------------------------------------

_row(np.add, operands=2, operation="Add", tensorflow="Add AddV2 BiasAdd BiasAddV1")
_row(f.total, operands=0, layer="Add", tensorflow="AddN")
_row(f.average, operands=0, layer="Average")
_row(f.product, operands=0, layer="Multiply")
_row(f.largest, operands=0, layer="Maximum")
_row(f.smallest, operands=0, layer="Minimum")
_row(np.subtract, operands=2, layer="Subtract", operation="Subtract", tensorflow="Sub")
_row(np.multiply, operands=2, operation="Multiply", tensorflow="Mul")
_row(f.multiply_no_nan, operands=2, tensorflow="MulNoNan")
_row(np.divide, operands=2, operation="Divide TrueDivide", tensorflow="RealDiv Div")
_row(np.floor_divide, operands=2, operation="FloorDivide", tensorflow="FloorDiv")
_row(f.truncated_division, operands=2, tensorflow="TruncateDiv")
_row(f.divide_no_nan, operands=2, operation="DivideNoNan", tensorflow="DivNoNan")
_row(f.xdivy, operands=2, tensorflow="Xdivy")
_row(f.xlogy, operands=2, tensorflow="Xlogy")
_row(np.power, operands=2, operation="Power", tensorflow="Pow")
_row(np.mod, operands=2, operation="Mod", tensorflow="FloorMod")
_row(np.fmod, operands=2, operation="Fmod", tensorflow="Mod TruncateMod")
_row(np.maximum, operands=2, operation="Maximum", tensorflow="Maximum")
_row(np.minimum, operands=2, operation="Minimum", tensorflow="Minimum")
_row(np.fmax, operands=2, operation="Fmax")
_row(np.fmin, operands=2, operation="Fmin")
_row(np.hypot, operands=2, operation="Hypot")
_row(np.arctan2, operands=2, operation="Arctan2", tensorflow="Atan2")
_row(np.nextafter, operands=2, operation="Nextafter")
_row(np.logaddexp, operands=2, operation="Logaddexp")
_row(np.logaddexp2, operands=2, operation="Logaddexp2")
_row(np.heaviside, operands=2, operation="Heaviside")
_row(f.squared_difference, operands=2, tensorflow="SquaredDifference")
_row(f.full_like, operation=Name("FullLike", operands=2))
_row(f.polar, operands=2, operation="Polar")
_row(np.where, operands=3, operation="Where")

_row(np.equal, operands=2, operation="Equal", tensorflow="Equal")
_row(np.not_equal, operands=2, operation="NotEqual", tensorflow="NotEqual")
_row(np.greater, operands=2, operation="Greater", tensorflow="Greater")
_row(np.greater_equal, operands=2, operation="GreaterEqual", tensorflow="GreaterEqual")
_row(np.less, operands=2, operation="Less", tensorflow="Less")
_row(np.less_equal, operands=2, operation="LessEqual", tensorflow="LessEqual")
_row(f.is_close, operation=Name("Isclose", _keys(rtol="rtol", atol="atol"), operands=2))
_row(
    f.approximately_equal,
    tensorflow=Name("ApproximateEqual", _keys(tolerance="tolerance"), operands=2),
)
_row(np.logical_and, operands=2, operation="LogicalAnd", tensorflow="LogicalAnd")
_row(np.logical_or, operands=2, operation="LogicalOr", tensorflow="LogicalOr")
_row(np.logical_xor, operands=2, operation="LogicalXor")

_row(np.ldexp, operands=2, integers=True, operation="Ldexp")
_row(np.gcd, operands=2, integers=True, operation="Gcd")
_row(np.lcm, operands=2, integers=True, operation="Lcm")
_row(np.bitwise_and, operands=2, integers=True, operation="BitwiseAnd", tensorflow="BitwiseAnd")
_row(np.bitwise_or, operands=2, integers=True, operation="BitwiseOr", tensorflow="BitwiseOr")
_row(np.bitwise_xor, operands=2, integers=True, operation="BitwiseXor", tensorflow="BitwiseXor")
_row(
    np.left_shift,
    operands=2,
    integers=True,
    operation="LeftShift BitwiseLeftShift",
    tensorflow="LeftShift",
)
_row(
    np.right_shift,
    operands=2,
    integers=True,
    operation="RightShift BitwiseRightShift",
    tensorflow="RightShift",
)
