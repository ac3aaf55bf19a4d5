"""Floors: absolute, and counted from what the original has."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kprune.select.plans.floor import PATTERN, Floor, parse_floor


def floor(text: str) -> Floor:
    found = parse_floor(text)
    assert found is not None
    return found


def test_an_absolute_floor_holds_from_its_figure_on() -> None:
    found = floor("accuracy >= 0.97")
    assert found.metric == "accuracy"
    assert found.bound(0.5) == 0.97
    assert found.holds(0.97, 0.5) and not found.holds(0.9699, 0.5)
    assert not found.holds(float("nan"), 0.5)


def test_a_floor_of_a_loss_is_a_ceiling() -> None:
    found = floor("loss <= 2e-1")
    assert found.holds(0.2, 0.0) and not found.holds(0.21, 0.0)


def test_a_relative_floor_counts_from_the_original() -> None:
    found = floor("accuracy >= original - 0.01")
    assert found.bound(0.98) == pytest.approx(0.97)
    assert found.holds(0.9701, 0.98) and not found.holds(0.969, 0.98)
    assert not found.holds(float("nan"), 0.98)
    ceiling = floor("val/loss <= original+5e-2")
    assert ceiling.metric == "val/loss"
    assert ceiling.holds(0.149, 0.1) and not ceiling.holds(0.151, 0.1)
    assert floor("accuracy >= original").holds(0.98, 0.98)


@pytest.mark.parametrize("samples", [37, 100, 450, 1347])
def test_single_precision_does_not_decide_what_is_just_held(samples: int) -> None:
    """So many samples fewer right than before: exactly the bound, however the figures are rounded."""
    for fewer in (1, 7):
        found = floor(f"accuracy >= original - {fewer / samples!r}")
        for right in range(fewer + 1, samples + 1):
            before, after, less = (
                float(np.float32(count / samples))
                for count in (right, right - fewer, right - fewer - 1)
            )
            assert found.holds(after, before)
            assert not found.holds(less, before)


@pytest.mark.parametrize(
    "text",
    [
        "accuracy > 0.97", "0.97", "accuracy >= -0.1", "accuracy >= original - 1%", "accuracy >= 97%",
        "accuracy >= original 0.01", "accuracy >= original - ", "accuracy >= orig - 0.1", "",
    ],
)  # fmt: skip
def test_what_is_no_floor_is_none(text: str) -> None:
    assert parse_floor(text) is None
    assert re.search(f"^{PATTERN}$", text) is None
