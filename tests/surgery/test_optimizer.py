"""Which slot is whose: the order in which optimizers of Keras 3 store variables, by hand.

The model is Dense(a) and Dense(b): variables A (5, 6), a (6), B (6, 2), b (2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.labels.closure import close
from kprune.surgery.optimizer import find_slots
from kprune.surgery.remove import remove
from tests.small_models import analysed, arrays, layer, sequential

SHAPES = {"A": (5, 6), "a": (6,), "B": (6, 2), "b": (2,), ".": ()}
PATHS = {
    "A": "layers/dense/vars/0", "a": "layers/dense/vars/1",
    "B": "layers/dense_1/vars/0", "b": "layers/dense_1/vars/1",
}  # fmt: skip
BLOCK = ["A", "a", "B", "b"]
PAIRS = ["A", "A", "a", "a", "B", "B", "b", "b"]

# Class, options, slots in order; "." is a scalar of the optimizer's own, as iteration is.
LAYOUTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("SGD", {"momentum": 0.0}, [".", "."]),
    ("SGD", {"momentum": 0.9}, [".", ".", *BLOCK]),
    ("SGD", {"momentum": 0.9}, [".", *BLOCK]),  # the learning rate is a schedule
    ("RMSprop", {"momentum": 0.0, "centered": False}, [".", ".", *BLOCK]),
    ("RMSprop", {"momentum": 0.5, "centered": True}, [".", ".", *BLOCK, *BLOCK, *BLOCK]),
    ("Adam", {"amsgrad": False}, [".", ".", *PAIRS]),
    ("Adam", {"amsgrad": True}, [".", ".", *PAIRS, *BLOCK]),
    ("Adam", {"amsgrad": False, "use_ema": True}, [".", ".", *BLOCK, *PAIRS]),
    ("Adam", {"gradient_accumulation_steps": 4}, [".", ".", *BLOCK, *PAIRS]),
    ("AdamW", {}, [".", ".", *PAIRS]),
    ("Adamax", {}, [".", ".", *PAIRS]),
    ("Lamb", {}, [".", ".", *PAIRS]),
    ("Ftrl", {}, [".", ".", *PAIRS]),
    ("Adadelta", {}, [".", ".", *PAIRS]),
    ("Nadam", {}, [".", ".", *PAIRS, "."]),
    ("Adagrad", {}, [".", ".", *BLOCK]),
    ("Lion", {}, [".", ".", *BLOCK]),
    ("Adam", {}, ["."]),  # compiled, never trained, with a schedule
    ("Adam", {}, [".", "."]),
]


def model(name: str, options: dict[str, Any], shapes: list[tuple[int, ...]]) -> Any:
    config = sequential(layer("Dense", "x", units=6), layer("Dense", "out", units=2), shape=[5])
    config["compile_config"] = {"optimizer": {"class_name": name, "config": options}}
    slots = {f"optimizer/vars/{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    return analysed(config, arrays(config) | slots)


def owners(found: Any) -> dict[str, str]:
    return {slot.path: slot.weight.path for slot in find_slots(found).found}


@pytest.mark.parametrize(("name", "options", "order"), LAYOUTS, ids=lambda v: str(v)[:40])
def test_each_slot_belongs_to_the_variable_that_keras_made_it_for(
    name: str, options: dict[str, Any], order: list[str]
) -> None:
    found = model(name, options, [SHAPES[letter] for letter in order])
    assert find_slots(found).dropped == ()
    assert owners(found) == {
        f"optimizer/vars/{i}": PATHS[letter] for i, letter in enumerate(order) if letter != "."
    }


def test_slots_of_one_shape_are_told_apart_by_their_place() -> None:
    config = sequential(layer("Dense", "x", units=4), layer("Dense", "out", units=4), shape=[4])
    config["compile_config"] = {"optimizer": {"class_name": "Adagrad", "config": {}}}
    shapes = [(), (), (4, 4), (4,), (4, 4), (4,)]
    slots = {f"optimizer/vars/{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    found = owners(analysed(config, arrays(config) | slots))
    assert (found["optimizer/vars/2"], found["optimizer/vars/4"]) == (PATHS["A"], PATHS["B"])


def test_a_slot_is_cut_like_its_variable() -> None:
    found = model("Adam", {}, [SHAPES[letter] for letter in (".", ".", *PAIRS)])
    edit = remove(found, close(found.groups, {"x": np.array([0, 3])}))
    left = [1, 2, 4, 5]
    kept = {
        e.path: [None if k is None else k.tolist() for k in e.keep]
        for e in edit.tensors
        if e.path.startswith("optimizer/")
    }
    assert kept == {
        **{f"optimizer/vars/{i}": [None, left] for i in (2, 3)},
        **{f"optimizer/vars/{i}": [left] for i in (4, 5)},
        **{f"optimizer/vars/{i}": [left, None] for i in (6, 7)},
    }
    assert edit.dropped == ()


def test_adafactors_factors_are_cut_along_the_axis_that_they_keep() -> None:
    shapes = [(), (), (5,), (6,), (5, 6), (), (), (6,), (6,), (2,), (6, 2), (), (), (2,)]
    found = model("Adafactor", {}, shapes)
    edit = remove(found, close(found.groups, {"x": np.array([0])}))
    left = [1, 2, 3, 4, 5]
    kept = {
        int(e.path.rpartition("/")[2]): [None if k is None else k.tolist() for k in e.keep]
        for e in edit.tensors
        if e.path.startswith("optimizer/")
    }
    assert kept == {3: [left], 4: [None, left], 7: [left], 8: [left], 10: [left, None]}


def test_the_loss_scale_optimizer_holds_its_inner_one_twice() -> None:
    inner = {"class_name": "SGD", "config": {"momentum": 0.9}}
    config = sequential(layer("Dense", "x", units=6), layer("Dense", "out", units=2), shape=[5])
    config["compile_config"] = {
        "optimizer": {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": inner}}
    }
    own = [SHAPES[letter] for letter in (".", ".", *BLOCK)]
    slots = {f"optimizer/vars/{i}": s for i, s in enumerate([(), (), (), (), *own])}
    slots |= {f"optimizer/inner_optimizer/vars/{i}": s for i, s in enumerate(own)}
    tensors = arrays(config) | {path: np.zeros(s, np.float32) for path, s in slots.items()}
    found = owners(analysed(config, tensors))
    assert found["optimizer/vars/6"] == found["optimizer/inner_optimizer/vars/2"] == PATHS["A"]
    assert found["optimizer/vars/9"] == found["optimizer/inner_optimizer/vars/5"] == PATHS["b"]


def test_frozen_layers_have_no_slots() -> None:
    config = sequential(
        layer("Dense", "x", units=6, trainable=False), layer("Dense", "out", units=2), shape=[5]
    )
    config["compile_config"] = {"optimizer": {"class_name": "Lion", "config": {}}}
    slots = {f"optimizer/vars/{i}": np.zeros(s) for i, s in enumerate([(), (), (6, 2), (2,)])}
    found = owners(analysed(config, arrays(config) | slots))
    assert found == {"optimizer/vars/2": PATHS["B"], "optimizer/vars/3": PATHS["b"]}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("Mine", [".", ".", *BLOCK]),
        ("Adam", [".", ".", *BLOCK]),
        ("Adam", [".", ".", *PAIRS, "."]),
        ("Adagrad", [".", ".", "a", "A", "B", "b"]),
        ("SGD", [".", ".", ".", "."]),
    ],
)
def test_a_state_that_is_not_laid_out_as_expected_is_left_behind_with_the_reason(
    name: str, order: list[str]
) -> None:
    found = model(name, {}, [SHAPES[letter] for letter in order])
    slots = find_slots(found)
    assert slots.found == () and "optimizer" in slots.dropped
    assert f"({name}) has a layout that kprune does not know" in slots.why
    assert "optimizer" in remove(found, close(found.groups, {"x": np.array([0])})).dropped


def test_a_gap_in_the_numbers_is_an_unknown_layout() -> None:
    config = sequential(layer("Dense", "x", units=6), layer("Dense", "out", units=2), shape=[5])
    config["compile_config"] = {"optimizer": {"class_name": "SGD", "config": {}}}
    tensors = arrays(config) | {"optimizer/vars/0": np.zeros(()), "optimizer/vars/2": np.zeros(())}
    assert "optimizer" in find_slots(analysed(config, tensors)).dropped


@pytest.mark.parametrize("compiled", [1.5, [], "adam", {"optimizer": 3}, {"optimizer": ["Adam"]}])
def test_a_compile_config_that_says_nothing_leaves_the_state_behind(compiled: Any) -> None:
    found = model("Adam", {}, [SHAPES[letter] for letter in (".", ".", *PAIRS)])
    found.config["compile_config"] = compiled
    assert "optimizer" in find_slots(found).dropped
