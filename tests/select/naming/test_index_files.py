from __future__ import annotations

import io
import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.errors import (
    DamagedFileError,
    FileError,
    IndexRangeError,
    KpruneError,
    LimitError,
    SpecError,
    UsageError,
)
from kprune.select.naming.index_files import read_indices
from kprune.select.naming.index_text import parse_indices


def resolved(text: str, size: int = 20) -> list[int]:
    return parse_indices(text).resolve(size, what="layer 'd'").tolist()


def refused(kind, call, *args) -> str:
    with pytest.raises(kind) as caught:
        call(*args)
    assert type(caught.value) is kind
    assert caught.value.exit_code == (4 if issubclass(kind, FileError) else 2)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def standard_input(monkeypatch):
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


CONTENTS = {
    "drop.txt": [b"3 7\n12", b"3,7,12", b"# dead ones\n3\n7 # why\n\n 12 ,",
                 b"\xef\xbb\xbf3\r\n7 12\r\n", b"12 3-7/4", b"-17 -13 -8", b" [3, 7, 12]"],
    "drop.json": [b"[3, 7, 12]", b"\n[12,3,7,7]\n",
                  json.dumps([i in (3, 7, 12) for i in range(20)]).encode()],
    "drop.npy": [array_bytes(np.array([12, 7, 3], np.uint8)),
                 array_bytes(np.isin(np.arange(20), [3, 7, 12]))],
    "drop": [b"3 7 12", b"[3, 7, 12]", array_bytes(np.array([3, 7, 12]))],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name in CONTENTS for content in CONTENTS[name]]
)
def test_a_file_names_units_in_any_of_the_three_formats(folder, standard_input, name, content):
    (folder / name).write_bytes(content)
    assert resolved(f"@{name}") == [3, 7, 12]
    assert resolved(f"!@{name}") == [i for i in range(20) if i not in (3, 7, 12)]
    standard_input(content)
    assert resolved("@-") == [3, 7, 12]


@given(st.lists(st.integers(-20, 19), min_size=1))
def test_the_formats_agree(tmp_path_factory, numbers):
    folder = tmp_path_factory.getbasetemp()
    (folder / "a.txt").write_text("\n".join(map(str, numbers)))
    (folder / "a.json").write_text(json.dumps(numbers))
    np.save(folder / "a.npy", numbers)
    expected = sorted({number % 20 for number in numbers})
    for name in ("a.txt", "a.json", "a.npy"):
        found = read_indices(name, folder).resolve(20, what="layer 'd'")
        assert found.tolist() == expected


def test_standard_input_may_be_named_twice(standard_input):
    standard_input(b"3 7")
    assert resolved("@-") == resolved("@-") == [3, 7]


def test_a_file_is_read_once_it_is_needed_and_beside_the_plan(folder):
    (folder / "plans").mkdir()
    indices = parse_indices("@drop.txt", base=folder / "plans")
    (folder / "plans" / "drop.txt").write_text("5")
    assert indices.resolve(20, what="layer 'd'").tolist() == [5]


def test_a_pipe_is_a_file(folder):
    reading, writing = os.pipe()
    os.write(writing, b"3 7 12")
    os.close(writing)
    assert resolved(f"@/dev/fd/{reading}") == [3, 7, 12]
    os.close(reading)


HOW = "write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)"
REFUSED = [
    ("a.txt", b"3 7\n8 x9\n", SpecError,
     "error: what stands there is not a list of units\nwhere: a.txt, line 2, column 3\n"
     f"do:    {HOW}"),
    ("a.txt", b"3 7\n8x\n", SpecError,
     "error: what stands there is not a list of units\nwhere: a.txt, line 2, column 2\n"
     f"do:    {HOW}"),
    ("a.txt", b"1 2 # first\n9-3 # second", SpecError,
     "error: the range runs backwards\nwhere: a.txt, line 2, column 1"),
    ("a.txt", b"3\n\n20", IndexRangeError,
     "error: there is no such unit in layer 'd'\nwhere: a.txt, line 3, column 1\n"
     "why:   it has 20 units: 0 to 19"),
    ("a.txt", b"# none\n", UsageError,
     "error: no unit of layer 'd' is chosen\nwhere: @a.txt\n       ^^^^^^\n"
     "why:   'a.txt' names none"),
    ("a.txt", b"3 \xff", DamagedFileError,
     "error: a.txt is not a list of units\nwhy:   byte 2 is not UTF-8 text"),
    ("a.json", b"[3, x]", SpecError,
     "error: a.json is not JSON: Expecting value\nwhere: a.json, line 1, column 5"),
    ("a.json", b"[3,\n", SpecError,
     "error: a.json is not JSON: Expecting value\nwhere: a.json, line 2"),
    ("a.json", b'{"units": [3]}', SpecError,
     "error: a.json does not hold a JSON list of units\ndo:    write [3, 7, 12]"),
    ("a.json", b'[3, "x"]', SpecError,
     "error: units are whole numbers, and this is a list with something else in it\nwhere: a.json\n"
     "do:    give a list of ints, a range, a numpy array of ints or bools, or text such as '0-7'"),
    ("a.json", b"[" * 100_000, LimitError,
     "error: a.json asks for too much\nwhy:   it has 100,000 levels; limit json-levels, 300\n"
     "do:    if it is meant to be so large, raise the limit with --limit json-levels=N"),
    ("a.json", b"[" + b"9" * 5000 + b"]", SpecError, "error: a.json is not a list of units"),
    ("a.json", b"[3, 99]", IndexRangeError,
     "error: there is no such unit in layer 'd'\nwhere: a.json\nwhy:   it has 20 units: 0 to 19"),
    ("a.json", b"[true, false]", IndexRangeError,
     "error: the mask has 2 entries, and layer 'd' has 20 units\nwhere: a.json"),
    ("a.npy", array_bytes(np.array([1.5])), SpecError,
     "error: a.npy does not hold a list of units\nwhy:   it holds float64 of shape (1,)\n"
     "do:    save integers, or one bool per unit, on one axis"),
    ("a.npy", array_bytes(np.zeros((2, 2), int)), SpecError,
     "error: a.npy does not hold a list of units\nwhy:   it holds int64 of shape (2, 2)\n"
     "do:    save integers, or one bool per unit, on one axis"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "kind", "message"), REFUSED)
