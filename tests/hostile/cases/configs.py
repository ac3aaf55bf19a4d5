"""Configs that are JSON and describe no model: circles, layers that are not there, shapes that cannot be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.hostile.case import add_all
from tests.hostile.seeds import Config, changed_config, keras, layer, weights
from tests.small_models import Network
from tests.small_models import layer as entry


def of(change: Callable[[Config], Any]) -> Callable[[], bytes]:
    return lambda: changed_config(change)


def source_of(config: Config, name: str) -> Any:
    """The history of what a layer is called on, to be changed in place."""
    return layer(config, name)["inbound_nodes"][0]["args"][0]["config"]["keras_history"]


def moved(name: str, *history: Any) -> Callable[[], bytes]:
    """A layer is called on something else."""

    def change(config: Config) -> None:
        source_of(config, name)[: len(history)] = history

    return of(change)


def setting(name: str, key: str, value: Any) -> Callable[[], bytes]:
    """A layer's config says something else."""
    return of(lambda config: layer(config, name)["config"].update({key: value}))


def called(name: str, new: str) -> Callable[[], bytes]:
    def change(config: Config) -> None:
        layer(config, name)["name"] = new
        layer(config, name)["config"]["name"] = new

    return of(change)


def without_name(config: Config) -> None:
    entry = layer(config, "a")
    del entry["config"]["name"], entry["name"]


def twice(config: Config) -> None:
    config["config"]["layers"].append(copy.deepcopy(layer(config, "a")))


def gone(name: str) -> Callable[[], bytes]:
    def change(config: Config) -> None:
        layers = config["config"]["layers"]
        layers[:] = [one for one in layers if one["config"]["name"] != name]

    return of(change)


def never_called(config: Config) -> None:
    layer(config, "a")["inbound_nodes"] = []


def no_inputs(config: Config) -> None:
    layer(config, "a")["inbound_nodes"][0]["args"] = []


def in_a_circle(config: Config) -> None:
    source_of(config, "a")[0] = "b"


def called_again(config: Config) -> None:
    """A shared layer whose second call sees another width than the first."""
    again = copy.deepcopy(layer(config, "bn")["inbound_nodes"][0])
    again["args"][0]["config"]["keras_history"] = ["in", 0, 0]
    layer(config, "bn")["inbound_nodes"].append(again)
    source_of(config, "b")[1] = 1


def itself(config: Config) -> None:
    """A model that holds itself as a layer, as far as its names go."""
    config["config"]["layers"].append(
        {"class_name": "Functional", "name": "model", "config": copy.deepcopy(config["config"]),
         "inbound_nodes": copy.deepcopy(layer(config, "a")["inbound_nodes"])}
    )  # fmt: skip
    config["config"]["output_layers"] = ["model", 0, 0]


def doubled(times: int) -> bytes:
    """A tensor joined with itself, again and again: its width doubles each time."""
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=6)
    for number in range(times):
        x = net("Concatenate", f"join_{number}", [x, x], shape=(None, 6 << (number + 1)), axis=-1)
    return keras(config=net.functional(net("Dense", "b", x, units=3)))


def wide(kind: str, shape: tuple[int | None, ...], gives: tuple[Any, ...], **config: Any) -> bytes:
    """A model that says it has many units, of which no weights are there."""
    net = Network()
    x = net(kind, "a", net.input("in", *shape), shape=gives, **config)
    return keras(config=net.functional(net("Dense", "b", x, units=3)))


def models_in_models(depth: int) -> bytes:
    """A Sequential in a Sequential, and so on."""
    inner: Config = entry("Dense", "a", units=6)
    for number in range(depth):
        inner = {
            "module": "keras", "class_name": "Sequential", "registered_name": None,
            "config": {"name": f"s{number}", "layers": [inner]},
        }  # fmt: skip
    return keras(config=inner)


def many(layers: int) -> bytes:
    """A long chain of layers without weights."""
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=6)
    for number in range(layers):
        x = net("ReLU", f"relu_{number}", x)
    return keras(config=net.functional(x), weights=weights())


add_all("config", {
    "layers in a circle": (of(in_a_circle),),
    "a layer called on itself": (moved("a", "a"),),
    "a layer called on one that is not there": (moved("a", "nobody"), "nobody"),
    "a layer called on a call that is not there": (moved("b", "bn", 7),),
    "a layer called on a call below zero": (moved("b", "bn", -1),),
    "a layer called on a call that is a text": (moved("b", "bn", "0"),),
    "two layers of one name": (of(twice), "'a'"),
    "a layer without a name": (of(without_name),),
    "an empty name of a layer": (called("a", ""),),
    "a name with a slash": (called("b", "../b"), "'b'"),
    "a lone surrogate in a name": (called("b", "b\ud800"), "'b'"),
    "a layer that is missing in the middle": (gone("bn"), "bn"),
    "an output layer that is missing": (gone("b"), "b"),
    "an input layer that is missing": (gone("in"), "in"),
    "a layer that is called on nothing": (of(never_called),),
    "a shared layer that sees two widths": (of(called_again), "bn"),
    "a model that holds itself": (of(itself), "model"),
    "units below zero": (setting("a", "units", -6), "a"),
    "no units": (setting("a", "units", 0), "a"),
    "more units than the weights have": (setting("a", "units", 7), "a"),
    "fewer units than the weights have": (setting("a", "units", 5), "a"),
    "a trillion units": (setting("a", "units", 10**12), "a"),
    "a hundred million units": (setting("a", "units", 10**8), "a"),
    "units beyond any integer of a machine": (setting("a", "units", 10**30), "a"),
    "another input width than the weights have": (
        setting("in", "batch_shape", [None, 7]), "a"),
    "an input width of a trillion": (setting("in", "batch_shape", [None, 10**12]), "a"),
    "an input width below zero": (setting("in", "batch_shape", [None, -5]), "in"),
    "an input of a million axes": (setting("in", "batch_shape", [None] * 1_000_000), "in"),
    "a tensor joined with itself 40 times": (lambda: doubled(40), "positions"),
    "a tensor joined with itself 25 times": (lambda: doubled(25), "positions"),
    "a vector repeated a billion times": (
        lambda: wide("RepeatVector", (5,), (None, 10**9, 5), n=10**9),),
    "padding by a billion": (
        lambda: wide("ZeroPadding1D", (5, 2), (None, 5 + 10**9, 2), padding=[0, 10**9]),),
    "a hundred million flattened units": (
        lambda: wide("Flatten", (10**4, 10**4), (None, 10**8)),),
    "a reshape to a hundred million": (
        lambda: wide("Reshape", (10**8,), (None, 10**4, 10**4), target_shape=[10**4, 10**4]),),
    "an embedding of a billion rows": (
        lambda: wide("Embedding", (5,), (None, 5, 6), input_dim=10**9, output_dim=6),),
    "200 models in one another": (lambda: models_in_models(200),),
})  # fmt: skip
add_all("config", {
    "a class that kprune does not know": (
        of(lambda config: layer(config, "bn").update(
            class_name="Mystery", module="mystery", registered_name="m>Mystery")), "Mystery"),
    "an activation that kprune does not know": (setting("a", "activation", "mystery"), "mystery"),
    "a layer that takes one input and gets none": (of(no_inputs), "a"),
    "an axis that there is not": (setting("bn", "axis", 9), "bn"),
    "an axis that is beyond any integer of a machine": (setting("bn", "axis", 10**30), "bn"),
}, code=3, inspect_code=0)  # fmt: skip
