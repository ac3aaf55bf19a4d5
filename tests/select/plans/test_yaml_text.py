from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kprune.errors import LimitError, PlanError
from kprune.select.plans.yaml_text import (
    COLUMNS,
    read_yaml,
    wrap_flow,
    write_flow,
    write_key,
    write_scalar,
)


def read(text: str, as_text=lambda path: False):
    return read_yaml(text, "plan.yaml", as_text=as_text)


def refused(text: str) -> str:
    with pytest.raises(PlanError) as caught:
        read(text)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture(params=["libyaml", "python"])
def parser(request, monkeypatch):
    """Both parsers of PyYAML: wheels have the fast one, some platforms only the other."""
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader")


def test_scalars_are_those_of_yaml_1_2(parser):
    text = """
    integers: [1, -1, +1, 017, 1_000, 1__0_]
    floats: [1.5, 1e-3, 1e3, .5, 1., .inf]
    truths: [true, False]
    nothing: [~, null, Null, ]
    texts: [on, no, y, 1:30, 0x10, 2020-01-02, "1", 'true', 3,7 ]
    block: |
      mean <
      0.1
    """
    assert read(text).data == {
        "integers": [1, -1, 1, 17, 1000, 10],
        "floats": [1.5, 0.001, 1000.0, 0.5, 1.0, float("inf")],
        "truths": [True, False],
        "nothing": [None, None, None],
        "texts": ["on", "no", "y", "1:30", "0x10", "2020-01-02", "1", "true", 3, 7],
        "block": "mean <\n0.1\n",
    }


def test_keys_are_text_whatever_they_look_like(parser):
    keys = ["on", "no", "1", "1e3", "null", "<<", "true", "~", "2020-01-02", "conv2d_*", "a/b.c"]
    assert read("".join(f"{key}: 1\n" for key in keys)).data == dict.fromkeys(keys, 1)


def test_chosen_paths_are_text():
    document = read("a: [1, on, ~]\nb: 1", lambda path: path[:1] == ("a",))
    assert document.data == {"a": ["1", "on", "~"], "b": 1}


def test_json_is_yaml(parser):
    assert read('{"a": [1, 2.5, true, "x"], "b": {}}').data == {"a": [1, 2.5, True, "x"], "b": {}}


def test_every_key_and_item_knows_its_line(parser):
    document = read("\ufeffa: 1\r\nb:\r\n  - x\r\n  - c: 1\r\n    d: [1,\r\n        2]\r\n")
    lines = {path: place[0] + 1 for path, place in document.places.items()}
    assert lines == {
        (): 1, ("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4, ("b", 1, "d"): 5,
        ("b", 1, "d", 0): 5, ("b", 1, "d", 1): 6,
    }  # fmt: skip
    assert document.line("b", 1, "d", 1) == 6
    assert document.line("b", 1, "e") == 4  # not there: the line of what is around it


def test_aliases_mean_what_their_anchors_hold(parser):
    document = read("a: &x {r: 1}\nb: *x\nc: [*x, &y 3, *y]\n")
    assert document.data == {"a": {"r": 1}, "b": {"r": 1}, "c": [{"r": 1}, 3, 3]}
    assert document.line("b", "r") == 1


REFUSED = {
    "": "error: plan.yaml is empty. Nothing was written.",
    "# nothing\n": "error: plan.yaml is empty. Nothing was written.",
    "a: 1\nb: 2\na: 3": """\
error: a second key 'a' in plan.yaml, line 3; the first is in line 1. Nothing was written.
where: plan.yaml, line 3
       a: 3
       ^""",
    "a: 1\n---\nb: 2": """\
error: a second YAML document in plan.yaml, line 2. Nothing was written.
where: plan.yaml, line 2
       ---
       ^""",
    "a:\n  !3,7": """\
error: a YAML tag, '!3,7', in plan.yaml, line 2. Nothing was written.
where: plan.yaml, line 2
         !3,7
         ^
do:    put it between quotes: "!3,7\"""",
    "a: !!python/object:os.system x": """\
error: a YAML tag, '!!python/object:os.system', in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       a: !!python/object:os.system x
          ^
do:    put it between quotes: "!!python/object:os.system\"""",
    "a: @drop.txt": """\
error: not YAML: found character '@' that cannot start any token in plan.yaml, line 1. \
Nothing was written.
where: plan.yaml, line 1
       a: @drop.txt
          ^
do:    put text that starts with a special character between quotes""",
    "a: >= 5": """\
error: not YAML: expected chomping or indentation indicators, but found '=' in plan.yaml, line 1. \
Nothing was written.
where: plan.yaml, line 1
       a: >= 5
           ^
do:    put text that starts with a special character between quotes""",
    "x: 1\n*: [1]": """\
error: not YAML: expected alphabetic or numeric character, but found ':' in plan.yaml, line 2. \
Nothing was written.
where: plan.yaml, line 2
       *: [1]
        ^
do:    put text that starts with a special character between quotes""",
    "a: b: c": """\
error: not YAML: mapping values are not allowed here in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       a: b: c
           ^
do:    put text that contains ': ' between quotes""",
    "a:\n\tb: 1": """\
error: not YAML: a tab cannot start any token in plan.yaml, line 2. Nothing was written.
where: plan.yaml, line 2
        b: 1
       ^
do:    indent with spaces: YAML does not take tabs""",
    "a: [1, 2": """\
error: not YAML: expected ',' or ']', but got '<stream end>' in plan.yaml, line 1. \
Nothing was written.
where: plan.yaml, line 1
       a: [1, 2
               ^""",
    "a: 1\nb: \x1b[2J": """\
error: the character U+001B is not allowed in plan.yaml, line 2. Nothing was written.
where: plan.yaml, line 2
       b: �[2J
          ^""",
    "? [a]\n: 1": """\
error: a key that is not text in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       ? [a]
         ^""",
    "a: *x": """\
error: no anchor before the alias '*x' in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       a: *x
          ^""",
    "a: *x\nb: &x 1": """\
error: no anchor before the alias '*x' in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       a: *x
          ^""",
    "a: &x [1, *x]": """\
error: the alias '*x' stands inside itself in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       a: &x [1, *x]
                 ^""",
    "a: &x 1\nb: &x 2": """\
error: a second anchor '&x' in plan.yaml, line 2. Nothing was written.
where: plan.yaml, line 2
       b: &x 2
          ^""",
    "a: " + "9" * 101: f"""\
error: a number of more than 100 digits in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       a: {"9" * 69}…
          ^""",
    "[" * 40 + "]" * 40: f"""\
error: more than 32 levels of nesting in plan.yaml, line 1. Nothing was written.
where: plan.yaml, line 1
       {"[" * 40 + "]" * 32}…
       {" " * 32}^""",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_plain_yaml_is_refused_with_its_line(parser, text):
    assert refused(text) == REFUSED[text]


def test_a_byte_order_mark_is_not_part_of_the_text(parser):
    assert refused("\ufeffa: b: c") == REFUSED["a: b: c"]


def test_aliases_cannot_multiply_without_bound():
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 20)]
    started = time.perf_counter()
    message = refused("\n".join(lines))
    assert message.startswith("error: more than 100000 values through aliases in plan.yaml")
    assert time.perf_counter() - started < 5


