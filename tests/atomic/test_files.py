"""Whole or not at all: where the output goes, and what is left when something happens."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kprune.atomic import new_file, put
from kprune.edit import Edit
from kprune.errors import FileError, UsageError
from kprune.formats import open_model, stream, write_model
from kprune.formats.zip.keras_zip import KerasZip
from tests.formats.making import contents, empty_edit, left_in, some_tensors, write_keras


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_keras(tmp_path / "in" / "model.keras", some_tensors())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "small.keras"


@pytest.fixture(params=["unnamed", "hidden", "cannot be named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways in which a file can come into being, depending on the file system."""
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif request.param == "cannot be named":
        link = os.link

        def no_proc(source: str, *args: Any, **options: Any) -> None:
            if source.startswith("/proc"):
                raise OSError(errno.EXDEV, "not this one")
            link(source, *args, **options)

        monkeypatch.setattr(os, "link", no_proc)
    return str(request.param)


def write(model: Path, out: Path | str, **options: Any) -> int:
    with open_model(model) as source:
        return write_model(source, empty_edit(source), out, **options)


def test_the_output_and_nothing_else_is_left(model: Path, out: Path, way: str) -> None:
    size = write(model, out)
    assert left_in(out.parent) == {"small.keras"} and left_in(model.parent) == {"model.keras"}
    assert out.stat().st_size == size
    assert set(contents(out)) == set(some_tensors())


def test_an_existing_file_is_kept_unless_forced(model: Path, out: Path, way: str) -> None:
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"exists already\ndo: .*--force"):
        write(model, out)
    assert out.read_text() == "mine"
    write(model, out, force=True)
    assert contents(out) and left_in(out.parent) == {"small.keras"}


def test_a_file_that_comes_up_meanwhile_is_kept(model: Path, out: Path, way: str) -> None:
    with open_model(model) as source, pytest.raises(UsageError, match="exists already"):
        write_model(
            source, empty_edit(source), out, progress=lambda *_: out.write_text("mine") and None
        )
    assert out.read_text() == "mine" and left_in(out.parent) == {"small.keras"}


def test_a_new_file_has_the_mode_that_the_umask_leaves(model: Path, out: Path, way: str) -> None:
    for mask, mode in ((0o022, 0o644), (0o027, 0o640)):
        before = os.umask(mask)
        try:
            write(model, out)
        finally:
            os.umask(before)
        assert out.stat().st_mode & 0o7777 == mode
        out.unlink()


def test_a_replaced_file_passes_its_mode_on(model: Path, out: Path, way: str) -> None:
    out.write_text("mine")
    out.chmod(0o604)
    write(model, out, force=True)
    assert out.stat().st_mode & 0o7777 == 0o604


