"""Each criterion against its formula, in plain numpy over one unit's weights at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.criteria_table import BUILTIN
from kprune.errors import ExpressionError, UsageError
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.choose import choose, prunable_axes
from kprune.select.ranking.ranks import Ranking, score_groups
from kprune.select.ranking.scoring import LayerUnits, criterion, scores
from kprune.select.ranking.statistics import Statistics
from kprune.surgery.zero import incoming
from tests.small_models import Arrays, Network, analysed, arrays, layer, residual, sequential

Columns = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


def dense() -> Any:
    return sequential(layer("Dense", "x", units=5), layer("Dense", "out", units=2), shape=[7])


def conv() -> Any:
    return sequential(
        layer("Conv2D", "x", filters=5), layer("BatchNormalization", "bn"),
        layer("Conv2D", "out", filters=2), shape=[6, 6, 3],
    )  # fmt: skip


def depthwise() -> Any:
    x = layer("DepthwiseConv2D", "x", depth_multiplier=2)
    return sequential(
        layer("Conv2D", "first", filters=3), x, layer("Conv2D", "out", filters=2), shape=[6, 6, 3]
    )


def lstm() -> Any:
    return sequential(layer("LSTM", "x", units=4), layer("Dense", "out", units=2), shape=[6, 3])


# By model: all weights that make each unit, biases left out, as one vector a unit.
MODELS: list[tuple[Callable[[], Any], Columns]] = [
    (dense, lambda t: list(t["layers/dense/vars/0"].T)),
    (conv, lambda t: [t["layers/conv2d/vars/0"][..., u].ravel() for u in range(5)]),
    (
        depthwise,
        # Unit u is input u // 2, multiple u % 2.
        lambda t: [
            t["layers/depthwise_conv2d/vars/0"][:, :, u // 2, u % 2].ravel() for u in range(6)
        ],
    ),
    (
        lstm,
        lambda t: [
            np.concatenate([t[f"layers/lstm/cell/vars/{w}"][:, u::4].T.ravel() for w in (0, 1)])
            for u in range(4)
        ],
    ),
]


def lamp(units: list[np.ndarray]) -> list[float]:
    energy = [float((w.astype(np.float64) ** 2).sum()) for w in units]
    return [e / sum(other for other in energy if other >= e) for e in energy]


FORMULAS: dict[str, Callable[[list[np.ndarray]], list[Any]]] = {
    "l1": lambda units: [np.abs(w).sum() for w in units],
    "l2": lambda units: [np.sqrt((w**2).sum()) for w in units],
    "mean": lambda units: [w.mean() for w in units],
    "fpgm": lambda units: [sum(np.linalg.norm(w - v) for v in units) for w in units],
    "lamp": lamp,
}


def scored(name: str, config: Any, axis: str = "x", seed: int = 0) -> np.ndarray:
    tensors = arrays(config)
    model = analysed(config, tensors)
    statistics = Statistics(model, Arrays(tensors))
    return scores(name, LayerUnits(statistics, model.map.axes[axis], seed))


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("make", "columns"), MODELS, ids=lambda m: getattr(m, "__name__", ""))
def test_a_criterion_is_its_formula(name: str, make: Any, columns: Columns) -> None:
    units = [w.astype(np.float64) for w in columns(arrays(make()))]
    np.testing.assert_allclose(scored(name, make()), FORMULAS[name](units), rtol=1e-5, atol=1e-6)


def test_bn_scale_is_the_magnitude_of_gamma() -> None:
    gamma = np.array([0.3, -2.0, 0.0, -0.1, 1.5], np.float32)
    tensors = arrays(conv()) | {"layers/batch_normalization/vars/0": gamma}
    model = analysed(conv(), tensors)
    units = LayerUnits(Statistics(model, Arrays(tensors)), model.map.axes["x"])
    np.testing.assert_allclose(scores("bn-scale", units), np.abs(gamma))


def test_bn_scale_does_not_apply_where_no_normalisation_follows() -> None:
    with pytest.raises(ExpressionError, match="has no BatchNormalization with gamma"):
        scored("bn-scale", dense())


def test_equal_units_get_equal_lamp_scores() -> None:
    config = dense()
    tensors = arrays(config) | {"layers/dense/vars/0": np.ones((7, 5), np.float32)}
    model = analysed(config, tensors)
    units = LayerUnits(Statistics(model, Arrays(tensors)), model.map.axes["x"])
    np.testing.assert_allclose(scores("lamp", units), 1 / 5)


def test_random_depends_on_the_seed_and_the_name_alone() -> None:
    other = sequential(layer("Dense", "x", units=5, use_bias=False), shape=[99])
    np.testing.assert_array_equal(scored("random", dense()), scored("random", other))
    assert (scored("random", dense()) != scored("random", dense(), seed=1)).all()
    renamed = sequential(layer("Dense", "y", units=5), shape=[7])
    assert (scored("random", dense()) != scored("random", renamed, axis="y")).all()


def test_an_unknown_criterion_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(UsageError, match="there is no criterion 'L1'") as caught:
        criterion("L1")
    assert all(name in caught.value.do for name in BUILTIN.criteria)


def joined() -> tuple[Analysis, Arrays]:
    net = Network()
    x = net.input("in", 5)
    a, b = net("Dense", "a", x, units=3), net("Dense", "b", x, units=3)
    config = net.functional(net("Dense", "out", net("Add", "sum", [a, b]), units=2))
    tensors = arrays(config)
    return analysed(config, tensors), Arrays(tensors)


REDUCED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": lambda a, b: (a + b) / 2,
    "sum": lambda a, b: a + b,
    "max": np.maximum,
    "l2": lambda a, b: np.sqrt(a**2 + b**2),
}
NORMALIZED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda s: s,
    "layer-mean": lambda s: s / np.abs(s).mean(),
    "layer-max": lambda s: s / np.abs(s).max(),
    "layer-gauss": lambda s: (s - s.mean()) / s.std(),
}


@pytest.mark.parametrize("reduce", REDUCED)
@pytest.mark.parametrize("normalize", NORMALIZED)
def test_a_group_is_scored_by_all_its_units(reduce: str, normalize: str) -> None:
    model, source = joined()
    axes = [model.map.axes[name] for name in ("a", "b")]
    ranking = Ranking("l1", reduce, normalize)
    found = score_groups(model.groups, Statistics(model, source), ranking, axes, strict=True)
    a, b = (
        NORMALIZED[normalize](np.abs(source.tensors[path]).sum(axis=0, dtype=np.float64))
        for path in ("layers/dense/vars/0", "layers/dense_1/vars/0")
    )
    np.testing.assert_allclose(
        found.of[model.groups.of[axes[0].ids]], REDUCED[reduce](a, b), rtol=1e-5, atol=1e-9
    )


def test_a_layer_that_was_not_asked_does_not_count_in_its_group() -> None:
    model, source = joined()
    axis = model.map.axes["b"]
    found = score_groups(
        model.groups, Statistics(model, source), Ranking("l1"), [axis], strict=True
    )
    own = np.abs(source.tensors["layers/dense_1/vars/0"]).sum(axis=0)
    np.testing.assert_allclose(found.of[model.groups.of[axis.ids]], own, rtol=1e-5)


def attention() -> Any:
    """Its heads and what they are wide stand along two axes of the same kernels."""
    net = Network()
    x = net("Dense", "before", net.input("in", 6, 8), units=8)
    own = {"num_heads": 3, "key_dim": 4, "value_dim": 4, "use_bias": True, "output_shape": None}
    y = net.call(layer("MultiHeadAttention", "x", **own, attention_axes=None, dropout=0.0), x)
    net.entries["x"]["inbound_nodes"][0]["args"] = [x.recorded(), x.recorded()]
    return net.functional(net("Dense", "out", y, units=2))


WEIGHED = ("l1", "l2", "mean", "lamp", "fpgm", "bn-scale", "random")


@pytest.mark.parametrize("make", [dense, conv, depthwise, lstm, attention, lambda: residual(3)])
@pytest.mark.parametrize("name", WEIGHED)
def test_to_choose_by_weights_each_tensor_is_read_once(name: str, make: Any) -> None:
    config = make()
    tensors = arrays(config)
    model, source = analysed(config, tensors), Arrays(tensors)
    choice = Choice(name, ratio=0.3, together=True)
    with suppress(ExpressionError):  # bn-scale, where no BatchNormalization is
        choose(model, Statistics(model, source), choice, prunable_axes(model), named=False)
    assert set(source.reads.values()) <= {1}
    assert source.reads or name in ("random", "bn-scale")


@pytest.mark.parametrize("name", ["l2", "fpgm"])
def test_units_along_two_axes_of_a_kernel_are_scored_along_each(name: str) -> None:
    config = attention()
    tensors = arrays(config)
    model = analysed(config, tensors)
    statistics = Statistics(model, Arrays(tensors))
    for axis in ("x.heads", "x.key_dim", "x.value_dim"):
        units = LayerUnits(statistics, model.map.axes[axis])
        own = [
            (np.moveaxis(tensors[weight.path], number, -1).reshape(-1, len(units)))
            for weight, number in incoming(model, units.axis)
            if weight.name.endswith("kernel")
        ]
        columns = list(np.concatenate(own).T.astype(np.float64))
        np.testing.assert_allclose(scores(name, units), FORMULAS[name](columns), rtol=1e-5)


@pytest.mark.parametrize("make", [dense, conv, lstm])
def test_each_tensor_is_read_once_whatever_is_asked_of_it(make: Any) -> None:
    config = make()
    tensors = arrays(config)
    model, source = analysed(config, tensors), Arrays(tensors)
    statistics, axis = Statistics(model, source), model.map.axes["x"]
    for name in ("l1", "l2", "mean", "lamp"):
        scores(name, LayerUnits(statistics, axis))
    statistics.env(axis, ["std", "min", "max", "absmax", "sparsity", "index"])
    assert set(source.reads.values()) == {1}


def test_statistics_do_not_depend_on_how_a_tensor_is_cut_into_blocks() -> None:
    config = conv()
    tensors = arrays(config)
    model = analysed(config, tensors)
    for name in ("l1", "std", "min", "outgoing_l2"):
        seen = [
            Statistics(model, Arrays(tensors, rows)).env(model.map.axes["x"], [name])[name]
            for rows in (1, 2, 99)
        ]
        np.testing.assert_allclose(seen[0], seen[1])
        np.testing.assert_allclose(seen[0], seen[2])


def test_outgoing_weights_are_those_that_consumers_hold_for_a_unit() -> None:
    config = dense()
    tensors = arrays(config)
    model = analysed(config, tensors)
    env = Statistics(model, Arrays(tensors)).env(
        model.map.axes["x"], ["outgoing_l1", "outgoing_l2", "bias", "w"]
    )
    kernel = tensors["layers/dense_1/vars/0"]
    np.testing.assert_allclose(env["outgoing_l1"], np.abs(kernel).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(env["outgoing_l2"], np.linalg.norm(kernel, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(env["bias"], tensors["layers/dense/vars/1"])
    np.testing.assert_array_equal(env["w"], tensors["layers/dense/vars/0"])


def test_a_kernel_that_the_file_holds_twice_counts_once() -> None:
    inner = layer("Dense", "inner", units=4)
    config = sequential(
        layer("SpectralNormalization", "x", layer=inner, power_iterations=1),
        layer("Dense", "out", units=2),
        shape=[3],
    )
    tensors = arrays(config)
    model = analysed(config, tensors)
    env = Statistics(model, Arrays(tensors)).env(model.map.axes["x"], ["l1", "outgoing_l1"])
    kernel = tensors["layers/spectral_normalization/layer/vars/0"]
    np.testing.assert_allclose(env["l1"], np.abs(kernel).sum(axis=0), rtol=1e-6)
    after = tensors["layers/dense/vars/0"]
    np.testing.assert_allclose(env["outgoing_l1"], np.abs(after).sum(axis=1), rtol=1e-6)
