from __future__ import annotations

import io
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kprune.errors import ExpressionError, FileError, IndexRangeError, SpecError, UsageError
from kprune.select.naming.index_text import indices_from, parse_indices
from kprune.select.naming.indices import compact_text


def resolved(value, size: int) -> list[int]:
    return indices_from(value).resolve(size, what="layer 'd'").tolist()


def refused(kind, call, *args, **more) -> str:
    with pytest.raises(kind) as caught:
        call(*args, **more)
    assert type(caught.value) is kind
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("3,7,12", 20, [3, 7, 12]),
        ("12,3,7,3", 20, [3, 7, 12]),
        ("0-7", 20, list(range(8))),
        ("4-4", 20, [4]),
        ("0-9/2", 20, [0, 2, 4, 6, 8]),
        ("1-9/4,0", 20, [0, 1, 5, 9]),
        ("-1", 20, [19]),
        ("-3--1", 20, [17, 18, 19]),
        ("17--1", 20, [17, 18, 19]),
        ("-20-1", 20, [0, 1]),
        ("!3,7", 9, [0, 1, 2, 4, 5, 6, 8]),
        ("! -1", 3, [0, 1]),
        (" 0 - 4 / 2 , 7 ", 20, [0, 2, 4, 7]),
        ("0-2/999999999999999999999999", 20, [0]),
        ("0", 1, [0]),
    ],
)
def test_texts_and_the_units_they_name(text, size, expected):
    assert resolved(text, size) == expected
    result = parse_indices(text).resolve(size, what="layer 'd'")
    assert result.dtype == np.int64


@st.composite
def index_texts(draw) -> tuple[str, int, set[int]]:
    """A random text, a size, and what Python says the text names."""
    size = draw(st.integers(1, 40))
    space = st.sampled_from(["", "", " "])
    items, named = [], set()
    for _ in range(draw(st.integers(1, 6))):
        first = draw(st.integers(0, size - 1))
        last = draw(st.integers(first, size - 1))
        step = draw(st.integers(1, 5))
        written = [str(draw(st.sampled_from([end, end - size]))) for end in (first, last)]
        match draw(st.sampled_from(["one", "range", "steps"])):
            case "one":
                items.append(draw(space) + written[0] + draw(space))
                named |= {first}
            case "range":
                items.append(written[0] + draw(space) + "-" + draw(space) + written[1])
                named |= set(range(first, last + 1))
            case "steps":
                items.append(f"{written[0]}-{written[1]}{draw(space)}/{step}")
                named |= set(range(first, last + 1, step))
    complement = draw(st.booleans())
    named = set(range(size)) - named if complement else named
    return "!" * complement + ",".join(items), size, named


@given(index_texts())
def test_a_random_text_names_what_a_python_statement_says(case):
    text, size, named = case
    result = parse_indices(text).resolve(size, what="layer 'd'", allow_empty=True)
    assert result.tolist() == sorted(named)


@given(st.sets(st.integers(0, 300)), st.sampled_from([list, tuple, set, np.array]))
def test_lists_arrays_masks_and_their_compact_text_agree(units, kind):
    numbers = sorted(units)
    mask = np.zeros(301, dtype=bool)
    mask[numbers] = True
    spellings = [kind(numbers) if numbers or kind is not np.array else [], mask, mask.tolist()]
    spellings += [compact_text(numbers)] if numbers else []
    for value in spellings:
        result = indices_from(value).resolve(301, what="layer 'd'", allow_empty=True)
        assert result.tolist() == numbers


def test_compact_text_folds_runs_of_three_and_more():
    assert compact_text([0, 1, 2, 5, 6, 8]) == "0-2,5,6,8"
    assert compact_text([]) == ""


def test_an_int_a_range_and_indices_are_taken_too():
    assert resolved(3, 5) == resolved(np.int64(3), 5) == [3]
    assert resolved(range(0, 5, 2), 5) == [0, 2, 4]
    assert resolved([-1, 0, 0], 5) == [0, 4]
    already = parse_indices("1")
    assert indices_from(already) is already


def test_a_number_of_thousands_of_digits_is_out_of_range():
    for text in ("9" * 5000, "-" + "9" * 5000):
        message = refused(IndexRangeError, resolved, text, 8)
        assert message.startswith("error: there is no unit with so many digits in layer 'd'")


