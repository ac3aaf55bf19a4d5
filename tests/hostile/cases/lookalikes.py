"""What is no model file at all, and places from which none can be read."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import add_all
from tests.hostile.seeds import folder, keras, weights, zipped

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()


class Planted:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch planted",)


def device(path: Path) -> None:
    (path / "bad.keras").symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    (path / "bad.keras").symlink_to("/dev/full")


def listening(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("bad.keras")
    os.chdir(here)


def dangling(path: Path) -> None:
    (path / "bad.keras").symlink_to("nowhere")


def circle(path: Path) -> None:
    (path / "bad.keras").symlink_to("bad.keras")


def empty_folder(path: Path) -> None:
    (path / "bad.keras").mkdir()


def other_folder(path: Path) -> None:
    (path / "bad.keras").mkdir()
    (path / "bad.keras" / "photo.jpg").write_bytes(b"\xff\xd8")


def no_weights(path: Path) -> None:
    folder(path / "bad.keras", weights=None)


def no_config(path: Path) -> None:
    folder(path / "bad.keras", config=None)


def config_as_folder(path: Path) -> None:
    folder(path / "bad.keras", config=None)
    (path / "bad.keras" / "config.json").mkdir()


def weights_as_link(path: Path) -> None:
    model = folder(path / "bad.keras", weights=None)
    (path / "weights").write_bytes(weights())
    (model / "model.weights.h5").symlink_to(path / "weights")


def asset_as_link(path: Path) -> None:
    (folder(path / "bad.keras") / "assets" / "out.txt").symlink_to("/etc/hostname")


def asset_folder_as_link(path: Path) -> None:
    (folder(path / "bad.keras") / "assets" / "out").symlink_to("/etc")


def asset_as_pipe(path: Path) -> None:
    os.mkfifo(folder(path / "bad.keras") / "assets" / "pipe")


def sparse(path: Path) -> None:
    (path / "bad.keras").touch()
    os.truncate(path / "bad.keras", 1 << 40)


def given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


add_all("lookalike", {
    "an empty file": (given(b""), "empty"),
    "one byte": (given(b"P"),),
    "zeros": (given(bytes(10_000)),),
    "a terabyte of nothing": (sparse,),
    "text": (given(b"a model\n"),),
    "a pickle": (lambda: pickle.dumps(Planted()), "pickle"),
    "a pickle of the first protocol": (lambda: pickle.dumps(Planted(), 0),),
    "a gzipped model": (lambda: gzip.compress(keras(), mtime=0), "compressed"),
    "a PyTorch file": (
        lambda: zipped({"archive/data.pkl": pickle.dumps(Planted()), "archive/data/0": b"y"}), "PyTorch"),
    "a TensorFlow Lite model": (given(b"\x1c\0\0\0TFL3" + bytes(20)), "TensorFlow Lite"),
    "a safetensors file": (
        lambda: struct.pack("<Q", len(HEADER)) + HEADER + bytes(8), "safetensors"),
    "a safetensors header of an exabyte": (given(struct.pack("<Q", 1 << 60) + b"{" * 99),),
    "a checkpoint": (given(b'model_checkpoint_path: "ckpt-1"\n'), "checkpoint"),
    "a web page": (given(b"<!DOCTYPE html><html>"), "web page"),
    "a Git LFS pointer": (
        given(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "LFS"),
    "weights alone": (lambda: weights(), "weights"),
    "config alone": (given(b'{"module": "keras", "class_name": "Sequential", "config": {}}'), "JSON"),
    "an array of NumPy": (lambda: b"\x93NUMPY\x01\0" + struct.pack("<H", 60) + b" " * 60, "NumPy"),
    "a NumPy archive": (lambda: zipped({"x.npy": b"\x93NUMPY"}), "NumPy"),
    "a device": (device,),
    "a device that is full": (terminal,),
    "a socket": (listening,),
    "a link to nowhere": (dangling,),
    "a link in a circle": (circle,),
    "an empty folder": (empty_folder,),
    "a folder of something else": (other_folder,),
    "a folder without weights": (no_weights, "model.weights.h5"),
    "a folder without config.json": (no_config,),
    "an asset that is a pipe": (asset_as_pipe, "assets/pipe"),
    "a folder for config.json": (config_as_folder, "config.json"),
})  # fmt: skip
# Links are understood, and not followed.
add_all("lookalike", {
    "weights that are a link out": (weights_as_link, "model.weights.h5"),
    "an asset that is a link out": (asset_as_link, "assets/out.txt"),
    "an asset that is a folder elsewhere": (asset_folder_as_link, "assets/out"),
}, code=3, inspect_code=3)  # fmt: skip
