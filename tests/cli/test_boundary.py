"""Where exceptions and signals end: the exit code, the message, and no traceback."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kprune.interruption import Terminated
from kprune.version import __version__
from tests.cli.conftest import Kprune, folder_as_it_is

COMMAND = [sys.executable, "-m", "kprune"]


def failing(error: BaseException) -> Any:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


def test_a_bug_is_said_in_three_lines(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kprune.views.inspect.inspect", failing(ZeroDivisionError("oh\x1b[2J")))
    ran = kprune("inspect", model)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: this is a bug in kprune\n"
        "why:   ZeroDivisionError: oh\\x1b[2J\n"
        "do:    run the command again with --debug, and report what it shows\n"
    )


@pytest.mark.parametrize("line", ["--debug inspect model.keras", "inspect model.keras --debug"])
def test_debug_shows_the_traceback(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr("kprune.views.inspect.inspect", failing(ZeroDivisionError("oh")))
    ran = kprune(*line.split())
    assert ran.code == 1
    assert ran.err.startswith("Traceback (most recent call last):\n")
    assert "error: this is a bug in kprune\n" in ran.err


def test_a_refusal_shows_no_traceback_but_with_debug(kprune: Kprune, model: Path) -> None:
    assert "Traceback" not in kprune("remove", model, "conv_9:0").err
    assert "Traceback" in kprune("remove", model, "conv_9:0", "--debug").err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (BrokenPipeError(), 141)]
)
def test_an_interruption_of_what_writes_nothing_is_silent(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr("kprune.views.inspect.inspect", failing(error))
    ran = kprune("inspect", model)
    assert (ran.code, ran.out, ran.err) == (code, "", "")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device"),
            "error: the system refused: No space left on device\n"
            "do:    free some space where the output goes, or in the temporary folder (TMPDIR)\n",
        ),
        (MemoryError(), "error: there is not enough memory\n"),
    ],
)
def test_what_the_system_refuses_is_no_bug(
    kprune: Kprune, model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr("kprune.views.inspect.inspect", failing(error))
    ran = kprune("inspect", model)
    assert ran.err == message
    assert ran.code == 4


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
@pytest.mark.parametrize("replacing", [False, True], ids=["new", "force"])
def test_a_signal_ends_the_process_with_its_code_and_one_line(
    model: Path, number: signal.Signals, code: int, said: str, replacing: bool
) -> None:
    if replacing:
        Path("out.keras").write_bytes(b"mine")
    before = folder_as_it_is(Path())
    process = subprocess.Popen(
        [*COMMAND, "remove", "-", "conv_1:0", "-o", "out.keras", *["--force"] * replacing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(model.read_bytes()[:1000])  # and then it waits for the rest
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not _waits_for_input(process.pid):
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    line = f"{said}: out.keras was not written{'; the old one is unchanged' * replacing}\n"
    assert (process.returncode, out, err.decode()) == (code, b"", line)
    assert folder_as_it_is(Path()) == before


def _waits_for_input(process: int) -> bool:
    """Whether it sleeps in a read of standard input, having imported all it needs."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        libraries = Path(f"/proc/{process}/maps").read_text()
    except OSError:
        return False
    return "State:\tS" in status and "_multiarray_umath" in libraries


def test_a_reader_that_leaves_is_no_error(model: Path) -> None:
    process = subprocess.Popen([*COMMAND, "rules"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 141


@pytest.mark.parametrize("line", ["rules", "--help"])
def test_a_full_disk_behind_standard_output_is_an_error(line: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        ran = subprocess.run([*COMMAND, line], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 4
    refused = (
        "the system refused: No space left on device\n"
        "do:    free some space where the output goes, or in the temporary folder (TMPDIR)"
    )
    if line == "rules":
        refused = "cannot write standard output\nwhy:   the disk is full"
    assert ran.stderr == f"error: {refused}\n"


@pytest.mark.parametrize("line", ["rules", "schema plan", "--help", "--version", "remove --help"])
def test_standard_output_that_is_closed_is_an_error(line: str) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *line.split()]
    ran = subprocess.run(closed, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (4, "error: standard output is closed\n")


def test_what_was_registered_for_the_end_of_the_process_is_done(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import atexit\natexit.register(lambda: print('done at the end'))\n"
    )
    line = [*COMMAND, "rules", "--rules", str(tmp_path / "late.py")]
    ran = subprocess.run(line, capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stdout.endswith("done at the end\n")


def on_a_terminal(*arguments: str, **environment: str) -> tuple[int, bytes]:
    """Run with both outputs on a pseudo-terminal of 80 columns."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
    )
    os.close(secondary)
    shown = b""
    try:
        while data := os.read(primary, 65536):
            shown += data
    except OSError:
        pass  # Linux says so when the other end is closed
    os.close(primary)
    return process.wait(30), shown


def test_there_is_colour_on_a_terminal_alone(kprune: Kprune, model: Path) -> None:
    code, shown = on_a_terminal("remove", "model.keras", "conv_1:0", "--dry-run")
    assert code == 0
    assert b"\x1b[1m" in shown
    assert b"\x1b" not in kprune("remove", model, "conv_1:0", "--dry-run").stdout


def test_an_error_is_red_on_a_terminal(model: Path) -> None:
    code, shown = on_a_terminal("remove", "model.keras", "conv_9:0")
    assert code == 2
    assert b"\x1b[1;31merror:\x1b[0m there is no layer" in shown


def test_no_color_is_obeyed(model: Path) -> None:
    for line in (["remove", "model.keras", "conv_9:0"], ["diff", "model.keras", "model.keras"]):
        _, shown = on_a_terminal(*line, NO_COLOR="1")
        assert b"\x1b[3" not in shown
        assert b"\x1b[1;3" not in shown


def test_python_m_kprune_is_the_command() -> None:
    ran = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"kprune {__version__}\n", "")


def test_an_encoding_without_arrows_gets_something_like_them(model: Path) -> None:
    ran = subprocess.run(
        [*COMMAND, "remove", "model.keras", "conv_1:0", "--dry-run"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"16 > 15" in ran.stdout
