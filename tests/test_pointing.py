from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from kprune.pointing import (
    WIDTH,
    Source,
    columns,
    did_you_mean,
    nearest,
    point_at,
    printable,
    quoted,
)


def test_the_caret_stands_under_the_place():
    assert point_at("dense_1:3,x", 10) == "dense_1:3,x\n          ^"
    assert point_at("dense_1:3,xy", 10, 2) == "dense_1:3,xy\n          ^^"
    assert point_at("abc", 3) == "abc\n   ^"


def test_a_wide_character_takes_two_columns_and_an_accent_none():
    assert point_at("層:x", 2) == "層:x\n   ^"
    assert point_at("e\u0301:x", 3) == "e\u0301:x\n  ^"


def test_a_long_text_is_cut_around_the_place():
    shown, caret = point_at("a" * 500 + "X" + "b" * 500, 500).split("\n")
    assert shown.startswith("…a") and shown.endswith("b…")
    assert shown[caret.index("^")] == "X"
    assert len(shown) == WIDTH + 2


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300), st.data())
def test_the_caret_is_under_the_same_character_however_long_the_text_is(text, data):
    position = data.draw(st.integers(0, len(text)))
    shown, caret = point_at(text, position).split("\n")
    assert len(shown) <= WIDTH + 2
    assert (shown + " ")[caret.index("^")] == (text + " ")[position]


@given(st.text(max_size=60))
def test_nothing_that_a_terminal_obeys_is_shown(text):
    for shown in (printable(text), quoted(text), point_at(text, 0).split("\n")[0]):
        assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs")]


def test_escape_sequences_are_marked_and_line_breaks_are_spaces():
    assert printable("a\x1b[31mb\nc\u202ed") == "a�[31mb c�d"


def test_a_source_counts_from_where_its_piece_starts():
    source = Source("dense_1:3,x", 8)
    assert source.at(2) == source.piece(2).at(0) == "dense_1:3,x\n          ^"
    assert Source("3 x", place="drop.txt, line 4").at(2) == "drop.txt, line 4\n3 x\n  ^"
    assert Source("x" * 100).shown() == "x" * (WIDTH - 1) + "…"
    assert Source("3", place="drop.txt").shown() == "drop.txt\n3"


def test_quoted_text_is_cut():
    assert quoted("abc") == "'abc'"
    assert quoted("a" * 61) == "'" + "a" * 59 + "…'"


def test_the_nearest_words_whatever_their_case():
    assert nearest("LAYESR", ["layers", "backend"]) == ["layers"]
    assert nearest("zzz", ["layers"]) == []
    assert did_you_mean("dense_1", ["dense_2", "dense_3"]) == "did you mean 'dense_3' or 'dense_2'?"
    assert did_you_mean("dense", ["dense"]) == "did you mean 'dense'?"
    assert did_you_mean("zzz", ["dense"]) == ""
    assert did_you_mean("layesr", ["classes", "layers"]) == "did you mean 'layers'?"


def test_columns_of_a_terminal():
    assert (columns("ab"), columns("層"), columns("e\u0301")) == (2, 2, 1)
