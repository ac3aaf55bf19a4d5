"""Where tensors stand after a layer more or less: compared with the places of the new config itself."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from kprune.edit import TensorEdit
from kprune.graph import parse_model
from kprune.surgery.relocate import relocate
from tests.small_models import analysed, arrays, layer, sequential


def stack(*names: str) -> dict[str, Any]:
    """Dense layers, all of one shape: only their places tell them apart."""
    return sequential(*(layer("Dense", name, units=4) for name in names), shape=[4])


def owners(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> dict[str, bytes]:
    """By layer its kernel."""
    return {
        found.name: tensors[f"{found.store}/vars/0"].tobytes()
        for found in parse_model(config).walk()
        if found.kind == "Dense"
    }


def relocated(
    before: dict[str, Any], after: dict[str, Any], *more: str
) -> tuple[dict[str, np.ndarray], Any]:
    tensors = arrays(before) | {path: np.zeros(()) for path in more}
    moved = relocate(analysed(before, tensors), after)
    places = {edit.source: edit.path for edit in moved.tensors}
    left = {
        places.get(path, path): value
        for path, value in tensors.items()
        if not any(path.startswith(prefix + "/") for prefix in moved.dropped)
    }
    assert len(left) == sum(
        not path.startswith(tuple(f"{p}/" for p in moved.dropped)) for path in tensors
    ), "two tensors in one place"
    return left, moved


def test_every_layer_keeps_its_own_weights_when_another_goes() -> None:
    before = stack("a", "b", "c", "d")
    kernels = owners(before, arrays(before))
    for lost in ("a", "b", "d"):
        after = stack(*(name for name in ("a", "b", "c", "d") if name != lost))
        left, moved = relocated(before, after)
        assert owners(after, left) == {n: k for n, k in kernels.items() if n != lost}
        assert len(moved.dropped) == 1


def test_every_layer_keeps_its_own_weights_when_one_is_put_between() -> None:
    before = stack("a", "b", "c")
    after = copy.deepcopy(before)
    after["config"]["layers"].insert(2, layer("Dense", "new", units=4))
    left, moved = relocated(before, after)
    after["config"]["layers"].pop(2)
    assert {path.split("/")[1] for path in left} == {"dense", "dense_2", "dense_3"}
    assert moved.dropped == ()


def test_an_edit_moves_with_its_tensor() -> None:
    before, after = stack("a", "b"), stack("b")
    keep = (np.array([0, 2]), None)
    edit = TensorEdit("layers/dense_1/vars/0", "layers/dense_1/vars/0", keep)
    moved = relocate(analysed(before), after, [edit])
    (kernel,) = [e for e in moved.tensors if e.source == "layers/dense_1/vars/0"]
    assert kernel.path == "layers/dense/vars/0" and kernel.keep is keep


def test_nothing_moves_where_no_place_changes() -> None:
    config = stack("a", "b")
    assert relocate(analysed(config), copy.deepcopy(config)).tensors == ()


def compiled(*names: str, optimizer: str = "SGD") -> dict[str, Any]:
    spec = {"class_name": optimizer, "config": {"momentum": 0.9}}
    return {**stack(*names), "compile_config": {"optimizer": spec}}


def test_slots_of_the_variables_that_are_left_stay_and_are_numbered_anew() -> None:
    before, after = compiled("a", "b"), compiled("b")
    weights = arrays(before)
    slots = {f"optimizer/vars/{n + 2}": weight + 1 for n, weight in enumerate(weights.values())}
    state = {f"optimizer/vars/{n}": np.zeros(()) for n in range(2)} | slots
    moved = relocate(analysed(before, weights | state), after)
    places = {edit.source: edit.path for edit in moved.tensors}
    assert {path for path in state if path in moved.dropped} == {
        f"optimizer/vars/{n}"
        for n, path in enumerate(weights, 2)
        if path.startswith("layers/dense/")
    }
    left = [places.get(path, path) for path in state if path not in moved.dropped]
    assert left == [f"optimizer/vars/{n}" for n in range(2 + len(weights) // 2)]


def test_the_optimizers_state_goes_where_slots_are_not_known_by_variable() -> None:
    before, after = compiled("a", "b", optimizer="Mine"), compiled("b", optimizer="Mine")
    slots = {f"optimizer/vars/{n}": np.zeros((4, 4)) for n in range(3)}
    assert "optimizer" in relocate(analysed(before, arrays(before) | slots), after).dropped


def test_the_optimizers_state_stays_where_no_variable_goes() -> None:
    slots = ("optimizer/vars/0", "optimizer/vars/1")
    masked = stack("a", "b")
    masked["config"]["layers"].insert(2, layer("ReLU", "r"))
    left, _ = relocated(stack("a", "b"), masked, *slots)
    assert set(slots) <= set(left)
