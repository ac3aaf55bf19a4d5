"""Which tensors of the weights file are whose: the order in which Keras counts layers."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from kprune.graph import parse_model
from kprune.graph.order import snake_case, storage_names
from tests.small_models import Network, layer, sequential


def stores(config: dict[str, Any]) -> dict[str, str]:
    """By path of a layer, where its variables are."""
    return {found.path: found.store for found in parse_model(config).walk() if found.store}


def shuffled(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same model with its layers listed in another order, those of nested models too."""
    config = copy.deepcopy(config)
    layers = config["config"]["layers"]
    for number, entry in enumerate(layers):
        if "layers" in entry["config"]:
            nodes = {key: entry[key] for key in ("name", "inbound_nodes") if key in entry}
            layers[number] = {**shuffled(entry, seed), **nodes}
    if config["class_name"] == "Functional":
        random.Random(seed).shuffle(layers)
    return config


def two_branches() -> dict[str, Any]:
    net = Network()
    x = net.input("in", 4)
    p, q = net("Dense", "p", x, units=3), net("Dense", "q", x, units=3)
    return net.functional(net("Add", "sum", [p, q]))


def deep_and_short() -> dict[str, Any]:
    net = Network()
    x = net.input("in", 4)
    short = net("Dense", "short", x, units=3)
    deep = net("Dense", "deep_1", x, units=5)
    deep = net("Dense", "deep_2", deep, units=3)
    return net.functional(net("Add", "sum", [short, deep]))


def shared_at_two_depths() -> dict[str, Any]:
    """`shared` is called on the input and again behind `middle`; the first call is deeper."""
    net = Network()
    x = net.input("in", 4)
    own = layer("Dense", "shared", units=4)
    first = net.call(own, x)
    middle = net("Dense", "middle", first, units=4)
    second = net.call(own, middle)
    side = net("Dense", "side", x, units=4)
    return net.functional(net("Add", "sum", [side, second]))


def nested() -> dict[str, Any]:
    inner = Network("inner")
    y = inner("Dense", "low", inner.input("inner_in", 4), units=6)
    inside = inner.functional(inner("Dense", "high", y, units=5))
    tail = sequential(layer("Dense", "one", units=3), layer("ReLU", "relu"), shape=[5], name="tail")
    net = Network()
    x = net("Dense", "before", net.input("in", 4), units=4)
    x = net.call(inside, x, shape=(None, 5))
    x = net.call(tail, x, shape=(None, 3))
    return net.functional(net("Dense", "after", x, units=2))


MODELS = (two_branches, deep_and_short, shared_at_two_depths, nested)


def test_layers_at_one_depth_are_counted_as_their_consumer_lists_them() -> None:
    config = two_branches()
    assert stores(config) == {
        "in": "layers/input_layer",
        "p": "layers/dense",
        "q": "layers/dense_1",
        "sum": "layers/add",
    }
    config["config"]["layers"][3]["inbound_nodes"][0]["args"][0].reverse()
    assert stores(config)["q"] == "layers/dense"


def test_the_deeper_branch_is_counted_first_whoever_is_listed_first() -> None:
    found = stores(deep_and_short())
    assert found["deep_1"] == "layers/dense"
    # At the depth of deep_2 the walk back from the sum meets `short` first.
    assert found["short"] == "layers/dense_1"
    assert found["deep_2"] == "layers/dense_2"


def test_a_shared_layer_is_counted_where_its_deepest_call_stands() -> None:
    found = stores(shared_at_two_depths())
    assert [found[name] for name in ("shared", "middle", "side")] == [
        "layers/dense",
        "layers/dense_1",
        "layers/dense_2",
    ]


def test_layers_of_a_nested_model_are_stored_below_it_and_counted_anew() -> None:
    assert stores(nested()) == {
        "in": "layers/input_layer",
        "before": "layers/dense",
        "inner": "layers/functional",
        "inner/inner_in": "layers/functional/layers/input_layer",
        "inner/low": "layers/functional/layers/dense",
        "inner/high": "layers/functional/layers/dense_1",
        "tail": "layers/sequential",
        "tail/one": "layers/sequential/layers/dense",
        "tail/relu": "layers/sequential/layers/re_lu",
        "after": "layers/dense_1",
    }


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_a_config_lists_layers_changes_no_place(make: Any, seed: int) -> None:
    assert stores(shuffled(make(), seed)) == stores(make())


