"""What a file says of its own past."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.labels.closure import close
from kprune.surgery.provenance import (
    is_refitted,
    with_provenance,
    with_repair,
    with_training,
    without_masks,
)
from tests.small_models import arrays, layer, sequential


def model(units: int, metadata: dict[str, Any]) -> Analysis:
    config = sequential(layer("Dense", "a", units=units), layer("Dense", "b", units=3), shape=[4])
    return Analysis.of(config, metadata, arrays(config))


def pruned(found: Analysis, backend: str = "remove", **units: list[int]) -> dict[str, Any]:
    chosen = {name: np.array(indices) for name, indices in units.items()}
    gone = close(found.groups, chosen).gone if backend == "remove" else None
    return with_provenance(found, backend=backend, units=chosen, options={}, gone=gone)


def test_a_removal_notes_the_step_and_the_units_that_are_left() -> None:
    old = {"keras_version": "3.15.1", "lab": {"run": 7}}
    new = pruned(model(6, old), a=[1, 4])
    assert old == {"keras_version": "3.15.1", "lab": {"run": 7}}
    assert new["keras_version"] == "3.15.1" and new["lab"] == {"run": 7}
    assert new["kprune"]["units"] == {"a": [0, 2, 3, 5]}
    (step,) = new["kprune"]["plan"]["steps"]
    assert step == {"backend": "remove", "layers": {"a": [1, 4]}}


def test_a_second_pruning_counts_from_what_the_first_one_left() -> None:
    rng = np.random.default_rng(0)
    metadata: dict[str, Any] = {}
    left = list(range(20))
    while len(left) > 3:
        gone = sorted(rng.choice(len(left), 2, replace=False).tolist())
        metadata = pruned(model(len(left), metadata), a=gone)
        left = [unit for place, unit in enumerate(left) if place not in gone]
        assert metadata["kprune"]["units"]["a"] == left
    assert len(metadata["kprune"]["plan"]["steps"]) == 9


def test_zeroing_leaves_every_unit_where_it_is() -> None:
    new = pruned(model(6, {}), backend="zero", a=[0])
    assert new["kprune"]["units"] == {}


@pytest.mark.parametrize(
    "own", [3, {"plan": 1, "units": 2}, {"units": {"a": [1, 2]}}, {"units": {"a": "x"}}]
)
def test_a_past_that_makes_no_sense_is_begun_anew(own: Any) -> None:
    new = pruned(model(6, {"kprune": own}), a=[1])
    assert new["kprune"]["units"]["a"] == [0, 2, 3, 4, 5]


def test_masks_that_were_taken_out_leave_no_trace() -> None:
    first = pruned(model(6, {"lab": 1}), backend="mask", a=[1], b=[0])
    assert without_masks(first, ["a", "b"]) == {"lab": 1}
    (step,) = without_masks(first, ["a"])["kprune"]["plan"]["steps"]
    assert list(step["layers"]) == ["b"]


def test_a_removal_stays_when_masks_go() -> None:
    removed = pruned(model(6, {}), a=[1])
    masked = pruned(model(5, removed), backend="mask", a=[0])
    assert without_masks(masked, ["a"]) == removed


def test_a_file_counts_as_refitted_until_it_is_trained() -> None:
    cut = pruned(model(6, {}), a=[1])
    assert not is_refitted(cut) and with_training(cut) == cut
    refitted = with_repair(cut, "lstsq")
    later = pruned(model(5, refitted), backend="zero", a=[0])
    assert is_refitted(refitted) and is_refitted(later)
    trained = with_training(later)
    assert not is_refitted(trained) and with_training(trained) == trained
    assert not is_refitted(pruned(model(5, trained), a=[0]))
    assert is_refitted(with_repair(trained, "bias"))
    assert is_refitted(with_repair(pruned(model(5, trained), a=[0]), "bias"))


def test_masks_that_go_leave_it_as_trained_as_it_was() -> None:
    masked = pruned(model(6, {}), backend="mask", a=[1])
    trained = with_training(with_repair(pruned(model(6, masked), a=[1]), "lstsq"))
    without = without_masks(trained, ["a"])
    assert without["kprune"]["trained"] == 1 and not is_refitted(without)


@pytest.mark.parametrize("own", [3, {}, {"plan": {"steps": 3}}, {"plan": {"steps": [3]}}])
def test_a_past_that_makes_no_sense_tells_of_no_repair(own: Any) -> None:
    assert not is_refitted({"kprune": own})
