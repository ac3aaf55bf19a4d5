"""How far outputs are apart, and along which axes they are compared."""

from __future__ import annotations

import numpy as np

from kprune.labels.labels import Labels
from kprune.page.result import Note
from kprune.verification.replay import Unexplained
from kprune.verification.verify_result import OutputDifference

TOLERANCE = 1e-4
# Half precision cannot tell 1e-4 apart; sums of a hundred products lose another digit.
HALF_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}


def unexplained(reason: Unexplained) -> Note:
    """What a reader should know where the pruned file does not say what was done to it."""
    text = f"compared with the original as it is, where removed units count: {reason}"
    return Note("direct", "", text)


def cut_along(values: np.ndarray, labels: Labels, gone: np.ndarray) -> np.ndarray:
    """Values of a tensor at the positions that are left."""
    if labels.shape is None:
        return values
    for axis in range(1, values.ndim):
        dead = labels.axis(axis).dead(gone)
        if dead.any():
            values = values.compress(~dead, axis)
    return values


def is_distribution(values: np.ndarray, axis: int = -1) -> bool:
    """Whether an axis holds probabilities, as a softmax gives them."""
    real = values.astype(np.float64)
    return bool((real >= 0).all() and np.allclose(real.sum(axis=axis), 1.0, atol=1e-2))


def difference(
    name: str, got: np.ndarray, expected: np.ndarray, tolerance: float
) -> OutputDifference:
    shape = [int(size) for size in got.shape[1:]]
    if got.shape != expected.shape:
        return OutputDifference(name, shape, None, None, False)
    if got.dtype.kind not in "fV":
        same = bool((got == expected).all())
        return OutputDifference(name, shape, 0.0 if same else 1.0, 0.0 if same else 1.0, same)
    one, other = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(other)
    alike = bool((np.isfinite(one) == finite).all())
    worst = float(np.abs(one - other)[finite].max(initial=0.0)) if alike else float("inf")
    scale = float(np.abs(other[finite]).max(initial=0.0))
    relative = worst / scale if scale else worst
    return OutputDifference(name, shape, worst, relative, alike and relative <= tolerance)
