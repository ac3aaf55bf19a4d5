"""`kprune verify`, with real models run in TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Kprune, fits

pytestmark = pytest.mark.oracle


def test_a_pruned_model_passes_and_shows_the_accuracy(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    kprune("remove", model, "conv_3:0-7", "-o", "small.keras")
    ran = kprune("verify", model, "small.keras", "--data", samples / "digits_test.npz")
    assert ran.code == 0
    assert ran.out.startswith("passed: the pruned model computes what the original with its ")
    assert "accuracy   0.9911 → " in ran.out
    assert max(map(len, ran.out.splitlines()[1:])) <= 80


def test_a_model_that_computes_something_else_fails_with_5(kprune: Kprune, model: Path) -> None:
    kprune("remove", model, "conv_3:0-7", "-o", "small.keras")
    kprune("remove", model, "conv_3:8-15", "-o", "other.keras")
    _put_weights_of("other.keras", into="small.keras")
    ran = kprune("verify", model, "small.keras", "--samples", "4", "--json")
    assert ran.code == 5
    assert ran.json["passed"] is False and fits(ran.json, "verify")
    shown = kprune("verify", model, "small.keras", "--samples", "4")
    assert shown.code == 5
    assert shown.out.startswith("FAILED: the pruned model does not compute what ")


def _put_weights_of(other: str, *, into: str) -> None:
    """Give one model the weights of another, and leave it its config and metadata."""
    import zipfile

    with zipfile.ZipFile(other) as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(into) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(into, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, weights if name == "model.weights.h5" else content)


def test_data_that_do_not_fit_are_refused(kprune: Kprune, model: Path, samples: Path) -> None:
    kprune("remove", model, "conv_3:0-7", "-o", "small.keras")
    ran = kprune("verify", model, "small.keras", "--data", "nowhere.npz")
    assert ran.code == 4
    assert ran.err.startswith("error: ")


def test_times_stand_below_for_each_batch_size(kprune: Kprune, model: Path) -> None:
    kprune("remove", model, "conv_3:0-7", "-o", "small.keras")
    ran = kprune("verify", model, "small.keras", "--time", "--batch-sizes", "1,8")
    assert ran.code == 0
    assert re.search(r"^batch +original +pruned +ratio +half of the pairs$", ran.out, re.MULTILINE)
    assert re.search(r"^ +8 +[\d.]+ [mµ]s +[\d.]+ [mµ]s +\d\.\d\d", ran.out, re.MULTILINE)
    assert max(map(len, ran.out.splitlines()[1:])) <= 80
    found = kprune("verify", model, "small.keras", "--time", "--json").json["time"]
    assert [row["batch_size"] for row in found] == [1, 32]


def test_batch_sizes_that_say_nothing_are_refused(kprune: Kprune, model: Path) -> None:
    for words in (["--batch-sizes", "8"], ["--time", "--batch-sizes", "8,x"]):
        ran = kprune("verify", model, model, *words)
        assert (ran.code, ran.err.partition(" ")[0]) == (2, "error:")


def test_each_limit_that_does_not_hold_is_told_in_a_line(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    kprune("remove", model, "conv_3:0-7", "-o", "small.keras")
    data = samples / "digits_test.npz"
    base = ("verify", model, "small.keras", "--data", data)
    ran = kprune(*base, "--max-drop", "0.001", "--min", "accuracy=0.999", "--min-agreement", "1")
    assert ran.code == 5
    first, second, third, fourth = ran.out.splitlines()[:4]
    assert re.match(r"FAILED: accuracy got worse by 0\.\d+, more than 0\.001 \(--max-drop\)", first)
    assert re.match(r" +accuracy is 0\.\d+, less than 0\.999 \(--min\)", second)
    assert re.match(r" +agreement is 0\.\d+, less than 1 \(--min-agreement\)", third)
    assert fourth.strip().startswith("the pruned model computes what the original with its ")
    ran = kprune(*base, "--max-drop", "0.9", "--max", "loss=99", "--json")
    assert ran.code == 0 and ran.json["passed"] is True
    assert [(gate["gate"], gate["metric"]) for gate in ran.json["gates"]] == [
        ("max_drop", "accuracy"),
        ("max", "loss"),
    ]


def test_limits_that_cannot_be_read_or_have_no_data_are_refused(
    kprune: Kprune, model: Path
) -> None:
    Path("d.npz").write_bytes(b"")
    for words in (["--min", "accuracy"], ["--max", "=3"], ["--max", "loss=much"]):
        ran = kprune("verify", model, model, "--data", "d.npz", *words)
        assert ran.code == 2 and f"{words[0]} is given" in ran.err
    ran = kprune("verify", model, model, "--min-agreement", "0.9")
    assert ran.code == 2 and "limits need data" in ran.err


def test_code_that_makes_the_data_is_announced(kprune: Kprune, model: Path, samples: Path) -> None:
    Path("own_samples.py").write_text(
        f"import numpy as np\ndef some():\n    return np.load({str(samples / 'digits_test.npz')!r})['x'][:5]\n"
    )
    ran = kprune("verify", model, model, "--data", "own_samples:some")
    assert ran.code == 0 and "5, from own_samples:some" in ran.out
    assert "--data runs your code: it imports own_samples and calls some()" in ran.err