def test_resolving_does_not_allocate_for_what_is_out_of_range():
    with pytest.raises(IndexRangeError):
        resolved("0-999999999999999", 4)


def test_what_was_given_stays_as_it_was():
    mask = np.array([True, False])
    indices = indices_from(mask)
    mask[:] = False
    assert indices.resolve(2, what="layer 'd'").tolist() == [0]


MALFORMED = {
    "": "error: no unit is named\nwhere: \n       ^\ndo:    HOW",
    "3,,7": "error: '3,,7' is not a list of units\nwhere: 3,,7\n         ^\ndo:    HOW",
    "3,7,": "error: '3,7,' is not a list of units\nwhere: 3,7,\n           ^\ndo:    HOW",
    "3, x": "error: '3, x' is not a list of units\nwhere: 3, x\n          ^\ndo:    HOW",
    "3;7": "error: '3;7' is not a list of units\nwhere: 3;7\n        ^\ndo:    HOW",
    "3/2": "error: '3/2' is not a list of units\nwhere: 3/2\n        ^\ndo:    HOW",
    "!": "error: '!' is not a list of units\nwhere: !\n        ^\ndo:    HOW",
    "٣": "error: '٣' is not a list of units\nwhere: ٣\n       ^\ndo:    HOW",
    "3.0": "error: '3.0' is not a list of units\nwhere: 3.0\n        ^\ndo:    HOW",
    "3,!7": "error: '3,!7' is not a list of units\nwhere: 3,!7\n         ^\n"
    "why:   '!' stands before the whole list: it means all but these\ndo:    HOW",
    "3,7-": "error: '3,7-' is not a list of units\nwhere: 3,7-\n          ^\n"
    "do:    write 7--1 for a range that runs to the last unit",
    "0:7": "error: '0:7' is not a list of units\nwhere: 0:7\n        ^\n"
    "do:    a range is written 0-7; a layer name that contains ':' goes between quotes",
    "mean<0.1": "error: 'mean<0.1' is not a list of units\nwhere: mean<0.1\n       ^\n"
    "do:    put an expression into where(...)",
    "1,7-0": "error: the range runs backwards\nwhere: 1,7-0\n         ^^^\ndo:    write 0-7",
    "-1--3": "error: the range runs backwards\nwhere: -1--3\n       ^^^^^\ndo:    write -3--1",
    "0-7/0": "error: the step of a range is 1 or more\nwhere: 0-7/0\n           ^",
    "!@": "error: no file is named after '@'\nwhere: !@\n         ^\n"
    "do:    write @drop.txt, or @- for standard input",
    "where(mean<1": "error: 'where(' has no closing bracket at the end\n"
    "where: where(mean<1\n                   ^",
}
HOW = "write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)"


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_text_is_refused_with_a_caret_under_the_place(text):
    assert refused(SpecError, parse_indices, text) == MALFORMED[text].replace("HOW", HOW)


OUT_OF_RANGE = {
    ("8", 8): "error: there is no unit 8 in layer 'd'\nwhere: 8\n       ^\n"
    "why:   it has 8 units: 0 to 7",
    ("0,-9", 8): "error: there is no unit -9 in layer 'd'\nwhere: 0,-9\n         ^^\n"
    "why:   it has 8 units: 0 to 7",
    ("0-8/2,1", 8): "error: there is no unit 8 in layer 'd'\nwhere: 0-8/2,1\n       ^^^^^\n"
    "why:   it has 8 units: 0 to 7",
    ("!1", 1): "error: there is no unit 1 in layer 'd'\nwhere: !1\n        ^\n"
    "why:   it has 1 unit: 0",
    ("5--4", 8): "error: the range runs backwards in layer 'd'\nwhere: 5--4\n       ^^^^\n"
    "why:   of 8 units it would be 5 down to 4",
    ("0, 9", 8): "error: there is no unit 9 in layer 'd'\nwhere: 0, 9\n          ^\n"
    "why:   it has 8 units: 0 to 7",
    ("9999999999999999999", 8): "error: there is no unit with so many digits in layer 'd'\n"
    "where: 9999999999999999999\n       ^^^^^^^^^^^^^^^^^^^\nwhy:   it has 8 units: 0 to 7",
}


