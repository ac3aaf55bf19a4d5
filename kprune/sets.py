"""Sets of labels, or of indices of units: sorted integer arrays, each number once.

(numpy.unique imports numpy.ma, which takes as long as reading a model's config.)
"""

from __future__ import annotations

import numpy as np


def distinct(*arrays: np.ndarray) -> np.ndarray:
    """The numbers in one or several arrays.

    Args:
        arrays: of integers, any shape; at least one.
    Returns: sorted (k,), of their common type.
    """
    numbers = np.sort(np.concatenate([np.reshape(array, -1) for array in arrays]))
    first = np.ones(len(numbers), bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return numbers[first]


def without(numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distinct numbers of one array that are not in another; sorted (k,)."""
    numbers = distinct(numbers)
    return numbers[~np.isin(numbers, others)]
