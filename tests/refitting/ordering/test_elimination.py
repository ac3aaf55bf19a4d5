"""The order in which groups go, against refitting every candidate by explicit least squares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.labels.groups import Groups
from kprune.refitting.ordering.candidates import Candidates
from kprune.refitting.ordering.covariances import Covariance, Observation
from kprune.refitting.ordering.elimination import Limits, Order, eliminate
from kprune.refitting.ordering.savings import Savings
from tests.refitting.ordering.linear_maps import (
    Map,
    alone,
    along,
    cost,
    labelled,
    made,
    maps_of,
    nothing_read,
)
from tests.small_models import Network, analysed, arrays, layer, residual, sequential

RIDGE = 1e-3


class Same(Savings):
    """Every candidate saves 1."""

    def __init__(self, candidates: Candidates) -> None:
        self.of = np.ones(len(candidates))

    def lose(self, candidate: int) -> list[np.ndarray]:
        return []


def free(groups: Groups) -> Limits:
    """No limits."""
    return Limits(np.full(groups.map.count, -1), np.zeros(1, np.int64), np.zeros(1, np.int64))


def ordered(
    maps: Iterable[Map | Observation],
    groups: Groups,
    units: Iterable[int],
    limits: Limits | None = None,
    ridge: float = RIDGE,
) -> Order:
    """The order of the groups of some labels, each of which saves as much as any other."""
    candidates = Candidates.among(groups, np.array(list(units)))
    seen = [one.observed() if isinstance(one, Map) else one for one in maps]
    return eliminate(
        seen, nothing_read, candidates, Same(candidates), limits or free(groups), ridge=ridge
    )


def sequence(order: Order) -> list[int]:
    """Candidates as they go."""
    return np.argsort(order.position).tolist()


def by_brute_force(
    maps: list[Map], groups: Groups, units: Iterable[int]
) -> tuple[list[int], list[float]]:
    """The same by least squares: candidates in order, and the cost of each."""
    members = {int(groups.of[unit]): set(groups.members(unit).tolist()) for unit in units}
    gone: set[int] = set()
    order, costs = [], []
    numbers = {head: number for number, head in enumerate(sorted(members))}
    while members:
        prices = {head: cost(maps, gone, own, RIDGE) for head, own in members.items()}
        best = min(prices, key=lambda head: (round(prices[head], 9), head))
        order.append(numbers[best])
        costs.append(prices[best])
        gone |= members.pop(best)
    return order, costs


def two_rows_each() -> list[Map]:
    """Two consumers of units 1 to 5: one has two rows of each; 6 to 9 are made there and read here."""
    first = made(0, (along([1, 2, 3, 4, 5] * 2),), (along([6, 7, 8, 9]),))
    second = made(1, (along([6, 7, 8, 9, 0, 5]),), (along([0, 0, 0]),))
    return [first, second]


def recurrent() -> list[Map]:
    """Units 4 to 6 read units 1 to 3 and themselves, and stand in two gates each."""
    own = [4, 5, 6]
    cell = made(2, (along([1, 2, 3, *own]),), (along(own * 2),))
    return [cell, made(3, (along(own),), (along([0, 0]),))]


def two_parts() -> list[Map]:
    """A map in two parts, the second of which reads other units."""
    rows = np.array([[[1, 2, 3], [4, 5, 6]]])
    return [made(4, (rows,), (np.array([[[7, 8], [9, 0]]]),)), made(5, (along([7, 8, 9]),), (along([0]),))]  # fmt: skip


def two_factors() -> list[Map]:
    """Heads 1 to 3 times dimensions 4 and 5: a row goes with either."""
    heads, dimensions = along(np.repeat([1, 2, 3], 2)), along([4, 5] * 3)
    return [made(6, (heads, dimensions), (along([6, 7]),)), made(7, (along([6, 7, 0]),), (along([0, 0]),))]  # fmt: skip


def all_of_several() -> list[Map]:
    """A row at which two units stand goes with the last of them."""
    rows = (along([1, 1, 3, 5], [2, 2, 4, 5]),)
    reader = made(9, (along([6, 7, 1, 2, 3, 4]),), (along([0, 0]),))
    return [made(8, rows, (along([6, 7], [6, 1]),)), reader]


@pytest.mark.parametrize("case", [two_rows_each, recurrent, two_parts, two_factors, all_of_several])
def test_every_cost_is_that_of_refitting_by_least_squares(case: Callable[[], list[Map]]) -> None:
    maps = case()
    labels = {int(label) for one in maps for f in one.row_labels for label in f.ravel()} - {0}
    groups = alone(9)
    found = ordered(maps, groups, labels)
    order, costs = by_brute_force(maps, groups, labels)
    assert sequence(found) == order
    np.testing.assert_allclose(found.cost[order], costs, rtol=1e-6, atol=1e-10)


def test_units_that_go_together_cost_what_refitting_without_all_of_them_costs() -> None:
    groups = labelled(9)
    groups.tie(np.array([1, 2, 6]), np.array([3, 7, 8]), "add")
    solved = Groups.solve(groups)
    found = ordered(two_rows_each(), solved, range(1, 10))
    order, costs = by_brute_force(two_rows_each(), solved, range(1, 10))
    assert sequence(found) == order and len(order) == 6
    np.testing.assert_allclose(found.cost[order], costs, rtol=1e-6, atol=1e-10)


def test_many_rows_are_followed_as_exactly_as_few() -> None:
    """More rows than are kept pending, of which most go."""
    units = range(1, 61)
    one = made(0, (along([*units] * 4),), (along([0] * 3),), samples=400)
    found = ordered([one], alone(60), units)
    order = sequence(found)
    for turn in (0, 30, 45, 58):
        gone = {unit + 1 for unit in order[:turn]}
        prices = [cost([one], gone, {unit + 1}, RIDGE) for unit in order[turn:]]
        assert np.argmin(prices) == 0
        np.testing.assert_allclose(found.cost[order[turn]], prices[0], rtol=1e-6)


def greedy_by_count(model: Analysis, maps: list[Map]) -> list[int]:
    """Candidates of a model in order: least squares for the cost, kprune's own count for what is saved."""
    frozen = model.groups.frozen()
    heads = sorted({int(head) for head in model.groups.of[~frozen]} - {0})
    gone = np.zeros(model.map.count, bool)
    order: list[int] = []
    while len(order) < len(heads):
        ratios = {}
        for number, head in enumerate(heads):
            if number in order:
                continue
            members = model.groups.members(head)
            after = gone.copy()
            after[members] = True
            saved = count(model, gone).parameters - count(model, after).parameters
            price = cost(maps, set(np.flatnonzero(gone).tolist()), set(members.tolist()), RIDGE)
            ratios[number] = price / saved
        best = min(ratios, key=lambda number: ratios[number])
        order.append(best)
        gone[model.groups.members(heads[best])] = True
    return order


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_order_of_a_residual_net_is_that_of_cost_per_parameter_saved(blocks: int) -> None:
    config = residual(blocks, width=4, shape=(4, 4))
    tensors = arrays(config)
    model = analysed(config, tensors)
    maps = maps_of(model, tensors)
    candidates = Candidates.among(model.groups, np.flatnonzero(~model.groups.frozen()))
    savings = Savings(model, candidates, "parameters")
    found = eliminate(
        [one.observed() for one in maps], nothing_read, candidates, savings, free(model.groups)
    )
    assert sequence(found) == greedy_by_count(model, maps)


