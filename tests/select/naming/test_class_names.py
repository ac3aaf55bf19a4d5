"""Classes by name: which units they are, and what is left of the file that names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kprune.errors import DamagedFileError, FileError, SpecError, UsageError
from kprune.select.naming.class_names import ClassNames, class_names, output_axes
from tests.small_models import Network, analysed, layer, sequential

ANIMALS = ClassNames(("cat", "dog", "tench, Tinca tinca", "crane", "crane", "!"))


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (["dog"], [1]),
        (["dog,cat"], [0, 1]),
        (["dog", "cat , dog"], [0, 1]),
        (["tench, Tinca tinca"], [2]),  # its comma is its own
        (["!cat,dog"], [2, 3, 4, 5]),
        (["!"], [5]),
    ],
)
def test_names_are_units(wanted: list[str], indices: list[int]) -> None:
    assert ANIMALS.indices(wanted).tolist() == indices


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("dgo", "there is no class 'dgo' in the class names; did you mean 'dog'"),
        ("crane", "2 classes in the class names are called 'crane'"),
        (" , ", "no class is named"),
    ],
)
def test_a_name_that_means_no_class_or_two_is_refused(wanted: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ANIMALS.indices([wanted])


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b"cat\ndog\ncow\n", b"cat\ncow\n"),
        (b"cat\r\ndog\r\ncow", b"cat\r\ncow"),
        (b" cat \ndog\n\ncow\n\n", b" cat \ncow\n"),
        ("кот\ndog\n牛\n".encode(), "кот\n牛\n".encode()),
        (b'["cat", "dog", "cow"]', b'["cat", "cow"]\n'),
        (b'[\n  "cat",\n  "dog",\n  "cow"\n]\n', b'[\n  "cat",\n  "cow"\n]\n'),
    ],
)
def test_the_file_without_a_class_is_the_file_otherwise(
    content: bytes, left: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    names = class_names(file)
    assert len(names.names) == 3
    assert names.text_without(names.indices(["dog"])).encode() == left


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b'{"cat": 0}', SpecError, "does not hold a list of class names"),
        (b'["cat", 3]', SpecError, "does not hold a list of class names"),
        (b'["cat"', SpecError, "is not JSON"),
        (b"cat\n\xff\xfe", DamagedFileError, "is not a list of class names"),
    ],
)
def test_a_file_without_names_is_refused(
    content: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "labels.json"
    file.write_bytes(content)
    with pytest.raises(error, match=message):
        class_names(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read the class names from .*none.txt"):
        class_names(tmp_path / "none.txt")


def two_heads() -> Any:
    net = Network()
    x = net("Dense", "body", net.input("in", 4), units=8)
    kinds = net("Dense", "kinds", x, units=3, activation="softmax")
    return net.functional(kinds, net("Dense", "traits", x, units=5, activation="sigmoid"))


def averaged() -> Any:
    net = Network()
    x = net.input("in", 4)
    a, b = net("Dense", "a", x, units=3), net("Dense", "b", x, units=3)
    return net.functional(net("Softmax", "soft", net("Average", "mean", [a, b])))


def test_the_output_layer_is_the_one_whose_units_come_out() -> None:
    plain = sequential(
        layer("Dense", "body", units=8), layer("Dense", "out", units=3), layer("Softmax", "soft"),
        shape=[4],
    )  # fmt: skip
    assert [axis.address for axis in output_axes(analysed(plain))] == ["out"]
    assert [axis.address for axis in output_axes(analysed(two_heads()))] == ["kinds", "traits"]
    # Tied unit by unit, so either will do.
    assert [axis.address for axis in output_axes(analysed(averaged()))] == ["a"]


def test_of_several_outputs_one_must_be_named() -> None:
    names, model = ClassNames(("a", "b", "c", "d", "e")), analysed(two_heads())
    with pytest.raises(UsageError, match="2 output layers: 'kinds', 'traits'"):
        names.axis(model)
    assert names.axis(model, "traits").address == "traits"
    with pytest.raises(UsageError, match="'body' is not an output layer"):
        names.axis(model, "body")
    with pytest.raises(UsageError, match="has 5 names, and layer 'kinds' 3 units"):
        names.axis(model, "kinds")


def test_a_json_list_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(["a\nb", "c"]))
    assert class_names(file).names == ("a\nb", "c")
