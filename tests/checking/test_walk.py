"""What the walk takes for a contradiction: models that agree with themselves, and the same with one thing changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kprune.checking import Outline
from kprune.checking.output import complaints, require_sound
from kprune.errors import DamagedFileError, UnsoundOutputError
from tests.small_models import Network, arrays, layer, sequential


def constant(*shape: int) -> dict[str, Any]:
    value = {"class_name": "__numpy__", "config": {"value": np.zeros(shape).tolist()}}
    return {"class_name": "Constant", "config": {"value": value}}


def network() -> dict[str, Any]:
    """Convolutions, a sum, recurrent layers, attention, arrays, a nested model."""
    net = Network()
    image = net.input("image", 8, 8, 3)
    x = net("Conv2D", "conv", image, filters=6, bias_initializer=constant(6))
    x = net("BatchNormalization", "norm", x)
    x = net("DepthwiseConv2D", "deep", x, depth_multiplier=2, shape=(None, 8, 8, 12))
    x = net("Conv2D", "wide", x, filters=6, groups=3)
    x = net("Add", "sum", [x, net("Conv2D", "other", image, filters=6)])
    x = net("Reshape", "rows", x, target_shape=[-1, 6], shape=(None, 64, 6))
    x = net("LSTM", "lstm", x, units=4, return_sequences=True)
    x = net("GRU", "gru", x, units=5, shape=(None, 5))
    inner = sequential(
        layer("Dense", "hidden", units=7), layer("Dense", "last", units=3), shape=[5], name="inner"
    )
    x = net.call(inner, x, shape=(None, 3))
    joined = net("Concatenate", "join", [x, x], shape=(None, 6))
    return net.functional(net("Dense", "out", joined, units=2))


def outline(config: dict[str, Any], **shapes: tuple[int, ...]) -> Outline:
    found = {path: array.shape for path, array in arrays(config).items()}
    return Outline(config, {**found, **shapes})


def entry(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(own for own in config["config"]["layers"] if own["config"]["name"] == name)


def test_a_model_that_agrees_with_itself_is_passed() -> None:
    assert complaints(outline(network())) == []


def test_every_size_of_every_weight_is_held_against_the_config() -> None:
    whole = outline(network())
    for path, shape in whole.shapes.items():
        for axis in range(len(shape)):
            other = (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :])
            found = complaints(Outline(whole.config, {**whole.shapes, path: other}))
            assert len(found) == 1 and str(other) in found[0].text, path


def test_a_weight_too_few_or_too_many_is_noticed() -> None:
    whole = outline(network())
    path = "layers/conv2d/vars/1"
    fewer = {key: shape for key, shape in whole.shapes.items() if key != path}
    more = {**whole.shapes, "layers/conv2d/vars/2": (6,)}
    for shapes in (fewer, more):
        assert [found.layer for found in complaints(Outline(whole.config, shapes))] == ["conv"]


def units(config: dict[str, Any]) -> None:
    entry(config, "lstm")["config"]["units"] = 3


def array(config: dict[str, Any]) -> None:
    entry(config, "conv")["config"]["bias_initializer"] = constant(7)


def summand(config: dict[str, Any]) -> None:
    entry(config, "other")["config"]["filters"] = 5


def target(config: dict[str, Any]) -> None:
    entry(config, "rows")["config"]["target_shape"] = [-1, 5]


def nested_input(config: dict[str, Any]) -> None:
    inner = entry(config, "inner")["config"]
    inner["layers"][0]["config"]["batch_shape"] = [None, 4]


def nested_repetition(config: dict[str, Any]) -> None:
    entry(config, "inner")["config"]["build_input_shape"] = [None, 4]


def first_of_a_sequential(config: dict[str, Any]) -> None:
    inner = entry(config, "inner")["config"]
    inner["layers"][1]["config"]["batch_input_shape"] = [None, 4]


def built(config: dict[str, Any]) -> None:
    entry(config, "out")["build_config"] = {"input_shape": [None, 7]}


def recorded(config: dict[str, Any]) -> None:
    entry(config, "norm")["inbound_nodes"][0]["args"][0]["config"]["shape"] = [None, 8, 8, 5]


def graph(config: dict[str, Any]) -> None:
    del entry(config, "norm")["inbound_nodes"][0]["args"][0]["config"]["keras_history"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (units, "lstm"), (array, "conv"), (summand, "other"), (target, "rows"),
        (nested_input, "inner/input"), (nested_repetition, "inner/input"),
        (first_of_a_sequential, "inner/hidden"), (built, "out"), (recorded, "norm"), (graph, ""),
    ],
)  # fmt: skip
def test_a_config_that_contradicts_itself_is_noticed(
    change: Callable[[dict[str, Any]], None], where: str
) -> None:
    config = network()
    shapes = outline(config).shapes
    change(config)
    assert where in {found.layer for found in complaints(Outline(config, shapes))}


def test_arrays_that_operations_take_from_the_config_are_held_against_their_tensors() -> None:
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=4)
    y = net("BatchNorm", "norm", x, axis=-1)
    y = net("Multiply", "times", y)
    config = net.functional(net("Dense", "out", y, units=2))
    values = [{"class_name": "__numpy__", "config": {"value": [1.0] * 4}} for _ in range(3)]
    for name, own in (("norm", values[:2]), ("times", values[2:])):
        spec = entry(config, name)
        spec |= {"module": "keras.src.ops.numpy", "registered_name": None}
        spec["inbound_nodes"][0]["args"] += own
    whole = outline(config)
    assert complaints(whole) == []
    for value, name in zip(values, ("norm", "norm", "times"), strict=True):
        changed = copy.deepcopy(config)
        for own in entry(changed, name)["inbound_nodes"][0]["args"]:
            if own == value:
                own["config"]["value"] = [1.0] * 3
        assert [found.layer for found in complaints(Outline(changed, whole.shapes))] == [name]


def test_what_an_optimizer_remembers_has_the_shape_of_a_weight() -> None:
    states = {"optimizer/vars/0": (), "optimizer/vars/2": (3, 3, 3, 6), "optimizer/vars/3": (6,)}
    assert complaints(outline(network(), **states)) == []
    found = complaints(outline(network(), **{**states, "optimizer/vars/2": (3, 3, 3, 7)}))
    assert [own.about for own in found] == ["optimizer/vars/2"]


def test_layers_that_are_not_kerass_own_are_passed_over() -> None:
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=4)
    mine = layer("Dense", "mine", units=4) | {"module": "mine", "registered_name": "mine>Dense"}
    config = net.functional(net.call(mine, x, shape=(None, 4)))
    shapes = {"layers/dense/vars/0": (5, 4), "layers/dense/vars/1": (4,)}
    assert complaints(Outline(config, {**shapes, "layers/dense_1/vars/0": (9, 9)})) == []


def test_what_was_wrong_before_is_no_fault_of_the_change() -> None:
    wrong = outline(network(), **{"layers/conv2d/vars/1": (5,)})
    worse = Outline(wrong.config, {**wrong.shapes, "layers/lstm/cell/vars/2": (15,)})
    require_sound(wrong, lambda: wrong)
    with pytest.raises(UnsoundOutputError) as caught:
        require_sound(worse, lambda: wrong)
    assert caught.value.exit_code == 1 and caught.value.where == "lstm"
    assert caught.value.why == (
        "the cell/bias of 'lstm' has shape (15,), but the config requires (16,)"
    )
    assert "please report this message" in caught.value.do


def test_what_was_wrong_before_and_reaches_another_layer_is_damage_of_the_file() -> None:
    """A mask behind a layer whose recorded shape is wrong is called on that shape, too."""

    def recorded(name: str, width: int) -> Outline:
        net = Network()
        a = net("Dense", "a", net.input("in", 4), units=6)
        config = net.functional(net("Dropout", name, a, rate=0.1))
        told = config["config"]["layers"][2]["inbound_nodes"][0]["args"][0]["config"]
        told["shape"] = [None, width]
        return outline(config)

    require_sound(recorded("b", 6))
    with pytest.raises(DamagedFileError) as caught:
        require_sound(recorded("mask", 7), lambda: recorded("b", 7))
    assert (caught.value.exit_code, caught.value.where) == (4, "b")
    assert caught.value.why == (
        "the recorded shape of 'a' is (None, 7), where 'b' is called on (None, 6)"
    )
