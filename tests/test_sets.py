from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kprune.sets import distinct, without

numbers = st.lists(st.integers(-5, 5), max_size=12).map(lambda values: np.array(values, np.int64))


@given(one=numbers, other=numbers)
def test_they_are_what_numpy_says(one: np.ndarray, other: np.ndarray) -> None:
    assert distinct(one).tolist() == np.unique(one).tolist()
    assert distinct(one, other).tolist() == np.union1d(one, other).tolist()
    assert without(one, other).tolist() == np.setdiff1d(one, other).tolist()
    assert distinct(one, other).dtype == without(one, other).dtype == np.int64


def test_they_take_any_shape() -> None:
    assert distinct(np.array([[3, 1], [1, 3]]), np.int64(2)).tolist() == [1, 2, 3]
