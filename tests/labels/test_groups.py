"""Ties solved: who stays or goes with whom."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kprune.graph import parse_model
from kprune.labels.groups import Groups, connected
from kprune.labels.map import Derived, Freeze, LabelMap, Mix, Tie
from tests.small_models import analysed, residual


def naive(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The smallest number each is connected to: sets merged one pair at a time."""
    sets = [{number} for number in range(count)]
    for a, b in pairs:
        if sets[a] is not sets[b]:
            merged = sets[a] | sets[b]
            for member in merged:
                sets[member] = merged
    return [min(found) for found in sets]


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=80)
    )
))  # fmt: skip
def test_connected_numbers_are_those_that_sets_merged_one_by_one_give(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    count, pairs = case
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    assert connected(count, a, b).tolist() == naive(count, pairs)


def test_a_long_chain_in_any_order_is_one_group() -> None:
    count = 20_000
    order = np.random.default_rng(0).permutation(count)
    assert not connected(count, order[1:], order[:-1]).any()


def label_map(count: int) -> LabelMap:
    config = {"class_name": "Sequential", "config": {"layers": [
        {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 2]}}
    ]}}  # fmt: skip
    found = LabelMap(parse_model(config))
    found.count = count
    return found


def gone(groups: Groups, *labels: int) -> set[int]:
    return set(np.flatnonzero(groups.spread(np.array(labels, np.int64))).tolist())


def heads() -> LabelMap:
    """Labels 7 and 8 stand for the pairs (1, 2) and (3, 4)."""
    found = label_map(10)
    found.derived.append(Derived(np.array([7, 8]), np.array([[1, 2], [3, 4]])))
    return found


def test_a_head_goes_when_its_last_dimension_does() -> None:
    groups = Groups.solve(heads())
    assert gone(groups, 1) == {1}
    assert gone(groups, 1, 2) == {1, 2, 7}


def test_all_dimensions_go_with_their_head() -> None:
    groups = Groups.solve(heads())
    assert gone(groups, 8) == {3, 4, 8}
    assert set(groups.members(8).tolist()) == {3, 4, 8}


def test_what_is_tied_to_a_head_goes_with_its_dimensions_and_the_reverse() -> None:
    found = heads()
    found.ties.append(Tie(np.array([7]), np.array([9]), "somewhere"))
    groups = Groups.solve(found)
    assert gone(groups, 1, 2) == {1, 2, 7, 9}
    assert gone(groups, 9) == {1, 2, 7, 9}


def test_heads_of_heads_follow_to_the_end() -> None:
    found = heads()
    found.derived.append(Derived(np.array([9]), np.array([[7, 8]])))
    groups = Groups.solve(found)
    assert gone(groups, 1, 2, 3, 4) == {1, 2, 3, 4, 7, 8, 9}
    assert gone(groups, 9) == {1, 2, 3, 4, 7, 8, 9}


def test_a_frozen_dimension_freezes_its_head_and_not_its_neighbour() -> None:
    found = heads()
    found.freezes.append(Freeze("rule", np.array([1]), "because", "there"))
    frozen = Groups.solve(found).frozen()
    assert np.flatnonzero(frozen).tolist() == [1, 7]


def test_a_freeze_holds_all_that_is_tied_to_it_and_only_kinds_that_were_asked_for() -> None:
    found = label_map(6)
    found.ties.append(Tie(np.array([1, 2]), np.array([3, 4]), "add"))
    found.freezes.append(Freeze("output", np.array([3]), "are outputs", ""))
    found.mixes.append(Mix(np.array([2]), "share a mean", "norm"))
    groups = Groups.solve(found)
    assert np.flatnonzero(groups.frozen()).tolist() == [1, 3]
    assert not groups.frozen(("rule",)).any()
    assert np.flatnonzero(groups.mixed()).tolist() == [2, 4]
    assert [freeze.kind for freeze in groups.freezes_of(np.array([1]))] == ["output"]


def test_no_unit_is_never_gone() -> None:
    found = label_map(3)
    found.ties.append(Tie(np.array([0, 1]), np.array([2, 2]), ""))
    groups = Groups.solve(found)
    assert gone(groups, 0) == set()


def test_a_residual_chain_is_one_group_per_channel() -> None:
    model = analysed(residual(3, width=4))
    groups, axes = model.groups, model.map.axes
    summed = [axes[name].ids for name in ("stem", "block0_2", "block1_2", "block2_2")]
    for ids in summed:
        np.testing.assert_array_equal(groups.of[ids], groups.of[summed[0]])
    assert groups.sizes[summed[0]].tolist() == [4, 4, 4, 4]
    assert groups.sizes[axes["block1_1"].ids].tolist() == [1, 1, 1, 1]
    assert len(set(groups.of[summed[0]])) == 4
