from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.errors import ExpressionError, IndexRangeError, SpecError
from kprune.select.naming.index_files import FromFile
from kprune.select.naming.index_text import parse_indices
from kprune.select.naming.specs import parse_layer, parse_spec, quote_layer, spec_from_pair


def units(spec, size: int = 20) -> list[int]:
    return spec.indices.resolve(size, what="the layer").tolist()


@pytest.mark.parametrize(
    ("text", "candidates", "chosen"),
    [
        ("dense_1:3,7,12", [("dense_1", None)], [3, 7, 12]),
        ("dense_1:!0-16", [("dense_1", None)], [17, 18, 19]),
        (" dense_1 : 3 , 7 ", [("dense_1", None)], [3, 7]),
        ("my layer:1", [("my layer", None)], [1]),
        ('"my layer: x":0-3', [("my layer: x", None)], [0, 1, 2, 3]),
        ("'my layer: x':0-3", [("my layer: x", None)], [0, 1, 2, 3]),
        (r'"say \"hi\" \\o":1', [(r'say "hi" \o', None)], [1]),
        (r'"C:\dir":1', [(r"C:\dir", None)], [1]),
        ("stem/conv:0-3", [("stem/conv", None)], [0, 1, 2, 3]),
        ("conv2d_*:0-2", [("conv2d_*", None)], [0, 1, 2]),
        ("mha.heads:2", [("mha.heads", None), ("mha", "heads")], [2]),
        ("a.b.heads:2", [("a.b.heads", None), ("a.b", "heads")], [2]),
        ('"a.b".heads:2', [("a.b", "heads")], [2]),
        ('"a.b" . heads :2', [("a.b", "heads")], [2]),
        ('"mha.heads":2', [("mha.heads", None)], [2]),
        ("conv.0:2", [("conv.0", None)], [2]),
        ("conv.*:2", [("conv.*", None)], [2]),
        (".heads:2", [(".heads", None)], [2]),
    ],
)
def test_a_spec_names_a_layer_and_its_units(text, candidates, chosen):
    spec = parse_spec(text)
    assert spec.candidates() == candidates
    assert units(spec) == chosen
    assert spec.text == text


def test_a_spec_may_hold_an_expression_with_colons_and_brackets_in_it():
    spec = parse_spec("conv2d:where(w[0:1,0,0] < 0)")
    assert spec.indices.expression.text == "w[0:1,0,0] < 0"
    assert spec.indices.expression.names == {"w"}


