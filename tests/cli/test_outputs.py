"""Where a command writes: nothing is replaced that was not meant, and that is found out before the work."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kprune.cli.commands import COMMANDS
from kprune.cli.groups import grouped
from kprune.cli.outputs import MODEL, READ, SMALL
from kprune.interruption import Terminated
from tests.cli.conftest import Kprune, folder_as_it_is

REMOVE = ("remove", "model.keras", "conv_1:0", "-q")


@pytest.fixture
def idle(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model, which no command gets to open."""
    names = ("kprune.opened", "kprune.train.tune", "kprune.verbs.iterate")
    for module in [importlib.import_module(name) for name in names]:  # all, before one is patched
        monkeypatch.setattr(module, "open_model", None)
    return model


@pytest.mark.parametrize(
    "line",
    [
        "remove model.keras conv_1:0 --report there",
        "tune model.keras --data data.npz --report there",
        "tune model.keras --data data.npz --plot there.svg",
        "iterate model.keras plan.yaml --data data.npz --report there",
        "iterate model.keras plan.yaml --data data.npz --plot there.svg",
        "sensitivity model.keras --data data.npz -o there",
        "sensitivity model.keras --data data.npz --plot there.svg",
        "plan model.keras conv_1:0 -o there",
        "flatten model.keras -o there",
    ],
)
def test_no_file_that_exists_is_replaced_without_force(
    kprune: Kprune, idle: Path, line: str
) -> None:
    for name in ("there", "there.svg"):
        Path(name).write_text("mine")
    ran = kprune(*line.split())
    assert (ran.code, ran.out) == (2, "")
    assert "exists already\ndo:    name another" in ran.err and "--force" in ran.err
    assert Path("there").read_text() == Path("there.svg").read_text() == "mine"


def test_a_report_replaces_a_file_with_force(kprune: Kprune, model: Path) -> None:
    Path("report.json").write_text("old")
    assert kprune(*REMOVE, "--report", "report.json", "--force").code == 0
    assert json.loads(Path("report.json").read_text())["command"] == "remove"


@pytest.mark.parametrize(
    "line",
    [
        "remove model.keras conv_1:0 --report {}",
        "remove model.keras conv_1:0 --in-place --report {}",
        "remove other.keras conv_1:0 --rules model.keras --report {}",
        "remove other.keras conv_1:@model.keras -o {}",
        "remove other.keras --criterion taylor --ratio 0.1 --data model.keras -o {}",
        "repair model.keras other.keras -o {}",
        "apply other.keras model.keras -o {}",
        "plan model.keras conv_1:0 -o {}",
        "plan other.keras --sensitivity model.keras --max-drop 0.1 -o {}",
        "sensitivity other.keras --data model.keras -o {}",
        "tune other.keras --data model.keras --report {}",
        "tune other.keras --data x --teacher model.keras -o {}",
        "iterate other.keras model.keras --data x --report {}",
    ],
)
def test_no_input_is_replaced_by_whatever_name_even_with_force(
    kprune: Kprune, idle: Path, line: str
) -> None:
    shutil.copy(idle, "other.keras")
    os.symlink("model.keras", "soft")
    os.link("model.keras", "hard")
    before = folder_as_it_is(Path())
    for name in ("model.keras", "./model.keras", os.path.abspath("model.keras"), "soft", "hard"):
        ran = kprune(*line.format(name).split(), "--force")
        assert (ran.code, ran.out) == (2, "")
        assert "would write over an input" in ran.err
    assert folder_as_it_is(Path()) == before


def test_every_parameter_that_names_a_file_is_known_as_read_or_written() -> None:
    looking = {"inspect", "explain", "diff", "verify", "rules", "criteria"}  # these write nothing
    for entry in COMMANDS:
        module = importlib.import_module(f"kprune.cli.commands.{entry.module}")
        for name, parameter in inspect.signature(
            grouped(getattr(module, entry.name))
        ).parameters.items():
            told = getattr(parameter.annotation, "__metadata__", ())
            if entry.name not in looking and any(_is_of_file(option) for option in told):
                assert name in READ | {*SMALL, MODEL}, (entry.name, name)


def _is_of_file(option: Any) -> bool:
    words = ("FILE", "PATH", "MODEL", "PLAN", "ORIGINAL", "PRUNED")
    return (getattr(option, "metavar", None) or "").split(".")[0] in words


def test_a_layer_may_be_called_as_a_folder_is(kprune: Kprune, model: Path) -> None:
    Path("conv_1").mkdir()
    ran = kprune(
        "remove", model, "--where", "index<2", "--exclude", "conv_1", "-o", "conv_1/x.keras"
    )
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    "line",
    [
        "remove model.keras conv_1:0 -o same.keras --report ./same.keras",
        "remove model.keras conv_1:0 --report model.pruned.keras",
        "tune model.keras --data x --report model.tuned.keras",
        "tune model.keras --data x --plot same.svg --report same.svg",
        "sensitivity model.keras --data x --plot same.svg -o same.svg",
    ],
)
def test_two_outputs_do_not_go_to_one_place(kprune: Kprune, idle: Path, line: str) -> None:
    ran = kprune(*line.split(), "--force")
    assert (ran.code, ran.out) == (2, "")
    assert "name the same place" in ran.err
    assert sorted(folder_as_it_is(Path())) == ["model.keras"]


