"""A config after a removal: sizes and recorded shapes are true, everything else is as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit, TensorEdit
from kprune.errors import DamagedFileError
from kprune.labels.closure import check, close
from kprune.surgery.remove import remove
from tests.small_models import Network, analysed, arrays, layer, residual, sequential


def removed(model: Analysis, **units: list[int]) -> Edit:
    closure = close(model.groups, {name: np.array(indices) for name, indices in units.items()})
    check(closure)
    return remove(model, closure)


def entry(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in config["config"]["layers"] if e["config"]["name"] == name)


def recorded(config: dict[str, Any], name: str) -> list[Any]:
    """The shapes that a layer's calls record of what they read."""
    found: list[Any] = []

    def search(value: Any) -> None:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            found.append(value["config"]["shape"])
        elif isinstance(value, (dict, list)):
            for item in value.values() if isinstance(value, dict) else value:
                search(item)

    search(entry(config, name)["inbound_nodes"])
    return found


def branching() -> dict[str, Any]:
    net = Network()
    x = net("Conv2D", "c", net.input("in", 8, 8, 3), filters=6)
    y = net("Flatten", "flat", x, shape=(None, 384))
    both = net("Concatenate", "join", [y, y], shape=(None, 768))
    return net.functional(net("Dense", "out", both, units=2))


def test_sizes_and_recorded_shapes_follow_the_units_all_the_way() -> None:
    edit = removed(analysed(branching()), c=[0, 5])
    assert entry(edit.config, "c")["config"]["filters"] == 4
    assert recorded(edit.config, "c") == [[None, 8, 8, 3]]
    assert recorded(edit.config, "flat") == [[None, 8, 8, 4]]
    assert recorded(edit.config, "join") == [[None, 256], [None, 256]]
    assert recorded(edit.config, "out") == [[None, 512]]
    assert entry(edit.config, "out")["config"]["units"] == 2


def test_the_cut_config_with_the_cut_tensors_is_a_model_again() -> None:
    for config, units in (
        (branching(), {"c": [1, 2]}),
        (residual(2), {"stem": [3], "block1_1": [0, 7]}),
    ):
        tensors = arrays(config)
        edit = removed(analysed(config, tensors), **units)
        cut = {**tensors, **{e.path: taken(tensors[str(e.source)], e) for e in edit.tensors}}
        again = Analysis.of(edit.config, {}, cut)  # holds every shape against the config
        for address, indices in units.items():
            assert len(again.map.axes[address]) == len(analysed(config).map.axes[address]) - len(
                indices
            )


def taken(array: np.ndarray, edit: TensorEdit) -> np.ndarray:
    for axis, keep in enumerate(edit.keep):
        if keep is not None:
            array = array.take(keep, axis)
    return array


def test_every_tensor_keeps_the_positions_that_numpy_would() -> None:
    """a loses unit 1 of 3: its column, its bias, and the rows of all that a Flatten made of it."""
    net = Network()
    x = net("Conv2D", "a", net.input("in", 2, 2, 1), filters=3, kernel_size=[1, 1])
    x = net("BatchNormalization", "bn", x)
    x = net("Flatten", "flat", x, shape=(None, 12))
    config = net.functional(net("Dense", "out", x, units=2))
    edits = {edit.path: edit.keep for edit in removed(analysed(config), a=[1]).tensors}
    left = [0, 2]
    rows = [0, 2, 3, 5, 6, 8, 9, 11]  # channels vary fastest
    kept = {path: [None if k is None else k.tolist() for k in keep] for path, keep in edits.items()}
    assert kept == {
        "layers/conv2d/vars/0": [None, None, None, left],
        "layers/conv2d/vars/1": [left],
        **{f"layers/batch_normalization/vars/{i}": [left] for i in range(4)},
        "layers/dense/vars/0": [rows, None],
    }


def test_the_input_config_is_never_changed_and_shares_nothing_with_the_new_one() -> None:
    config = residual(2)
    before = copy.deepcopy(config)
    edit = removed(analysed(config), stem=[1])
    assert config == before
    for old, new in zip(config["config"]["layers"], edit.config["config"]["layers"], strict=True):
        assert old is not new and old["config"] is not new["config"]


def test_keys_that_kprune_does_not_know_travel_unchanged() -> None:
    config = branching()
    config["made_by"] = {"lab": ["x", None, 1e-5]}
    entry(config, "c")["config"]["future_option"] = {"units": 6, "shape": [6, 6]}
    entry(config, "out")["shared_note"] = [6]
    edit = removed(analysed(config), c=[0])
    assert edit.config["made_by"] == {"lab": ["x", None, 1e-5]}
    assert entry(edit.config, "c")["config"]["future_option"] == {"units": 6, "shape": [6, 6]}
    assert entry(edit.config, "out")["shared_note"] == [6]


def chain(build: Any) -> dict[str, Any]:
    out = layer("Dense", "out", units=2) | {"build_config": build}
    return sequential(layer("Dense", "a", units=6), out, shape=[5])


def test_a_build_config_follows_the_shape_it_was_built_for() -> None:
    edit = removed(analysed(chain({"input_shape": [None, 6]})), a=[0, 1])
    assert entry(edit.config, "out")["build_config"] == {"input_shape": [None, 4]}