@pytest.mark.parametrize(("text", "size"), OUT_OF_RANGE)
def test_a_unit_out_of_range_is_refused_with_the_range(text, size):
    message = refused(IndexRangeError, resolved, text, size)
    assert message == OUT_OF_RANGE[text, size]


def test_python_values_out_of_range_are_refused():
    assert refused(IndexRangeError, resolved, [3, 10**30], 8) == (
        "error: there is no unit with so many digits in layer 'd'\n"
        f"where: [3, 1{'0' * 30}]\nwhy:   it has 8 units: 0 to 7"
    )
    assert refused(IndexRangeError, resolved, list(range(-9, 30)), 8).startswith(
        "error: there is no unit -9 in layer 'd'\nwhere: [-9, -8, -7,"
    )
    assert refused(IndexRangeError, resolved, [True, False], 8) == (
        "error: the mask has 2 entries, and layer 'd' has 8 units\nwhere: mask of 2, 1 true"
    )


NOTHING = {
    "!0-7": "error: no unit of layer 'd' is chosen\nwhere: !0-7\n       ^^^^\n"
    "why:   it leaves out all 8 units",
    "where(mean > 5)": "error: no unit of layer 'd' is chosen\nwhere: where(mean > 5)\n"
    "       ^^^^^^^^^^^^^^^\nwhy:   the expression holds for none of its 8 units",
    (): "error: no unit of layer 'd' is chosen\nwhere: []\n       ^^\nwhy:   the list is empty",
    (False,) * 8: "error: no unit of layer 'd' is chosen\nwhere: mask of 8, 0 true\n"
    "       ^^^^^^^^^^^^^^^^^\nwhy:   the mask is false everywhere",
}


@pytest.mark.parametrize("value", NOTHING)
def test_an_empty_choice_is_refused_unless_it_is_allowed(value):
    indices = indices_from(value)
    env = {"mean": np.zeros(8)}
    assert refused(UsageError, indices.resolve, 8, what="layer 'd'", env=env) == NOTHING[value]
    assert indices.resolve(8, what="layer 'd'", env=env, allow_empty=True).tolist() == []


def test_an_expression_chooses_where_it_holds():
    indices = parse_indices(" where( mean < 0.1 ) ")
    assert indices.expression is not None
    assert indices.expression.names == {"mean"}
    env = {"mean": np.array([0.0, 0.2, -1.0])}
    assert indices.resolve(3, what="layer 'd'", env=env).tolist() == [0, 2]
    assert parse_indices("3").expression is None


def test_an_expression_without_its_statistics_is_refused():
    message = refused(
        ExpressionError, parse_indices("where(gamma < 1)").resolve, 3, what="layer 'd'"
    )
    assert message == (
        "error: 'gamma' is not known here\nwhere: where(gamma < 1)\n             ^^^^^\n"
        "why:   no BatchNormalization with a 'gamma' stands behind layer 'd'"
    )


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ([3, 1.5], "a list with 1.5 in it"),
        (["3"], "a list with '3' in it"),
        ([True, 3], "a list with True in it"),
        (np.array([1.0]), "an array of float64"),
        (np.zeros((2, 2), int), "an array of 2 axes; there must be one"),
        (None, "a value of type NoneType"),
        (True, "a value of type bool"),
        (1.5, "a value of type float"),
        ({3: 4}, "a value of type dict"),
    ],
)
def test_other_python_values_are_refused(value, received):
    assert refused(SpecError, indices_from, value) == (
        f"error: units are whole numbers, and this is {received}\n"
        "do:    give a list of ints, a range, a numpy array of ints or bools, or text such as '0-7'"
    )


@given(st.text(st.sampled_from("0123456789-,/!@ wherx()<."), max_size=12))
@example("@-")
def test_any_text_is_units_or_refused(text):
    try:
        with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"3 x"))):
            result = parse_indices(text).resolve(50, what="layer 'd'", env={}, allow_empty=True)
    except (SpecError, IndexRangeError, ExpressionError, FileError) as error:
        assert error.what
    else:
        assert np.all(np.diff(result) > 0)
        assert np.all((result >= 0) & (result < 50))