def rescaled(one: Map, rows: np.ndarray, columns: np.ndarray) -> Map:
    """The same function where inputs come larger by factors, and outputs are asked for larger."""
    return replace(one, data=one.data * rows, values=one.values / rows[:, None] * columns)


def test_the_scale_of_units_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    factors = 10 ** rng.uniform(-2, 2, 10)
    factors[0] = 1
    maps = two_rows_each()
    scaled = [
        rescaled(one, factors[one.row_labels[0][0, 0]], factors[one.column_labels[0][0, 0]])
        for one in maps
    ]
    plain, other = (ordered(each, alone(9), range(1, 10)) for each in (maps, scaled))
    assert sequence(plain) == sequence(other)
    np.testing.assert_allclose(plain.cost, other.cost, rtol=1e-6, atol=1e-12)


def test_the_same_data_give_the_same_bytes() -> None:
    runs = [ordered(two_factors(), alone(9), range(1, 8)) for _ in range(2)]
    assert runs[0].cost.tobytes() == runs[1].cost.tobytes()
    assert runs[0].position.tobytes() == runs[1].position.tobytes()


def test_costs_that_differ_by_rounding_are_equal_and_the_lowest_unit_goes() -> None:
    one = made(0, (along([1, 2, 3]),), (along([0]),))
    one.data = np.eye(3)[None] * np.sqrt(3.0)
    one.values = np.array([[[2.0], [1.0 + 1e-13], [1.0]]])
    assert sequence(ordered([one], alone(3), [1, 2, 3])) == [1, 2, 0]


def with_copies() -> Map:
    """Units 2 and 5 are equal, 4 is a sum of 1 and 3, 6 never varies."""
    one = made(0, (along(range(1, 9)),), (along([0] * 4),), samples=300)
    data = one.data[0]
    data[:, 4] = data[:, 1]
    data[:, 3] = data[:, 0] - 2 * data[:, 2]
    data[:, 5] = 0
    return one


