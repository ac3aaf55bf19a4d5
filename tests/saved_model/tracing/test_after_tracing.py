"""Sizes that are written in a graph: what they hold together, and what they hold in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.graph.model import Layer, Model
from kprune.labels.labels import Axis
from kprune.labels.map import Blocks, LabelMap
from kprune.saved_model.tracing.after_tracing import settle
from kprune.saved_model.tracing.parameters import Parameter
from kprune.saved_model.tracing.traced import Demand, Traced
from kprune.saved_model.tracing.values import Place

SHAPE: Place = ("", "Reshape/shape", 1)


@pytest.fixture
def label_map() -> LabelMap:
    made = LabelMap(Model("m", "", "SavedModel", {}, {}, [], [], []))
    made.issue(100)
    return made


def follows(*ids: int) -> Demand:
    """A number that follows an axis on which these units stand; 0 for none."""
    return Demand(SHAPE, Axis.of(np.array(ids)), int)


def frozen(label_map: LabelMap) -> list[int]:
    return sorted(int(i) for freeze in label_map.freezes for i in freeze.ids)


def test_axes_whose_size_is_one_number_lose_the_same_positions(label_map: LabelMap) -> None:
    settle(Traced(demands=[follows(1, 2), follows(11, 12)]), label_map)
    (tie,) = label_map.ties
    assert (tie.a.tolist(), tie.b.tolist()) == ([1, 2], [11, 12]) and not label_map.freezes


def test_a_unit_that_no_unit_of_the_other_axis_can_go_with_stays(label_map: LabelMap) -> None:
    settle(Traced(demands=[follows(1, 2), follows(11, 0)]), label_map)
    assert label_map.ties[0].a.tolist() == [1] and frozen(label_map) == [2]
    assert label_map.freezes[0].why == "'Reshape/shape' is the size of several axes"


def test_axes_of_unlike_make_stay_as_they_are(label_map: LabelMap) -> None:
    rows = Demand(SHAPE, Axis(2, (np.array([[11, 12], [13, 14]]),)), int)
    settle(Traced(demands=[follows(1, 2), rows]), label_map)
    assert not label_map.ties and frozen(label_map) == [1, 2, 11, 12, 13, 14]


def test_a_size_that_is_used_as_a_value_too_holds_its_units(label_map: LabelMap) -> None:
    other = Demand(("", "other", 0), Axis.of(np.array([21, 22])), int)
    settle(Traced(demands=[follows(1, 2), other], valued={SHAPE}), label_map)
    assert frozen(label_map) == [1, 2]
    assert "is a size and a value at once" in label_map.freezes[0].why


@pytest.mark.parametrize("used", ["tied", "frozen", "a size", "no more"])
def test_a_grouped_kernel_that_is_used_otherwise_too_holds_its_channels(
    label_map: LabelMap, used: str
) -> None:
    rows, filters = np.array([1, 2]), np.array([3, 4, 5, 6])
    kernel = Parameter("k", (2, 4), np.dtype("float32"), ids=[rows, filters])
    layer = Layer("conv", "conv", "Conv2D", "", None, {"class_name": "", "config": {}})
    runs = Blocks(layer, "groups", [np.array([[11, 12], [13, 14]]), filters.reshape(2, 2)])
    traced = Traced(grouped={kernel: runs})
    uses: dict[str, Any] = {
        "tied": lambda: label_map.tie(rows, np.array([31, 32]), "add"),
        "frozen": lambda: label_map.freeze(rows, "stay", "norm"),
        "a size": lambda: traced.demands.append(follows(1, 2)),
        "no more": lambda: label_map.tie(rows, rows, "again"),
    }
    uses[used]()
    settle(traced, label_map)
    assert label_map.blocks == [runs]
    held = set(frozen(label_map)) - {1, 2}
    assert held == (set() if used == "no more" else {11, 12, 13, 14, 3, 4, 5, 6})
