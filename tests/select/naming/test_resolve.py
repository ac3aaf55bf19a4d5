"""From names and indices to units of a model, or to a message that says what there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.errors import IndexRangeError, SpecError, UnknownLayerError, UsageError
from kprune.select.naming.layer_names import axes_named, layers_named
from kprune.select.naming.resolve import excluded, resolve, specs_from
from kprune.select.naming.specs import parse_layer
from kprune.select.ranking.statistics import Statistics
from tests.small_models import Arrays, Network, analysed, arrays, layer, sequential


def model() -> tuple[Analysis, Statistics]:
    inner = sequential(
        layer("Dense", "low", units=4), layer("ReLU", "relu"), shape=[6], name="stem"
    )
    net = Network()
    x = net("Dense", "dense_1", net.input("in", 5), units=8)
    x = net("Dense", "dense_2", net("ReLU", "relu", x), units=6)
    x = net.call(inner, x, shape=(None, 4))
    config = net.functional(net("Dense", "odd:name *", x, units=3))
    tensors = arrays(config)
    found = analysed(config, tensors)
    return found, Statistics(found, Arrays(tensors))


def units(*specs: Any) -> dict[str, list[int]]:
    found, statistics = model()
    resolved = resolve(found, specs_from(specs[0] if len(specs) == 1 else list(specs)), statistics)
    return {address: list(map(int, indices)) for address, indices in resolved.items()}


def test_a_mapping_and_specs_say_the_same() -> None:
    assert units({"dense_1": [3, 1, 3]}) == units("dense_1:1,3") == {"dense_1": [1, 3]}
    assert units({"dense_1": np.array([7])}) == units("dense_1:-1") == {"dense_1": [7]}


def test_a_layer_that_is_named_twice_loses_what_either_says() -> None:
    assert units("dense_1:0-2", "dense_1:2,5") == {"dense_1": [0, 1, 2, 5]}


def test_a_glob_means_every_layer_with_units_that_matches_and_no_input() -> None:
    assert units("dense_*:0") == {"dense_1": [0], "dense_2": [0]}
    assert units("*:0") == {name: [0] for name in ("dense_1", "dense_2", "stem/low", "odd:name *")}


def test_a_layer_of_a_nested_model_goes_by_its_path() -> None:
    assert units("stem/low:0-1") == {"stem/low": [0, 1]}


def test_a_quoted_name_is_taken_to_the_letter() -> None:
    assert units('"odd:name *":2') == {"odd:name *": [2]}


def test_an_expression_sees_the_weights_of_its_own_layer() -> None:
    _, statistics = model()
    l1 = np.abs(statistics.source.read("layers/dense/vars/0")).sum(axis=0)
    limit = float(np.sort(l1)[3])
    assert units(f"dense_1:where(l1<{limit!r})") == {"dense_1": np.flatnonzero(l1 < limit).tolist()}


def test_an_expression_may_choose_nothing_of_some_layers_but_not_of_all() -> None:
    assert units("dense_*:where(index>=6)") == {"dense_1": [6, 7]}
    with pytest.raises(UsageError, match="no unit of the layers that match is chosen"):
        units("dense_*:where(index>99)")


def test_an_unknown_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownLayerError, match="there is no layer called 'dense_3'") as caught:
        units("dense_3:0")
    assert "did you mean" in caught.value.what and "dense_1" in caught.value.what
    with pytest.raises(UnknownLayerError, match=r"no layer matches 'conv\*'"):
        units("conv*:0")


def test_an_axis_that_a_layer_does_not_have_is_answered_with_those_it_has() -> None:
    with pytest.raises(
        UnknownLayerError, match="'dense_1' has no axis of units called 'heads'"
    ) as caught:
        units("dense_1.heads:0")
    assert caught.value.do == "it has units"
    assert units("dense_1.units:0") == {"dense_1": [0]}


def test_a_layer_without_units_tells_whose_pass_through_it() -> None:
    with pytest.raises(
        UsageError, match=r"layer 'relu' \(ReLU\) has no units of its own"
    ) as caught:
        units("relu:0")
    assert caught.value.why == "the units that pass through it belong to dense_1"
    assert caught.value.exit_code == 2


def test_an_index_out_of_range_is_answered_with_the_range() -> None:
    with pytest.raises(IndexRangeError) as caught:
        units("dense_1:8")
    assert "dense_1" in str(caught.value) and "7" in str(caught.value)


@pytest.mark.parametrize("given", [3, 2.5, {1, 2}])
def test_units_of_another_type_are_refused(given: Any) -> None:
    with pytest.raises(SpecError, match=f"units are given as a {type(given).__name__}"):
        specs_from(given)


def test_what_is_excluded_goes_by_name_and_glob() -> None:
    found, _ = model()
    assert excluded(found, ["dense_*", "stem/low"]) == {"dense_1", "dense_2", "stem/low"}


def test_masks_may_name_layers_without_units() -> None:
    found, _ = model()
    assert layers_named(found, parse_layer("relu")) == ["relu"]
    assert layers_named(found, parse_layer("stem")) == ["stem"]
    assert layers_named(found, parse_layer("*relu")) == ["relu", "stem/relu"]
    with pytest.raises(UnknownLayerError):
        layers_named(found, parse_layer("relv"))


def test_features_of_the_input_are_units_that_only_their_name_reaches() -> None:
    found, _ = model()
    (axis,) = axes_named(found, parse_layer("in"))
    assert (axis.name, len(axis)) == ("features", 5)
    assert all(one.name != "features" for one in axes_named(found, parse_layer("*")))