REFUSED = {
    "": """\
error: the spec is empty
do:    write LAYER:INDICES; as INDICES, \
write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)""",
    "dense_1": """\
error: 'dense_1' names no units
where: dense_1
              ^
do:    after the layer's name and ':' \
write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)""",
    '"my layer"': """\
error: '"my layer"' names no units
where: "my layer"
                 ^
do:    after the layer's name and ':' \
write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)""",
    ' "abc:3': """\
error: the quotes around the layer name are not closed
where:  "abc:3
        ^""",
    '"abc"x:3': """\
error: after the quoted layer name comes ':' or '.AXIS:'
where: "abc"x:3
            ^""",
    ":3": """\
error: no layer is named
where: :3
       ^
do:    write LAYER:INDICES""",
    '" ":3': """\
error: no layer is named
where: " ":3
       ^
do:    write LAYER:INDICES""",
    "dense_1:": """\
error: no unit is named
where: dense_1:
               ^
do:    write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)""",
    "dense_1:3,x": """\
error: '3,x' is not a list of units
where: dense_1:3,x
                 ^
do:    write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)""",
    "my:layer": """\
error: 'layer' is not a list of units
where: my:layer
          ^
do:    write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION); \
a layer name that contains ':' goes between quotes""",
    "my:layer:3": """\
error: 'layer:3' is not a list of units
where: my:layer:3
          ^
do:    a range is written 0-7; a layer name that contains ':' goes between quotes""",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_malformed_spec_is_refused_with_a_caret_under_the_place(text):
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert str(caught.value) == REFUSED[text]
    assert caught.value.exit_code == 2


def test_the_caret_of_an_expression_stands_under_its_place_in_the_whole_spec():
    with pytest.raises(ExpressionError) as caught:
        parse_spec('"my conv":where(meen < 0.1)')
    assert (
        str(caught.value)
        == """\
error: there is no statistic 'meen'
where: "my conv":where(meen < 0.1)
                       ^^^^
do:    did you mean 'mean'?"""
    )


def test_an_index_out_of_range_is_shown_in_the_whole_spec():
    with pytest.raises(IndexRangeError) as caught:
        parse_spec("dense_1:3,512,600").indices.resolve(512, what="layer 'dense_1'")
    assert (
        str(caught.value)
        == """\
error: there is no unit 512 in layer 'dense_1'
where: dense_1:3,512,600
                 ^^^
why:   it has 512 units: 0 to 511"""
    )


def test_where_points_at_the_name_unless_told_otherwise():
    assert parse_spec("mha.heads:2").where() == "mha.heads:2\n^^^^^^^^^"
    assert parse_spec('"a b".heads:2').where() == '"a b".heads:2\n^^^^^^^^^^^'
    assert parse_spec("mha.heads:2").where(10, 1) == "mha.heads:2\n          ^"
    assert parse_layer("predictions").where() == "predictions\n^^^^^^^^^^^"


def test_a_pair_says_the_same_as_a_spec():
    assert spec_from_pair("dense_1", "3,7") == parse_spec("dense_1:3,7")
    assert spec_from_pair("my layer: x", "0-3").text == '"my layer: x":0-3'
    assert spec_from_pair('"a.b".heads', "2") == parse_spec('"a.b".heads:2')
    assert spec_from_pair("mha.heads", "2").candidates() == [("mha.heads", None), ("mha", "heads")]


@pytest.mark.parametrize(
    "value",
    [[3, 7], (3, 7), {7, 3}, range(3, 8, 4), np.array([7, 3], np.uint8), np.arange(20) % 4 == 3],
)
def test_a_pair_takes_python_values(value):
    assert units(spec_from_pair("dense_1", value))[:2] == [3, 7]


def test_files_are_looked_for_beside_the_plan_where_there_is_one():
    for spec in (
        parse_spec("d:@drop.txt", base=Path("plans")),
        spec_from_pair("d", "@drop.txt", base=Path("plans")),
    ):
        assert isinstance(spec.indices, FromFile)
        assert spec.indices.base == Path("plans")


def test_a_layer_alone_needs_no_quotes_and_may_have_them():
    assert parse_layer("my layer: x").candidates() == [("my layer: x", None)]
    assert parse_layer('"a.b"').candidates() == [("a.b", None)]
    assert parse_layer('"a.b".heads').candidates() == [("a.b", "heads")]
    assert parse_layer('"tis').candidates() == [('"tis', None)]
    assert parse_layer('"a" and "b"').candidates() == [('"a" and "b"', None)]


@pytest.mark.parametrize("text", ["", "  "])
def test_a_layer_without_a_name_is_refused(text):
    for call in (parse_layer, lambda text: spec_from_pair(text, "3")):
        with pytest.raises(SpecError) as caught:
            call(text)
        assert str(caught.value) == "error: no layer is named"


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(names, st.sampled_from([None, "heads", "key_dim"]))
def test_every_name_that_keras_allows_can_be_written_between_quotes(name, axis):
    text = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' + (f".{axis}" if axis else "")
    spec = parse_spec(f"{text}:0-3")
    assert spec.candidates() == [(name, axis)]
    assert spec.indices == parse_indices("0-3")
    assert parse_spec(f"{quote_layer(spec)}:0-3") == spec_from_pair(quote_layer(spec), "0-3")


@given(names)
def test_the_text_of_a_pair_reads_back_as_the_same_layer(name):
    pair = spec_from_pair(name, "3")
    assert parse_spec(pair.text).layer == pair.layer


def test_specs_and_indices_do_not_import_yaml():
    probe = (
        "import sys; from kprune.select.naming import specs; specs.parse_spec('a:where(mean<1)')\n"
        "sys.exit(any(name in sys.modules for name in ('yaml', 'difflib')))"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
    probe = probe.replace("parse_spec", "parse_spec; import yaml; specs.parse_spec")
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 1
