"""What a file says of its own past."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.analysis.analysis import Analysis
from kprune.errors import DamagedFileError, FileError
from kprune.labels.closure import close
from kprune.surgery.provenance import (
    check_provenance,
    check_units,
    is_refitted,
    read_record,
    with_provenance,
    with_repair,
    with_training,
    without_masks,
)
from tests.small_models import arrays, layer, sequential, write


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


RECORD: dict[str, Any] = {
    "version": "0.1.0",
    "plan": {
        "version": 1,
        "steps": [
            {"backend": "remove", "layers": {"a": [1, 4]}, "repair": "lstsq"},
            {"backend": "mask", "layers": {"b": "all"}, "below": 0.5},
            {"backend": "remove", "whole_layers": ["c"]},
        ],
    },
    "units": {"a": [0, 2, 3, 5]},
    "trained": 1,
}
VALUES = [None, 7, -1, 2.5, True, "x", [], {}, [None], ["a"], [[1]], {"a": 1}, 10**30, float("nan")]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where values stand in a record, from outside."""
    yield path
    for key in (
        value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    ):
        yield from places(value[key], (*path, key))


def at(place: tuple[str | int, ...], value: Any, *, record: Any = RECORD) -> Any:
    """The record with another value in one place; without the place for `...`."""
    if not place:
        return value
    key, rest = place[0], place[1:]
    changed = copy.copy(record)
    if not rest and value is ...:
        del changed[key]
    else:
        changed[key] = at(rest, value, record=record[key])
    return changed


def test_what_kprune_writes_is_accepted() -> None:
    check_provenance({"kprune": RECORD}, "m.keras")
    check_provenance({"kprune": {**RECORD, "later": 1}}, "m.keras")
    check_provenance({}, "m.keras")


MAY_BE_ANYTHING = {("plan", "version")}
MAY_BE = {
    ("version",): ["x"],
    ("units",): [{}],
    **{("units", name): [[]] for name in RECORD["units"]},
    ("trained",): [...],
    **{("plan", "steps", n, "backend"): ["x"] for n in range(3)},
    **{("plan", "steps", n, "layers"): [{}] for n in range(2)},
    **{("plan", "steps", n, "layers", name): [[]] for n, name in enumerate("ab")},
    ("plan", "steps", 0, "repair"): [None, True, "x", {}, {"a": 1}, ...],
    ("plan", "steps", 1, "below"): [None, 7, -1, 2.5, 10**30, float("nan"), ...],
    ("plan", "steps", 2, "whole_layers"): [[], ["a"]],
    ("plan", "steps", 2, "whole_layers", 0): ["x"],
}


@pytest.mark.parametrize("place", [it for it in places(RECORD) if it not in MAY_BE_ANYTHING])
def test_a_record_with_a_value_of_another_kind_is_damage_that_names_the_place(
    place: tuple[str | int, ...],
) -> None:
    for value in [*VALUES, ...] if place and isinstance(place[-1], str) else VALUES:
        allowed = [*MAY_BE.get(place, []), *([7] if place[-2:-1] == ("a",) else [])]
        record = {"kprune": at(place, value)}
        if any(repr(value) == repr(it) for it in allowed) or _leaves_a_record(place, value):
            check_provenance(record, "m.keras")
            continue
        with pytest.raises(DamagedFileError) as refused:
            check_provenance(record, "m.keras")
        assert "m.keras" in refused.value.what and refused.value.where.startswith("kprune")
        assert refused.value.why and refused.value.exit_code == 4


def _leaves_a_record(place: tuple[str | int, ...], value: Any) -> bool:
    """Whether what may be left out is: a layer of a step, the units of one."""
    return value is ... and (place[-2:-1] in (("layers",), ("units",)))


@pytest.mark.parametrize(
    ("units", "why"),
    [
        ([0, 2, 2, 3, 4, 5], "not in order, or not distinct"),
        ([1, 0, 2, 3, 4, 5], "not in order, or not distinct"),
        ([0, 1, 2], "lists 3 units, and the layer has 6"),
    ],
)
def test_units_that_a_layer_cannot_have_are_damage(units: list[int], why: str) -> None:
    found = model(6, {"kprune": {**RECORD, "units": {"a": units, "gone": [3]}}})
    with pytest.raises(DamagedFileError) as refused:
        check_units(found, "m.keras")
    assert refused.value.where == "kprune.units.a" and why in refused.value.why


def test_a_file_with_a_past_that_makes_no_sense_is_refused_by_every_command(tmp_path: Path) -> None:
    """Else a second pruning would count units from nothing."""
    config = sequential(layer("Dense", "a", units=4), layer("Dense", "b", units=3), shape=[4])
    good = write(tmp_path / "good.keras", config)
    bad = write(
        tmp_path / "bad.keras", config, metadata={"kprune": {**RECORD, "units": {"a": "x"}}}
    )
    output = tmp_path / "out.keras"
    plan = tmp_path / "plan.yaml"
    plan.write_text("version: 1\nsteps:\n  - {backend: remove, layers: {a: [0]}}\n")
    for command in (
        lambda: kprune.inspect(bad),
        lambda: kprune.explain(bad, "a:0"),
        lambda: kprune.remove(bad, {"a": [0]}, output=output),
        lambda: kprune.zero(bad, {"a": [0]}, output=output),
        lambda: kprune.mask(bad, {"a": [0]}, output=output),
        lambda: kprune.unmask(bad, output=output),
        lambda: kprune.compact(bad, output=output),
        lambda: kprune.diff(good, bad),
        lambda: kprune.diff(bad, good),
        lambda: kprune.apply(bad, plan, output=output),
    ):
        with pytest.raises(DamagedFileError, match=r"bad\.keras records of its own pruning"):
            command()
    assert not output.exists()


def test_a_record_beside_a_saved_model_is_an_object_or_damage(tmp_path: Path) -> None:
    assert read_record(tmp_path / "kprune.json", "m") == {}
    for text in (b"{", b"[1]", b"\xff", b"[" * 1000):
        (tmp_path / "kprune.json").write_bytes(text)
        with pytest.raises(FileError, match="m "):
            read_record(tmp_path / "kprune.json", "m")
