"""Text from files, fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.text import clean, human_bytes


@given(st.text(), st.integers(1, 50))
def test_whatever_the_text_it_is_one_printable_line_within_the_limit(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert shown.isprintable() and len(shown) <= limit
    shown.encode()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=80))
def test_a_plain_name_is_shown_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_what_would_act_on_a_terminal_is_spelled_out() -> None:
    assert clean("a\x1b[31mb\nc\td\u202ee\x9bf") == "a\\x1b[31mb\\nc\\td\\u202ee\\x9bf"
    assert clean("\ud800 \u200b") == "\\ud800 \\u200b"


def test_a_long_text_is_cut_and_no_escape_is_cut_in_two() -> None:
    assert clean("x" * 81) == "x" * 79 + "…"
    assert clean("abc\x1bdef", 6) == "abc…"
    assert clean("x" * 10_000_000, 5) == "xxxx…"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (14_500_000, "14.5 MB"),
        (553_467_096, "553 MB"),
        (999_600, "1.00 MB"),
        (2_000_000_000, "2.00 GB"),
        (3_000_000_000_000_000, "3000 TB"),
    ],
)
def test_numbers_of_bytes_have_three_digits(count: int, text: str) -> None:
    assert human_bytes(count) == text