def test_a_sequential_is_counted_as_it_is_listed_without_its_input() -> None:
    config = sequential(
        layer("Dense", "z", units=3), layer("ReLU", "r"), layer("Dense", "a", units=2), shape=[4]
    )
    assert stores(config) == {"z": "layers/dense", "r": "layers/re_lu", "a": "layers/dense_1"}


def test_operations_hold_no_variables_and_count_for_nothing() -> None:
    net = Network()
    x = net.input("in", 4)
    x = net("Dense", "a", x, units=4)
    op = layer("Add", "plus") | {"module": "keras.src.ops.numpy", "registered_name": "Add"}
    x = net.call(op, x)
    config = net.functional(net("Add", "sum", [x, x]))
    model = parse_model(config)
    assert model.layers["plus"].store == "" and model.layers["plus"].is_operation
    assert model.layers["sum"].store == "layers/add"


def test_an_input_that_no_output_needs_is_a_layer_all_the_same() -> None:
    net = Network()
    x, unused = net.input("in", 4), net.input("unused", 2)
    config = net.functional(net("Dense", "a", x, units=3))
    assert [t.layer for t in net.inputs] == ["in", unused.layer]
    assert set(stores(config)) == {"in", "unused", "a"}


def test_a_layer_that_no_output_needs_is_not_there() -> None:
    net = Network()
    x = net.input("in", 4)
    net("Dense", "aside", x, units=9)
    model = parse_model(net.functional(net("Dense", "a", x, units=3)))
    assert list(model.layers) == ["in", "a"]
    assert model.layers["a"].store == "layers/dense"


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("Conv2D", "conv2d"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("MultiHeadAttention", "multi_head_attention"),
        ("LSTM", "lstm"),
        ("GRU", "gru"),
        ("ReLU", "re_lu"),
        ("PReLU", "p_re_lu"),
        ("BatchNormalization", "batch_normalization"),
        ("SeparableConv1D", "separable_conv1d"),
        ("RMSprop", "rm_sprop"),
    ],
)
def test_a_class_is_stored_under_its_name_in_snake_case(class_name: str, expected: str) -> None:
    assert snake_case(class_name) == expected


def test_classes_are_counted_each_for_itself_under_their_python_name() -> None:
    kinds = ["Dense", "ReLU", "Dense", "GroupQueryAttention", "Dense", "ReLU"]
    assert storage_names(kinds) == [
        "dense", "re_lu", "dense_1", "grouped_query_attention", "dense_2", "re_lu_1",
    ]  # fmt: skip


def test_five_thousand_layers_in_a_row_need_no_recursion() -> None:
    net = Network()
    x = net.input("in", 2)
    for number in range(5000):
        x = net("Dense", f"d{number}", x, units=2)
    found = stores(shuffled(net.functional(x), 1))
    assert found["d0"] == "layers/dense" and found["d4999"] == "layers/dense_4999"


def test_keras_2_counts_what_is_passed_by_name_as_it_is_written() -> None:
    """Not by name, as Keras 3 does: `call_kwargs.values()` in tf_keras/src/engine/node.py."""

    def row(name: str, **kwargs: Any) -> list[Any]:
        return [[[name, 0, 0, kwargs]]]

    listed = [
        layer("InputLayer", "x", batch_input_shape=[None, 6, 5]) | {"inbound_nodes": []},
        layer("Dense", "v", units=5) | {"inbound_nodes": row("x")},
        layer("Dense", "k", units=5) | {"inbound_nodes": row("x")},
        layer("MultiHeadAttention", "mha", num_heads=2, key_dim=3)
        | {"inbound_nodes": row("x", value=["v", 0, 0], key=["k", 0, 0])},
    ]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["mha", 0, 0]]}
    named = [{**entry, "name": entry["config"]["name"]} for entry in listed]
    found = stores({"class_name": "Functional", "config": {"name": "m", "layers": named, **ends}})
    assert (found["v"], found["k"]) == ("layers/dense", "layers/dense_1")
