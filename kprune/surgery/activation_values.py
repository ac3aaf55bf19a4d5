"""What the element-wise activations of Keras make of numbers, in numpy.

The formulas are those of keras/src/activations/activations.py and of keras/src/layers/activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kprune.rules.activations import activation_name

Function = Callable[[np.ndarray], np.ndarray]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(_log_sigmoid(x))


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -x)


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


def relu(
    x: np.ndarray,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> np.ndarray:
    """x from `threshold` on, at most `max_value`; below, its distance times `negative_slope`."""
    below = negative_slope * (x - threshold)
    y = np.where(x > threshold if threshold else x >= 0.0, x, below)
    return y if max_value is None else np.minimum(y, max_value)


def elu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def gelu(x: np.ndarray, approximate: bool = False) -> np.ndarray:
    if approximate:
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def _sparse_plus(x: np.ndarray) -> np.ndarray:
    return np.where(x <= -1, 0.0, np.where(x < 1, 0.25 * (x + 1) ** 2, x))


def _soft_shrink(x: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    return np.where(x > threshold, x - threshold, np.where(x < -threshold, x + threshold, 0.0))


def _hard_shrink(x: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    return np.where(np.abs(x) > threshold, x, 0.0)


def _celu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.maximum(x, 0.0) + alpha * np.expm1(np.minimum(x, 0.0) / alpha)


FUNCTIONS: Mapping[str, Function] = {
    "linear": lambda x: x,
    "relu": relu,
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "leaky_relu": lambda x: relu(x, 0.2),
    "elu": elu,
    "selu": lambda x: SELU_SCALE * elu(x, SELU_ALPHA),
    "celu": _celu,
    "gelu": gelu,
    "silu": lambda x: x * _sigmoid(x),
    "swish": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0.0, x)),
    "sigmoid": _sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda x: x * _hard_sigmoid(x),
    "hard_swish": lambda x: x * _hard_sigmoid(x),
    "hard_tanh": lambda x: np.clip(x, -1.0, 1.0),
    "hard_shrink": _hard_shrink,
    "soft_shrink": _soft_shrink,
    "tanh": np.tanh,
    "tanh_shrink": lambda x: x - np.tanh(x),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "softsign": lambda x: x / (1.0 + np.abs(x)),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda x: np.clip(0.5 * (x + 1.0), 0.0, 1.0),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4.0)) / 2.0,
    "exponential": np.exp,
    "log_sigmoid": _log_sigmoid,
}

# Operations of keras.ops whose parameters, if any, stand in their config.
OPERATIONS: Mapping[str, str] = {
    "Relu": "relu", "Relu6": "relu6", "Selu": "selu", "Silu": "silu", "HardSilu": "hard_silu",
    "Sigmoid": "sigmoid", "HardSigmoid": "hard_sigmoid", "LogSigmoid": "log_sigmoid",
    "Softplus": "softplus", "Softsign": "softsign", "SparsePlus": "sparse_plus",
    "SparseSigmoid": "sparse_sigmoid", "HardTanh": "hard_tanh", "TanhShrink": "tanh_shrink",
    "Tanh": "tanh", "Exp": "exponential",
}  # fmt: skip

PLAIN: Mapping[str, Function] = {
    "Abs": np.abs, "Absolute": np.abs, "Negative": np.negative, "Square": np.square, "Sin": np.sin,
    "Cos": np.cos, "Expm1": np.expm1, "Sinh": np.sinh, "Cosh": np.cosh, "Arctan": np.arctan,
    "Arcsinh": np.arcsinh,
}  # fmt: skip

# f(a x) = a f(x) for every a > 0.
HOMOGENEOUS = frozenset({"linear", "relu", "leaky_relu"})


def activation_function(activation: Any) -> Function | None:
    """The function of a serialized activation: a name, a function's dict or a layer's.

    Returns: None if it is not one of the element-wise ones that are known here.
    """
    name = activation_name(activation)
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if isinstance(activation, dict) and isinstance(activation.get("config"), dict):
        return layer_function(name, activation["config"])
    return None


def layer_function(kind: str, config: Mapping[str, Any]) -> Function | None:
    """The function of an activation layer or of an operation, with the parameters in its config.

    Returns: None if it is not known here.
    """
    if kind == "Activation":
        return activation_function(config.get("activation"))
    if kind == "ReLU":
        slope, threshold = config.get("negative_slope") or 0.0, config.get("threshold") or 0.0
        return lambda x: relu(x, float(slope), config.get("max_value"), float(threshold))
    if kind in ("LeakyReLU", "LeakyRelu"):
        # Keras 2 called it alpha; the operation has a default of its own.
        leak = config.get(
            "negative_slope", config.get("alpha", 0.3 if kind == "LeakyReLU" else 0.2)
        )
        return lambda x: relu(x, float(leak))
    if kind in ("ELU", "Elu"):
        return lambda x: elu(x, float(config.get("alpha", 1.0)))
    if kind == "Celu":
        return lambda x: _celu(x, float(config.get("alpha", 1.0)))
    if kind == "Gelu":
        return lambda x: gelu(x, bool(config.get("approximate", True)))
    if kind in ("HardShrink", "SoftShrink"):
        shrink = _hard_shrink if kind == "HardShrink" else _soft_shrink
        return lambda x: shrink(x, float(config.get("threshold", 0.5)))
    if kind in OPERATIONS:
        return FUNCTIONS[OPERATIONS[kind]]
    return PLAIN.get(kind)


def homogeneous(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether f(a x) = a f(x) for a > 0 holds of a layer, or of the activation in its config."""
    if kind == "ReLU":
        return not config.get("max_value") and not config.get("threshold")
    if kind in ("LeakyReLU", "Relu", "LeakyRelu", "Abs", "Absolute", "Negative"):
        return True
    activation = config.get("activation")
    if isinstance(activation, dict) and activation.get("class_name") in ("ReLU", "LeakyReLU"):
        return homogeneous(activation["class_name"], activation.get("config") or {})
    return activation_name(activation) in HOMOGENEOUS
