"""Chosen units, everything that goes with them, and why some cannot go: in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.errors import (
    CannotPruneError,
    FrozenUnitsError,
    KpruneError,
    LastUnitError,
    NotARectangleError,
)
from kprune.labels.branches import dead_branches
from kprune.labels.closure import Closure, check, close, is_rectangle
from kprune.labels.paths import path_between
from tests.small_models import Network, analysed, layer, residual, sequential


def chain() -> Analysis:
    return analysed(
        sequential(
            layer("Dense", "a", units=6), layer("ReLU", "r"), layer("Dense", "b", units=4),
            layer("Dense", "out", units=3), shape=[5],
        )
    )  # fmt: skip


def summed() -> Analysis:
    """a + b -> c; b also feeds d."""
    net = Network()
    x = net.input("in", 5)
    a, b = net("Dense", "a", x, units=4), net("Dense", "b", x, units=4)
    c = net("Dense", "c", net("Add", "sum", [a, b]), units=3)
    return analysed(net.functional(c, net("Dense", "d", b, units=3)))


def through_unknown() -> Analysis:
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=4)
    pool = layer("RankPool", "rank_pool") | {"module": "mine", "registered_name": "mine>RankPool"}
    x = net.call(pool, net("ReLU", "r", x))
    return analysed(net.functional(net("Dense", "out", x, units=3)))


def matrix() -> Analysis:
    """Units that stand along two axes at once: Dense(6) as 2 x 3, read along the last of them."""
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=6)
    x = net("Reshape", "fold", x, target_shape=[2, 3], shape=(None, 2, 3))
    x = net("Dense", "read", x, units=4)
    return analysed(net.functional(net("Flatten", "flat", x, shape=(None, 8))))


def grouped() -> Analysis:
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 3), filters=6)
    x = net("Conv2D", "g", x, filters=4, groups=2)
    return analysed(net.functional(net("Conv2D", "out", x, filters=2)))


def closed(model: Analysis, **units: list[int]) -> Closure:
    chosen = {name: np.array(indices) for name, indices in units.items()}
    return close(model.groups, chosen)


def refused(error: type[KpruneError], closure: Closure, **options: Any) -> KpruneError:
    with pytest.raises(error) as caught:
        check(closure, **options)
    assert caught.value.exit_code == 3
    return caught.value


def test_units_go_alone_where_nothing_is_tied_to_them() -> None:
    closure = closed(chain(), a=[5, 1])
    check(closure)
    assert {name: list(i) for name, i in closure.affected.items()} == {"a": [1, 5]}
    assert closure.coupled == {}


def test_units_joined_by_add_stay_or_go_together() -> None:
    closure = closed(summed(), a=[2])
    check(closure)
    assert {name: list(i) for name, i in closure.affected.items()} == {"a": [2], "b": [2]}
    assert {name: list(i) for name, i in closure.coupled.items()} == {"b": [2]}


def test_units_that_would_go_along_are_named_where_none_may() -> None:
    error = refused(CannotPruneError, closed(summed(), a=[0, 2]), coupled=False)
    assert error.what == "other units would be removed with the chosen ones"
    assert error.where == "b:0,2" and "--no-coupled" in error.why
    check(closed(summed(), a=[2], b=[2]), coupled=False)


def test_a_layer_without_a_rule_holds_what_reaches_it_and_the_road_leads_there() -> None:
    error = refused(FrozenUnitsError, closed(through_unknown(), a=[1]))
    assert error.what == "cannot remove unit 1 of 'a'"
    assert error.where == "a -> r -> rank_pool"
    assert error.why == (
        "'rank_pool' is a mine>RankPool layer, for which kprune has no rule, "
        "so the units that reach it are frozen"
    )
    assert "--rules" in error.do and "kprune mask" in error.do


def test_features_of_the_input_stay_unless_that_is_allowed() -> None:
    address = next(name for name, axis in chain().map.axes.items() if axis.name == "features")
    closure = close(chain().groups, {address: np.array([0])})
    error = refused(FrozenUnitsError, closure)
    assert error.why == "it is a feature of the model's input"
    assert "--allow-output-change" in error.do
    check(closure, allow_output_change=True)


def test_a_unit_tied_to_the_input_says_so_and_how() -> None:
    net = Network()
    x = net.input("in", 4)
    a = net("Dense", "a", net("Dense", "wide", x, units=7), units=4)
    model = analysed(net.functional(net("Dense", "out", net("Add", "sum", [x, a]), units=2)))
    error = refused(FrozenUnitsError, closed(model, a=[3]))
    assert error.why == "it is tied to a feature of the model's input"
    assert error.where == "a -> sum -> in"


def test_an_output_layer_that_is_named_itself_may_lose_units() -> None:
    closure = closed(chain(), out=[1])
    check(closure)
    assert list(closure.affected["out"]) == [1]


def test_units_tied_to_the_output_are_refused_by_the_road_to_it() -> None:
    net = Network()
    x = net.input("in", 5)
    a, b = net("Dense", "a", x, units=3), net("Dense", "b", x, units=3)
    model = analysed(net.functional(net("ReLU", "r", net("Add", "sum", [a, b]))))
    error = refused(FrozenUnitsError, closed(model, a=[0]))
    assert error.where == "a -> sum -> r -> output"
    assert error.why == "it is tied to units which are the model's output"
    check(closed(model, a=[0]), allow_output_change=True)


def test_no_layer_loses_its_last_unit() -> None:
    error = refused(LastUnitError, closed(chain(), b=[0, 1, 2, 3]))
    assert error.what == "all 4 units of 'b' would be removed"
    assert error.do == "keep at least one of 0 to 3"


def test_no_layer_loses_its_last_unit_to_what_is_tied_to_it() -> None:
    error = refused(LastUnitError, closed(summed(), a=[0, 1], b=[2, 3]))
    assert (
        error.what
        == "all 4 units of 'a' would be removed, counting the units tied to the chosen ones"
    )


def test_what_is_left_along_two_axes_must_be_a_block() -> None:
    error = refused(NotARectangleError, closed(matrix(), a=[0]))
    assert "its units stand along several axes at once (2 x 3)" in error.why
    assert error.where == "fold"


@pytest.mark.parametrize("units", [[0, 1, 2], [2, 5], [0, 3]])
def test_whole_rows_and_columns_leave_a_block(units: list[int]) -> None:
    check(closed(matrix(), a=units))


def test_a_block_is_every_combination_of_some_rows_and_columns() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        alive = rng.random((3, 2, 4)) < 0.8
        rows = [alive.any(axis=(1, 2)), alive.any(axis=(0, 2)), alive.any(axis=(0, 1))]
        block = np.ix_(*rows)
        assert is_rectangle(alive) == bool(alive[block].all())


def test_groups_of_a_convolution_must_stay_equal() -> None:
    error = refused(CannotPruneError, closed(grouped(), g=[0]))
    assert error.what == "the groups of 'g' would be uneven"
    assert "they must stay equal" in error.why and "keep 1, 2 units" in error.why
    check(closed(grouped(), g=[0, 3]))


def test_a_group_of_a_convolution_goes_whole_or_not_at_all() -> None:
    error = refused(CannotPruneError, closed(grouped(), g=[0, 1]))
    assert error.why == "a group would be left with inputs and no outputs, or the other way round"
    check(closed(grouped(), g=[0, 1], a=[0, 1, 2]))


def test_a_branch_goes_whole_where_its_concatenation_has_other_parts() -> None:
    net = Network()
    x = net.input("in", 5)
    p = net("ReLU", "p_relu", net("Dense", "p", x, units=2))
    q = net("Dense", "q", x, units=3)
    joined = net("Concatenate", "join", [p, q], shape=(None, 5))
    model = analysed(net.functional(net("Dense", "out", joined, units=2)))
    closure = closed(model, p=[0, 1])
    check(closure)
    assert {found.name for found in dead_branches(model.groups, closure.gone)} == {"p", "p_relu"}
    assert not dead_branches(model.groups, closed(model, p=[0]).gone)
    both = refused(LastUnitError, closed(model, p=[0, 1], q=[0, 1, 2]))
    assert "would be removed" in both.what or "no units left" in both.what


def test_a_branch_that_something_else_reads_stays() -> None:
    net = Network()
    x = net.input("in", 5)
    p, q = net("Dense", "p", x, units=2), net("Dense", "q", x, units=3)
    joined = net("Concatenate", "join", [p, q], shape=(None, 5))
    aside = net("Dense", "aside", p, units=2)
    model = analysed(net.functional(net("Dense", "out", joined, units=2), aside))
    error = refused(LastUnitError, closed(model, p=[0, 1]))
    assert error.what == "all 2 units of 'p' would be removed"


def test_the_path_between_tied_layers_is_the_nearest() -> None:
    model = analysed(residual(3, width=4))
    axes = model.map.axes
    assert path_between(model.groups, axes["block1_2"], 0, axes["block2_2"]) == [
        "block1_2", "block1_bn2", "block1_add", "block1_out",
        "block2_add", "block2_bn2", "block2_2",
    ]  # fmt: skip


def test_a_depthwise_convolution_loses_what_its_input_loses() -> None:
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 3), filters=3)
    x = net("DepthwiseConv2D", "d", x, depth_multiplier=2, shape=(None, 8, 8, 6))
    model = analysed(net.functional(net("Conv2D", "out", x, filters=2)))
    closure = closed(model, a=[1])
    assert {name: list(i) for name, i in closure.affected.items()} == {"a": [1], "d": [2, 3]}


def two_branches() -> Analysis:
    """p and q, whose sum is one part of a Concatenate; s is the other."""
    net = Network()
    x = net.input("in", 5)
    p, q = net("Dense", "p", x, units=2), net("Dense", "q", x, units=2)
    parts = [net("Add", "sum", [p, q]), net("Dense", "s", x, units=3)]
    joined = net("Concatenate", "join", parts, shape=(None, 5))
    return analysed(net.functional(net("Dense", "out", joined, units=2)))


def test_a_layer_vanishes_only_if_every_unit_of_it_was_chosen() -> None:
    model = two_branches()
    error = refused(LastUnitError, closed(model, p=[0, 1]))
    assert error.what == "'q' would vanish with its branch, and none of its 2 units were chosen"
    assert error.where == "p -> sum -> q"
    assert "choose every unit of 'q'" in error.do and "--drop-branches" in error.do
    some = refused(LastUnitError, closed(model, p=[0, 1], q=[1]))
    assert some.what == "'q' would vanish with its branch, and only 1 of its 2 units was chosen"
    check(closed(model, p=[0, 1], q=[0, 1]))
    check(closed(model, p=[0, 1]), drop_branches=True)


def test_a_layer_whose_units_are_tied_among_themselves_does_not_vanish_unasked() -> None:
    net = Network()
    x = net.input("in", 5)
    p = net("Dense", "p", x, units=4)
    turned = net("Reshape", "turned", p, target_shape=[2, 2], shape=(None, 2, 2))
    turned = net("Permute", "swap", turned, dims=[2, 1], shape=(None, 2, 2))
    both = net(
        "Add",
        "mirror",
        [turned, net("Reshape", "same", p, target_shape=[2, 2], shape=(None, 2, 2))],
    )
    flat = net("Flatten", "flat", both, shape=(None, 4))
    joined = net("Concatenate", "join", [flat, net("Dense", "s", x, units=3)], shape=(None, 7))
    model = analysed(net.functional(net("Dense", "out", joined, units=2)))
    error = refused(LastUnitError, closed(model, p=[0, 1, 3]))
    assert error.what == "'p' would vanish with its branch, and only 3 of its 4 units were chosen"
    assert error.where == "p -> mirror"
    check(closed(model, p=[0, 1, 2, 3]))
