"""What an edit makes of a whole tensor, or of it run by run: the same as numpy's statement of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kprune.edit import TensorEdit
from tests.formats.test_cut import cases, expected


@given(case=cases())
@settings(max_examples=200, deadline=None)
def test_an_edit_makes_of_an_array_what_numpy_makes(case: tuple[np.ndarray, TensorEdit]) -> None:
    array, edit = case
    before = array.tobytes()
    found = edit.applied(array)
    assert found.shape == edit.shape_after(array.shape)
    assert found.tobytes() == expected(array, edit).tobytes()
    assert array.tobytes() == before


@given(case=cases(), size=st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_runs_of_rows_make_together_what_the_whole_makes(
    case: tuple[np.ndarray, TensorEdit], size: int
) -> None:
    array, edit = case
    if array.ndim == 0 or (edit.blocks is not None and array.ndim < 3):
        return  # no rows, or rows that are cut group by group
    runs = [edit.applied(array[at : at + size], at) for at in range(0, max(len(array), 1), size)]
    assert b"".join(run.tobytes() for run in runs) == edit.applied(array).tobytes()
