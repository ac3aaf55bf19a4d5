"""TensorFlow functions that `keras.ops` has as well, and those that work element by element."""

from __future__ import annotations

from kprune.labels.labels import Labels
from kprune.rules.effects.reductions import reduced
from kprune.rules.operations.arguments import axes_of
from kprune.rules.tensorflow.registry import Twin, argument, function, twins
from kprune.tracing.layer_call import LayerCall

ELEMENTWISE = {
    "Abs": "abs math.abs", "Negative": "negative math.negative __operators__.neg",
    "Sign": "sign math.sign", "Sqrt": "sqrt math.sqrt", "Square": "square math.square",
    "Expm1": "math.expm1", "Log1p": "math.log1p", "Sin": "math.sin", "Tan": "math.tan",
    "Sinh": "math.sinh", "Tanh": "math.tanh nn.tanh tanh", "Arcsin": "math.asin",
    "Arctan": "math.atan", "Arcsinh": "math.asinh", "Arctanh": "math.atanh", "Ceil": "math.ceil",
    "Floor": "math.floor", "Round": "round math.round math.rint", "Erf": "math.erf",
    "Erfinv": "math.erfinv",
    "Copy": "identity convert_to_tensor debugging.check_numerics debugging.assert_all_finite "
            "grad_pass_through nn.dropout",
    "Cast": "cast to_bfloat16 to_complex64 to_complex128 to_double to_float to_int32 to_int64",
    "SaturateCast": "dtypes.saturate_cast", "StopGradient": "stop_gradient", "Real": "math.real",
    "Conj": "math.conj", "ZerosLike": "zeros_like",
    "Relu": "nn.relu keras.activations.relu", "Relu6": "nn.relu6",
    "LeakyRelu": "nn.leaky_relu", "Elu": "nn.elu keras.activations.elu",
    "Selu": "nn.selu keras.activations.selu", "Gelu": "nn.gelu keras.activations.gelu",
    "Silu": "nn.silu nn.swish keras.activations.swish", "Softsign": "nn.softsign",
    "Angle": "math.angle", "Arccos": "math.acos", "Arccosh": "math.acosh", "Cos": "math.cos",
    "Cosh": "math.cosh", "Exp": "exp math.exp", "Log": "math.log",
    "Reciprocal": "math.reciprocal", "Rsqrt": "math.rsqrt", "Erfc": "math.erfc",
    "Imag": "math.imag", "Isfinite": "math.is_finite", "Isinf": "math.is_inf",
    "Isnan": "math.is_nan", "LogicalNot": "math.logical_not", "BitwiseInvert": "bitwise.invert",
    "Sigmoid": "sigmoid math.sigmoid nn.sigmoid keras.activations.sigmoid",
    "HardSigmoid": "keras.activations.hard_sigmoid", "LogSigmoid": "math.log_sigmoid",
    "Softplus": "math.softplus nn.softplus", "OnesLike": "ones_like",
}  # fmt: skip
IDLE = (
    "alpha approximate features beta training tensor message msg out_type rate noise_shape seed "
    "keep_prob rng dtype_hint preferred_dtype partition optimize threshold max_value negative_slope "
    "layout partitioner x"
)

