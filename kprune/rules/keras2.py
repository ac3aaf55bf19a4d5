"""TensorFlow functions in graphs that Keras 2 saved: TFOpLambda and SlicingOpLambda.

Keras 2 wraps a TensorFlow function that is called on a layer's output into a layer, and writes the
function's name and arguments into the config. Where `keras.ops` has the same operation, its rule
answers; a function that is not in the table freezes what reaches it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from kprune.labels.layer_call import LayerCall
from kprune.labels.rule_call import CannotTell
from kprune.rules.registry import LAYERS, OPERATIONS
from kprune.text import clean


class Same(Struct, frozen=True):
    """The operation of `keras.ops` that a TensorFlow function is.

    Attributes:
        kind: its class.
        takes: names of the function's arguments behind the first that are operands, in order.
        named: names of its other arguments, by those that the operation has.
    """

    kind: str
    takes: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)


_ELEMENTWISE = {
    "abs": "Abs", "math.abs": "Abs", "math.negative": "Negative", "negative": "Negative",
    "__operators__.neg": "Negative", "math.sqrt": "Sqrt", "sqrt": "Sqrt", "math.square": "Square",
    "square": "Square", "math.sign": "Sign", "math.sin": "Sin", "math.cos": "Cos",
    "math.exp": "Exp", "exp": "Exp", "math.log": "Log", "math.log1p": "Log1p", "math.expm1": "Expm1",
    "math.rsqrt": "Rsqrt", "math.reciprocal": "Reciprocal", "math.erf": "Erf", "math.floor": "Floor",
    "math.ceil": "Ceil", "math.round": "Round", "round": "Round", "math.tanh": "Tanh", "nn.tanh": "Tanh",
    "tanh": "Tanh", "math.sigmoid": "Sigmoid", "sigmoid": "Sigmoid", "nn.sigmoid": "Sigmoid",
    "math.softplus": "Softplus", "nn.softplus": "Softplus", "nn.relu": "Relu", "nn.relu6": "Relu6",
    "nn.elu": "Elu", "nn.selu": "Selu", "nn.gelu": "Gelu", "nn.silu": "Silu", "nn.swish": "Silu",
    "nn.leaky_relu": "LeakyRelu", "cast": "Cast", "identity": "Copy", "stop_gradient": "StopGradient",
    "clip_by_value": "Clip", "zeros_like": "ZerosLike", "ones_like": "OnesLike",
}  # fmt: skip

_PAIRS = {
    "math.add": "Add", "add": "Add", "__operators__.add": "Add", "__operators__.radd": "Add",
    "math.subtract": "Subtract", "subtract": "Subtract", "__operators__.sub": "Subtract",
    "math.multiply": "Multiply", "multiply": "Multiply", "__operators__.mul": "Multiply",
    "math.divide": "Divide", "divide": "Divide", "math.truediv": "Divide", "truediv": "Divide",
    "__operators__.truediv": "Divide", "math.divide_no_nan": "DivideNoNan",
    "math.maximum": "Maximum", "maximum": "Maximum", "math.minimum": "Minimum", "minimum": "Minimum",
    "math.pow": "Power", "pow": "Power", "__operators__.pow": "Power",
}  # fmt: skip

_REDUCTIONS = {
    "math.reduce_sum": "Sum", "reduce_sum": "Sum", "math.reduce_mean": "Mean", "reduce_mean": "Mean",
    "math.reduce_max": "Max", "reduce_max": "Max", "math.reduce_min": "Min", "reduce_min": "Min",
    "math.reduce_prod": "Prod", "math.reduce_variance": "Var", "math.reduce_std": "Std",
}  # fmt: skip

FUNCTIONS: dict[str, Same] = {
    **{name: Same(kind) for name, kind in _ELEMENTWISE.items()},
    **{name: Same(kind, ("y",)) for name, kind in _PAIRS.items()},
    **{
        name: Same(kind, named={"axis": "axis", "keepdims": "keepdims"})
        for name, kind in _REDUCTIONS.items()
    },
    "reshape": Same("Reshape", named={"newshape": "shape"}),
    "transpose": Same("Transpose", named={"axes": "perm"}),
    "expand_dims": Same("ExpandDims", named={"axis": "axis"}),
    "squeeze": Same("Squeeze", named={"axis": "axis"}),
    "concat": Same("Concatenate", named={"axis": "axis"}),
    "stack": Same("Stack", named={"axis": "axis"}),
    "nn.softmax": Same("Softmax", named={"axis": "axis"}),
    "nn.log_softmax": Same("LogSoftmax", named={"axis": "axis"}),
    "linalg.matmul": Same("Matmul", ("b",)),
    "matmul": Same("Matmul", ("b",)),
}
# Arguments that change nothing for labels, or must not be set for the operations to be the same.
_IDLE = {
    "name",
    "training",
    "dtype",
    "alpha",
    "approximate",
    "clip_value_min",
    "clip_value_max",
    "beta",
    "features",
}
_UNSET = (None, False)


@LAYERS.rule(
    "TFOpLambda",
    does="passes",
    note="Keras 2: a TensorFlow function, by the rule of its keras.ops twin",
)
def tf_op_lambda(call: LayerCall) -> Any:
    name = str(call.config.get("function", "")).removeprefix("compat.v1.")
    same = FUNCTIONS.get(name)
    if same is None:
        raise CannotTell(f"calls tf.{clean(name)}, which kprune has no rule for")
    known = {*same.takes, *same.named.values(), *_IDLE}
    odd = sorted(
        key for key, value in call.kwargs.items() if key not in known and value not in _UNSET
    )
    if odd or len(call.args) > 1:
        raise CannotTell(f"calls tf.{clean(name)} with {clean(', '.join(odd) or 'more arguments')}")
    operands = [*call.args, *(call.kwargs[key] for key in same.takes if key in call.kwargs)]
    if len(operands) != 1 + len(same.takes):
        raise CannotTell(f"calls tf.{clean(name)} on {len(operands)} operands")
    named = {
        ours: call.kwargs[theirs] for ours, theirs in same.named.items() if theirs in call.kwargs
    }
    return OPERATIONS.rules[same.kind].function(
        call.seen_as(same.kind, operands, named, same.named)
    )


@LAYERS.rule("SlicingOpLambda", does="passes", note="Keras 2: a slice, which follows")
def slicing_op_lambda(call: LayerCall) -> Any:
    spec = call.kwargs.get("slice_spec")
    key = [_part(item) for item in spec] if isinstance(spec, list) else _part(spec)
    view = call.seen_as("GetItem", [call.x], {"key": key}, {"key": "slice_spec"})
    return OPERATIONS.rules["GetItem"].function(view)


def _part(item: Any) -> Any:
    """One index of a slice: an int, a slice, None, or an ellipsis."""
    if isinstance(item, dict) and item.get("class_name") == "__ellipsis__":
        return Ellipsis
    if isinstance(item, dict) and set(item) == {"start", "stop", "step"}:
        if not all(value is None or isinstance(value, int) for value in item.values()):
            raise CannotTell("slices by numbers computed as the model runs")
        return slice(item["start"], item["stop"], item["step"])
    return item
