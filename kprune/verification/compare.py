"""How much outputs differ."""

from __future__ import annotations

import numpy as np

from kprune.page.result import Note
from kprune.verification.replay import Unexplained
from kprune.verification.verify_result import OutputDifference

TOLERANCE = 1e-4
# Half precision cannot tell 1e-4 apart; sums of a hundred products lose another digit.
HALF_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}


def unexplained(reason: Unexplained) -> Note:
    """A note that the pruned file does not record how it was pruned."""
    text = f"compared with the original as it is, removed units included: {reason}"
    return Note("direct", "", text)


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