@pytest.mark.parametrize("ridge", [1e-3, 1e-5])
def test_what_others_reproduce_goes_first_and_costs_no_more_than_the_ridge(ridge: float) -> None:
    found = ordered([with_copies()], alone(8), range(1, 9), ridge=ridge)
    first = sequence(found)[:3]
    assert first[0] == 5 and found.cost[5] == 0
    assert len({1, 4} & set(first)) == 1 and len({0, 2, 3} & set(first)) == 1
    rest = sequence(found)[3:]
    assert found.cost[first].max() < 50 * ridge * found.cost[rest].min()


def test_a_layer_keeps_what_it_must_and_what_is_held_back_comes_last() -> None:
    groups = alone(9)
    owner = np.array([-1, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    limits = Limits(owner, np.array([5, 4]), np.array([3, 1]))
    found = ordered(two_rows_each(), groups, range(1, 10), limits)
    free_to_go = sequence(found)[:5]
    assert sum(unit < 5 for unit in free_to_go) == 2
    assert sum(unit >= 5 for unit in free_to_go) == 3


def test_once_enough_is_saved_the_rest_is_ordered_as_it_stands() -> None:
    groups = alone(9)
    whole = ordered(two_rows_each(), groups, range(1, 10))
    limits = msgspec.structs.replace(free(groups), enough=3.0)
    short = ordered(two_rows_each(), groups, range(1, 10), limits)
    assert sequence(short)[:3] == sequence(whole)[:3]
    assert sorted(sequence(short)) == list(range(9))
    later = np.array(sequence(short)[3:])
    assert (np.diff(short.cost[later]) >= -1e-12).all()


def test_given_weights_say_which_outputs_matter() -> None:
    """Each output is one unit's own: the one that matters least goes first."""
    one = made(0, (along([1, 2, 3]),), (along([0] * 3),))
    one.data = np.eye(3)[None] * np.sqrt(3.0)
    one.values = np.eye(3)[None]
    for weights in ([3.0, 1.0, 2.0], [1.0, 2.0, 3.0]):
        found = ordered([one.observed(np.array([weights]))], alone(3), [1, 2, 3])
        assert sequence(found) == np.argsort(weights).tolist()


def test_a_depthwise_channel_has_no_price_where_it_goes_with_its_output() -> None:
    rows = np.array([[[1, 1, 1], [2, 2, 2]]])
    depthwise = made(0, (rows,), (np.array([[[3], [4]]]),))
    reader = made(1, (along([3, 4]),), (along([0, 0]),))
    groups = labelled(4)
    groups.tie(np.array([1, 2]), np.array([3, 4]), "depthwise")
    solved = Groups.solve(groups)
    both, one = (ordered(maps, solved, [1, 2]) for maps in ([depthwise, reader], [reader]))
    np.testing.assert_array_equal(both.cost, one.cost)


def test_places_that_count_as_independent_are_those_of_the_whole_covariance() -> None:
    one = made(0, (along([1, 2, 3] * 4),), (along([0, 4, 0]),))
    block = made(1, (along([1, 2, 3]),), (along([0]),)).covariance()
    reader = made(2, (along([4, 1]),), (along([0]),))
    by_channel = Covariance(block, places=4)
    found = [
        ordered([Observation(one, form), reader], alone(4), range(1, 5))
        for form in (by_channel, Covariance(by_channel.matrix))
    ]
    assert sequence(found[0]) == sequence(found[1])
    np.testing.assert_allclose(found[0].cost, found[1].cost, rtol=1e-9)


def chain() -> Any:
    return sequential(
        layer("Dense", "a", units=6), layer("Dense", "b", units=5), layer("Dense", "out", units=3),
        shape=[4],
    )  # fmt: skip


def two_readers() -> Any:
    net = Network()
    x = net("Dense", "a", net.input("in", 3), units=5)
    y = net("Dense", "b", x, units=5)
    return net.functional(
        net("Dense", "c", net("Concatenate", "all", [x, y], shape=(None, 10)), units=2)
    )


@pytest.mark.parametrize("config", [chain(), two_readers()])
def test_the_order_of_dense_layers_is_that_of_cost_per_parameter_saved(config: Any) -> None:
    tensors = arrays(config)
    model = analysed(config, tensors)
    maps = maps_of(model, tensors)
    candidates = Candidates.among(model.groups, np.flatnonzero(~model.groups.frozen()))
    found = eliminate(
        [one.observed() for one in maps],
        nothing_read,
        candidates,
        Savings(model, candidates, "parameters"),
        free(model.groups),
    )
    assert sequence(found) == greedy_by_count(model, maps)


def test_what_is_only_rounding_costs_nothing() -> None:
    """Units 2 and 3 hardly vary, by less than what rounding leaves: the lowest goes first."""
    one = made(0, (along([1, 2, 3]),), (along([0, 0]),))
    one.data[0] *= np.array([1.0, 3e-8, 1e-8])
    found = ordered([one], alone(3), [1, 2, 3])
    assert sequence(found) == [1, 2, 0]
    assert found.cost[1] == found.cost[2] == 0
