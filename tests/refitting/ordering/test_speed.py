"""How long the order of all units of a model as large as ResNet50 takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kprune.refitting.ordering.candidates import Candidates
from kprune.refitting.ordering.covariances import Covariance, Observation
from kprune.refitting.ordering.elimination import Limits, eliminate
from kprune.refitting.ordering.savings import Savings
from tests.refitting.ordering.linear_maps import Map, labelled_rows
from tests.small_models import Network, analysed, arrays

MOST = 900.0  # seconds, on two cores that others use as well


def resnet50() -> Any:
    """Four stages of bottleneck blocks, 25.6 million parameters."""
    net = Network("resnet50")

    def conv(name: str, x: Any, filters: int, size: int) -> Any:
        y = net("Conv2D", name, x, filters=filters, kernel_size=[size, size], use_bias=False)
        return net("BatchNormalization", f"{name}_bn", y)

    x = net("ReLU", "stem_relu", conv("stem", net.input("in", 56, 56, 3), 64, 7))
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for number in range(blocks):
            name = f"stage{stage}_block{number}"
            y = net("ReLU", f"{name}_relu1", conv(f"{name}_1", x, width, 1))
            y = net("ReLU", f"{name}_relu2", conv(f"{name}_2", y, width, 3))
            y = conv(f"{name}_3", y, 4 * width, 1)
            shortcut = x if number else conv(f"{name}_0", x, 4 * width, 1)
            x = net("ReLU", f"{name}_out", net("Add", f"{name}_add", [shortcut, y]))
    x = net("GlobalAveragePooling2D", "pool", x, shape=(None, 2048))
    return net.functional(net("Dense", "classes", x, units=1000))


def observed(model: Any, tensors: dict[str, np.ndarray]) -> Iterator[Observation]:
    """Each kernel with a random covariance."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.axes) < 2:
            continue
        rows, columns = labelled_rows(weight)
        values = tensors[weight.path].reshape(1, rows[0].shape[2], -1)
        data = rng.standard_normal((values.shape[1] // 2, values.shape[1]), np.float32)
        covariance = (data.T @ data / len(data)).astype(np.float64)
        yield Observation(
            Map(weight.path, values, np.zeros(0), rows, columns), Covariance(covariance[None])
        )


@pytest.mark.nightly
def test_a_model_as_large_as_resnet50_is_ordered_within_minutes() -> None:
    config = resnet50()
    tensors = arrays(config)
    model = analysed(config, tensors)
    seen = list(observed(model, tensors))
    candidates = Candidates.among(model.groups, np.flatnonzero(~model.groups.frozen()))
    sizes = np.array([len(axis) for axis in model.map.axes.values()])
    limits = Limits(model.groups.owner, sizes, np.ones_like(sizes))
    start = time.perf_counter()
    order = eliminate(
        seen, tensors.__getitem__, candidates, Savings(model, candidates, "parameters"), limits
    )
    took = time.perf_counter() - start
    print(f"{len(candidates):,} groups of units in {took:.0f} s")
    assert sorted(order.position) == list(range(len(candidates)))
    assert took < MOST
