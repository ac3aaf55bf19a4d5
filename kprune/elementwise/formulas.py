"""Element-wise functions in numpy, parameters by name.

The formulas are those of keras/src/activations/activations.py, keras/src/backend/tensorflow and
of TensorFlow's kernels; numpy's own function stands in the table where it is the same.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

erf = np.vectorize(math.erf, otypes=[np.float64])
erfc = np.vectorize(math.erfc, otypes=[np.float64])


@np.vectorize
def lgamma(x: float) -> float:
    """log |gamma(x)|, infinite at 0 and at the negative whole numbers"""
    if not math.isfinite(x):
        return abs(x)
    return math.inf if x <= 0 and x == math.floor(x) else math.lgamma(x)


@np.vectorize
def digamma(x: float) -> float:
    """The derivative of log gamma: reflected, carried up to 10, then Stirling's series."""
    if not math.isfinite(x) or (x <= 0 and x == math.floor(x)):
        return math.inf if x == math.inf else math.nan
    if x < 0:
        return float(digamma(1.0 - x)) - math.pi / math.tan(math.pi * x)
    below = 0.0
    while x < 10.0:
        below, x = below - 1.0 / x, x + 1.0
    square = 1.0 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return below + math.log(x) - 0.5 / x - series


def erfinv(y: np.ndarray) -> np.ndarray:
    """Newton's method from Winitzki's approximation."""
    y = np.asarray(y, np.float64)
    inside = np.where(np.abs(y) < 1.0, y, 0.0)
    log = np.log1p(-inside * inside)
    term = 2.0 / (math.pi * 0.147) + log / 2.0
    x = np.sign(inside) * np.sqrt(np.sqrt(term * term - log / 0.147) - term)
    for _ in range(3):
        x = x - (erf(x) - inside) * (math.sqrt(math.pi) / 2.0) * np.exp(x * x)
    beyond = np.where(np.abs(y) == 1.0, np.sign(y) * np.inf, np.nan)
    return np.where(np.abs(y) < 1.0, x, beyond)


def identity(x: Any) -> Any:
    return x


def rsqrt(x: np.ndarray) -> np.ndarray:
    return 1.0 / np.sqrt(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(log_sigmoid(x))


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -x)


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


def sparse_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.5 * (x + 1.0), 0.0, 1.0)


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


def relu6(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0.0, 6.0)


def leaky_relu(x: np.ndarray, negative_slope: float = 0.2) -> np.ndarray:
    return relu(x, negative_slope)


def threshold(x: np.ndarray, threshold: float = 1.0, default_value: float = 0.0) -> np.ndarray:
    return np.where(x > threshold, x, default_value)


def elu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def selu(x: np.ndarray) -> np.ndarray:
    return SELU_SCALE * elu(x, SELU_ALPHA)


def celu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.maximum(x, 0.0) + alpha * np.expm1(np.minimum(x, 0.0) / alpha)


def gelu(x: np.ndarray, approximate: bool = False) -> np.ndarray:
    if approximate:
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def hard_silu(x: np.ndarray) -> np.ndarray:
    return x * hard_sigmoid(x)


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(softplus(x))


def hard_tanh(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -1.0, 1.0)


def tanh_shrink(x: np.ndarray) -> np.ndarray:
    return x - np.tanh(x)


def soft_shrink(x: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    return np.where(x > threshold, x - threshold, np.where(x < -threshold, x + threshold, 0.0))


def hard_shrink(x: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    return np.where(np.abs(x) > threshold, x, 0.0)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def softsign(x: np.ndarray) -> np.ndarray:
    return x / (1.0 + np.abs(x))


def sparse_plus(x: np.ndarray) -> np.ndarray:
    return np.where(x <= -1, 0.0, np.where(x < 1, 0.25 * (x + 1) ** 2, x))


def squareplus(x: np.ndarray, b: float = 4.0) -> np.ndarray:
    return (x + np.sqrt(x * x + b)) / 2.0


def round_to(x: np.ndarray, decimals: int = 0) -> np.ndarray:
    return np.round(x, decimals)


def nan_to_num(
    x: np.ndarray, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> np.ndarray:
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


def clip(x: np.ndarray, x_min: Any = None, x_max: Any = None) -> np.ndarray:
    if x_min is not None:
        x = np.maximum(x, x_min)
    return x if x_max is None else np.minimum(x, x_max)


def zeros_like(x: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


def ones_like(x: np.ndarray) -> np.ndarray:
    return np.ones_like(x)


def anything_like(x: np.ndarray) -> np.ndarray:
    """Memory as it was found: no value can be relied on."""
    return np.full(np.shape(x), np.nan)


def full_like(x: np.ndarray, fill_value: Any) -> np.ndarray:
    return np.broadcast_to(fill_value, np.shape(x))


def total(*operands: np.ndarray) -> np.ndarray:
    return np.asarray(sum(operands))


def product(*operands: np.ndarray) -> np.ndarray:
    return functools.reduce(np.multiply, operands)


def average(*operands: np.ndarray) -> np.ndarray:
    return total(*operands) / len(operands)


def largest(*operands: np.ndarray) -> np.ndarray:
    return functools.reduce(np.maximum, operands)


def smallest(*operands: np.ndarray) -> np.ndarray:
    return functools.reduce(np.minimum, operands)


def squared_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(np.subtract(x, y))


def divide_no_nan(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 where the divisor is 0"""
    return np.where(np.equal(y, 0), 0.0, np.divide(x, np.where(np.equal(y, 0), 1, y)))


def multiply_no_nan(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 where y is 0, even if x is infinite"""
    return np.where(np.equal(y, 0), 0.0, np.multiply(x, y))


def xdivy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x / y, and 0 where x is 0"""
    return np.where(np.equal(x, 0), 0.0, np.divide(x, y))


def xlogy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x log(y), and 0 where x is 0"""
    return np.where(np.equal(x, 0), 0.0, np.multiply(x, np.log(y)))


def truncated_division(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.trunc(np.divide(x, y))


def polar(length: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return length * np.exp(1j * np.asarray(angle))


def is_close(x: np.ndarray, y: np.ndarray, rtol: float = 1e-5, atol: float = 1e-8) -> np.ndarray:
    return np.isclose(x, y, rtol, atol)


def approximately_equal(x: np.ndarray, y: np.ndarray, tolerance: float = 1e-5) -> np.ndarray:
    return np.abs(np.subtract(x, y)) < tolerance
