"""What a group saves, against kprune's count of the model without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.refitting.ordering.candidates import Candidates
from kprune.refitting.ordering.savings import Savings
from tests.small_models import Network, analysed, arrays, layer, residual, sequential


def depthwise() -> Any:
    x = layer("DepthwiseConv2D", "x", depth_multiplier=2)
    return sequential(
        layer("Conv2D", "first", filters=6), x, layer("BatchNormalization", "bn"),
        layer("Conv2D", "out", filters=2), shape=[6, 6, 3],
    )  # fmt: skip


def lstm() -> Any:
    return sequential(layer("LSTM", "x", units=6), layer("Dense", "out", units=2), shape=[6, 3])


def flattened() -> Any:
    return sequential(
        layer("Conv2D", "first", filters=6), layer("Flatten", "flat"), layer("Dense", "d", units=7),
        layer("Dense", "out", units=2), shape=[4, 4, 3],
    )  # fmt: skip


def joined() -> Any:
    net = Network()
    x = net("Conv2D", "a", net.input("in", 4, 4, 3), filters=5)
    y = net("Conv2D", "b", x, filters=4)
    return net.functional(
        net("Conv2D", "c", net("Concatenate", "all", [x, y], shape=(None, 4, 4, 9)), filters=2)
    )


def grouped() -> Any:
    return sequential(
        layer("Conv2D", "first", filters=6), layer("Conv2D", "x", filters=6, groups=2),
        layer("Conv2D", "out", filters=2), shape=[4, 4, 3],
    )  # fmt: skip


def costs(model: Analysis, gone: np.ndarray, currency: str) -> float:
    """By kprune's count; bytes by the arrays themselves."""
    factor = 4 if currency == "bytes" else 1
    counts = count(model, gone)
    return factor * (counts.flops if currency == "flops" else counts.parameters)


@pytest.mark.parametrize("currency", ["parameters", "flops", "bytes"])
@pytest.mark.parametrize(
    "config", [residual(2, width=5), depthwise(), lstm(), flattened(), joined()]
)
def test_each_saving_is_the_difference_of_the_counts(config: Any, currency: str) -> None:
    model = analysed(config, arrays(config))
    candidates = Candidates.among(model.groups, np.flatnonzero(~model.groups.frozen()))
    savings = Savings(model, candidates, currency)
    gone = np.zeros(model.map.count, bool)
    for number in np.random.default_rng(0).permutation(len(candidates)):
        before = costs(model, gone, currency)
        for other in np.flatnonzero(~gone[candidates.heads]):
            with_it = gone.copy()
            with_it[candidates.members[other]] = True
            assert savings.of[other] == before - costs(model, with_it, currency)
        gone[candidates.members[number]] = True
        changed = savings.lose(int(number))
        assert all(len(each) for each in changed)


def test_what_must_go_evenly_saves_in_parts_what_the_whole_saves() -> None:
    """Units of a grouped convolution: one of each run is worth a row of its kernel."""
    model = analysed(grouped(), arrays(grouped()))
    candidates = Candidates.among(model.groups, np.flatnonzero(~model.groups.frozen()))
    savings = Savings(model, candidates, "parameters")
    first = model.map.axes["first"].ids
    gone = np.zeros(model.map.count, bool)
    saved = 0.0
    for label in first[[1, 4]]:
        number = int(np.searchsorted(candidates.heads, model.groups.of[label]))
        saved += savings.of[number]
        gone[candidates.members[number]] = True
        savings.lose(number)
    assert saved == pytest.approx(count(model).parameters - count(model, gone).parameters)
