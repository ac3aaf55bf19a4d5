"""A file that was refitted after units went: held against the original as it is, by how near it comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kprune.verbs.change import remove
from kprune.verification.verify import verify
from kprune.verification.verify_result import Verification
from tests.running.making import npz
from tests.verification.rewriting import rewritten

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6, 6, 3)).astype("float32")
Y = RNG.integers(0, 4, 50)
CUT = {"conv": [0, 4], "dense": [1]}
STORED = {"dense": "dense", "out": "dense_1", "bn": "batch_normalization"}  # as Keras numbers them


def says_repaired(metadata: dict[str, Any]) -> None:
    metadata["kprune"]["plan"]["steps"][-1]["repair"] = {"way": "lstsq", "samples": 50}


def refitted(*names: str) -> Callable[[Any], None]:
    """A change of the first weight of some layers."""

    def change(weights: Any) -> None:
        for name in names:
            array = weights[f"layers/{STORED[name]}/vars/0"]
            array[...] = array[...] + np.float32(0.1) * np.cos(np.arange(array.size)).reshape(
                array.shape
            )

    return change


def checked(original: Path, small: Path, *names: str, **how: Any) -> Verification:
    """A removal whose file says that it was repaired, and in which some layers' first weights are others."""
    remove(str(original), CUT, output=str(small))
    rewritten(small, metadata=says_repaired, weights=refitted(*names))
    return verify(original, small, **how)


def kinds(found: Verification) -> list[str]:
    return [note.kind for note in found.notes]


def test_it_passes_by_how_near_it_comes_to_the_original_as_it_is(
    original: Path, small: Path
) -> None:
    found = checked(original, small, "dense", "out", data=X)
    assert found.passed and found.repaired and found.against == "original" and not found.exact
    p, q = (np.asarray(keras.models.load_model(path)(X), np.float64) for path in (original, small))
    assert found.divergence is not None and list(found.divergence) == ["out"]
    apart = found.divergence["out"]
    assert apart.agreement == (p.argmax(1) == q.argmax(1)).mean()
    assert apart.kl == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4)
    text = str(found)
    assert text.startswith("passed: repaired, and so not equal to the original: ")
    assert f"{100 * apart.agreement:.2f} %" in text and "tolerance" not in text
    assert found.to_dict()["repaired"] is True


def test_limits_and_labels_judge_it(original: Path, small: Path, tmp_path: Path) -> None:
    good = checked(original, small, "out", data=npz(tmp_path, x=X, y=Y), min_agreement=0.0)
    assert good.passed and good.metrics is not None and "repaired" not in kinds(good)
    bad = verify(original, small, data=X, min_agreement=1.0)
    assert bad.computes and not bad.passed
    assert str(bad).startswith("FAILED: agreement is ")


def test_without_a_limit_or_data_a_note_says_that_nothing_was_judged(
    original: Path, small: Path
) -> None:
    found = checked(original, small, "out", samples=5)
    assert found.passed and found.divergence is not None
    assert str(found).startswith("passed: the repaired model runs; on random inputs: ")
    (note,) = (note for note in found.notes if note.kind == "repaired")
    assert "random inputs" in note.text and "--data" in note.text
    (note,) = (note for note in verify(original, small, data=X).notes if note.kind == "repaired")
    assert "--min-agreement" in note.text


def test_a_file_that_does_not_say_so_has_to_be_equal(original: Path, small: Path) -> None:
    remove(str(original), CUT, output=str(small))
    rewritten(small, weights=refitted("out"))
    found = verify(original, small, samples=5)
    assert not found.passed and not found.repaired


@pytest.mark.parametrize("way", ["lstsq", True, {"way": "noise"}])
def test_whatever_the_step_says_of_its_repair(original: Path, small: Path, way: Any) -> None:
    def say(metadata: dict[str, Any]) -> None:
        metadata["kprune"]["plan"]["steps"][-1]["repair"] = way

    remove(str(original), CUT, output=str(small))
    rewritten(small, metadata=say, weights=refitted("out"))
    assert verify(original, small, samples=3).repaired
    if way is True:
        rewritten(small, metadata=lambda it: it["kprune"]["plan"]["steps"][-1].update(repair=False))
        assert not verify(original, small, samples=3).repaired


def test_weights_that_no_repair_changes_must_be_the_originals(original: Path, small: Path) -> None:
    """The first weight of a BatchNormalization is gamma."""
    found = checked(original, small, "bn", "out", samples=3)
    assert not found.passed and kinds(found).count("wrong") == 1
    (note,) = (note for note in found.notes if note.kind == "wrong")
    assert "layers/batch_normalization/vars/0: no repair changes these weights" in note.text


def test_outputs_that_are_no_numbers_fail(original: Path, small: Path) -> None:
    def broken(weights: Any) -> None:
        weights["layers/dense_1/vars/0"][...] = np.nan

    remove(str(original), CUT, output=str(small))
    rewritten(small, metadata=says_repaired, weights=broken)
    found = verify(original, small, samples=3)
    assert not found.passed and "not a number" in str(found)


def test_lost_classes_are_left_out_of_the_comparison(
    original: Path, small: Path, tmp_path: Path
) -> None:
    remove(str(original), {**CUT, "out": [2]}, output=str(small))
    rewritten(small, metadata=says_repaired, weights=refitted("dense"))
    found = verify(original, small, data=npz(tmp_path, x=X, y=Y))
    p, q = (np.asarray(keras.models.load_model(path)(X)) for path in (original, small))
    assert found.divergence is not None
    assert found.divergence["out"].agreement == (p[:, [0, 1, 3]].argmax(1) == q.argmax(1)).mean()


def test_what_is_cut_from_a_repaired_file_has_to_equal_that(
    original: Path, small: Path, tmp_path: Path
) -> None:
    checked(original, small, "dense", "out", samples=2)
    last = tmp_path / "last.keras"
    remove(str(small), {"dense": [0, 2]}, output=str(last))
    found = verify(small, last, samples=5)
    assert found.passed and found.exact and not found.repaired
    assert verify(original, last, samples=5).repaired