def test_nobody_reads_the_successor_of_a_private_file(
    model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    out.write_text("mine")
    out.chmod(0o600)
    modes = set()

    def look(*_: int) -> None:
        modes.update(path.stat().st_mode & 0o777 for path in out.parent.iterdir())

    write(model, out, force=True, progress=look)
    assert modes == {0o600} and out.stat().st_mode & 0o777 == 0o600


def test_a_replaced_file_passes_its_attributes_on(model: Path, out: Path, way: str) -> None:
    out.write_text("mine")
    try:
        os.setxattr(out, "user.owner", b"me")
    except OSError:
        pytest.skip("no such attributes here")
    write(model, out, force=True)
    assert os.getxattr(out, "user.owner") == b"me"


def test_the_group_passes_even_where_the_owner_cannot(
    model: Path, out: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.write_text("mine")
    real, tried = os.chown, []

    def like_a_user(fd: int, owner: int, group: int) -> None:
        tried.append((owner, group))
        if owner != -1:
            raise PermissionError(errno.EPERM, "no")
        real(fd, owner, group)

    monkeypatch.setattr(os, "chown", like_a_user)
    write(model, out, force=True)
    assert tried[1] == (-1, out.stat().st_gid)


def test_of_two_at_a_time_one_wins(tmp_path: Path, way: str) -> None:
    for force, winner in ((True, b"two"), (False, b"one")):
        target = tmp_path / str(force)
        with new_file(target, force=force) as one, new_file(target, force=force) as two:
            put(one, b"one")
            put(two, b"two")
            one.commit(lambda: None)
            if force:
                two.commit(lambda: None)
            else:
                with pytest.raises(UsageError, match="exists already"):
                    two.commit(lambda: None)
        assert target.read_bytes() == winner
    assert left_in(tmp_path) == {"True", "False"}


def test_a_model_may_replace_itself(model: Path, way: str) -> None:
    write(model, model, force=True)
    assert set(contents(model)) == set(some_tensors())
    assert left_in(model.parent) == {"model.keras"}


def test_a_symbolic_link_stays_one_and_its_target_is_replaced(model: Path, out: Path) -> None:
    real = out.parent / "real.keras"
    out.symlink_to("real.keras")
    write(model, out)  # dangling until now
    assert out.is_symlink() and contents(real)
    real.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write(model, out)
    write(model, out, force=True)
    assert out.is_symlink() and contents(real)
    assert left_in(out.parent) == {"small.keras", "real.keras"}


def test_the_other_name_of_a_replaced_file_keeps_the_old_content(model: Path, out: Path) -> None:
    before = model.read_bytes()
    os.link(model, out)
    with open_model(model) as source:
        write_model(source, Edit({}, {}), out, force=True)
    assert model.read_bytes() == before != out.read_bytes()


def test_places_that_take_no_file_are_refused_at_once(
    model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KerasZip, "_plan", None)  # nothing is even planned
    pipe = out.parent / "pipe"
    os.mkfifo(pipe)
    for place in (out.parent, pipe, Path("/dev/null"), "", out.parent / "."):
        with open_model(model) as source, pytest.raises(UsageError, match="cannot write"):
            write_model(source, empty_edit(source), place, force=True)
    loop = out.parent / "loop"
    loop.symlink_to("loop")
    for place, why in (
        (out.parent / "none" / "x.keras", "there is no folder"),
        (model / "x.keras", "not a folder"),
        (loop, "lead in a circle"),
        (out.parent / ("x" * 300), "the name is too long"),
    ):
        with open_model(model) as source, pytest.raises(FileError, match=why):
            write_model(source, empty_edit(source), place)
    assert left_in(out.parent) == {"pipe", "loop"}


def test_an_input_that_changes_meanwhile_gives_no_output(model: Path, out: Path, way: str) -> None:
    def touch(*_: int) -> None:
        os.utime(model, (1, 1))

    def replace(*_: int) -> None:
        other = model.parent / "other"
        other.write_bytes(model.read_bytes())
        other.replace(model)

    for change in (touch, replace):
        with pytest.raises(FileError, match="changed by another program"):
            write(model, out, progress=change)
        assert left_in(out.parent) == set()


def test_an_input_that_is_cut_short_meanwhile_gives_no_output(tmp_path: Path, out: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {"x": np.zeros(8_000_000, "f4")})
    with open_model(model) as source:
        os.truncate(model, 20_000_000)
        with pytest.raises(FileError, match="became shorter"):
            write_model(source, empty_edit(source), out)
    assert left_in(out.parent) == set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_exception_in_the_middle_leaves_nothing(
    model: Path, out: Path, way: str, error: type[BaseException]
) -> None:
    out.write_text("mine")

    def stop(*_: int) -> None:
        raise error

    with pytest.raises(error):
        write(model, out, force=True, progress=stop)
    assert out.read_text() == "mine" and left_in(out.parent) == {"small.keras"}


@pytest.mark.parametrize("where", ["write", "second write", "fsync"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, out: Path, way: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_keras(tmp_path / "m.keras", {"x": np.zeros(8_000_000, "f4")})
    out.write_text("mine")
    real, calls = os.pwritev, 0

    def full(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > (0 if where == "write" else 20):
            raise OSError(errno.ENOSPC, "no space")
        return real(*args)

    def failing(fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", failing)
    else:
        monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(FileError, match="the disk is full"):
        write(model, out, force=True)
    assert out.read_text() == "mine" and left_in(out.parent) == {"small.keras"}


def test_a_write_that_the_disk_takes_in_parts_is_finished(
    model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at: real(fd, [bytes(data[0])[:7]], at))
    write(model, out)
    assert set(contents(out)) == set(some_tensors())


def test_a_file_larger_than_the_system_allows_is_a_plain_error(tmp_path: Path, out: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {"x": np.zeros(8_000_000, "f4")})
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
    """
    result = run_writer(model, out, code)
    assert "FileError" in result.stderr and "larger than the system allows" in result.stderr
    assert left_in(out.parent) == set()


def test_what_does_not_read_back_is_thrown_away(
    model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def losing(fd: int, data: list[Any], at: int) -> int:
        # A disk that says yes and writes zeros where HDF5's metadata should be.
        return real(fd, [bytes(len(part)) for part in data], at)

    monkeypatch.setattr(os, "pwritev", losing)
    with pytest.raises(FileError, match="does not read back, so it was thrown away"):
        write(model, out)
    assert left_in(out.parent) == set()


WRITER = """
    import os, signal, sys, threading, time
    {setup}
    from kprune.formats import open_model, write_model
    from kprune.edit import Edit
    def progress(done, total):
        if done > total // 2:
            print("half", flush=True)
            time.sleep(60)
    with open_model(sys.argv[1]) as source:
        edit = Edit(source.config, source.metadata)
        write_model(source, edit, sys.argv[2], force=True, progress={progress})
"""


def writer(setup: str, progress: str = "progress") -> str:
    return textwrap.dedent(WRITER).format(setup=textwrap.dedent(setup).strip(), progress=progress)


def run_writer(model: Path, out: Path, setup: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", writer(setup, "None"), str(model), str(out)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("number", "setup", "code"),
    [
        (signal.SIGKILL, "", -9),
        (signal.SIGTERM, "", 143),
        (signal.SIGTERM, "del os.O_TMPFILE", 143),
        (signal.SIGINT, "del os.O_TMPFILE", -2),
        (signal.SIGTERM, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
    ],
)
def test_a_killed_writer_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, out: Path, number: int, setup: str, code: int
) -> None:
    model = write_keras(tmp_path / "m.keras", {"x": np.zeros(8_000_000, "f4")})
    out.write_text("mine")
    command = [sys.executable, "-c", writer(setup), str(model), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"half\n"
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == code
    assert out.read_text() == "mine" and left_in(out.parent) == {"small.keras"}


def test_a_terminating_signal_means_what_it_meant_before(model: Path, out: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    write(model, out)
    assert signal.getsignal(signal.SIGTERM) is before


def test_standard_output_gets_the_same_bytes(model: Path, out: Path, tmp_path: Path) -> None:
    write(model, out)
    with open(tmp_path / "piped", "wb") as piped:
        command = [sys.executable, "-c", writer("", "None"), str(model), "-"]
        subprocess.run(command, stdout=piped, check=True)
    assert (tmp_path / "piped").read_bytes() == out.read_bytes()


def test_standard_output_in_memory_gets_them_too(
    model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model, out)
    memory = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", memory)
    write(model, "-")
    assert memory.buffer.getvalue() == out.read_bytes()  # type: ignore[attr-defined]


def test_a_pipe_whose_reader_has_left_is_said_as_python_says_it(model: Path) -> None:
    read, write_end = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", writer("", "None"), str(model), "-"]
    result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert result.stderr.count("BrokenPipeError: ") == 1
    assert "Exception ignored" not in result.stderr


def test_a_terminal_gets_no_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(UsageError, match="does not take a model file"):
        write(model, "-")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(FileError, match="standard output is closed"):
        write(model, "-")


def test_a_model_comes_in_through_a_pipe_or_a_redirection(
    model: Path, out: Path, tmp_path: Path
) -> None:
    write(model, out)
    command = [sys.executable, "-c", writer("", "None"), "-", str(tmp_path / "1.keras")]
    with open(model, "rb") as redirected:
        subprocess.run(command, stdin=redirected, check=True)
    command[-1] = str(tmp_path / "2.keras")
    subprocess.run(command, input=model.read_bytes(), check=True)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command[-2:] = [str(pipe), str(tmp_path / "3.keras")]
    with subprocess.Popen(command) as process:
        pipe.write_bytes(model.read_bytes())
    assert process.returncode == 0
    for number in (1, 2, 3):
        assert (tmp_path / f"{number}.keras").read_bytes() == out.read_bytes()


def test_work_goes_on_in_several_threads_and_ends_with_the_call(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_cores", lambda: 4)
    seen: set[int] = set()
    put = stream.Target.put

    def noting(self: stream.Target, *arguments: Any) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.001)
        put(self, *arguments)

    monkeypatch.setattr(stream.Target, "put", noting)
    value = np.arange(8_000_000, dtype="f4")
    model = write_keras(tmp_path / "m.keras", {"x": value})
    before = threading.active_count()
    write(model, out)
    assert len(seen) == 4 and threading.active_count() == before
    assert contents(out)["x"].tobytes() == value.tobytes()


def test_an_error_in_a_helping_thread_reaches_the_caller(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_cores", lambda: 2)
    main = threading.get_ident()
    put = stream.Target.put

    def failing(self: stream.Target, *arguments: Any) -> None:
        if threading.get_ident() != main:
            raise FileError("from the helper")
        time.sleep(0.001)
        put(self, *arguments)

    monkeypatch.setattr(stream.Target, "put", failing)
    model = write_keras(tmp_path / "m.keras", {"x": np.zeros(8_000_000, "f4")})
    with pytest.raises(FileError, match="from the helper"):
        write(model, out)
    assert left_in(out.parent) == set()
