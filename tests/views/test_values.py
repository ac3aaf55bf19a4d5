"""Tensors compared block by block give what numpy gives on the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kprune.edit import TensorEdit
from kprune.views.values import Compared, compare


class Held:
    """A source whose one tensor is in memory, and comes in blocks of so many rows."""

    def __init__(self, array: np.ndarray, rows: int = 3) -> None:
        self.array, self.rows = array, rows
        self.tensors = {"w": array}

    def read(self, path: str) -> np.ndarray:
        return self.array

    def blocks(self, path: str) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(self.array), self.rows):
            yield start, self.array[start : start + self.rows]


def compared(one: np.ndarray, other: np.ndarray, cut: Any = None, rows: int = 3) -> Compared:
    old, new = Held(one, rows), Held(other, rows + 2)  # blocks end at different places
    return compare(old, "w", new, "w", cut)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    changes=st.integers(0, 5),
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 4),
)
def test_what_differs_is_counted_whatever_the_blocks(
    shape: tuple[int, ...], changes: int, seed: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    one = rng.normal(size=shape).astype(np.float32)
    other = one.copy()
    other.ravel()[rng.integers(0, one.size, changes)] += 1.5
    found = compared(one, other, rows=rows)
    gap = np.abs(one.astype(np.float64) - other)
    assert found == Compared("all", one.size, int((gap > 0).sum()), float(gap.max()))


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 4),
)
def test_a_cut_tensor_is_compared_with_what_was_kept(
    shape: tuple[int, ...], seed: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    one = rng.normal(size=shape).astype(np.float32)
    keep = tuple(
        None if rng.random() < 0.3 else np.sort(rng.choice(size, rng.integers(1, size + 1), False))
        for size in shape
    )
    other = one[np.ix_(*(range(n) if k is None else k for n, k in zip(shape, keep, strict=True)))]
    cut = TensorEdit("w", "w", keep)
    assert compared(one, other, cut, rows) == Compared("kept", other.size, 0, 0.0)
    if other.size:
        changed = other.copy()
        changed.ravel()[-1] += 2
        assert compared(one, changed, cut, rows).different == 1


def test_a_grouped_kernel_keeps_other_inputs_for_each_group() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)  # two groups of three filters
    rows = np.array([[0, 2], [1, 3]])
    other = np.concatenate([one[:, :, [0, 2], :3], one[:, :, [1, 3], 3:]], axis=-1)
    cut = TensorEdit("w", "w", (None,) * 4, blocks=rows)
    assert compared(one, other, cut) == Compared("kept", other.size, 0, 0.0)
    assert compared(one, other[:, :, ::-1], cut).different == other.size


def test_a_scaled_tensor_is_compared_up_to_rounding() -> None:
    one = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    cut = TensorEdit("w", "w", (None, np.array([0, 2])), scale=0.75)
    other = (one[:, [0, 2]] * np.float32(0.75)).astype(np.float32)
    assert compared(one, other, cut).different == 0
    assert compared(one, other * np.float32(1.001), cut).different == 10


def test_nan_equals_nan_and_an_infinity_is_no_distance() -> None:
    one = np.array([np.nan, np.inf, 1.0], np.float32)
    assert compared(one, one.copy()).different == 0
    other = np.array([np.nan, -np.inf, 1.0], np.float32)
    assert compared(one, other) == Compared("all", 3, 1, 0.0)


def test_numbers_of_other_types_are_compared_by_value() -> None:
    one = np.array([1.0, 2.0, 3.0], np.float32)
    assert compared(one, one.astype(np.float16)).different == 0
    words = (one.view("<u4") >> 16).astype("<u2").view("V2")  # bfloat16, as Keras stores it
    assert compared(one, words).different == 0


def test_a_shape_that_the_cut_does_not_give_is_not_compared() -> None:
    one = np.zeros((4, 4), np.float32)
    cut = TensorEdit("w", "w", (np.array([0, 1]), None))
    assert compared(one, np.zeros((3, 4), np.float32), cut) == Compared("no")


def test_scalars_are_compared() -> None:
    assert compared(np.float32(1.0).reshape(()), np.float32(1.5).reshape(())) == Compared(
        "all", 1, 1, 0.5
    )
