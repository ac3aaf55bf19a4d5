"""The criterion obs: an order of all groups, and how choices use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.errors import ExpressionError, UsageError
from kprune.labels.closure import check, close
from kprune.pruning.amounts import measure_of
from kprune.refitting.ordering.covariances import Observation
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.choose import Chosen, choose, prunable_axes
from kprune.select.ranking.scoring import LayerUnits, scores
from kprune.select.ranking.statistics import Statistics
from tests.refitting.ordering.linear_maps import cost, maps_of
from tests.small_models import Arrays, Network, analysed, arrays, layer, residual, sequential


@dataclass
class Seen:
    """What consumers are given: random data for each kernel, but for those left out."""

    model: Analysis
    tensors: dict[str, np.ndarray]
    but: Iterable[str] = ()
    samples: int = 200
    asked: list[str] = field(default_factory=list)

    def observations(self, weighting: str) -> list[Observation]:
        self.asked.append(weighting)
        maps = maps_of(self.model, self.tensors)
        return [one.observed() for one in maps if one.name not in self.but]


def statistics(config: Any, but: Iterable[str] = ()) -> Statistics:
    tensors = arrays(config)
    model = analysed(config, tensors)
    return Statistics(model, Arrays(tensors), observed=Seen(model, tensors, but))


def chosen(own: Statistics, choice: Choice, *names: str, whole: Iterable[str] = ()) -> Chosen:
    model = own.analysis
    axes = [model.map.axes[name] for name in names] or prunable_axes(model)
    stay = [model.map.axes[name] for name in whole]
    measure = measure_of(choice.target.kind, model, None) if choice.target else None
    return choose(
        model, own, choice, [axis for axis in axes if axis not in stay],
        named=bool(names), measure=measure, whole=stay,
    )  # fmt: skip


def chain() -> Any:
    return sequential(
        layer("Dense", "a", units=8), layer("Dense", "b", units=6), layer("Dense", "out", units=3),
        shape=[4],
    )  # fmt: skip


def test_of_one_layer_the_units_go_that_cost_least_one_after_the_other() -> None:
    own = statistics(chain())
    found = chosen(own, Choice("obs", count=3), "a")
    maps = maps_of(own.analysis, arrays(chain()))
    gone: set[int] = set()
    labels = own.analysis.map.axes["a"].ids.tolist()
    for _ in range(3):
        best = min(set(labels) - gone, key=lambda label: (cost(maps, gone, {label}, 1e-3), label))
        gone.add(best)
    assert [labels.index(label) for label in sorted(gone)] == found.units["a"].tolist()


def test_a_ratio_takes_its_share_of_each_layer() -> None:
    found = chosen(statistics(chain()), Choice("obs", ratio=0.5))
    assert {name: len(units) for name, units in found.units.items()} == {"a": 4, "b": 3}


@pytest.mark.parametrize("kind", ["parameters", "flops"])
def test_a_budget_is_met_by_the_shortest_beginning_of_the_order(kind: str) -> None:
    own = statistics(residual(2, width=6, shape=(4, 4)))
    measure = measure_of(kind, own.analysis, None)
    for share in (80, 50, 30):
        found = chosen(own, Choice("obs", target=Budget(kind, f"{share}%")))
        closure = close(own.analysis.groups, found.units)
        check(closure)
        assert measure(closure.gone) <= share / 100 * measure.whole
        assert found.achieved == measure(closure.gone)


def test_a_smaller_budget_takes_what_a_larger_one_took_and_more() -> None:
    own = statistics(residual(2, width=6, shape=(4, 4)))
    many, few = (
        close(
            own.analysis.groups, chosen(own, Choice("obs", target=Budget("parameters", text))).units
        )
        for text in ("30%", "70%")
    )
    assert few.gone.any() and (many.gone | ~few.gone).all()


def test_what_is_left_is_round_and_not_too_few() -> None:
    choice = Choice("obs", target=Budget("parameters", "55%"), round_to=2, min_units=4)
    found = chosen(statistics(chain()), choice)
    left = {"a": 8, "b": 6}
    for name, units in found.units.items():
        assert (left[name] - len(units)) % 2 == 0 and left[name] - len(units) >= 4


def test_runs_of_a_grouped_convolution_stay_equal() -> None:
    config = sequential(
        layer("Conv2D", "first", filters=6), layer("Conv2D", "x", filters=6, groups=2),
        layer("Conv2D", "out", filters=2), shape=[4, 4, 3],
    )  # fmt: skip
    own = statistics(config)
    found = chosen(own, Choice("obs", target=Budget("parameters", "70%")), "x")
    check(close(own.analysis.groups, found.units))


def test_an_excluded_layer_stays() -> None:
    found = chosen(statistics(chain()), Choice("obs", ratio=0.5), whole=["a"])
    assert set(found.units) == {"b"}


def attention() -> Any:
    net = Network()
    x = net("Dense", "a", net.input("in", 6, 3), units=4)
    q, k, v = (net("Dense", name, x, units=5) for name in ("q", "k", "v"))
    joined = net(
        "Attention", "att", [q, v, k], use_scale=False, score_mode="dot", shape=(None, 6, 5)
    )
    return net.functional(net("Dense", "out", joined, units=2))


def test_units_of_which_nobody_knows_what_they_cost_stay_and_it_is_said_why() -> None:
    found = chosen(statistics(attention()), Choice("obs", ratio=0.5))
    assert set(found.units) == {"a", "v"}
    assert set(found.skipped) == {"q", "k"}
    assert "'att'" in found.skipped["q"]


def test_a_layer_whose_readers_are_not_refitted_is_refused_where_it_is_named() -> None:
    own = statistics(chain(), but=["layers/dense_1/vars/0"])
    with pytest.raises(ExpressionError, match="does not apply to 'a'") as refused:
        chosen(own, Choice("obs", ratio=0.5), "a")
    assert "'b', which is not refitted" in refused.value.why
    assert set(chosen(own, Choice("obs", ratio=0.5)).units) == {"b"}


def test_without_data_there_is_no_order() -> None:
    tensors = arrays(chain())
    own = Statistics(analysed(chain(), tensors), Arrays(tensors))
    with pytest.raises(UsageError, match="obs needs data") as refused:
        chosen(own, Choice("obs", ratio=0.5))
    assert "--data" in refused.value.do


def test_the_weighting_is_asked_for_and_goes_with_obs_alone() -> None:
    own = statistics(chain())
    chosen(own, Choice("obs", ratio=0.5, weighting="fisher"))
    assert own.observed.asked == ["fisher"]  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="--weighting fisher"):
        Choice("l1", ratio=0.5, weighting="fisher")
    with pytest.raises(UsageError, match="--weighting most"):
        Choice("obs", ratio=0.5, weighting="most")


def test_the_scores_of_a_layer_are_the_places_in_its_own_order() -> None:
    own = statistics(chain())
    units = LayerUnits(own, own.analysis.map.axes["a"])
    assert sorted(scores("obs", units)) == list(range(8))
    lowest = np.sort(np.argsort(scores("obs", units))[:3])
    assert lowest.tolist() == chosen(own, Choice("obs", count=3), "a").units["a"].tolist()
