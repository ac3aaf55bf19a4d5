"""Masks: put in, composed, taken out again; the file is then what it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError, UsageError
from kprune.graph import parse_model
from kprune.surgery.mask import mask, mask_below, unmask
from tests.small_models import Network, analysed, arrays, layer, sequential


def sequence() -> dict[str, Any]:
    return sequential(
        layer("Conv2D", "c", filters=4), layer("Rescaling", "scale", scale=2.0, offset=0.0),
        layer("Flatten", "flat"), layer("Dense", "out", units=2), shape=[4, 4, 3],
    )  # fmt: skip


def shared() -> dict[str, Any]:
    """`d` is called twice; both of its outputs are read, one by the model's outputs as well."""
    net = Network()
    x = net.input("in", 5)
    spec = layer("Dense", "d", units=5)
    first = net.call(spec, x)
    second = net.call(spec, net("ReLU", "r", first))
    return net.functional(net("Dense", "out", net("Add", "sum", [first, second]), units=2), first)


def masked(config: Any, **units: list[int]) -> Any:
    return mask(analysed(config), {n: np.array(i) for n, i in units.items()})


def names(config: Any) -> list[str]:
    return [entry["config"]["name"] for entry in config["config"]["layers"]]


def scale_of(config: Any, name: str) -> list[float]:
    entry = next(
        e for e in config["config"]["layers"] if e["config"]["name"] == "kprune_mask_" + name
    )
    return np.ravel(entry["config"]["scale"]).tolist()


def moved(tensors: dict[str, np.ndarray], edit: Any) -> dict[str, np.ndarray]:
    """The tensors where an edit puts them."""
    places = {e.source: e.path for e in edit.tensors}
    return {places.get(path, path): value for path, value in tensors.items()}


@pytest.mark.parametrize(
    ("make", "units"), [(sequence, {"c": [0, 2], "flat": [5]}), (shared, {"d": [1], "r": [0, 4]})]
)
def test_what_mask_puts_in_unmask_takes_out(make: Any, units: dict[str, list[int]]) -> None:
    config = make()
    before, tensors = copy.deepcopy(config), arrays(config)
    edit = mask(analysed(config, tensors), {n: np.array(i) for n, i in units.items()})
    assert config == before
    there = Analysis.of(edit.config, {}, moved(tensors, edit))
    back, freed = unmask(there)
    assert set(freed) == set(units)
    assert back.config == before
    again = moved(moved(tensors, edit), back)
    assert again.keys() == tensors.keys() and all(again[p] is tensors[p] for p in tensors)


def test_a_mask_stands_right_behind_its_layer_with_ones_and_zeros() -> None:
    edit = masked(sequence(), c=[0, 2])
    assert names(edit.config) == ["input", "c", "kprune_mask_c", "scale", "flat", "out"]
    assert scale_of(edit.config, "c") == [0.0, 1.0, 0.0, 1.0]
    entry = edit.config["config"]["layers"][2]
    assert np.shape(entry["config"]["scale"]) == (1, 1, 4)
    assert entry["module"] == "keras.layers" and entry["config"]["trainable"] is False


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        ("mixed_bfloat16", "bfloat16"),
        ({"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}, "float16"),
        ({"class_name": "DTypePolicy", "config": []}, "float32"),
        (None, "float32"),
    ],
)
def test_a_mask_reads_what_its_layer_computes_with(policy: Any, name: str) -> None:
    net = Network()
    config = net.functional(net("Dense", "d", net.input("in", 5), units=3, dtype=policy))
    entry = masked(config, d=[1]).config["config"]["layers"][-1]
    assert entry["inbound_nodes"][0]["args"][0]["config"]["dtype"] == name


def test_a_tensor_whose_shape_is_not_recorded_can_be_masked() -> None:
    config = shared()
    for entry in config["config"]["layers"]:
        if entry["config"]["name"] == "r":
            del entry["inbound_nodes"][0]["args"][0]["config"]["shape"]
    assert scale_of(masked(config, d=[1]).config, "d") == [1.0, 0.0, 1.0, 1.0, 1.0]


def test_a_mask_behind_channels_first_stands_on_the_first_axis() -> None:
    config = sequential(
        layer("Conv2D", "c", filters=4, data_format="channels_first"), shape=[3, 6, 6]
    )
    edit = masked(config, c=[1])
    assert np.shape(edit.config["config"]["layers"][2]["config"]["scale"]) == (4, 1, 1)


def test_every_reader_of_a_masked_layer_reads_the_mask_and_the_outputs_too() -> None:
    edit = masked(shared(), d=[1])
    graph = parse_model(edit.config)
    reads = {
        (call.layer.name, call.node): [ref.key[:2] for ref in call.inputs] for call in graph.calls
    }
    m = "kprune_mask_d"
    assert reads[(m, 0)] == [("d", 0)] and reads[(m, 1)] == [("d", 1)]
    assert reads[("r", 0)] == [(m, 0)] and reads[("sum", 0)] == [(m, 0), (m, 1)]
    assert edit.config["config"]["output_layers"] == [["out", 0, 0], [m, 0, 0]]


