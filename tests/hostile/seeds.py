"""Good models, small and quick to make, that bad ones are made of."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.formats.making import METADATA, hdf5_bytes
from tests.small_models import Network, arrays

Config = dict[str, Any]


@cache
def _text() -> str:
    net = Network()
    x = net("Dense", "a", net.input("in", 5), units=6, activation="relu")
    x = net("BatchNormalization", "bn", x)
    return json.dumps(net.functional(net("Dense", "b", x, units=3)))


def config() -> Config:
    """A Functional model: Dense `a`, BatchNormalization `bn`, Dense `b`. One's own copy."""
    found: Config = json.loads(_text())
    return found


def layer(config: Config, name: str) -> Config:
    """The entry of a layer."""
    found: Config = next(e for e in config["config"]["layers"] if e["config"]["name"] == name)
    return found


def tensors() -> dict[str, np.ndarray]:
    """Its weights, and an optimizer's slots: Adam's, for a model that was compiled."""
    held = arrays(config())
    trained = [path for path in held if "batch" not in path or path[-1] in "01"]
    slots: list[np.ndarray] = [np.asarray(7, "i8"), np.asarray(0.001, "f4")]
    for path in trained:
        slots += [np.zeros_like(held[path]), np.ones_like(held[path])]
    return held | {f"optimizer/vars/{number}": slot for number, slot in enumerate(slots)}


COMPILED = {
    "optimizer": {
        "module": "keras.optimizers", "class_name": "Adam",
        "config": {"name": "adam", "learning_rate": 0.001}, "registered_name": None,
    },
    "loss": "mse", "loss_weights": None, "metrics": None, "weighted_metrics": None,
    "run_eagerly": False, "steps_per_execution": 1, "jit_compile": False,
}  # fmt: skip


def weights(**options: Any) -> bytes:
    """The HDF5 file of its weights; `options` as for `hdf5_bytes`."""
    return hdf5_bytes(tensors(), **options)


@cache
def _usual_weights() -> bytes:
    return weights()


def members(**changed: bytes | Config | None) -> dict[str, bytes]:
    """The members of its `.keras` file.

    Args:
        changed: `config`, `metadata` and `weights` to take others; None leaves one out.
    """
    whole: dict[str, Any] = {
        "metadata": METADATA,
        "config": config() | {"compile_config": COMPILED},
        "weights": _usual_weights,
    }
    names = {"metadata": "metadata.json", "config": "config.json", "weights": "model.weights.h5"}
    found = {}
    for key, value in (whole | changed).items():
        if callable(value):
            value = value()
        if value is not None:
            text = value if isinstance(value, bytes) else json.dumps(value).encode()
            found[names[key]] = text
    return found