def test_a_file_of_anything_else_is_refused_with_its_line(folder, name, content, kind, message):
    (folder / name).write_bytes(content)
    assert refused(kind, resolved, f"@{name}") == message


SECRETS = {
    "a.txt": [
        b"hunter2",
        b"3\nhunter2 4",
        b"31337",
        b"31337-7",
        b"1-hunter2",
        b"9999999999999999999",
    ],
    "a.json": [b'["hunter2"]', b'{"hunter2": 1}', b"[hunter2]", b"[31337]", b"[-31337]"],
    "a.npy": [b"hunter2", b"\x93NUMPY\x01\x00\x07\x00hunter2"],
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name in SECRETS for content in SECRETS[name]]
)
def test_nothing_of_what_stands_in_a_file_is_told(folder, name, content):
    (folder / name).write_bytes(content)
    for spec in (f"@{name}", f"!@{name}"):
        with pytest.raises(KpruneError) as refusal:
            resolved(spec)
        told = str(refusal.value)
        assert name in told
        assert "hunter" not in told and "31337" not in told and "99999" not in told


@pytest.mark.parametrize(
    "content",
    [
        b"3 7",
        array_bytes(np.array([1, 2, 3]))[:-1],
        array_bytes(np.arange(9))[:40],
        array_bytes(np.arange(9)).replace(b"}", b"("),
        b"\x93NUMPY",
    ],
)
def test_a_damaged_npy_is_said_to_be_damaged(folder, content):
    (folder / "a.npy").write_bytes(content)
    message = refused(DamagedFileError, resolved, "@a.npy")
    assert message.startswith("error: a.npy is not a readable .npy file\nwhy:   ")


def test_an_array_of_objects_is_never_unpickled(folder):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(folder / "exploded"),))

    np.save(folder / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    refused(DamagedFileError, resolved, "@a.npy")
    assert not (folder / "exploded").exists()


def test_standard_input_that_is_closed_is_refused(monkeypatch, standard_input):
    standard_input(b"")
    sys.stdin.close()
    assert refused(FileError, resolved, "@-") == (
        "error: cannot read the units from standard input\nwhy:   I/O operation on closed file."
    )
    monkeypatch.setattr(sys, "stdin", None)
    assert refused(FileError, resolved, "@-") == (
        "error: cannot read the units from standard input\nwhy:   it is closed"
    )


def test_a_file_that_cannot_be_read_is_refused(folder):
    (folder / "sub").mkdir()
    assert refused(FileError, resolved, "@gone.txt") == (
        "error: cannot read the units from gone.txt\nwhy:   No such file or directory\n"
        "do:    check the path after '@'"
    )
    assert "why:   Is a directory\n" in refused(FileError, resolved, "@sub")
    assert "why:   embedded null byte\n" in refused(FileError, resolved, "@a\0b")
    assert refused(LimitError, resolved, "@/dev/zero").startswith(
        "error: /dev/zero asks for too much\nwhy:   it has more bytes; limit list-bytes, 16,000,000\n"
    )


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.npy"])
def test_a_list_of_more_units_than_a_layer_has_is_refused_before_it_is_read(folder, name):
    many = np.arange(500_001)
    if name == "a.npy":
        np.save(folder / name, many)
    else:
        text = ",".join(map(str, many.tolist()))
        (folder / name).write_text(f"[{text}]" if name == "a.json" else text)
    assert refused(LimitError, resolved, f"@{name}").startswith(
        f"error: {name} asks for too much\nwhy:   it has 500,001 items; limit list-items, 500,000\n"
    )