def test_a_report_does_not_replace_the_names_that_the_command_has_just_written(
    kprune: Kprune, model: Path
) -> None:
    Path("names.txt").write_text("\n".join(f"digit {n}" for n in range(10)))
    ran = kprune(
        "remove", model, "--classes", "digit 3", "--class-names", "names.txt", "-o", "small.keras",
        "--report", "small.names.txt", "--allow-output-change", "--force",
    )  # fmt: skip
    assert ran.code == 2
    assert "small.names.txt was just written by this command" in ran.err
    assert "digit 4" in Path("small.names.txt").read_text()


def test_a_report_may_go_to_a_device_or_a_pipe(kprune: Kprune, model: Path) -> None:
    assert kprune(*REMOVE, "--report", "/dev/null").code == 0
    os.mkfifo("pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_text()))
    reader.start()
    assert kprune(*REMOVE, "--report", "pipe", "-o", "other.keras").code == 0
    reader.join(10)
    assert json.loads(got[0])["command"] == "remove"
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_a_report_is_not_mixed_into_standard_output(kprune: Kprune, model: Path, name: str) -> None:
    ran = kprune(*REMOVE, "--report", name)
    assert ran.code == 2 and "--json prints the report there" in ran.err
    assert sorted(folder_as_it_is(Path())) == ["model.keras"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_systems_names_of_standard_output_mean_it(
    kprune: Kprune, model: Path, name: str
) -> None:
    piped = kprune("remove", model, "conv_1:0", "-o", "-", "-q")
    assert kprune("remove", model, "conv_1:0", "-o", name, "-q").stdout == piped.stdout
    plan = kprune("plan", model, "conv_1:0")
    assert kprune("plan", model, "conv_1:0", "-o", name).out == plan.out != ""


def test_a_reader_of_the_model_that_leaves_is_no_error(model: Path) -> None:
    line = [sys.executable, "-m", "kprune", "remove", str(model), "conv_1:0", "-o", "-"]
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(line, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_an_output_that_exists_is_said_before_the_refit(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kprune.verbs.change._refitted", None)
    Path("model.pruned.keras").write_text("mine")
    ran = kprune("remove", model, "conv_1:0", "--repair", "bias")
    assert ran.code == 2 and "model.pruned.keras exists already" in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "new.keras"], "new.keras was not written"),
        (["-o", "there.keras", "--force"], "there.keras was not written; the old one is unchanged"),
        (["--in-place"], "model.keras was not written; the old one is unchanged"),
        ([], "nothing was written"),
        (["-o", "-"], "standard output did not get the whole model"),
        (
            ["-o", "new.keras", "--report", "r.json"],
            "new.keras and r.json were not written",
        ),
        (["--dry-run"], ""),
    ],
)
@pytest.mark.parametrize(
    ("stopped", "code", "word"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
        (Terminated(signal.SIGHUP), 129, "hung up"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_one_line_says_what_was_not_written(
    kprune: Kprune,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    said: str,
    stopped: BaseException,
    code: int,
    word: str,
) -> None:
    shutil.copy(model, "there.keras")
    before = folder_as_it_is(Path())

    def stop(*_: Any, **__: Any) -> None:
        raise stopped

    monkeypatch.setattr("kprune.formats.zip.keras_zip.KerasZip._plan", stop)
    ran = kprune("remove", model, "conv_1:0", *options)
    assert (ran.code, ran.out, ran.err) == (code, "", f"{word}: {said}\n" if said else "")
    assert folder_as_it_is(Path()) == before


def test_a_signal_right_after_the_rename_does_not_deny_the_output(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kprune.cli.output.present", stop)
    ran = kprune("remove", model, "conv_1:0", "-o", "small.keras")
    assert (ran.code, ran.err) == (130, "interrupted: small.keras was written\n")
    ran = kprune("remove", model, "conv_1:0")
    assert (ran.code, ran.err) == (130, "interrupted: the output was written\n")


def test_a_disk_that_does_not_confirm_the_name_is_told_of(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def failing(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", failing)
    ran = kprune(*REMOVE, "-o", "small.keras")
    assert (ran.code, ran.out) == (0, "small.keras\n")
    assert ran.err == (
        "note: small.keras is written, but the system does not confirm that its name is on the disk: "
        "Input/output error\n"
    )


class Full(io.RawIOBase):
    """A temporary file on a full disk."""

    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("spooled", ["input", "output"])
def test_a_full_temporary_folder_is_named(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch, spooled: str
) -> None:
    import tempfile

    def refuse(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    if spooled == "input":
        monkeypatch.setattr("kprune.formats.opening.tempfile.TemporaryFile", Full)
        ran = kprune("inspect", "-", stdin=model.read_bytes())
        what = "a temporary copy of standard input"
    else:
        monkeypatch.setattr(os, "ftruncate", refuse)
        ran = kprune(*REMOVE, "-o", "-")
        what = "a temporary copy of the output"
    assert (ran.code, ran.stdout) == (4, b"")
    assert ran.err == (
        f"error: cannot write {what}\n"
        f"where: {tempfile.gettempdir()}\n"
        "why:   the disk is full: that of the temporary folder\n"
        "do:    free some space there, or set TMPDIR to another folder\n"
    )


def test_a_file_that_a_plan_names_is_an_input(kprune: Kprune, model: Path) -> None:
    Path("units.txt").write_text("0\n1\n")
    plan = 'version: 1\nsteps: [{backend: remove, layers: {hidden: "@units.txt"}}]\n'
    Path("plan.yaml").write_text(plan)
    ran = kprune("apply", model, "plan.yaml", "-o", "a.keras", "--report", "units.txt", "--force")
    assert ran.code == 2 and Path("units.txt").read_text() == "0\n1\n"
    assert not Path("a.keras").exists()
    assert kprune("apply", model, "plan.yaml", "-o", "a.keras").code == 0
