"""Model files made by zipfile and h5py, the way Keras writes them, and a few ways it does not."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kprune.edit import Edit, TensorEdit
from kprune.formats import Source

CONFIG: dict[str, Any] = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"name": "model", "layers": [], "rate": 1e-05, "limit": float("inf"), "name2": "é"},
}
METADATA = {"keras_version": "3.15.1", "date_saved": "2026-01-02@03:04:05"}


def some_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of every kind that Keras stores, filled with random bits."""
    kinds = {
        "layers/dense/vars/0": ("<f4", (7, 5)),
        "layers/dense/vars/1": ("<f4", (5,)),
        "layers/conv2d/vars/0": ("<f2", (3, 3, 2, 4)),
        "layers/conv2d/vars/1": ("<f4", (4,)),
        "layers/half/vars/0": ("V2", (6, 3)),
        "layers/whole/vars/0": ("i1", (2, 9)),
        "layers/flags/vars/0": ("?", (5,)),
        "layers/none/vars/0": ("<f4", (0, 3)),
        "layers/wide/vars/0": ("<f8", (2, 2)),
        "optimizer/vars/0": ("<i8", ()),
        "optimizer/vars/1": ("<f4", ()),
        "optimizer/vars/10": ("<f4", (7, 5)),
        "optimizer/vars/2": ("<f4", (5,)),
    }
    return {path: random_array(kind, shape, seed) for path, (kind, shape) in kinds.items()}


def random_array(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """An array of random bits, NaNs among them; of 0 and 1 for bool."""
    dtype = np.dtype(kind)
    size = int(np.prod(shape)) * dtype.itemsize
    high = 2 if dtype.kind == "b" else 256
    bits = np.random.default_rng(seed).integers(0, high, size, dtype=np.uint8)
    return np.frombuffer(bits.tobytes(), dtype).reshape(shape)


def hdf5_bytes(
    tensors: Mapping[str, np.ndarray],
    *,
    groups: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
    more: Callable[[h5py.File], None] = lambda file: None,
    **options: Any,
) -> bytes:
    """A weights file: `options` go to h5py.File; `more` may add what Keras never would."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        for path, value in tensors.items():
            dataset = file.create_dataset(path, data=value)
            if value.dtype == np.dtype("V2"):
                dataset.attrs["dtype"] = "bfloat16"
        for group in groups:
            file.require_group(group)
        for group, name in (names or {}).items():
            file.require_group(group).attrs["name"] = name
        more(file)
    return buffer.getvalue()


def write_keras(
    path: Path,
    weights: bytes | Mapping[str, np.ndarray],
    *,
    config: bytes | dict[str, Any] = CONFIG,
    metadata: dict[str, Any] | None = METADATA,
    assets: Mapping[str, bytes] | None = None,
    method: int = zipfile.ZIP_STORED,
) -> Path:
    """A `.keras` zip as Keras writes it; `metadata=None` leaves that member out."""
    data = weights if isinstance(weights, bytes) else hdf5_bytes(weights)
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    members = {} if metadata is None else {"metadata.json": json.dumps(metadata).encode()}
    members |= {"config.json": text, "model.weights.h5": data, **(assets or {})}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def write_folder(path: Path, weights: bytes | Mapping[str, np.ndarray]) -> Path:
    """The same as a folder, with an asset."""
    data = weights if isinstance(weights, bytes) else hdf5_bytes(weights)
    (path / "assets" / "layers").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "metadata.json").write_text(json.dumps(METADATA))
    (path / "model.weights.h5").write_bytes(data)
    (path / "assets" / "layers" / "words.txt").write_text("one\ntwo\n")
    return path


def empty_edit(source: Source) -> Edit:
    """The edit that changes nothing."""
    return Edit(source.config, source.metadata)


def edit_of(source: Source, *tensors: TensorEdit, **fields: Any) -> Edit:
    """An edit of some tensors."""
    return Edit(source.config, source.metadata, tuple(tensors), **fields)


def contents(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a `.keras` zip or a weights file, as h5py reads them."""
    data = path.read_bytes()
    if data.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            data = archive.read("model.weights.h5")
    return tensors_in(data)


def tensors_in(data: bytes) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file that hard links lead to, as h5py reads it."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[...]

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(visit)
    return found


def left_in(folder: Path) -> set[str]:
    """Names in a folder, hidden ones too."""
    return {item.name for item in folder.iterdir()}
