"""How many units go: shares, numbers, thresholds and budgets, over whole groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.errors import CheckError, FrozenUnitsError, UsageError
from kprune.labels.closure import check, close
from kprune.opened import analyse, open_model
from kprune.pruning.amounts import measure_of
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.choose import Chosen, choose, prunable_axes
from kprune.select.ranking.statistics import Statistics
from tests.small_models import Arrays, Network, analysed, arrays, layer, residual, sequential


def chosen(
    config: Any, choice: Choice, *names: str, tensors: Any = None, whole: tuple[str, ...] = ()
) -> tuple[Analysis, Chosen]:
    """What a choice comes to, over the layers named, or over all that can be pruned."""
    tensors = arrays(config) if tensors is None else tensors
    model = analysed(config, tensors)
    axes = [model.map.axes[name] for name in names] or prunable_axes(model)
    measure = measure_of(choice.target.kind, model, None) if choice.target else None
    statistics = Statistics(model, Arrays(tensors))
    stay = [model.map.axes[name] for name in whole]
    axes = [axis for axis in axes if axis not in stay]
    named = bool(names)
    return model, choose(model, statistics, choice, axes, named=named, measure=measure, whole=stay)


def chain(units: int = 10) -> Any:
    return sequential(
        layer("Dense", "a", units=units), layer("Dense", "b", units=units),
        layer("Dense", "out", units=3), shape=[5],
    )  # fmt: skip


def lowest(config: Any, path: str, number: int) -> list[int]:
    """The units of a Dense with the smallest l1, by plain numpy."""
    scores = np.abs(arrays(config)[path]).sum(axis=0)
    return sorted(np.argsort(scores)[:number].tolist())


def numbers(found: Chosen) -> dict[str, int]:
    return {name: len(indices) for name, indices in found.units.items()}


def test_a_ratio_takes_the_lowest_of_each_layer_rounded_down() -> None:
    _, found = chosen(chain(), Choice("l1", ratio=0.39), "a", "b")
    assert list(found.units["a"]) == lowest(chain(), "layers/dense/vars/0", 3)
    assert list(found.units["b"]) == lowest(chain(), "layers/dense_1/vars/0", 3)


def test_a_ratio_that_is_exact_is_not_rounded_away() -> None:
    # 0.3 * 10 is 3 except the last bit; 0.7 * 10 as well.
    for ratio, expected in ((0.3, 3), (0.7, 7), (0.1, 1)):
        assert numbers(chosen(chain(), Choice("l1", ratio=ratio), "a")[1]) == {"a": expected}


def test_a_count_takes_that_many_and_never_the_last() -> None:
    assert numbers(chosen(chain(), Choice("l2", count=4), "a")[1]) == {"a": 4}
    assert numbers(chosen(chain(), Choice("l2", count=99), "a")[1]) == {"a": 9}


def test_a_threshold_takes_what_scores_less() -> None:
    scores = np.abs(arrays(chain())["layers/dense/vars/0"]).sum(axis=0, dtype=np.float64)
    limit = float(np.sort(scores)[4])  # not less than itself
    _, found = chosen(chain(), Choice("l1", threshold=limit), "a")
    assert (
        list(found.units["a"]) == np.flatnonzero(scores < limit).tolist()
        and len(found.units["a"]) == 4
    )


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        (Choice("l1", ratio=0.3, round_to=8), 8),
        (Choice("l1", ratio=0.3, round_to=4), 8),
        (Choice("l1", ratio=0.3, round_to=5), 10),
        (Choice("l1", ratio=0.9, min_units=6), 6),
        (Choice("l1", ratio=0.9, max_ratio=0.25), 8),
        (Choice("l1", count=10, max_ratio=0.5, min_units=2), 5),
        (Choice("l1", ratio=0.1, per_layer={"a": 0.5}), 5),
        (Choice("l1", per_layer={"a*": 0.5}), 5),
        (Choice("l1", ratio=0.1, per_layer={'"a"': 0.5}), 5),
    ],
)
def test_what_is_left_is_round_and_not_too_few(choice: Choice, left: int) -> None:
    _, found = chosen(chain(), choice, "a")
    assert 10 - numbers(found).get("a", 0) == left


@pytest.mark.parametrize(
    "options",
    [{}, {"ratio": 0.1, "count": 2}, {"ratio": 0.0}, {"ratio": 1.0}, {"count": 0},
     {"ratio": 0.5, "max_ratio": 1}],
)  # fmt: skip
def test_a_choice_without_one_sensible_limit_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Choice("l1", **options)


def test_one_list_over_all_layers_takes_the_lowest_wherever_they_are() -> None:
    tensors = arrays(chain())
    tensors["layers/dense/vars/0"] *= 1000  # no unit of `a` is among the lowest
    _, found = chosen(chain(), Choice("l1", ratio=0.2, together=True), tensors=tensors)
    assert numbers(found) == {"b": 4}


def test_units_that_go_together_are_counted_once_for_each_layer() -> None:
    model, found = chosen(residual(2, width=8), Choice("l1", ratio=0.25))
    assert numbers(found) == dict.fromkeys(found.units, 2)
    closure = close(model.groups, found.units)
    check(closure)
    assert closure.coupled == {}
    summed = ("stem", "block0_2", "block1_2")
    assert len({tuple(found.units[name]) for name in summed}) == 1


def test_a_layer_that_was_named_and_can_lose_nothing_is_refused_with_the_reason() -> None:
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=4)
    odd = layer("Odd", "odd") | {"module": "mine", "registered_name": "mine>Odd"}
    config = net.functional(net("Dense", "out", net.call(odd, x), units=2))
    with pytest.raises(FrozenUnitsError, match="no unit of 'a' can be removed") as caught:
        chosen(config, Choice("l1", ratio=0.5), "a")
    assert "mine>Odd" in caught.value.why
    assert "a" not in [axis.address for axis in prunable_axes(analysed(config))]


def test_outputs_and_inputs_are_not_prunable() -> None:
    assert [axis.address for axis in prunable_axes(analysed(chain()))] == ["a", "b"]


def grouped_convolution() -> Any:
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 4), filters=12)
    x = net("Conv2D", "g", x, filters=8, groups=4)
    return net.functional(net("Conv2D", "out", x, filters=2))


@pytest.mark.parametrize("together", [False, True])
def test_each_run_of_a_grouped_convolution_loses_as_many(together: bool) -> None:
    model, found = chosen(grouped_convolution(), Choice("l1", ratio=0.6, together=together))
    check(close(model.groups, found.units))
    assert found.units
    for name, width in (("a", 3), ("g", 2)):
        if name in found.units:
            assert len(set(np.bincount(found.units[name] // width, minlength=4))) == 1


@pytest.mark.parametrize("seed", range(12))
def test_each_run_loses_as_many_however_the_scores_lie(seed: int) -> None:
    """By chance as many may go in all as may go, and more of one run than of another."""
    for choice in (
        Choice("random", ratio=0.5, together=True, seed=seed),
        Choice("random", target=Budget("parameters", "50%"), seed=seed),
    ):
        model, found = chosen(grouped_convolution(), choice)
        check(close(model.groups, found.units))
        assert found.units


def test_where_a_block_must_be_left_whole_rows_go() -> None:
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=24)
    x = net("Reshape", "fold", x, target_shape=[3, 8], shape=(None, 3, 8))
    x = net("Dense", "read", x, units=4)
    config = net.functional(net("Flatten", "flat", x, shape=(None, 12)))
    model, found = chosen(config, Choice("l1", ratio=0.3), "a")
    check(close(model.groups, found.units))
    assert len(found.units["a"]) == 6  # two of eight columns of three
    assert len(set(found.units["a"] % 8)) == 2


@pytest.mark.parametrize("kind", ["parameters", "flops"])
@pytest.mark.parametrize("amount", ["80%", "50%", "20%"])
@pytest.mark.parametrize("criterion", ["l1", "lamp"])
def test_a_budget_is_met_and_one_group_less_would_not_do(
    kind: str, amount: str, criterion: str
) -> None:
    choice = Choice(criterion, target=Budget(kind, amount), together=True)
    model, found = chosen(residual(6, width=32), choice)
    measure = measure_of(kind, model, None)
    goal = measure.whole * float(amount[:-1]) / 100
    closure = close(model.groups, found.units)
    check(closure)
    assert found.achieved == measure(closure.gone) <= goal
    assert measure.whole == getattr(count(model), kind)
    # Giving back the cheapest single group would break it: the prefix is the shortest.
    heads = np.unique(model.groups.of[closure.gone & (model.groups.owner >= 0)])
    again = []
    for head in heads:
        less = closure.gone.copy()
        less[model.groups.members(int(head))] = False
        again.append(measure(less))
    assert max(again) > goal


def test_a_budget_that_nothing_can_meet_names_the_closest() -> None:
    choice = Choice("l1", target=Budget("parameters", "1%"), min_units=16, together=True)
    with pytest.raises(CheckError, match="1% parameters cannot be reached") as caught:
        chosen(residual(2, width=32), choice)
    assert caught.value.exit_code == 5
    # What is left with 16 of 32 channels everywhere, counted by hand.
    stem = 3 * 3 * 3 * 16 + 16
    block = 2 * (3 * 3 * 16 * 16 + 16 + 4 * 16)
    closest = stem + 2 * block + 16 * 10 + 10
    assert f"{closest:,} of " in caught.value.why


@pytest.mark.parametrize(
    "choice",
    [
        Choice("l1", ratio=0.25),
        Choice("l1", ratio=0.25, together=True),
        Choice("l1", target=Budget("parameters", "80%")),
    ],
)
def test_what_is_tied_to_a_layer_that_stays_whole_stays_as_well(choice: Choice) -> None:
    model, found = chosen(residual(2, width=16), choice, whole=("block0_2",))
    assert set(found.units) == {"block0_1", "block1_1"}
    assert not close(model.groups, found.units).affected.keys() & {"stem", "block0_2", "block1_2"}
    assert found.skipped["stem"] == "its units are tied to those of 'block0_2', which is excluded"


def test_a_named_layer_that_is_tied_to_one_that_stays_whole_is_refused() -> None:
    with pytest.raises(FrozenUnitsError, match=r"tied to those of 'stem', which is excluded"):
        chosen(residual(1), Choice("l1", ratio=0.5), "block0_2", whole=("stem",))


@pytest.mark.parametrize("kind", ["parameters", "flops", "bytes"])
@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp", "digits_resnet", "digits_lstm"])
def test_the_sample_models_meet_a_budget_of_half(samples: Path, name: str, kind: str) -> None:
    with open_model(samples / f"{name}.keras") as source:
        model = analyse(source)
        measure = measure_of(kind, model, source)
        choice = Choice("l1", target=Budget(kind, "50%"), together=True)
        found = choose(
            model,
            Statistics(model, source),
            choice,
            prunable_axes(model),
            named=False,
            measure=measure,
        )
    assert found.achieved is not None
    # Not far below: one unit of a layer is a few per cent of these.
    assert 0.4 * measure.whole < found.achieved <= 0.5 * measure.whole


@pytest.mark.parametrize(
    ("amount", "goal"),
    [("40%", 400), ("1.2M", 1.2e6), ("500000", 5e5), ("2k", 2000), ("1.5 G", 1.5e9),
     ("3MB", 3e6), ("7 params", 7)],
)  # fmt: skip
def test_amounts_are_shares_or_numbers_with_the_usual_letters(amount: str, goal: float) -> None:
    assert Budget("parameters", amount).goal(1000.0) == pytest.approx(goal)


@pytest.mark.parametrize("amount", ["", "many", "-3", "0%", "100%", "1e3e3", "5 %%"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(UsageError):
        Budget("parameters", amount)
    with pytest.raises(UsageError, match="there is no budget of seconds"):
        Budget("seconds", "40%")


def shuffled() -> Any:
    """Two grouped convolutions with a channel shuffle between them."""
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 3), filters=12, kernel_size=[1, 1])
    x = net("Conv2D", "g", x, filters=12, groups=3, kernel_size=[1, 1])
    x = net("Reshape", "apart", x, target_shape=[8, 8, 3, 4], shape=(None, 8, 8, 3, 4))
    x = net("Permute", "swap", x, dims=[1, 2, 4, 3], shape=(None, 8, 8, 4, 3))
    x = net("Reshape", "back", x, target_shape=[8, 8, 12], shape=(None, 8, 8, 12))
    x = net("Conv2D", "h", x, filters=12, groups=3, kernel_size=[1, 1])
    return net.functional(net("Conv2D", "out", x, filters=2))


def concatenated() -> Any:
    """A grouped convolution whose runs lie across two layers, and one behind it with other runs."""
    net = Network()
    x = net.input("in", 8, 8, 3)
    x = [net("Conv2D", "a", x, filters=4), net("Conv2D", "b", x, filters=8)]
    x = net("Concatenate", "cat", x)
    x = net("Conv2D", "g", x, filters=12, groups=2)
    x = net("Conv2D", "h", x, filters=12, groups=3)
    return net.functional(net("Conv2D", "out", x, filters=2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [shuffled, concatenated])
@pytest.mark.parametrize(
    "limits",
    [
        {"ratio": 0.5},
        {"ratio": 0.5, "together": True},
        {"target": Budget("parameters", "75%")},
        {"target": Budget("parameters", "75%"), "round_to": 2, "min_units": 3},
    ],
)
def test_units_that_are_divided_in_several_ways_go_by_what_leaves_all_of_them_even(
    make: Any, limits: dict[str, Any], seed: int
) -> None:
    model, found = chosen(make(), Choice("random", seed=seed, **limits))
    closure = close(model.groups, found.units)
    check(closure)
    assert found.units
    if "target" in limits:
        measure = measure_of("parameters", model, None)
        assert found.achieved == measure(closure.gone) <= 0.75 * measure.whole
    if "round_to" in limits:
        left = {
            name: len(axis) - len(found.units.get(name, ()))
            for name, axis in model.map.axes.items()
        }
        assert all(
            number % 2 == 0 and number >= 3 for name, number in left.items() if name in found.units
        )


def test_no_more_than_it_takes_goes_together() -> None:
    """Two runs on one side and three on the other: six of twelve units, whatever the scores."""
    for seed in range(8):
        model, found = chosen(concatenated(), Choice("random", ratio=0.5, seed=seed), "g")
        check(close(model.groups, found.units))
        assert len(found.units["g"]) == 6
