"""A model file is known by its content; what is none is called by its name."""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path

import pytest

from kprune.errors import FileError, UsageError
from kprune.formats import default_output, open_model
from kprune.formats.registry import FORMATS, refuse_other_format
from tests.formats.making import some_tensors, write_folder, write_keras


def refusal(path: Path | str) -> str:
    with pytest.raises(FileError) as caught:
        open_model(path)
    return str(caught.value).replace(str(path), "")


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    write_keras(tmp_path / "model.h5", some_tensors())
    write_folder(tmp_path / "model.keras", some_tensors())
    with open_model(tmp_path / "model.h5") as source:
        assert source.format == "keras"
    with open_model(tmp_path / "model.keras") as source:
        assert source.format == "keras-folder"


def test_every_format_has_a_module_that_opens_it_and_can_be_told_from_the_others() -> None:
    for kind in FORMATS:
        assert callable(importlib.import_module(kind.module).open_source)
        assert bool(kind.starts) != bool(kind.holds)
    marks = [kind.starts or kind.holds for kind in FORMATS]
    assert len(set(marks)) == len(marks)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"hello\x1b[2J", r"begins with 'hello\x1b[2', as neither a zip nor HDF5 does"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
    ],
)
def test_what_is_no_model_is_called_by_its_name(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "m.keras").write_bytes(content)
    assert why in refusal(tmp_path / "m.keras")


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "none.keras")
    assert "neither a config.json nor a saved_model.pb" in refusal(tmp_path)
    assert "not a folder" in refusal(write_keras(tmp_path / "m.keras", {}) / "x")
    assert "it is not a file" in refusal("/dev/null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    write_keras(tmp_path / "m.keras", {}).chmod(0)
    assert "permission denied" in refusal(tmp_path / "m.keras")


def test_a_terminal_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    for stdin in (stream, None):
        monkeypatch.setattr(sys, "stdin", stdin)
        if stdin:
            monkeypatch.setattr(stdin.buffer, "isatty", lambda: True, raising=False)
        assert "no model comes in on standard input" in refusal("-")


def test_standard_input_in_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_keras(tmp_path / "m.keras", some_tensors()).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with open_model("-") as source:
        assert source.path is None and source.bytes == len(data)
        assert set(source.tensors) == set(some_tensors())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("model.keras", "model.pruned.keras"),
        ("a/b.c/my.model.h5", "a/b.c/my.model.pruned.h5"),
        ("folder", "folder.pruned"),
        ("folder/", "folder.pruned"),
    ],
)
def test_the_default_output_stands_beside_the_input(given: str, expected: str) -> None:
    assert default_output(given) == Path(expected)


def test_the_default_output_of_the_working_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_output(".") == tmp_path.with_name(tmp_path.name + ".pruned")


def test_standard_input_has_no_default_output() -> None:
    with pytest.raises(UsageError, match="needs an output"):
        default_output("-")


def test_many_sources_opened_and_closed_leave_no_descriptor(tmp_path: Path) -> None:
    good = write_keras(tmp_path / "m.keras", some_tensors())
    bad = write_keras(tmp_path / "b.keras", b"no HDF5")
    folder = write_folder(tmp_path / "f", b"no HDF5")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        open_model(good).close()
        for path in (bad, folder):
            with pytest.raises(FileError):
                open_model(path)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


@pytest.mark.parametrize("name", ["out.keras", "out.h5", "out.pb", "out.zip"])
def test_a_folder_is_not_called_as_a_file_is(tmp_path: Path, name: str) -> None:
    with open_model(write_folder(tmp_path / "model", some_tensors())) as source:
        with pytest.raises(UsageError, match="in a folder is not written as"):
            refuse_other_format(source, tmp_path / name)
        for good in ("out", "model-1.2", "v2.small"):
            refuse_other_format(source, tmp_path / good)