def zipped(parts: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive with these members."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return data.getvalue()


def keras(**changed: Any) -> bytes:
    """The `.keras` file; see `members`."""
    return zipped(members(**changed))


@cache
def _usual_file() -> bytes:
    return keras()


def changed_config(change: Callable[[Config], Any]) -> bytes:
    """The `.keras` file with its config changed in place."""
    made = config() | {"compile_config": json.loads(json.dumps(COMPILED))}
    change(made)
    return keras(config=made)


def changed_weights(change: Callable[[h5py.File], Any], **options: Any) -> bytes:
    """The `.keras` file with its weights changed by h5py."""
    return keras(weights=weights(more=change, **options))


def folder(path: Path, **changed: Any) -> Path:
    """The model as a folder, with an asset."""
    path.mkdir()
    for name, content in members(**changed).items():
        (path / name).write_bytes(content)
    (path / "assets").mkdir()
    (path / "assets" / "words.txt").write_text("one\ntwo\n")
    return path


def legacy_config(version: int = 3) -> Config:
    """The Sequential model of the legacy files: Dense `a` and Dense `b`."""
    shape = {"batch_shape" if version == 3 else "batch_input_shape": [None, 5]}
    start = {"class_name": "InputLayer", "config": {**shape, "name": "x"}}
    dense = [
        {
            "class_name": "Dense",
            "config": {
                "name": name, "trainable": True, "dtype": "float32", "units": units,
                "activation": "relu", "use_bias": True,
            },
        }
        for name, units in (("a", 6), ("b", 3))
    ]  # fmt: skip
    return {"class_name": "Sequential", "config": {"name": "m", "layers": [start, *dense]}}


def legacy(
    change: Callable[[h5py.File], Any] = lambda file: None,
    *,
    version: int = 3,
    config: Any = None,
    **options: Any,
) -> bytes:
    """A legacy `.h5` file, as Keras 3 or Keras 2 writes it."""
    buffer = io.BytesIO()
    tail = "" if version == 3 else ":0"
    rng = np.random.default_rng(0)
    with h5py.File(buffer, "w", **options) as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = "3.15.1" if version == 3 else "2.15.0"
        made = legacy_config(version) if config is None else config
        file.attrs["model_config"] = made if isinstance(made, str) else json.dumps(made)
        file.attrs["training_config"] = json.dumps({"loss": "mse", "optimizer_config": {}})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"x", b"a", b"b"]
        group.create_group("x").attrs["weight_names"] = np.zeros(0)
        group.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0)
        for name, kernel in (("a", (5, 6)), ("b", (6, 3))):
            held = group.create_group(name)
            paths = [f"{name}/kernel{tail}", f"{name}/bias{tail}"]
            held.attrs["weight_names"] = [path.encode() for path in paths]
            for path, shape in zip(paths, (kernel, kernel[1:]), strict=True):
                held.create_dataset(path, data=rng.normal(size=shape).astype("f4"))
        change(file)
    return buffer.getvalue()


SAVED = "KPRUNE_GOOD_SAVED_MODEL"
"""The variable that says where the good SavedModel stands, which takes seconds to make."""


def saved_model(path: Path) -> Path:
    """A SavedModel of two matrix products, with a function called by another."""
    if SAVED in os.environ:
        return Path(shutil.copytree(os.environ[SAVED], path))
    import tensorflow as tf

    # Not an attribute of the module, which would be a way into the model of its own.
    @tf.function
    def inner(h: Any, b: Any) -> Any:
        return {"y": tf.matmul(tf.nn.relu(h), b)}

    class Small(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(0)
            self.a = tf.Variable(rng.normal(size=(5, 6)).astype("f4"), name="a")
            self.bias = tf.Variable(rng.normal(size=(6,)).astype("f4"), name="bias")
            self.b = tf.Variable(rng.normal(size=(6, 3)).astype("f4"), name="b")

        @tf.function(input_signature=[tf.TensorSpec([None, 5], name="x")])
        def serve(self, x: Any) -> Any:
            return inner(tf.matmul(x, self.a) + self.bias, self.b)

    model = Small()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve})
    return path


MAKERS: dict[str, Callable[[Path], Any]] = {
    "good.keras": lambda path: path.write_bytes(_usual_file()),
    "good.h5": lambda path: path.write_bytes(legacy()),
    "good_2.h5": lambda path: path.write_bytes(legacy(version=2)),
    "good_folder": folder,
    "good_saved": saved_model,
}


def good(name: str, at: Path) -> Path:
    """Make one of the good models in a folder, under its name."""
    MAKERS[name](at / name)
    return at / name


def files(folder: Path) -> dict[str, bytes | str]:
    """What stands in a folder: the bytes of files, the kind of everything else."""
    found: dict[str, bytes | str] = {}
    for place, folders, names in os.walk(folder):
        for name in folders + names:
            path = Path(place, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = os.readlink(path)
            elif path.is_file() and path.stat().st_size < (64 << 20) and os.access(path, os.R_OK):
                found[str(path.relative_to(folder))] = path.read_bytes()
            else:
                found[str(path.relative_to(folder))] = oct(path.lstat().st_mode)
    return found
