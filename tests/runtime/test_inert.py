"""A legacy file is given to Keras only as it was looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kprune.errors import DamagedFileError
from kprune.formats import open_model
from kprune.runtime.inert import require_read_alike


def config(activation: str) -> dict[str, Any]:
    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3]}},
        {
            "class_name": "Dense",
            "config": {"name": "d", "units": 2, "use_bias": False, "activation": activation,
                       "rate": float("nan")},
        },
    ]  # fmt: skip
    return {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}


def legacy(path: Path, first: Any, second: Any = None) -> Path:
    """A legacy file; with a second config, one that has two attributes of one name."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(first)
        if second is not None:
            file.attrs["model_confiG"] = json.dumps(second)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = ["d"]
        group = weights.create_group("d")
        group.attrs["weight_names"] = ["d/kernel:0"]
        group["d/kernel:0"] = np.ones((3, 2), "float32")
    path.write_bytes(path.read_bytes().replace(b"model_confiG", b"model_config"))
    return path


def test_of_two_attributes_of_one_name_kprune_and_hdf5_take_the_same(tmp_path: Path) -> None:
    path = legacy(tmp_path / "two.h5", config("relu"), config("tanh"))
    with h5py.File(path) as file:
        text = file.attrs["model_config"]
    with open_model(path) as source:
        assert json.dumps(source.config) == text
        require_read_alike(source, path)


def test_what_hdf5_reads_otherwise_is_not_given_to_keras(tmp_path: Path) -> None:
    path = legacy(tmp_path / "one.h5", config("relu"))
    with open_model(path) as source:
        require_read_alike(source, path)
        source.config = config("tanh")  # as if kprune had read it so
        with pytest.raises(DamagedFileError, match="HDF5 reads it otherwise"):
            require_read_alike(source, path)
        source.trusted = True
        require_read_alike(source, path)
