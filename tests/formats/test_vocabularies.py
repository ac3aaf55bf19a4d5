"""Text files beside the weights lose lines, in the zip and in the folder alike."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from kprune.edit import Edit
from kprune.errors import CannotPruneError, DamagedFileError
from kprune.formats import open_model, write_model
from kprune.formats.vocabularies import without_lines
from tests.formats.making import some_tensors, write_folder, write_keras

WORDS = "assets/layers/words.txt"
GONE = np.array([0, 2])


def losing(source: object) -> Edit:
    return Edit(source.config, source.metadata, without_lines={WORDS: GONE})  # type: ignore[attr-defined]


def test_lines_end_where_keras_ends_them_and_empty_ones_count() -> None:
    text = "\n[UNK]\r\na b\u2028c\n\nd".encode()
    assert without_lines(text, np.array([1, 4])).decode() == "\na b\nc\nd"
    assert without_lines(b"a\nb\n", np.array([0])) == b"b"


def test_a_zip_has_the_lines_that_are_left_and_the_size_that_was_told(tmp_path: Path) -> None:
    model = write_keras(
        tmp_path / "m.keras", some_tensors(), assets={WORDS: b"one\ntwo\nthree", "assets/x": b"x"}
    )
    with open_model(model) as source:
        assert source.extra("assets/x") == b"x"
        told = source.output_size(losing(source))
        assert write_model(source, losing(source), tmp_path / "o.keras") == told
    assert (tmp_path / "o.keras").stat().st_size == told
    with zipfile.ZipFile(tmp_path / "o.keras") as archive:
        assert archive.testzip() is None
        assert archive.read(WORDS) == b"two"
        assert archive.read("assets/x") == b"x"


def test_a_folder_has_them_too(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "m", some_tensors())
    with open_model(model) as source:
        size = write_model(source, losing(source), tmp_path / "o")
    assert (tmp_path / "o" / WORDS).read_text() == "two"
    assert size == sum(p.stat().st_size for p in (tmp_path / "o").rglob("*") if p.is_file())


def test_a_link_is_not_read(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "m", some_tensors())
    (tmp_path / "secret").write_text("one\ntwo")
    (model / WORDS).unlink()
    (model / WORDS).symlink_to("../../../secret")
    with pytest.raises(CannotPruneError, match="leaves the folder"):
        open_model(model)


def test_what_is_no_text_is_damage(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", some_tensors(), assets={WORDS: b"\xff\xfe"})
    with open_model(model) as source, pytest.raises(DamagedFileError):
        write_model(source, losing(source), tmp_path / "o.keras")
