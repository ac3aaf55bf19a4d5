"""Numbers as people read them."""

from __future__ import annotations

import pytest

from kprune.cli.options import amount
from kprune.errors import UsageError
from kprune.page.figures import arrows, duration, percent, shape, short, some


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, ""), (0, ""), (999, "999"), (1000, "1.00 k"), (9994, "9.99 k"), (9995, "10.0 k"),
        (99_949, "99.9 k"), (99_950, "100 k"), (999_499, "999 k"), (999_500, "1.00 M"),
        (7_747_708_904, "7.75 G"), (10**18, "1000 P"),
    ],
)  # fmt: skip
def test_three_digits_are_enough(number: int | None, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (200, 100, "-50.0%"),
        (100, 200, "+100.0%"),
        (5, 5, ""),
        (0, 5, ""),
        (10**6, 10**6 - 1, "-<0.1%"),
    ],
)
def test_a_change_is_told_in_percent(before: int, after: int, text: str) -> None:
    assert percent(before, after) == text


def test_arrows_stand_in_line_and_what_stays_stands_alone() -> None:
    assert arrows([("512", "412"), ("62", "62"), ("1,024", "9"), ("", "7"), ("7", "")]) == [
        "  512 → 412",
        "62",
        "1,024 →   9",
        "7",
        "7",
    ]


def test_shapes_leave_out_the_batch() -> None:
    assert shape([None, 28, None, 3]) == "28×?×3"
    assert shape(None) == "?"


def test_long_lists_say_how_many_are_left_out() -> None:
    assert some(["a", "b", "c"], 3) == "a, b, c"
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"


@pytest.mark.parametrize(
    ("text", "number"),
    [("1300000", 1.3e6), ("1_300_000", 1.3e6), ("1,300,000", 1.3e6), ("1.3e6", 1.3e6),
     ("1.3M", 1.3e6), ("500k", 5e5), ("500 K", 5e5), ("2G", 2e9)],
)  # fmt: skip
def test_amounts_are_read_as_they_are_written(text: str, number: float) -> None:
    assert amount(text, "--max-bytes") == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "-1", "1.3X", "M", "1e", "nan", "inf", "1.3.4"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="which is not a number"):
        amount(text, "--max-bytes")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(4.12e-4, "412 µs"), (3.0712e-3, "3.07 ms"), (0.99951e-3, "1.00 ms"), (0.9996, "1.00 s"), (75.04, "75.0 s")],
)  # fmt: skip
def test_a_duration_has_three_digits(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
