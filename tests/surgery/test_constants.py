"""Constants pushed through a model, against what numpy says of the same formulas."""

from __future__ import annotations

import numpy as np
import pytest

from kprune.edit import Fill, TensorEdit
from kprune.labels.labels import Labels
from kprune.surgery.constants.constant_units import NOTHING, ConstantUnits, read_off


def test_a_unit_is_known_only_if_it_has_one_value_wherever_it_stands():
    ids = np.array([[1, 2, 3], [1, 2, 0]])
    values = np.array([[5.0, 6.0, 7.0], [5.0, 6.5, np.nan]])
    known = ConstantUnits.of(ids, values)
    assert known.ids.tolist() == [1, 3]
    assert known.values.tolist() == [5.0, 7.0]
    assert ConstantUnits.of(np.array([4, 4]), np.array([1.0, np.nan])).ids.size == 0


def test_values_are_found_again_by_label():
    known = ConstantUnits.of(np.array([3, 9]), np.array([0.5, -1.0]))
    np.testing.assert_array_equal(known.at(np.array([9, 1, 3, 0])), [-1.0, np.nan, 0.5, np.nan])
    assert np.isnan(NOTHING.at(np.array([1]))).all()


def test_values_over_a_tensor_broadcast_as_its_labels_do():
    labels = Labels((None, 4, 4, 3), (np.array([1, 2, 3]).reshape(1, 1, 1, 3),))
    known = ConstantUnits.of(np.array([2]), np.array([7.0]))
    over = known.over(labels)
    assert over.shape == (1, 1, 1, 3)
    assert over[0, 0, 0, 1] == 7.0
    np.testing.assert_array_equal(np.isnan(over).ravel(), [True, False, True])
    back = read_off(labels, over)
    assert back.ids.tolist() == [2]
    # A value that differs along an axis on which the unit is everywhere is none.
    assert read_off(labels, np.arange(48.0).reshape(1, 4, 4, 3)).ids.size == 0


@pytest.mark.parametrize("start", [0, 2])
def test_values_are_filled_in_by_run_of_rows(start):
    array = np.arange(24.0).reshape(6, 4)
    fills = (
        Fill(1, np.array([1, 3])),
        Fill(0, np.array([0, 3]), 9.0, within=((1, np.array([2])),)),
    )
    expected = array.copy()
    expected[:, [1, 3]] = 0.0
    expected[[0, 3], 2] = 9.0
    np.testing.assert_array_equal(
        TensorEdit("x", "x", fills=fills).filled(array[start:], start), expected[start:]
    )
    assert array[0, 1] == 1.0