PAIRS = {
    "Add": "add math.add __operators__.add __operators__.radd",
    "Subtract": "subtract math.subtract __operators__.sub __operators__.rsub",
    "Multiply": "multiply math.multiply __operators__.mul __operators__.rmul",
    "Divide": "divide math.divide math.truediv truediv realdiv div __operators__.truediv "
              "__operators__.rtruediv",
    "FloorDivide": "math.floordiv floor_div floordiv __operators__.floordiv truncatediv",
    "DivideNoNan": "math.divide_no_nan", "Mod": "math.floormod __operators__.mod truncatemod",
    "Maximum": "maximum math.maximum", "Minimum": "minimum math.minimum",
    "Power": "pow math.pow __operators__.pow", "NotEqual": "math.not_equal",
    "Equal": "math.equal", "Greater": "greater math.greater", "Less": "less math.less",
    "GreaterEqual": "greater_equal math.greater_equal", "LessEqual": "less_equal math.less_equal",
    "LogicalAnd": "math.logical_and", "LogicalOr": "math.logical_or",
    "LogicalXor": "math.logical_xor", "BitwiseAnd": "bitwise.bitwise_and",
    "BitwiseOr": "bitwise.bitwise_or", "BitwiseXor": "bitwise.bitwise_xor",
    "LeftShift": "bitwise.left_shift", "RightShift": "bitwise.right_shift",
}  # fmt: skip
# The second operand by another name than y; functions that no operation of keras.ops is.
OTHER_PAIRS = {
    "math.squared_difference": ("Subtract", ("y",)), "math.multiply_no_nan": ("Multiply", ("y",)),
    "math.atan2": ("Arctan2", ("x",)), "math.nextafter": ("Nextafter", ("x2",)),
    "math.xdivy": ("Power", ("y",)), "math.xlogy": ("Power", ("y",)),
    "math.xlog1py": ("Power", ("y",)), "math.igamma": ("Power", ("x",)),
    "math.igammac": ("Power", ("x",)), "math.zeta": ("Power", ("q",)),
    "math.polygamma": ("Power", ("x",)), "math.betainc": ("Power", ("b", "x")),
    "math.scalar_mul": ("Multiply", ("x",)), "dtypes.complex": ("Add", ("imag",)),
    "nn.bias_add": ("Add", ("bias",)), "__operators__.eq": ("Equal", ("other",)),
    "__operators__.ne": ("NotEqual", ("other",)), "where": ("Where", ("x", "y")),
}  # fmt: skip
REDUCTIONS = {
    "Sum": "reduce_sum math.reduce_sum", "Mean": "reduce_mean math.reduce_mean",
    "Max": "reduce_max math.reduce_max", "Min": "reduce_min math.reduce_min",
    "Prod": "reduce_prod math.reduce_prod", "Var": "math.reduce_variance",
    "Std": "math.reduce_std", "All": "math.reduce_all", "Any": "math.reduce_any",
    "Logsumexp": "math.reduce_logsumexp", "CountNonzero": "math.count_nonzero",
}  # fmt: skip
_OVER = {
    "axis": ("axis", "reduction_indices", "axes"),
    "keepdims": ("keepdims", "keep_dims"),
}
_AXIS = {"axis": ("axis", "dimension", "dim")}

for _kind, _names in ELEMENTWISE.items():
    twins(*_names.split(), twin=Twin(_kind, idle=tuple(IDLE.split())))
for _kind, _names in PAIRS.items():
    twins(*_names.split(), twin=Twin(_kind, ("y",)))
for _name, (_kind, _takes) in OTHER_PAIRS.items():
    twins(_name, twin=Twin(_kind, _takes))
for _kind, _names in REDUCTIONS.items():
    twins(*_names.split(), twin=Twin(_kind, named=_OVER, idle=("input", "output_type")))
