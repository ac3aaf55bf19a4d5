"""Legacy `.h5` files, made by h5py the way Keras writes them: order decides which tensor is whose."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kprune
from kprune.analysis.counts import count
from kprune.errors import CannotPruneError, DamagedFileError, FileError, KpruneError, UsageError
from kprune.formats import open_model
from kprune.opened import analyse
from tests.formats.making import contents, left_in

Layers = Mapping[str, Mapping[str, np.ndarray]]
RNG = np.random.default_rng(0)


def dense(name: str, units: int, **more: Any) -> dict[str, Any]:
    config = {
        "name": name,
        "trainable": True,
        "units": units,
        "activation": "relu",
        "use_bias": True,
    }
    return {"class_name": "Dense", "config": {**config, **more}}


def sequential(*layers: dict[str, Any], width: int = 4) -> dict[str, Any]:
    start = {"class_name": "InputLayer", "config": {"batch_shape": [None, width], "name": "x"}}
    return {"class_name": "Sequential", "config": {"name": "m", "layers": [start, *layers]}}


def functional(
    rows: list[tuple[dict[str, Any], list[str]]], output: str, name: str = "m"
) -> dict[str, Any]:
    """A Functional config in the list style; the first layer is the input."""
    layers = []
    for spec, sources in rows:
        nodes = [[[source, 0, 0, {}] for source in sources]] if sources else []
        layers.append({**spec, "name": spec["config"]["name"], "inbound_nodes": nodes})
    first = layers[0]["name"]
    ends = {"input_layers": [[first, 0, 0]], "output_layers": [[output, 0, 0]]}
    return {"class_name": "Functional", "config": {"name": name, "layers": layers, **ends}}


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: RNG.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def write_h5(
    path: Path,
    config: dict[str, Any],
    layers: Layers,
    *,
    version: str = "3.15.1",
    training: dict[str, Any] | None = None,
    optimizer: Mapping[str, np.ndarray] | None = None,
    names: list[str] | None = None,
) -> Path:
    """A file as `save_model_to_hdf5` writes it (keras/src/legacy/saving/legacy_h5_format.py)."""
    with h5py.File(path, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", version
        file.attrs["model_config"] = json.dumps(config)
        if training is not None:
            file.attrs["training_config"] = json.dumps(training)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in names or layers]
        for name in sorted(layers):
            fill(group.create_group(name), layers[name])
        fill(group.create_group("top_level_model_weights"), {})
        if optimizer is not None:
            fill(file.create_group("optimizer_weights"), optimizer)
    return path


def fill(group: h5py.Group, tensors: Mapping[str, np.ndarray]) -> None:
    group.attrs["weight_names"] = [name.encode() for name in tensors]
    for name, value in tensors.items():
        group.create_dataset(name, data=value)


def two_dense() -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    layers = {
        "x": {},
        "a": weights(**{"a/kernel": (4, 5), "a/bias": (5,)}),
        "b": weights(**{"b/kernel": (5, 3), "b/bias": (3,)}),
    }
    return sequential(dense("a", 5), dense("b", 3)), layers


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_h5(tmp_path / "m.h5", *two_dense())


def attributes(path: Path, group: str = "/") -> dict[str, Any]:
    with h5py.File(path) as file:
        return dict(file[group].attrs)


# -- the cut ---------------------------------------------------------------------------------------


def test_a_removed_unit_takes_its_column_its_bias_and_the_next_layers_row(model: Path) -> None:
    report = kprune.remove(model, {"a": [1, 3]})
    before, after = contents(model), contents(model.with_name("m.pruned.h5"))
    keep = [0, 2, 4]
    wanted = dict(before)
    wanted["model_weights/a/a/kernel"] = before["model_weights/a/a/kernel"][:, keep]
    wanted["model_weights/a/a/bias"] = before["model_weights/a/a/bias"][keep]
    wanted["model_weights/b/b/kernel"] = before["model_weights/b/b/kernel"][keep]
    assert after.keys() == wanted.keys()
    assert all(np.array_equal(after[path], wanted[path]) for path in wanted)
    config = json.loads(attributes(model.with_name("m.pruned.h5"))["model_config"])
    assert [layer["config"].get("units") for layer in config["config"]["layers"]] == [None, 3, 3]
    assert report.input.format == report.output.format == "h5"
    assert [row.path for row in report.weights] == [
        "model_weights/a/a/kernel", "model_weights/a/a/bias", "model_weights/b/b/kernel",
    ]  # fmt: skip
    assert (report.input.parameters, report.output.parameters) == (43, 27)


def test_branches_listed_in_another_order_keep_their_own_tensors(tmp_path: Path) -> None:
    # Keras orders layers by the graph: `p` is read first, so it stands first whatever the config says.
    start = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "x"}}
    both = {"class_name": "Concatenate", "config": {"name": "both", "axis": -1}}
    rows = [
        (start, []),
        (dense("q", 3), ["x"]),
        (dense("p", 3), ["x"]),
        (both, ["p", "q"]),
        (dense("o", 2), ["both"]),
    ]
    layers = {
        name: weights(**{f"{name}/kernel:0": (width, units), f"{name}/bias:0": (units,)})
        for name, width, units in (("p", 4, 3), ("q", 4, 3), ("o", 6, 2))
    }
    path = write_h5(
        tmp_path / "m.h5", functional(rows, "o"), {"x": {}, **layers}, names=["x", "p", "q", "o"]
    )
    kprune.remove(path, {"q": [0]})
    after = contents(tmp_path / "m.pruned.h5")
    assert np.array_equal(after["model_weights/p/p/kernel:0"], layers["p"]["p/kernel:0"])
    assert np.array_equal(after["model_weights/q/q/kernel:0"], layers["q"]["q/kernel:0"][:, 1:])
    assert np.array_equal(
        after["model_weights/o/o/kernel:0"], np.delete(layers["o"]["o/kernel:0"], 3, 0)
    )

    shuffled = write_h5(tmp_path / "s.h5", functional(rows, "o"), layers, names=["q", "p", "o"])
    with pytest.raises(DamagedFileError, match="a different order from the config"):
        kprune.remove(shuffled, {"q": [0]})


def nested(extra: dict[str, Any] | None = None) -> dict[str, Any]:
    norm = {
        "class_name": "BatchNormalization",
        "config": {"name": "norm", "axis": [1], "center": True, "scale": True},
    }
    start = {
        "class_name": "InputLayer",
        "config": {"batch_input_shape": [None, 4], "name": "inner_x"},
    }
    rows = [(start, []), (dense("d", 5), ["inner_x"]), (norm, ["d"]), (dense("e", 3), ["norm"])]
    if extra is not None:
        rows[3] = (extra, ["norm"])
        rows.append((dense("e", 3), [extra["config"]["name"]]))
    inner = functional(rows, "e", "inner")
    outer = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "x"}}
    config = functional([(outer, []), (inner, ["x"]), (dense("o", 2), ["inner"])], "o")
    # Keras 2 counts the calls of a nested model from 1.
    config["config"]["layers"][2]["inbound_nodes"] = [[["inner", 1, 0, {}]]]
    return config


INNER = {"d/kernel:0": (4, 5), "d/bias:0": (5,), "norm/gamma:0": (5,), "norm/beta:0": (5,)}
INNER_END = {
    "e/kernel:0": (5, 3),
    "e/bias:0": (3,),
    "norm/moving_mean:0": (5,),
    "norm/moving_variance:0": (5,),
}


def test_a_nested_models_tensors_are_flattened_trainable_ones_first(tmp_path: Path) -> None:
    layers = {
        "inner": weights(**INNER, **INNER_END),
        "o": weights(**{"o/kernel:0": (3, 2), "o/bias:0": (2,)}),
    }
    path = write_h5(tmp_path / "m.h5", nested(), layers, version="2.15.0")
    kprune.remove(path, {"inner/d": [4]})
    before, after = contents(path), contents(tmp_path / "m.pruned.h5")
    for name in ("norm/gamma:0", "norm/moving_mean:0", "norm/moving_variance:0", "d/bias:0"):
        assert np.array_equal(
            after[f"model_weights/inner/{name}"], before[f"model_weights/inner/{name}"][:4]
        ), name
    assert after["model_weights/inner/e/kernel:0"].shape == (4, 3)


def test_a_layer_that_nobody_knows_holds_its_whole_nested_model(tmp_path: Path) -> None:
    stranger = {
        "class_name": "Custom>Stranger",
        "config": {"name": "s"},
        "registered_name": "Custom>Stranger",
    }
    inner = weights(**INNER, **{"s/w:0": (5,)}, **INNER_END)
    layers = {"inner": inner, "o": weights(**{"o/kernel:0": (3, 2), "o/bias:0": (2,)})}
    path = write_h5(tmp_path / "m.h5", nested(stranger), layers)
    with pytest.raises(UsageError, match="no units"):
        kprune.remove(path, {"inner/d": [0]})
    kprune.zero(path, {"o": [0]})  # its own kernel says how wide what reaches it is
    kernel = contents(tmp_path / "m.pruned.h5")["model_weights/o/o/kernel:0"]
    assert not kernel[:, 0].any() and kernel[:, 1].all()
    with open_model(path) as source:
        assert count(analyse(source)).parameters == 68 + 8


def test_tensors_called_like_each_other_are_refused(tmp_path: Path) -> None:
    norm = {
        "class_name": "BatchNormalization",
        "config": {"name": "n", "axis": -1, "center": True, "scale": True},
    }
    swapped = weights(
        **{"n/beta": (4,), "n/gamma": (4,), "n/moving_mean": (4,), "n/moving_variance": (4,)}
    )
    path = write_h5(tmp_path / "m.h5", sequential(norm), {"n": swapped})
    with pytest.raises(DamagedFileError, match="listed in an order that Keras does not write"):
        kprune.inspect(path)


def test_tensors_of_another_shape_are_refused(tmp_path: Path) -> None:
    config, layers = two_dense()
    layers["b"] = weights(**{"b/kernel": (6, 3), "b/bias": (3,)})
    with pytest.raises(DamagedFileError, match=r"kernel of 'b' has shape \(6, 3\)"):
        kprune.inspect(write_h5(tmp_path / "m.h5", config, layers))


# -- what stands beside ----------------------------------------------------------------------------


def test_attributes_go_over_and_provenance_composes(tmp_path: Path, model: Path) -> None:
    with h5py.File(model, "a") as file:
        file.attrs["classes"] = ["cat", "dög"]
        file.attrs["mean"] = np.array([1.5, 2.5])
    kprune.remove(model, {"a": [1]}, output=tmp_path / "one.h5")
    kprune.remove(tmp_path / "one.h5", {"a": [1]}, output=tmp_path / "two.h5")
    found = attributes(tmp_path / "two.h5")
    assert list(found["classes"]) == ["cat", "dög"] and found["mean"].tolist() == [1.5, 2.5]
    noted = json.loads(found["kprune"])
    assert noted["units"] == {"a": [0, 3, 4]} and len(noted["plan"]["steps"]) == 2
    assert list(attributes(tmp_path / "two.h5", "model_weights")["layer_names"]) == ["x", "a", "b"]


def test_lists_of_names_that_were_split_are_read_and_stay_split(
    tmp_path: Path, model: Path
) -> None:
    with h5py.File(model, "a") as file:
        attrs = file["model_weights"].attrs
        del attrs["layer_names"]
        attrs["layer_names0"], attrs["layer_names1"] = np.array([b"x", b"a"]), np.array([b"b"])
    kprune.remove(model, {"a": [0]}, output=tmp_path / "o.h5")
    found = attributes(tmp_path / "o.h5", "model_weights")
    assert list(found["layer_names0"]) == ["x", "a"] and list(found["layer_names1"]) == ["b"]


def adam(layers: Layers, prefix: list[str]) -> dict[str, np.ndarray]:
    slots = {name: np.array(7 if number == 0 else 0.1) for number, name in enumerate(prefix)}
    for tensors in layers.values():
        for name, value in tensors.items():
            slots[f"adam/m/{name}"], slots[f"adam/v/{name}"] = value * 2, value * 3
    return slots


@pytest.mark.parametrize("prefix", [["adam/iteration", "adam/learning_rate"], ["iteration:0"]])
def test_slots_are_cut_like_their_variables(tmp_path: Path, prefix: list[str]) -> None:
    config, layers = two_dense()
    name = "Adam" if len(prefix) == 2 else "Custom>Adam"
    training = {"optimizer_config": {"class_name": name, "config": {"amsgrad": False}}}
    path = write_h5(
        tmp_path / "m.h5", config, layers, training=training, optimizer=adam(layers, prefix)
    )
    report = kprune.remove(path, {"a": [2]})
    after = contents(tmp_path / "m.pruned.h5")
    for tensor in ("a/kernel", "a/bias", "b/kernel", "b/bias"):
        variable = after[f"model_weights/{tensor[0]}/{tensor}"]
        assert np.array_equal(after[f"optimizer_weights/adam/v/{tensor}"], variable * 3), tensor
    assert not report.notes


def test_slots_that_do_not_fit_stay_behind_with_a_note(tmp_path: Path) -> None:
    config, layers = two_dense()
    training = {"optimizer_config": {"class_name": "Custom>Mine", "config": {}}}
    path = write_h5(
        tmp_path / "m.h5", config, layers, training=training, optimizer=adam(layers, ["i"])
    )
    report = kprune.remove(path, {"a": [2]})
    assert [note.kind for note in report.notes] == ["optimizer", "active"]
    assert all("Mine" in note.text for note in report.notes)
    with h5py.File(tmp_path / "m.pruned.h5") as file:
        assert "optimizer_weights" not in file and "training_config" in file.attrs


def test_masks_go_in_and_come_out_in_the_files_own_dialect(tmp_path: Path) -> None:
    layers = {
        "inner": weights(**INNER, **INNER_END),
        "o": weights(**{"o/kernel:0": (3, 2), "o/bias:0": (2,)}),
    }
    path = write_h5(tmp_path / "m.h5", nested(), layers, version="2.15.0")
    kprune.mask(path, {"inner": [1], "inner/d": [0]}, output=tmp_path / "masked.h5")
    config = json.loads(attributes(tmp_path / "masked.h5")["model_config"])["config"]
    put_in = next(layer for layer in config["layers"] if layer["name"] == "kprune_mask_inner")
    assert put_in["inbound_nodes"] == [[["inner", 1, 0, {}]]] and "module" not in put_in
    kprune.unmask(tmp_path / "masked.h5", output=tmp_path / "free.h5")
    assert json.loads(attributes(tmp_path / "free.h5")["model_config"]) == nested()


# -- other formats ---------------------------------------------------------------------------------


def test_a_name_that_ends_in_keras_makes_a_keras_file(tmp_path: Path, model: Path) -> None:
    report = kprune.remove(model, {"a": [0]}, output=tmp_path / "o.keras")
    assert report.output.format == "keras" and [note.kind for note in report.notes] == ["converted"]
    with open_model(tmp_path / "o.keras") as source:
        assert source.format == "keras" and source.bytes == report.output.bytes
        assert set(source.tensors) == {
            f"layers/{name}/vars/{i}" for name in ("dense", "dense_1") for i in (0, 1)
        }
        assert source.config["module"] == "keras" and source.metadata["kprune"]["units"] == {
            "a": [1, 2, 3, 4]
        }
        assert {layer["module"] for layer in source.config["config"]["layers"]} == {"keras.layers"}
    kprune.remove(tmp_path / "o.keras", {"a": [0]}, output=tmp_path / "again.keras")


def test_conversions_that_there_are_not(tmp_path: Path, model: Path) -> None:
    kprune.remove(model, {"a": [0]}, output=tmp_path / "o.keras")
    with pytest.raises(UsageError, match=r"a \.keras model is not written as \.h5"):
        kprune.remove(tmp_path / "o.keras", {"a": [0]}, output=tmp_path / "no.h5")
    old = write_h5(tmp_path / "old.h5", *two_dense(), version="1.2.2")
    with pytest.raises(CannotPruneError, match=r"saved by Keras 1\.2\.2"):
        kprune.remove(old, {"a": [0]}, output=tmp_path / "no.keras")
    stranger = {"class_name": "Custom>Stranger", "config": {"name": "s"}}
    config, layers = two_dense()
    config["config"]["layers"].append(stranger)
    with pytest.raises(CannotPruneError, match="'s' is a Custom>Stranger"):
        kprune.zero(
            write_h5(tmp_path / "s.h5", config, layers), {"a": [0]}, output=tmp_path / "no.keras"
        )
    assert not list(tmp_path.glob("no*"))


# -- damage ----------------------------------------------------------------------------------------


def test_weights_without_a_model_are_told_apart(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        fill(file.create_group("layers/dense/vars"), weights(**{"0": (2, 3)}))
    with pytest.raises(FileError, match="weights alone, without the architecture"):
        open_model(tmp_path / "w.h5")


def test_a_file_cut_short_anywhere_is_refused(model: Path) -> None:
    data = model.read_bytes()
    for length in {*range(9, len(data), 1499), len(data) - 1}:
        model.write_bytes(data[:length])
        with pytest.raises(FileError):
            kprune.remove(model, {"a": [0]})
    assert left_in(model.parent) == {"m.h5"}


def test_flipped_bits_are_refused_or_give_a_model(model: Path) -> None:
    data = model.read_bytes()
    chosen = random.Random(3)
    refused = 0
    for place in chosen.sample(range(len(data)), 20):
        broken = bytearray(data)
        broken[place] ^= 1 << chosen.randrange(8)
        model.write_bytes(broken)
        try:
            kprune.remove(model, {"a": [0]}, output=model.with_name("o.h5"), force=True)
        except KpruneError as error:
            assert error.exit_code in (2, 3, 4), place  # the names and sizes are in there as well
            refused += 1
        else:
            assert contents(model.with_name("o.h5"))["model_weights/a/a/kernel"].shape == (4, 4), (
                place
            )
    assert refused < 20


def test_an_attribute_that_claims_to_be_huge_is_refused(model: Path) -> None:
    with h5py.File(model, "a") as file:
        file.attrs.create("large", np.zeros(1000), dtype="f8")
    data = bytearray(model.read_bytes())
    size = (1000).to_bytes(8, "little")
    place = data.index(size, data.index(b"large"))
    data[place : place + 8] = (1 << 40).to_bytes(8, "little")
    model.write_bytes(data)
    with pytest.raises(DamagedFileError):
        open_model(model)


def test_no_framework_is_imported(model: Path) -> None:
    probe = (
        "import kprune, sys; kprune.remove(sys.argv[1], {'a': [0]}); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'tf_keras')))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", probe, model], cwd=Path(kprune.__file__).parents[1]
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    "options",
    [
        {"libver": "latest"},
        {"userblock_size": 1024},
        {"track_order": True},
        {"libver": "latest", "userblock_size": 512},
    ],
)
def test_a_file_in_another_layout_of_hdf5_is_pruned_alike(
    model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(model) as old, h5py.File(other, "w", **options) as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
        new.attrs["mine"] = np.arange(3)
        new["model_weights/a"].attrs["note"] = "stays"
    for path in (model, other):
        kprune.remove(path, {"a": [1, 3]}, output=path.with_suffix(".out.h5"))
    one, two = (contents(path.with_suffix(".out.h5")) for path in (model, other))
    assert one.keys() == two.keys()
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    out = other.with_suffix(".out.h5")
    assert attributes(out)["mine"].tolist() == [0, 1, 2]
    assert attributes(out, "model_weights/a")["note"] == "stays"


def test_h5py_is_not_loaded_for_a_file_as_keras_writes_it(model: Path) -> None:
    probe = (
        "import kprune, sys; kprune.remove(sys.argv[1], {'a': [0]}); kprune.inspect(sys.argv[1]); "
        "sys.exit('h5py' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", probe, str(model)], stderr=subprocess.PIPE)
    assert ran.returncode == 0, ran.stderr
