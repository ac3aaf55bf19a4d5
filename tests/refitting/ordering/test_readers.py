"""What reads units besides kernels that are refitted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.refitting.ordering.readers import read_elsewhere
from tests.small_models import Network, analysed, layer, residual, sequential


def elsewhere(model: Analysis, but: Iterable[str] = ()) -> dict[str, set[str]]:
    """By the layer whose units they are, the reasons; all kernels are refitted, but for some layers'."""
    known = {weight.path for weight in model.weights if weight.layer.path not in but}
    found: dict[str, set[str]] = {}
    for reader in read_elsewhere(model, known):
        for name, axis in model.map.axes.items():
            if np.isin(axis.ids, reader.ids).any():
                found.setdefault(name, set()).add(reader.why)
    return found


def attention(**how: Any) -> Any:
    net = Network()
    x = net("Dense", "a", net.input("in", 6, 3), units=4)
    q, k, v = (net("Dense", name, x, units=5) for name in ("q", "k", "v"))
    joined = net(
        "Attention", "att", [q, v, k], score_mode="dot", use_scale=False, shape=(None, 6, 5)
    )
    return net.functional(net("Dense", "out", joined, units=2))


def test_where_every_kernel_is_refitted_nothing_is_read_elsewhere() -> None:
    lstm = sequential(layer("LSTM", "x", units=4), layer("Dense", "out", units=2), shape=[6, 3])
    for config in (residual(2, width=4), lstm):
        assert elsewhere(analysed(config)) == {}


def test_units_of_a_kernel_that_is_not_refitted_are_named_with_it() -> None:
    found = elsewhere(analysed(residual(1, width=4)), but=["block0_2"])
    assert found == {"block0_1": {"are read by 'block0_2', which is not refitted"}}


def test_units_that_are_multiplied_with_each_other_are_not_refitted_there() -> None:
    found = elsewhere(analysed(attention()))
    assert set(found) == {"q", "k"}
    assert found["q"] == {"are multiplied or summed by 'att', which has nothing to refit"}


def test_key_dimensions_of_an_attention_are_multiplied_with_each_other() -> None:
    net = Network()
    x = net("Dense", "a", net.input("in", 6, 3), units=8)
    config = {"num_heads": 2, "key_dim": 3, "value_dim": None, "use_bias": True}
    spec = layer("MultiHeadAttention", "mha", **config)
    y = net.call(spec, [x, x], shape=(None, 6, 8))
    model = analysed(net.functional(net("Dense", "out", y, units=2)))
    assert set(elsewhere(model)) == {"mha.key_dim"}


def test_inputs_of_a_grouped_convolution_are_read_by_it() -> None:
    config = sequential(
        layer("Conv2D", "first", filters=6), layer("Conv2D", "x", filters=6, groups=2),
        layer("Conv2D", "out", filters=2), shape=[4, 4, 3],
    )  # fmt: skip
    model = analysed(config)
    assert elsewhere(model) == {}
    assert set(elsewhere(model, but=["x"])) == {"first"}