twins("math.argmax", twin=Twin("Argmax", (), _AXIS, {"axis": 0}, ("output_type",)))
twins("math.argmin", twin=Twin("Argmin", (), _AXIS, {"axis": 0}, ("output_type",)))
twins(
    "nn.softmax", "keras.activations.softmax",
    twin=Twin("Softmax", (), {"axis": ("axis", "dim")}, {"axis": -1}),
)  # fmt: skip
twins("nn.log_softmax", twin=Twin("LogSoftmax", (), {"axis": ("axis", "dim")}, {"axis": -1}))
twins("nn.moments", twin=Twin("Moments", (), {"axes": ("axes",), "keepdims": _OVER["keepdims"]}))
twins(
    "math.cumsum",
    twin=Twin("Cumsum", (), {"axis": ("axis",)}, {"axis": 0}, ("exclusive", "reverse")),
)
twins(
    "math.cumprod", "math.cumulative_logsumexp",
    twin=Twin("Cumprod", (), {"axis": ("axis",)}, {"axis": 0}, ("exclusive", "reverse")),
)  # fmt: skip
twins("sort", twin=Twin("Sort", (), {"axis": ("axis",)}, {"axis": -1}, ("direction",)))
twins(
    "argsort", twin=Twin("Argsort", (), {"axis": ("axis",)}, {"axis": -1}, ("direction", "stable"))
)
twins("transpose", twin=Twin("Transpose", (), {"axes": ("perm",)}))
twins("expand_dims", twin=Twin("ExpandDims", (), {"axis": ("axis", "dim")}))
twins("squeeze", twin=Twin("Squeeze", (), {"axis": ("axis", "squeeze_dims")}))
twins("reverse", twin=Twin("Flip", (), {"axis": ("axis",)}))
twins("repeat", twin=Twin("Repeat", (), {"repeats": ("repeats",), "axis": ("axis",)}))
twins("concat", twin=Twin("Concatenate", (), {"axis": ("axis",)}))
twins("stack", twin=Twin("Stack", (), {"axis": ("axis",)}, {"axis": 0}))
twins("unstack", twin=Twin("Unstack", (), {"axis": ("axis",)}, {"axis": 0}, ("num",)))
twins("linalg.matrix_transpose", twin=Twin("Swapaxes", (), {}, {"axis1": -1, "axis2": -2}))
twins("linalg.adjoint", twin=Twin("Swapaxes", (), {}, {"axis1": -1, "axis2": -2}, ("matrix",)))
twins(
    "clip_by_value",
    twin=Twin("Clip", (), {"x_min": ("clip_value_min",), "x_max": ("clip_value_max",)}),
)


@function(
    *(
        "math.bessel_i0 math.bessel_i0e math.bessel_i1 math.bessel_i1e math.digamma math.erfcinv "
        "math.lgamma math.ndtri math.reciprocal_no_nan math.special.bessel_j0 "
        "math.special.bessel_j1 math.special.bessel_k0 math.special.bessel_k0e "
        "math.special.bessel_k1 math.special.bessel_k1e math.special.bessel_y0 "
        "math.special.bessel_y1 math.special.dawsn math.special.expint math.special.fresnel_cos "
        "math.special.fresnel_sin math.special.spence quantization.fake_quant_with_min_max_args "
        "keras.activations.exponential keras.activations.mish keras.activations.softplus "
        "keras.activations.softsign keras.activations.tanh keras.activations.linear"
    ).split(),
    idle="min max num_bits narrow_range",
)
def element_by_element(call: LayerCall) -> Labels:
    """functions that keras.ops lacks: their value at 0 is taken to be nonzero"""
    return call.x.with_keeps_zero(False)


@function("math.l2_normalize", takes="axis dim epsilon")
def l2_normalize(call: LayerCall) -> Labels:
    """divides by the norm over some axes, in which units that are 0 have no effect"""
    axis = argument(call, "axis", call.kwargs.get("dim"))
    for at in axes_of(axis, len(call.shape())):
        if not call.x.keeps_zero:
            call.mix(call.x.axis(at), f"share the norm that {call.layer.path!r} takes")
    return call.x


@function("norm", "math.reduce_euclidean_norm", takes="ord axis keepdims keep_dims")
def norm(call: LayerCall) -> Labels:
    """over units: those that are 0 have no effect if squares are summed"""
    axes = axes_of(call.kwargs.get("axis"), len(call.shape()))
    plain = argument(call, "ord", "euclidean") in ("euclidean", 1, 2) and len(axes) == 1
    keepdims = bool(call.kwargs.get("keepdims") or call.kwargs.get("keep_dims"))
    return reduced(call, call.x, axes, exact=plain and call.x.keeps_zero, keepdims=keepdims)


@function("math.top_k", takes="k", idle="sorted index_type")
def top_k(call: LayerCall) -> list[Labels]:
    """the largest along the last axis, on which no unit may stand"""
    shape = call.shape()
    x = call.keep_axes_whole(
        call.x, [len(shape) - 1], f"are sorted by their values in {call.layer.path!r}"
    )
    one = x.with_shape((*shape[:-1], int(argument(call, "k", 1))))
    return [one, one]
