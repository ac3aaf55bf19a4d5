"""What fuzzing found stays mended, and some seconds of it run each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.hostile.fuzz import REGRESSIONS
from tests.hostile.mutations import apply_bytes, apply_data, minimised
from tests.hostile.targets import TARGETS, compared

SAVED = sorted(REGRESSIONS.glob("*.json"))


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip


def saved(*, tensorflow: bool) -> list[str]:
    found = [(path, json.loads(path.read_text())["kind"]) for path in SAVED]
    return [str(path) for path, kind in found if TARGETS[kind].tensorflow is tensorflow]


def test_what_fuzzing_found_stays_mended() -> None:
    ran = python("tests.hostile.replay", *saved(tensorflow=False))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.nightly
def test_what_fuzzing_found_in_saved_models_stays_mended() -> None:
    ran = python("tests.hostile.replay", *saved(tensorflow=True))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_some_seconds_of_fuzzing_find_nothing(tmp_path: Path) -> None:
    kinds = ",".join(name for name, target in TARGETS.items() if not target.tensorflow)
    ran = python(
        "tests.hostile.fuzz", "--minutes", "0.5", "--inputs", "600", "--seed", "0",
        "--kinds", kinds, "--save", str(tmp_path), "--batch", "20",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


# -- the fuzzer itself notices ---------------------------------------------------------------------


def test_changes_are_carried_out_in_their_order() -> None:
    ops = [["put", 1, "5a5a"], ["insert", 0, "41"], ["copy", 0, 4, 2], ["delete", 6, 1]]
    assert apply_bytes(b"0123456", ops) == b"A0ZZA06"
    assert apply_bytes(b"0123456", [["cut", 2]]) == b"01"


def test_data_are_changed_in_place_and_what_is_gone_is_left_alone() -> None:
    data = {"a": [1, {"b": 2}], "c": "x"}
    ops = [["set", ["a", 0], None], ["graft", ["a"], ["c"]], ["drop", ["a"]], ["set", ["a", 9], 1]]
    assert apply_data(data, ops) == {"c": [None, {"b": 2}]}
    assert apply_data(data, [["nest", ["c"], 2]])["c"] == [["x"]]
    assert data == {"a": [1, {"b": 2}], "c": "x"}


def test_a_failing_input_is_made_as_small_as_it_still_fails() -> None:
    ops = [["put", number, "00"] for number in range(6)]
    assert minimised(ops, lambda some: ops[1] in some and ops[4] in some) == [ops[1], ops[4]]


def test_an_output_is_held_against_what_h5py_and_numpy_read() -> None:
    import numpy as np

    from tests.formats.making import hdf5_bytes

    one = {"k": np.arange(6, dtype="f4").reshape(2, 3), "b": np.zeros(2, "i4")}
    cut = {**one, "k": one["k"][:, [0, 2]]}
    assert compared(hdf5_bytes(one), hdf5_bytes(cut), {"k": 1}) == ""
    for wrong in ({**cut, "b": np.ones(2, "i4")}, {"k": cut["k"]}, one):
        assert compared(hdf5_bytes(one), hdf5_bytes(wrong), {"k": 1})


def test_a_crash_a_hang_and_too_much_memory_are_told_apart(tmp_path: Path) -> None:
    """Inputs of a kind whose making does what a bad parser would."""
    program = """
import os, sys, time
from pathlib import Path
from tests.hostile import fuzz, targets

class Bad(targets.Spec):
    name = "bad"
    def commands(self, ops):
        what = ops[-1][0]
        if what == "crash": os.kill(os.getpid(), 11)
        if what == "hang": time.sleep(60)
        if what == "eat": self.held = bytearray(b"x" * (60 << 20))
        return [["--version"]]
    def draw(self, rng):
        return [[rng.choice(["crash", "hang", "eat", "fine"])]]

fuzz.SECONDS, fuzz.MEGABYTES = 1, 50
fuzz.PATIENCE = 2
fuzz.TARGETS["bad"] = Bad()
fuzzer = fuzz.Fuzzer(0, ["bad"], None)
fuzzer.run(seconds=60, inputs=12)
print(sorted({fault.split(":")[0] for _, fault, _ in fuzzer.failures}), fuzzer.done["bad"])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1:] == ["['ended by signal 11', 'memory', 'timeout'] 12"], (
        ran.stdout + ran.stderr
    )
