"""Number types as weights have them: numpy's, and bfloat16, which is two opaque bytes to HDF5."""

from __future__ import annotations

from typing import Any

import numpy as np

BFLOAT16 = np.dtype("V2")


def is_number(dtype: np.dtype) -> bool:
    """Whether a weight can be of this type; texts and other opaque bytes are none."""
    return dtype.kind in "iufb" or dtype == BFLOAT16


def as_float(array: np.ndarray) -> np.ndarray:
    """Weights in a type that statistics can be taken in.

    Args:
        array: as `Source.read` returns it; never modified.
    Returns: float32 for bfloat16 and float16 (exact in both cases); any other array as it is.
    """
    if array.dtype == BFLOAT16:
        words = np.ascontiguousarray(array).view("<u2").reshape(array.shape)
        return (words.astype("<u4") << np.uint32(16)).view("<f4")
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:
        return array.astype(np.float32)
    return array


def scaled(array: np.ndarray, factor: float) -> np.ndarray:
    """Weights times a factor, rounded once to their own type.

    Args:
        array: bfloat16 or any float; never modified.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN stays a NaN, quietly
        return from_float(as_float(array).astype(np.float64) * factor, array.dtype)


def from_float(values: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
    """The nearest values that a weight of a given type can hold.

    A finite number stays finite: beyond the type's range it becomes the largest number there is,
    since an infinity in a bias makes NaN of the next subtraction.

    Args:
        values: numbers of any shape.
        dtype: of the weight; bfloat16 is `V2`.
    Returns: array of `dtype`, shaped like `values`.
    Raises: ValueError if an integer type cannot hold the values, or the type is not a number's.
    """
    given = np.asarray(values)
    if dtype == BFLOAT16:
        return _to_bfloat16(given)
    if dtype.kind in "iub":
        with np.errstate(invalid="ignore"):  # what does not fit is noticed by the comparison
            exact = given.astype(dtype)
        if not np.array_equal(exact.astype(np.float64), given.astype(np.float64)):
            raise ValueError(f"{values} is not a value of type {dtype}")
        return exact
    if dtype.kind == "f":
        with np.errstate(under="ignore"):
            return _within(given, dtype).astype(dtype)
    if dtype.kind == "V" and not given.any():
        return np.zeros(given.shape, dtype)  # zero is all bits 0 in every float of one byte
    raise ValueError(f"kprune knows no number type behind {dtype.itemsize} opaque bytes")


def _within(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = values.astype(np.float64)
    largest = float(np.finfo(dtype).max)
    return np.where(np.isfinite(wide), np.clip(wide, -largest, largest), wide)


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round to nearest, ties to even, as TensorFlow does."""
    with np.errstate(under="ignore"):
        bits = _within(values, np.dtype("<f4")).astype("<f4").view("<u4")
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Rounding must make no infinity of a finite number, nor of a NaN, whose payload may be low.
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    finite = (bits & np.uint32(0x7F800000)) != np.uint32(0x7F800000)
    over = finite & ((rounded & np.uint32(0x7FFF)) == np.uint32(0x7F80))
    words = np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), rounded - over)
    return words.astype("<u2").view(BFLOAT16).reshape(values.shape)


_FLOAT_POLICIES = frozenset({"DTypePolicy", "FloatDTypePolicy", "Policy", "PolicyV1"})


def quantizes(policy: Any) -> bool:
    """Whether a layer's `dtype`, as the config has it, is a policy that keeps weights as integers.

    `Policy` is what Keras 2 writes for mixed precision.
    """
    if isinstance(policy, dict):
        return (policy.get("class_name") or "DTypePolicy") not in _FLOAT_POLICIES
    return isinstance(policy, str) and "_from_" in policy