def test_a_second_mask_joins_the_first() -> None:
    first = masked(sequence(), c=[0])
    tensors = moved(arrays(sequence()), first)
    second = mask(Analysis.of(first.config, {}, tensors), {"c": np.array([3])})
    assert scale_of(second.config, "c") == [0.0, 1.0, 1.0, 0.0]
    assert len(names(second.config)) == len(names(first.config))


def test_a_layer_of_the_masks_class_keeps_its_variables() -> None:
    """A Rescaling more renumbers those behind it; the weights of others stay where they are."""
    config = sequential(
        layer("Dense", "a", units=3), layer("Rescaling", "s", scale=2.0, offset=0.0), shape=[4]
    )
    edit = masked(config, a=[0])
    assert {f.path: f.store for f in parse_model(edit.config).walk()}["s"] == "layers/rescaling_1"
    assert edit.dropped == ()


def test_a_mask_taken_from_one_layer_leaves_the_others() -> None:
    config = sequence()
    tensors = arrays(config)
    edit = mask(analysed(config, tensors), {"c": np.array([0]), "flat": np.array([1])})
    back, freed = unmask(Analysis.of(edit.config, {}, moved(tensors, edit)), {"flat"})
    assert freed == ["flat"]
    assert [name for name in names(back.config) if name.startswith("kprune")] == ["kprune_mask_c"]


def test_a_dynamic_mask_is_taken_out_again() -> None:
    config = shared()
    tensors = arrays(config)
    for chosen in (None, np.array([1, 2])):
        edit = mask_below(analysed(config, tensors), {"r": chosen}, 0.5)
        assert "kprune_below_r" in names(edit.config)
        back, freed = unmask(Analysis.of(edit.config, {}, moved(tensors, edit)))
        assert (freed, back.config) == (["r"], config)


def nested() -> dict[str, Any]:
    """A model that calls a nested one twice and gives both results."""
    inner = Network("inner")
    inside = inner.functional(inner("Dense", "d", inner.input("inner_in", 5), units=5))
    net = Network()
    first = net.call(inside, net.input("in", 5))
    return net.functional(net.call(inside, first), first)


def ends(config: Any) -> list[tuple[str, int]]:
    return [ref.key[:2] for ref in parse_model(config).outputs]


def test_a_mask_behind_a_nested_model_keeps_its_calls_apart() -> None:
    config = nested()
    tensors = arrays(config)
    assert config["config"]["output_layers"] == [["inner", 2, 0], ["inner", 1, 0]]
    edit = mask(analysed(config, tensors), {"inner": np.array([1])})
    assert edit.config["config"]["output_layers"] == [
        ["kprune_mask_inner", 1, 0],
        ["kprune_mask_inner", 0, 0],
    ]
    back, _ = unmask(Analysis.of(edit.config, {}, moved(tensors, edit)))
    assert back.config == config


@pytest.mark.parametrize(("make", "name"), [(shared, "d"), (nested, "inner")])
def test_a_dynamic_mask_among_the_outputs_is_counted_from_1_as_any_nested_model(
    make: Any, name: str
) -> None:
    config = make()
    tensors = arrays(config)
    edit = mask_below(analysed(config, tensors), {name: None}, 0.5)
    m = "kprune_below_" + name
    rows = [row for row in edit.config["config"]["output_layers"] if row[0] == m]
    assert [row[1] for row in rows] == ([1] if make is shared else [2, 1])
    assert (m, 0) in ends(edit.config)
    back, _ = unmask(Analysis.of(edit.config, {}, moved(tensors, edit)))
    assert back.config == config


def test_the_models_input_cannot_be_masked() -> None:
    with pytest.raises(UsageError, match="'in' is the model's input"):
        masked(shared(), **{"in": [0]})


def test_a_layer_of_unknown_width_cannot_be_masked() -> None:
    net = Network()
    odd = layer("Odd", "odd") | {"module": "mine", "registered_name": "mine>Odd"}
    x = net.call(odd, net.input("in", 5))
    y = net("Dense", "out", net("Dense", "d", x, units=3), units=2)
    config = net.functional(y)
    for entry in config["config"]["layers"]:
        for node in entry["inbound_nodes"]:
            node["args"][0]["config"]["shape"] = None
    tensors = {f"layers/dense{n}/vars/{i}": np.zeros(s) for n, i, s in (
        ("", 0, (5, 3)), ("", 1, (3,)), ("_1", 0, (3, 2)), ("_1", 1, (2,))
    )}  # fmt: skip
    with pytest.raises(CannotPruneError, match="'odd' cannot be masked"):
        mask(analysed(config, tensors), {"odd": np.array([0])})
