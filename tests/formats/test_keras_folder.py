"""The unzipped `.keras` folder: the same promises as the zip, except the checksum."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from kprune.edit import TensorEdit
from kprune.errors import DamagedFileError, FileError, UsageError
from kprune.formats import open_model, write_model
from tests.formats.making import (
    CONFIG,
    METADATA,
    contents,
    edit_of,
    empty_edit,
    left_in,
    some_tensors,
    write_folder,
    write_keras,
)

NAMES = {"config.json", "metadata.json", "model.weights.h5", "assets"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", some_tensors())


def write(model: Path, out: Path, **options: bool) -> int:
    with open_model(model) as source:
        return write_model(source, empty_edit(source), out, **options)


def test_a_folder_is_read_like_a_zip(model: Path) -> None:
    with open_model(model) as source:
        assert (source.format, source.config, source.metadata) == ("keras-folder", CONFIG, METADATA)
        sizes = [path.stat().st_size for path in model.rglob("*") if path.is_file()]
        assert source.bytes == sum(sizes)
        source.check_integrity()
        for path, value in some_tensors().items():
            assert source.read(path).tobytes() == value.tobytes()


def test_the_output_is_a_folder_with_the_same_members(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"  # the format follows the input, not the name
    size = write(model, out)
    assert left_in(out) == NAMES and left_in(tmp_path) == {"model", "out.keras"}
    assert (out / "assets/layers/words.txt").read_text() == "one\ntwo\n"
    assert size == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    after = contents(out / "model.weights.h5")
    assert all(after[path].tobytes() == value.tobytes() for path, value in some_tensors().items())


def test_zip_and_folder_hold_the_same_bytes(model: Path, tmp_path: Path) -> None:
    import zipfile

    write_keras(tmp_path / "m.keras", some_tensors())
    change = TensorEdit("x", "layers/dense/vars/0", (np.array([1, 4]), None))
    for source_path, out in ((tmp_path / "m.keras", "1.keras"), (model, "2")):
        with open_model(source_path) as source:
            write_model(source, edit_of(source, change), tmp_path / out)
    with zipfile.ZipFile(tmp_path / "1.keras") as archive:
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / "2" / name).read_bytes(), name


def test_links_that_stay_inside_become_what_they_lead_to(model: Path, tmp_path: Path) -> None:
    (model / "assets" / "words").write_text("ours")
    (model / "assets" / "link").symlink_to("words")
    (model / "assets" / "empty").mkdir()
    out = tmp_path / "out"
    size = write(model, out)
    assert size == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    link = tmp_path / "out" / "assets" / "link"
    assert not link.is_symlink() and link.read_text() == "ours"
    assert (tmp_path / "out" / "assets" / "empty").is_dir()


def test_a_folder_without_weights_says_so(model: Path) -> None:
    (model / "model.weights.h5").unlink()
    with pytest.raises(FileError, match=r"model\.weights\.h5\nwhy: +there is no such file"):
        open_model(model)


def test_weights_cut_short_are_damage(model: Path) -> None:
    os.truncate(model / "model.weights.h5", 5000)
    with pytest.raises(DamagedFileError):
        open_model(model)


def test_an_existing_output_is_kept_unless_forced(model: Path, tmp_path: Path) -> None:
    out = write_folder(tmp_path / "out", {})
    (out / "old").touch()
    out.chmod(0o750)
    with pytest.raises(UsageError, match="exists already"):
        write(model, out)
    write(model, out, force=True)
    assert left_in(out) == NAMES and left_in(tmp_path) == {"model", "out"}
    assert out.stat().st_mode & 0o777 == 0o750


def test_a_folder_may_replace_itself(model: Path, tmp_path: Path) -> None:
    write(model, model, force=True)
    assert left_in(model) == NAMES and left_in(tmp_path) == {"model"}
    assert set(contents(model / "model.weights.h5")) == set(some_tensors())


def test_force_never_replaces_a_folder_that_is_no_model(model: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="something other than a model"):
        write(model, documents, force=True)
    assert left_in(documents) == {"thesis.txt"}


def test_places_that_take_no_folder_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, why in (
        (tmp_path / "file", "it is a file"),
        (model / "inside", "lies inside the model"),
        (Path("-"), "cannot go to standard output"),
    ):
        with pytest.raises(UsageError, match=why):
            write(model, place, force=True)
    with pytest.raises(FileError, match="no such file"):
        write(model, tmp_path / "none" / "out")
    assert left_in(tmp_path) == {"model", "file"} and left_in(model) == NAMES


def test_what_goes_wrong_in_the_middle_leaves_the_old_folder(model: Path, tmp_path: Path) -> None:
    out = write_folder(tmp_path / "out", {})

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    def touch(*_: int) -> None:
        os.utime(model / "model.weights.h5", (1, 1))

    for progress, error in ((stop, KeyboardInterrupt), (touch, FileError)):
        with open_model(model) as source, pytest.raises(error):
            write_model(source, empty_edit(source), out, force=True, progress=progress)
        assert left_in(tmp_path) == {"model", "out"}
        assert contents(out / "model.weights.h5") == {}
