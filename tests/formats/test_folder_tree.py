"""A model's folder holds its own files and nothing else; nothing in it is opened to find out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kprune.errors import CannotPruneError, FileError
from kprune.formats import open_model
from kprune.formats.folder_tree import check_tree
from tests.formats.making import some_tensors, write_folder

LINKS: dict[str, Callable[[Path], None]] = {
    "the graph": lambda folder: (folder / "saved_model.pb").symlink_to("../secret"),
    "an asset": lambda folder: (folder / "assets" / "words.txt").symlink_to("../../secret"),
    "one with an absolute path": lambda folder: (folder / "x").symlink_to(
        folder.absolute().parent / "secret"
    ),
    "the shard of variables": lambda folder: (
        folder / "variables" / "variables.data-00000-of-00001"
    ).symlink_to("../../secret"),
    "one deep inside": lambda folder: (folder / "assets" / "a" / "b" / "c").symlink_to(
        "../../../../secret"
    ),
    "a folder of variables": lambda folder: (folder / "linked").symlink_to("../elsewhere"),
    "a chain that leaves in its second step": lambda folder: (
        (folder / "second").symlink_to("../secret"),
        (folder / "first").symlink_to("second"),
    )[0],
    "a folder whose name begins like the model's": lambda folder: (folder / "x").symlink_to(
        "../model_2/secret"
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a SavedModel's folder looks like, beside a secret."""
    for name in ("model/assets/a/b", "model/variables", "elsewhere", "model_2"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("secret", "elsewhere/secret", "model_2/secret"):
        (tmp_path / name).write_text("not yours")
    return tmp_path / "model"


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leaves_the_folder_is_refused_by_its_name(folder: Path, name: str) -> None:
    LINKS[name](folder)
    with pytest.raises(CannotPruneError, match="leaves the folder") as refused:
        check_tree(folder, trust=False)
    assert (folder / refused.value.where).is_symlink() and "--trust" in refused.value.do


@pytest.mark.parametrize("name", sorted(set(LINKS) - {"a folder of variables"}))
def test_links_to_files_are_followed_in_a_folder_that_is_trusted(folder: Path, name: str) -> None:
    LINKS[name](folder)
    check_tree(folder, trust=True)


@pytest.mark.parametrize("target", ["variables", "..", ".", "../elsewhere"])
def test_a_link_to_a_folder_is_refused_even_if_it_is_trusted(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(FileError, match="it leads to a folder"):
        check_tree(folder, trust=True)


@pytest.mark.parametrize("target", ["link", "nothing"])
def test_a_link_to_itself_or_to_nothing_is_refused(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(FileError, match="circle" if target == "link" else "no such file"):
        check_tree(folder, trust=False)


def test_links_that_stay_inside_pass_and_so_does_the_link_by_which_a_folder_is_named(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "words").write_text("ours")
    (folder / "assets" / "words").symlink_to("../words")
    (tmp_path / "name").symlink_to("model")
    check_tree(tmp_path / "name", trust=False)


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_refused_without_being_opened(folder: Path, tmp_path: Path, linked: bool) -> None:
    place = tmp_path / "pipe" if linked else folder / "assets" / "words.txt"
    os.mkfifo(place)
    if linked:
        (folder / "assets" / "words.txt").symlink_to(place)
    with pytest.raises(FileError, match="neither a file nor a folder") as refused:
        check_tree(folder, trust=True)
    assert refused.value.where == "assets/words.txt"


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_no_part_of_an_unzipped_model_may_be_a_link_to_elsewhere(tmp_path: Path, name: str) -> None:
    model = write_folder(tmp_path / "model", some_tensors())
    (model / name).rename(tmp_path / name)
    (model / name).symlink_to(f"../{name}")
    with pytest.raises(CannotPruneError, match="leaves the folder"):
        open_model(model)
    with open_model(model, trust=True) as source:
        assert source.read("layers/dense/vars/0").size


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_saved_model_with_a_pipe_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / "saved_model.pb").touch()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(FileError, match="neither a file nor a folder"):
        open_model(folder)
