"""bfloat16 and the other number types, against ml_dtypes and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.dtypes import BFLOAT16
from kprune.formats import as_float, from_float

FINITE = 2.0**127 * (2 - 2.0**-7)  # the largest bfloat16


def test_every_bfloat16_becomes_the_float32_it_stands_for() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    words = np.arange(1 << 16, dtype="<u2")
    found = as_float(words.view("V2"))
    assert found.dtype == np.float32
    expected = words.view(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(found, expected, equal_nan=True)


def test_every_bfloat16_survives_the_way_there_and_back() -> None:
    words = np.arange(1 << 16, dtype="<u2")
    values = as_float(words.view("V2"))
    back = from_float(values, BFLOAT16).view("<u2")
    number = ~np.isnan(values)
    assert np.array_equal(back[number], words[number])
    assert np.isnan(as_float(back.view("V2"))[~number]).all()


@given(st.floats(-FINITE, FINITE, width=32))
def test_rounding_to_bfloat16_is_to_nearest_even(value: float) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    expected = np.array(value, np.float32).astype(ml_dtypes.bfloat16).view("<u2")
    assert from_float(value, BFLOAT16).view("<u2") == expected


def test_a_tie_goes_to_the_even_bfloat16() -> None:
    ties = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8])
    assert as_float(from_float(ties, BFLOAT16)).tolist() == [1.0, 1 + 2.0**-6, -1.0]


@pytest.mark.parametrize("kind", ["<f2", "<f4", "V2"])
def test_a_finite_number_stays_finite(kind: str) -> None:
    found = as_float(from_float(np.array([-1e300, 1e300, 3.4028234e38]), np.dtype(kind)))
    assert np.isfinite(found).all() and found[0] < -60000 and found[1] == -found[0]
    assert np.isinf(as_float(from_float(np.inf, np.dtype(kind))))


def test_integers_take_whole_numbers_in_range_only() -> None:
    assert from_float(-3.0, np.dtype("i1")) == -3
    assert from_float(1.0, np.dtype("?"))
    for value, kind in ((0.5, "i4"), (128.0, "i1"), (-1.0, "u1"), (np.nan, "i4"), (2.0, "?")):
        with pytest.raises(ValueError, match="is not a value of type"):
            from_float(value, np.dtype(kind))


def test_opaque_bytes_can_be_zeroed_and_nothing_else() -> None:
    assert from_float(0.0, np.dtype("V1")).tobytes() == b"\0"
    with pytest.raises(ValueError, match="opaque"):
        from_float(1.0, np.dtype("V1"))


def test_as_float_leaves_other_types_and_its_argument_alone() -> None:
    for kind in ("f4", "f8", "i1", "?"):
        array = np.ones(3, kind)
        assert as_float(array) is array
    half = np.array([1.5, -2], "f2")
    assert as_float(half).dtype == np.float32 and as_float(half).tolist() == [1.5, -2]
    turned = np.arange(6, dtype="<u2").view("V2").reshape(2, 3).T
    assert as_float(turned).shape == (3, 2)
    assert np.array_equal(as_float(turned), as_float(turned.copy()))