def test_aliases_cannot_nest_without_bound():
    lines = ["l0: &l0 [x]"] + [f"l{i}: &l{i} [*l{i - 1}]" for i in range(1, 60)]
    assert refused("\n".join(lines)).startswith("error: more than 32 levels of nesting")


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " * 50_000, "- " * 100_000, "{a: " * 10_000])
def test_deep_nesting_is_refused_at_once(text):
    started = time.perf_counter()
    assert len(refused(text)) < 1000
    assert time.perf_counter() - started < 10


def test_a_text_longer_than_any_plan_is_refused():
    with pytest.raises(LimitError) as caught:
        read("#" * 2_000_001)
    assert caught.value.why == "it has 2,000,001 bytes; limit plan-bytes, 2,000,000"


def test_a_text_of_more_values_than_any_plan_is_refused():
    with pytest.raises(LimitError) as caught:
        read("[" + "1," * 200_001 + "]")
    assert caught.value.why == "it has more items; limit plan-items, 160,000"


@given(st.text(max_size=60) | st.text("ab: -[]{},&*!|>'\"%@`#\n\t019.~", max_size=60))
def test_any_text_is_data_or_refused(text):
    try:
        read(text)
    except PlanError as error:
        assert error.what.endswith("Nothing was written.")


texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = texts | st.integers() | st.booleans() | st.floats(allow_nan=False)


@given(scalars)
def test_what_is_written_reads_back(value):
    if value in (float("inf"), float("-inf")):
        return  # no plan holds these
    line = write_scalar(value)
    assert "\n" not in line
    result = read(f"a: {line}\nb: [{line}, {line}]").data
    assert result == {"a": value, "b": [value, value]}
    assert type(result["a"]) is type(value)


@given(st.lists(texts, unique=True))
def test_any_key_can_be_written(keys):
    text = "a:\n" + "".join(f"{write_key(key, 2)} 1\n" for key in keys) + "  '': 1\n" * (not keys)
    assert read(text).data == {"a": dict.fromkeys(keys or [""], 1)}


def test_a_key_longer_than_yaml_takes_on_one_line_is_written_in_the_long_form(parser):
    key = "k " * 2000
    assert read(f"{write_key(key, 0)} [1, 2]\nb: 2").data == {key: [1, 2], "b": 2}


@given(st.lists(scalars.filter(lambda value: value not in (float("inf"), float("-inf")))))
def test_wrapped_lists_read_back(values):
    lines = list(wrap_flow("  a:", values, 4))
    assert read("x:\n" + "\n".join(lines)).data == {"x": {"a": values}}


def test_wrapped_lists_fill_their_lines_and_no_more():
    numbers = list(wrap_flow("  a:", list(range(1000)), 4))
    assert max(map(len, numbers)) <= COLUMNS
    assert min(map(len, numbers[:-1])) > COLUMNS - 6


def test_plain_words_stand_without_quotes():
    assert write_flow({"criterion": "l1", "ratio": 0.25, "on": "no", "x": "<= 3"}) == (
        '{criterion: l1, ratio: 0.25, "on": "no", x: "<= 3"}'
    )
    assert write_flow(["stem/conv_1", "conv2d_*", "1e3", "a b", "é", "\x1b\u2028\U000e0001"]) == (
        '[stem/conv_1, conv2d_*, "1e3", "a b", "é", "\\x1b\\u2028\\U000e0001"]'
    )
