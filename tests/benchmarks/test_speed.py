"""Whole processes against `cp` (the floor) and against Keras load + save (the rival), side by side.

Prints ratios of medians, then holds them against the budget. Times depend on the machine and on what
else it does: compare within one run. `make bench` runs this; `ARGS="-k resnet50"` one row of it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROUNDS = 5
KPRUNE = [sys.executable, "-m", "kprune"]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "NO_COLOR": "1"}
QUIET.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code

# Runs a command and prints its exit code, seconds and peak memory in kB. A process of its own, since
# the peak that the kernel remembers for a child begins with the memory of whoever started it.
STOPWATCH = """
import os, sys, time
started = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - started, usage.ru_maxrss)
"""

MAKE = """
import sys, keras
getattr(keras.applications, sys.argv[1])(weights=None).save(sys.argv[2])
"""
RIVAL = """
import sys, keras
keras.models.load_model(sys.argv[1]).save(sys.argv[2])
"""
SPECS = {
    "MobileNetV2": "Conv_1:0-127",
    "ResNet50": "conv5_block1_1_conv:0-50",
    "VGG16": "fc1:0-408",
}


@dataclass(frozen=True)
class Run:
    """One finished process: wall clock seconds, and the most memory it held, in MB."""

    seconds: float
    megabytes: float


def run(*command: str) -> Run:
    watched = [sys.executable, "-S", "-c", STOPWATCH, *command]
    said = subprocess.run(watched, env=QUIET, check=True, capture_output=True, text=True).stdout
    code, seconds, kilobytes = said.split()
    assert code == "0", command
    return Run(float(seconds), int(kilobytes) / 1024)


def median(runs: list[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("applications")
    made = {}
    for name in SPECS:
        made[name] = folder / f"{name}.keras"
        subprocess.run(
            [sys.executable, "-c", MAKE, name, str(made[name])],
            env=QUIET,
            check=True,
            capture_output=True,
        )
    return made


def test_start_up(models: dict[str, Path]) -> None:
    """`--help`, and `inspect` of MobileNetV2: what every command costs before it does anything."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "kprune --help": [*KPRUNE, "--help"],
        "kprune inspect MobileNetV2": [*KPRUNE, "inspect", str(models["MobileNetV2"])],
        "python -c 'import numpy, typer'": [sys.executable, "-c", "import numpy, typer"],
        "python -c 'import tensorflow'": [sys.executable, "-c", "import tensorflow"],
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for command in commands.values():
        run(*command)  # warm the page cache and the byte code
    for _ in range(ROUNDS):
        for name, command in commands.items():
            runs[name].append(run(*command))
    print("\n\nstart-up (median of 5)               seconds   peak MB")
    for name, done in runs.items():
        print(f"{name:<36} {median(done):>7.2f} {max(r.megabytes for r in done):>9.0f}")
    assert median(runs["kprune --help"]) <= 0.35
    assert median(runs["kprune inspect MobileNetV2"]) <= 0.35


@pytest.mark.parametrize(
    ("name", "rival_factor", "with_rival"), [("ResNet50", 15, True), ("VGG16", 10, True)]
)
def test_remove(
    name: str, rival_factor: float, with_rival: bool, models: dict[str, Path], tmp_path: Path
) -> None:
    """A tenth of one layer, as a whole process: at most start-up + 2 x cp, and far from Keras.

    kprune has the disk confirm what it wrote before it renames it, which `cp` does not; a copy that
    is synced as well is printed beside.
    """
    model, out, copy = models[name], tmp_path / "out.keras", tmp_path / "copy.keras"
    ours, floor, synced, empty = [], [], [], []
    for _ in range(ROUNDS + 1):
        for path in (out, copy):
            path.unlink(missing_ok=True)
        floor.append(run("cp", str(model), str(copy)))
        copy.unlink()
        synced.append(run("sh", "-c", 'cp "$0" "$1" && sync "$1"', str(model), str(copy)))
        empty.append(run(*KPRUNE, "inspect", str(models["MobileNetV2"])))
        ours.append(run(*KPRUNE, "remove", str(model), SPECS[name], "-o", str(out), "-q"))
    ours, floor, synced, empty = ours[1:], floor[1:], synced[1:], empty[1:]
    rival = [run(sys.executable, "-c", RIVAL, str(model), str(tmp_path / "rival.keras"))]
    whole, start, cp = median(ours), median(empty), median(floor)
    peak = max(r.megabytes for r in ours)
    print(
        f"\n\n{name}, {model.stat().st_size / 1e6:.0f} MB, drop 10 % of a layer"
        f"\n  kprune remove    {whole:6.2f} s  = {start:.2f} s start-up + {whole - start:.2f} s, peak {peak:.0f} MB"
        f"\n  cp               {cp:6.2f} s   the rest is {(whole - start) / cp:.1f} x cp"
        f"\n  cp and sync      {median(synced):6.2f} s   the rest is {(whole - start) / median(synced):.1f} x that"
        f"\n  Keras load+save  {median(rival):6.2f} s   kprune is {median(rival) / whole:.0f} x faster,"
        f" peak {max(r.megabytes for r in rival):.0f} MB"
    )
    check_output(model, out)
    assert peak <= 150
    assert whole - start <= 2 * cp
    assert median(rival) >= rival_factor * whole
    shutil.rmtree(tmp_path, ignore_errors=True)


def check_output(model: Path, out: Path) -> None:
    """The file that was timed is right: a tenth of the units is gone and nothing else is."""
    from kprune.opened import open_model

    with open_model(model) as before, open_model(out) as after:
        assert list(before.tensors) == list(after.tensors)
        changed = [
            path
            for path in before.tensors
            if before.tensors[path].shape != after.tensors[path].shape
        ]
        assert 2 <= len(changed) <= 8
        untouched = next(path for path in before.tensors if path not in changed)
        assert (before.read(untouched) == after.read(untouched)).all()
