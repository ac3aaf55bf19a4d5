"""Nothing leaves kprune unchecked: cuts that are broken on purpose give a message and no file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.cli.boundary import run
from kprune.errors import UnsoundOutputError
from kprune.select.plans.plan import parse_plan
from kprune.surgery import mask as masks
from kprune.surgery import remove as removing
from kprune.surgery.rewrite import Rewriter
from tests.formats.making import left_in
from tests.formats.test_legacy_h5 import write_h5
from tests.small_models import arrays, layer, sequential, write


def config() -> dict[str, Any]:
    statistics = {"mean": [0.0] * 6, "variance": [1.0] * 6, "axis": -1}
    return sequential(
        layer("Dense", "a", units=6), layer("Normalization", "norm", **statistics),
        layer("Dense", "b", units=5), layer("Dense", "out", units=3),
        shape=[4],
    )  # fmt: skip


def zipped(folder: Path) -> Path:
    return write(folder / "m.keras", config())


def unzipped(folder: Path) -> Path:
    with zipfile.ZipFile(zipped(folder.parent)) as archive:
        archive.extractall(folder / "m")
    return folder / "m"


def legacy(folder: Path) -> Path:
    found = list(arrays(config()).values())
    pairs = zip(("a", "b", "out"), found[::2], found[1::2], strict=True)
    layers = {name: {f"{name}/kernel": one, f"{name}/bias": two} for name, one, two in pairs}
    return write_h5(folder / "m.h5", config(), {"input": {}, "norm": {}, **layers})


@pytest.fixture(params=[zipped, unzipped, legacy])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    made: Path = request.param(folder)
    return made


def contents(path: Path) -> dict[Path, bytes]:
    """The bytes of a file, or of each file in a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return {file: file.read_bytes() for file in files}


def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rewriter, "_sizes", lambda self: None)


def config_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rewriter, "_arrays", lambda self: None)


def rows_of_b(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = removing.cut_weight
    whole = ("b", "kernel")
    monkeypatch.setattr(
        removing,
        "cut_weight",
        lambda weight, gone: (
            None if (weight.layer.name, weight.name) == whole else cut(weight, gone)
        ),
    )


BREAKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "sizes in the config": sizes,
    "arrays in the config": config_arrays,
    "rows of a kernel": rows_of_b,
}
PLAN = json.dumps({"version": 1, "steps": [{"backend": "remove", "layers": {"a": [1]}}]})
COMMANDS: dict[str, Callable[[Path, Path], Any]] = {
    "remove": lambda model, out: kprune.remove(model, {"a": [1]}, output=out),
    "dry run": lambda model, out: kprune.remove(model, {"a": [1]}, output=out, dry_run=True),
    "apply": lambda model, out: kprune.apply(model, parse_plan(PLAN), output=out),
}


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_broken_cut_is_noticed_and_leaves_no_file(
    command: str, broken: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = model.with_name(f"out{model.suffix}")
    COMMANDS[command](model, out)  # as it is, it passes
    before = left_in(model.parent) - {out.name}
    remove_tree(out)
    BREAKS[broken](monkeypatch)
    with pytest.raises(UnsoundOutputError, match="contradicts itself"):
        COMMANDS[command](model, out)
    assert left_in(model.parent) == before


def remove_tree(path: Path) -> None:
    for inner in sorted(path.rglob("*"), reverse=True) if path.is_dir() else ():
        inner.rmdir() if inner.is_dir() else inner.unlink()
    if path.exists():
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_mask_of_another_width_is_noticed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static = masks._static

    def longer(*arguments: Any) -> Any:
        made = static(*arguments)
        made["config"]["scale"].append(1.0)
        return made

    monkeypatch.setattr(masks, "_static", longer)
    with pytest.raises(UnsoundOutputError):
        kprune.mask(model, {"a": [1]}, output=model.with_name(f"out{model.suffix}"))


def test_what_is_dead_goes_checked_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, dead = zipped(tmp_path), tmp_path / "dead.keras"
    kprune.zero(path, {"b": [2]}, outgoing=True, output=dead)
    rows_of = removing.cut_weight
    monkeypatch.setattr(
        removing,
        "cut_weight",
        lambda weight, gone: None if weight.name == "bias" else rows_of(weight, gone),
    )
    with pytest.raises(UnsoundOutputError, match="contradicts itself"):
        kprune.compact(dead, check=False, output=tmp_path / "out.keras")
    assert not (tmp_path / "out.keras").exists()


def test_a_legacy_file_that_becomes_a_keras_file_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = legacy(tmp_path), tmp_path / "out.keras"
    kprune.remove(path, {"a": [1]}, output=out)
    sizes(monkeypatch)
    with pytest.raises(UnsoundOutputError):
        kprune.remove(path, {"a": [2]}, output=out, force=True)


def test_the_old_file_stands_where_it_was_to_be_replaced(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(model)
    rows_of_b(monkeypatch)
    assert run(["remove", str(model), "a:1", "--in-place"]) == 1
    assert contents(model) == before
    told = capsys.readouterr().err
    assert told.startswith("error: the result contradicts itself, which is a bug in kprune\n")
    assert "the kernel of 'b' has shape (6, 5), but the config requires (5, 5)" in told
    assert "please report this message" in told


def test_a_file_that_was_wrong_before_can_still_be_changed(tmp_path: Path) -> None:
    found = config()
    found["config"]["layers"][2]["config"]["scale"] = [1.0] * 3  # Normalization never looks at it
    path, out = write(tmp_path / "m.keras", found), tmp_path / "out.keras"
    kprune.remove(path, {"a": [1]}, output=out)
    assert out.exists()
