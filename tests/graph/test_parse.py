"""Configs of both dialects become the same graph; what contradicts itself is damage."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

from kprune.errors import CannotPruneError, DamagedFileError, LimitError
from kprune.graph import Constant, TensorRef, parse_model
from kprune.graph.model import leaves, map_leaves
from kprune.graph.parse import layer_inside, make_layer
from kprune.labels.closure import close
from kprune.rules import builtin
from kprune.surgery.remove import remove
from tests.small_models import Network, analysed, arrays, layer, residual, sequential


def chain() -> dict[str, Any]:
    net = Network()
    x = net("Dense", "a", net.input("in", 4), units=3)
    return net.functional(net("Dense", "b", x, units=2))


def diamond() -> dict[str, Any]:
    net = Network()
    x = net.input("in", 4)
    p, q = net("Dense", "p", x, units=3), net("Dense", "q", x, units=3)
    return net.functional(net("Add", "sum", [p, q]), p)


def as_keras_2(config: dict[str, Any]) -> dict[str, Any]:
    """The same model as Keras 2 wrote it: rows of names and numbers, no shapes, no modules."""
    config = copy.deepcopy(config)
    for entry in config["config"]["layers"]:
        del entry["module"], entry["registered_name"]
        if "batch_shape" in entry["config"]:
            entry["config"]["batch_input_shape"] = entry["config"].pop("batch_shape")
        nodes = []
        for node in entry["inbound_nodes"]:
            (told,) = node["args"]
            told = told if isinstance(told, list) else [told]
            nodes.append([[*tensor["config"]["keras_history"], node["kwargs"]] for tensor in told])
        entry["inbound_nodes"] = nodes
    return config


def edges(config: dict[str, Any]) -> list[tuple[str, int, list[tuple[str, int, int]]]]:
    return [
        (call.layer.name, call.node, [ref.key for ref in call.inputs])
        for call in parse_model(config).calls
    ]


@pytest.mark.parametrize("make", [chain, diamond, lambda: residual(3)])
def test_both_dialects_give_the_same_calls_and_the_same_places(make: Any) -> None:
    new, old = make(), as_keras_2(make())
    assert edges(new) == edges(old)
    places = [[(found.name, found.store) for found in parse_model(c).walk()] for c in (new, old)]
    assert places[0] == places[1]


def test_a_keras_2_row_for_one_tensor_may_stand_alone() -> None:
    config = as_keras_2(chain())
    entry = config["config"]["layers"][1]
    entry["inbound_nodes"] = [entry["inbound_nodes"][0][0]]
    assert edges(config) == edges(chain())


def test_a_keras_2_call_may_name_tensors_among_its_keywords() -> None:
    config = as_keras_2(diamond())
    entry = config["config"]["layers"][3]
    entry["inbound_nodes"] = [[["p", 0, 0, {"other": ["q", 0, 0], "scale": 2}]]]
    call = parse_model(config).calls[-1]
    assert [ref.layer for ref in call.inputs] == ["p", "q"] and call.kwargs["scale"] == 2


def test_a_call_comes_after_those_that_make_its_inputs() -> None:
    config = residual(4)
    random.Random(3).shuffle(config["config"]["layers"])
    done: set[tuple[str, int]] = set()
    for call in parse_model(config).calls:
        assert all((ref.layer, ref.node) in done for ref in call.inputs)
        done.add((call.layer.name, call.node))


def test_shapes_and_their_records_are_those_of_the_config() -> None:
    config = chain()
    ref = parse_model(config).calls[2].inputs[0]
    assert ref.key == ("a", 0, 0) and ref.shape == (None, 3)
    assert ref.record is config["config"]["layers"][2]["inbound_nodes"][0]["args"][0]["config"]


def test_arguments_of_operations_are_plain_values() -> None:
    config = chain()
    entry = config["config"]["layers"][2]
    told = entry["inbound_nodes"][0]["args"]
    told += [
        {"class_name": "__numpy__", "config": {"value": [[1, 2]], "dtype": "float32"}},
        {"class_name": "__tuple__", "config": {"value": [1, None]}},
        {"class_name": "__slice__", "config": {"start": None, "stop": 3, "step": 2}},
        {"class_name": "__ellipsis__", "config": {}},
        {"axis": 1},
    ]
    call = parse_model(config).calls[2]
    constant = call.args[1]
    assert isinstance(constant, Constant)
    np.testing.assert_array_equal(constant.value, [[1, 2]])
    assert call.args[2:] == [(1, None), slice(None, 3, 2), Ellipsis, {"axis": 1}]


def test_dicts_are_flattened_by_sorted_keys_as_keras_does() -> None:
    assert list(leaves({"b": 1, "a": [2, {"d": 3, "c": 4}]})) == [2, 4, 3, 1]
    assert map_leaves(lambda n: n + 1, {"b": 1, "a": [2, (3,)]}) == {"b": 2, "a": [3, (4,)]}


def test_inputs_and_outputs_keep_their_structure() -> None:
    config = diamond()
    config["config"]["output_layers"] = {"z": ["p", 0, 0], "a": [["sum", 0, 0]]}
    model = parse_model(config)
    assert model.outputs == {"z": TensorRef("p", 0, 0), "a": [TensorRef("sum", 0, 0)]}


def test_calls_of_a_nested_model_are_counted_from_1_among_the_outputs() -> None:
    inner = Network("inner")
    inside = inner.functional(inner("Dense", "d", inner.input("inner_in", 4), units=4))
    net = Network()
    first = net.call(inside, net.input("in", 4))
    second = net.call(inside, first)
    config = net.functional(first, second)
    assert config["config"]["output_layers"] == [["inner", 1, 0], ["inner", 2, 0]]
    assert [ref.key for ref in parse_model(config).outputs] == [("inner", 0, 0), ("inner", 1, 0)]


def test_a_layer_inside_a_frozen_model_is_frozen() -> None:
    inner = sequential(layer("Dense", "one", units=3), shape=[4], name="inner")
    inner["config"]["trainable"] = False
    model = parse_model(sequential(inner, layer("Dense", "two", units=2), shape=[4]))
    trainable = {found.path: found.trainable for found in model.walk() if found.model is None}
    assert trainable["inner/one"] is False and trainable["two"] is True


def test_one_object_in_two_models_is_stored_once_and_knows_its_twin() -> None:
    shared = layer("Dense", "shared", units=4) | {"shared_object_id": 77}
    net = Network()
    x = net.input("in", 4)
    one = net.call(sequential(shared, shape=[4], name="one"), x)
    two = net.call(sequential(shared, shape=[4], name="two"), one)
    found = {item.path: item for item in parse_model(net.functional(two)).walk()}
    assert found["two/shared"].twin is found["one/shared"]
    assert found["two/shared"].store == found["one/shared"].store


def test_a_class_of_another_package_is_not_keras_own() -> None:
    theirs = layer("Dense", "d", units=2) | {"registered_name": "mine>Dense", "module": "keras.x"}
    foreign = layer("Dense", "e", units=2) | {"module": "kerasish.layers"}
    model = parse_model(sequential(theirs, foreign, layer("Dense", "f", units=2), shape=[4]))
    assert [found.is_builtin for found in list(model.layers.values())[1:]] == [False, False, True]


def damaged(change: Any, make: Any = chain) -> DamagedFileError:
    config = make()
    change(config, config["config"]["layers"])
    with pytest.raises(DamagedFileError) as caught:
        parse_model(config)
    assert caught.value.exit_code == 4
    return caught.value


def _history(layer: Any) -> Any:
    return layer["inbound_nodes"][0]["args"][0]["config"]["keras_history"]


def test_calls_in_a_circle_are_damage() -> None:
    def circle(config: Any, layers: Any) -> None:
        _history(layers[1])[:] = ["b", 0, 0]

    assert "the calls form a circle" in damaged(circle).why


def test_two_layers_of_one_name_are_damage() -> None:
    def twice(config: Any, layers: Any) -> None:
        layers.append(copy.deepcopy(layers[1]))

    assert "two layers are named 'a'" in damaged(twice).why


def test_a_tensor_of_a_layer_that_is_missing_is_damage() -> None:
    def missing(config: Any, layers: Any) -> None:
        del layers[1]

    assert "a tensor of call 0 of 'a', which is not there" in damaged(missing).why


def test_a_second_call_that_the_config_does_not_have_is_damage() -> None:
    def second(config: Any, layers: Any) -> None:
        config["config"]["output_layers"] = ["b", 1, 0]

    assert "call 1 of 'b'" in damaged(second).why


@pytest.mark.parametrize(
    "change",
    [
        lambda c, layers: layers[1].pop("config"),
        lambda c, layers: layers[1].pop("class_name"),
        lambda c, layers: c["config"].pop("output_layers"),
        lambda c, layers: layers[1].update(inbound_nodes=[{"args": 3}]),
        lambda c, layers: layers.__setitem__(1, None),
        lambda c, layers: layers[1].update(config=None),
        lambda c, layers: c["config"].update(output_layers=None),
        lambda c, layers: c["config"].update(layers=[]),
        lambda c, layers: layers[1].update(inbound_nodes=[[["in", 0]]]),
        lambda c, layers: _history(layers[2]).__setitem__(0, ["a"]),
        lambda c, layers: _history(layers[2]).__setitem__(1, "0"),
        lambda c, layers: _history(layers[2]).__setitem__(2, [0]),
        lambda c, layers: _history(layers[2]).__setitem__(2, True),
    ],
)
def test_a_config_with_a_hole_is_damage_not_a_traceback(change: Any) -> None:
    assert "does not describe a model" in damaged(change).what


def test_a_model_nested_too_deeply_is_damage() -> None:
    config = sequential(layer("Dense", "d", units=2), shape=[2], name="m0")
    for number in range(1, 80):
        config = {
            **copy.copy(config),
            "config": {"name": f"m{number}", "layers": [config], "build_input_shape": [None, 2]},
        }
    with pytest.raises(DamagedFileError):
        parse_model(config)


@pytest.mark.parametrize("config", [{"units": 3}, {"layers": 3}, {}, None])
def test_a_subclassed_model_holds_no_graph(config: Any) -> None:
    with pytest.raises(CannotPruneError, match="holds no graph") as caught:
        parse_model({"class_name": "MyModel", "module": "mine", "config": config})
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"class_name": None},
        {"class_name": ["Functional"]},
        {"config": 3},
        {"config": {"layers": {}}},
    ],
)
def test_a_model_of_the_wrong_types_is_damage_and_no_subclass(wrong: dict[str, Any]) -> None:
    with pytest.raises(DamagedFileError, match="does not describe a model"):
        parse_model({**chain(), **wrong})


def test_an_input_that_is_computed_from_others_is_damage() -> None:
    config = chain()
    config["config"]["input_layers"] = ["a", 0, 0]
    with pytest.raises(DamagedFileError, match="the input 'a' is computed from others"):
        parse_model(config)


def test_parsing_changes_nothing_in_the_config() -> None:
    config = residual(2)
    before = copy.deepcopy(config)
    parse_model(config)
    assert config == before


@pytest.mark.parametrize("shape", [None, 3, "x", [None, "x"], [None, [4]], [[None, 4]], {}, [None]])
def test_what_is_no_shape_is_passed_over(shape: Any) -> None:
    for place in ("model", "layer"):
        config = sequential(layer("Dense", "a", units=4), layer("Dense", "b", units=2), shape=[4])
        tensors = arrays(config)
        if place == "model":
            config["config"]["build_input_shape"] = shape
        else:
            config["config"]["layers"][1]["build_config"] = {"input_shape": shape}
            config["config"]["layers"][2]["build_config"] = shape
        analysis = analysed(config, tensors)
        closure = close(analysis.groups, {"a": np.array([1])})
        kept = {tensor.path: tensor.keep for tensor in remove(analysis, closure).tensors}
        assert kept["layers/dense/vars/1"][0].tolist() == [0, 2, 3]


@pytest.mark.parametrize("width", [1 << 32, 10**18])
@pytest.mark.parametrize("field", ["batch_shape", "units"])
def test_more_units_than_fit_into_memory_are_refused(field: str, width: int) -> None:
    config = sequential(layer("Dense", "a", units=4), layer("Dense", "b", units=2), shape=[4])
    tensors = arrays(config)
    config["config"]["layers"][field == "units"]["config"][field] = (
        width if field == "units" else [None, width]
    )
    with pytest.raises(LimitError) as refused:
        analysed(config, tensors)
    assert "units; limit units, 1,000,000" in refused.value.why


@pytest.mark.parametrize(
    "shape",
    [
        "abc",
        [None, "4"],
        [None, 2.0],
        [None, True],
        [None, -1],
        [[None, 4]],
        [1] * 40,
        [None, 1 << 63],
        {"a": 1},
    ],
)
def test_an_input_of_a_shape_that_no_tensor_has_is_damage(shape: Any) -> None:
    config = sequential(layer("Dense", "a", units=4), layer("Dense", "b", units=2), shape=[4])
    tensors = arrays(config)
    config["config"]["layers"][0]["config"]["batch_shape"] = shape
    with pytest.raises(DamagedFileError, match="a shape that no tensor has"):
        analysed(config, tensors)


@pytest.mark.parametrize("units", ["missing", "x", None, 0, -3, 2.5, True])
def test_a_layer_without_a_number_of_units_is_damage(units: Any) -> None:
    config = sequential(layer("Dense", "a", units=4), layer("Dense", "b", units=2), shape=[4])
    tensors = arrays(config)
    held = config["config"]["layers"][1]["config"]
    held.pop("units") if units == "missing" else held.update(units=units)
    with pytest.raises(DamagedFileError, match="is not that of a Dense"):
        analysed(config, tensors)


def test_a_setting_that_keras_has_a_default_for_may_be_missing() -> None:
    """Then nothing goes through that layer, and the rest of the file is as free as before."""
    config = sequential(layer("Dense", "a", units=4), layer("Dense", "b", units=3), shape=[4])
    config["config"]["layers"].append(layer("Dense", "c", units=2))
    tensors = arrays(config)
    del config["config"]["layers"][3]["config"]["use_bias"]
    analysis = analysed(config, tensors)
    closure = close(analysis.groups, {"a": np.array([1])})
    kept = {tensor.path: tensor.keep for tensor in remove(analysis, closure).tensors}
    assert kept["layers/dense/vars/1"][0].tolist() == [0, 2, 3]


def test_a_layer_of_keras_2_that_is_registered_as_users_register_theirs_is_kerass_own() -> None:
    """InceptionResNetV2's: of its units a third were free."""
    own = {"name": "scale", "trainable": True, "dtype": "float32", "scale": 0.17}
    in_h5 = make_layer("scale", {"class_name": "Custom>CustomScaleLayer", "config": own}, "")
    registered = {"registered_name": "Custom>CustomScaleLayer", "module": None}
    in_keras = make_layer(
        "scale", {"class_name": "CustomScaleLayer", "config": own, **registered}, ""
    )
    of_a_user = make_layer(
        "scale", {"class_name": "Custom>CustomScaleLayer", "config": {**own, "bias": 1}}, ""
    )
    rules = builtin()
    assert in_h5.is_builtin and in_keras.is_builtin and not of_a_user.is_builtin
    assert rules.find(in_h5) is rules.find(in_keras) is rules.layers["CustomScaleLayer"]
    assert rules.find(of_a_user) is None


@pytest.mark.parametrize("entry", ["units", "padding", "strides", "data_format"])
def test_what_is_no_object_in_any_layer_is_none(entry: str) -> None:
    dense = {"class_name": "Dense", "config": {"name": "a", "units": 3, entry: {"a": 1}}}
    with pytest.raises(DamagedFileError, match=f"the {entry} of layer 'a'"):
        parse_model({"class_name": "Sequential", "config": {"layers": [dense]}})


def test_what_is_inside_a_layer_and_is_none_is_damage() -> None:
    config = sequential(layer("Dense", "a", units=4), shape=[4])
    outer = next(iter(parse_model(config).layers.values()))
    for inside in ({"config": {}}, {"class_name": "LSTM", "config": {"units": {}}}):
        with pytest.raises(DamagedFileError, match="is no layer"):
            layer_inside(outer, inside, "forward_layer")