def test_a_build_config_that_leaves_sizes_open_leaves_them_open() -> None:
    edit = removed(analysed(chain({"input_shape": [None, None]})), a=[0])
    assert entry(edit.config, "out")["build_config"] == {"input_shape": [None, None]}


def test_a_build_config_that_could_mean_two_shapes_goes() -> None:
    net = Network()
    x = net.input("in", 5)
    a, b = net("Dense", "a", x, units=6), net("Dense", "b", x, units=6)
    joined = net("Concatenate", "join", [a, b], shape=(None, 12))
    config = net.functional(net("Dense", "out", joined, units=2))
    entry(config, "join")["build_config"] = {"input_shape": [[None, 6], [None, 6]]}
    edit = removed(analysed(config), a=[0])
    assert "build_config" not in entry(edit.config, "join")
    same = removed(analysed(config), a=[0], b=[3])
    assert entry(same.config, "join")["build_config"] == {"input_shape": [[None, 5], [None, 5]]}


def test_what_a_sequential_was_built_for_stays_true() -> None:
    config = sequential(layer("Dense", "a", units=6), layer("Dense", "out", units=2), shape=[5])
    inner = sequential(layer("Dense", "low", units=3), shape=[6], name="inner")
    config["config"]["layers"].insert(2, inner)
    edit = removed(analysed(config), a=[0, 4])
    new = edit.config["config"]["layers"][2]
    assert new["config"]["build_input_shape"] == [None, 4]
    assert new["config"]["layers"][0]["config"]["batch_shape"] == [None, 4]
    assert edit.config["config"]["build_input_shape"] == [None, 5]


def test_a_layer_shared_between_models_is_cut_in_both() -> None:
    shared = layer("Dense", "shared", units=4) | {"shared_object_id": 77}
    net = Network()
    x = net.input("in", 4)
    one = net.call(sequential(shared, shape=[4], name="one"), x)
    two = net.call(sequential(shared, shape=[4], name="two"), x)
    joined = net("Add", "sum", [one, two])
    edit = removed(
        analysed(net.functional(net("Dense", "out", joined, units=2))), **{"one/shared": [1]}
    )
    widths = [entry(entry(edit.config, m), "shared")["config"]["units"] for m in ("one", "two")]
    assert widths == [3, 3]
    assert [e.path for e in edit.tensors].count("layers/sequential/layers/dense/vars/0") == 1


def test_a_branch_that_goes_takes_its_layers_and_moves_those_behind_it() -> None:
    net = Network()
    x = net.input("in", 5)
    p = net("ReLU", "p_relu", net("Dense", "p", x, units=2))
    q = net("ReLU", "q_relu", net("Dense", "q", x, units=3))
    joined = net("Concatenate", "join", [p, q], shape=(None, 5))
    edit = removed(analysed(net.functional(net("Dense", "out", joined, units=2))), p=[0, 1])
    names = [e["name"] for e in edit.config["config"]["layers"]]
    assert names == ["in", "q", "q_relu", "join", "out"]
    assert recorded(edit.config, "join") == [[None, 3]]
    moves = {e.source: e.path for e in edit.tensors}
    assert moves["layers/dense_1/vars/0"] == "layers/dense/vars/0"
    assert moves["layers/dense_2/vars/0"] == "layers/dense_1/vars/0"
    assert "layers/dense" in edit.dropped


def test_groups_of_a_convolution_are_counted_anew_when_one_goes() -> None:
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 3), filters=6)
    x = net("Conv2D", "g", x, filters=9, groups=3)
    config = net.functional(net("Conv2D", "out", x, filters=2))
    edit = removed(analysed(config), a=[0, 1], g=[0, 1, 2])
    assert {key: entry(edit.config, "g")["config"][key] for key in ("filters", "groups")} == {
        "filters": 6, "groups": 2,
    }  # fmt: skip
    fewer = removed(analysed(config), a=[0, 3, 4])
    (kernel,) = [e for e in fewer.tensors if e.path == "layers/conv2d_1/vars/0"]
    assert kernel.blocks is not None and kernel.blocks.tolist() == [[1], [0], [1]]


@pytest.mark.parametrize("shape", [[None, 3, 6], [None, 7], [None]])
def test_a_recorded_shape_that_is_not_that_of_the_tensor_is_damage_where_units_go(
    shape: list[int | None],
) -> None:
    """Keras 2 loads such a layer in a nested model, and would not load what were left of it."""
    config = sequential(
        layer("Dense", "a", units=6),
        layer("Dropout", "drop", rate=0.1, batch_input_shape=shape),
        layer("Dense", "b", units=4),
        layer("Dense", "c", units=2),
        shape=[4],
    )
    model = analysed(config)
    with pytest.raises(DamagedFileError) as refused:
        removed(model, a=[0])
    assert "of a tensor of shape (None, 6), which would be cut" in refused.value.why
    left = entry(removed(model, b=[0]).config, "drop")["config"]
    assert left["batch_input_shape"] == shape


def test_a_list_of_sizes_and_something_else_goes_from_what_is_built_anew() -> None:
    config = sequential(layer("Dense", "a", units=6), layer("Dense", "b", units=4), shape=[4])
    entry(config, "b")["build_config"] = {"input_shape": [{}, 6]}
    assert "build_config" not in entry(removed(analysed(config), a=[0]).config, "b")
