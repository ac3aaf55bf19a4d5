"""What is taken for a model and is none is called by its name, with what helps; and that does help."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kprune.errors import FileError
from kprune.formats import open_model
from tests.formats.making import some_tensors, write_folder, write_keras


def refusal(path: Path | str) -> FileError:
    with pytest.raises(FileError) as caught:
        open_model(path)
    assert caught.value.exit_code == 4
    return caught.value


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer with a length."""
    return bytes(((number << 3) | 2, len(content))) + content


def zipped(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.keras"))
    return data.getvalue()


def saved(array: np.ndarray, save: Callable[..., None]) -> bytes:
    data = io.BytesIO()
    save(data, array)
    return data.getvalue()


HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
NODE = field(1, field(1, b"x") + field(2, b"Placeholder"))
FILES = {
    "TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(20),
    "ONNX": b"\x08\x08" + field(2, b"pytorch") + field(7, field(2, b"g")) + field(8, b"\x10\x11"),
    "Core ML": b"\x08\x04" + field(2, b"\x0a\0") + b"\xa2\x1f\x03abc",
    "frozen TensorFlow graph": NODE + NODE + field(4, b"\x08\x15"),
    "SavedModel": b"\x08\x01" + field(2, NODE),
    "PyTorch": zipped(**{"archive/data.pkl": b"x", "archive/data/0": b"y"}),
    "PyTorch file": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "safetensors": struct.pack("<Q", len(HEADER)) + HEADER + bytes(8),
    "Python pickle": pickle.dumps({"a": 1}),
    "compressed file": gzip.compress(b"PK\x03\x04"),
    "a compressed": zlib.compress(b"x" * 99, 3),
    "an archive": tarred(),
    "array of NumPy": saved(np.zeros(3), np.save),
    "archive of NumPy": saved(np.zeros(3), np.savez),
    "with a model in it": zipped(**{"model/saved_model.pb": b"x"}),
    "model in it": zipped(**{"model.keras": b"x"}),
    "as JSON": b'{"module": "keras", "class_name": "Sequential", "config": {}}',
    "as YAML": b"backend: tensorflow\nclass_name: Sequential\nconfig:\n  name: x\n",
    "TensorFlow.js": b'{"format": "layers-model", "modelTopology": {}}',
    "transformers": b'{"architectures": ["Bert"]}',
    "kprune plan": b"version: 1\nsteps:\n  - backend: remove\n",
    "web page": b"\n<!DOCTYPE html><html>",
    "checkpoint": b'model_checkpoint_path: "ckpt-1"\n',
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_is_called_by_what_is_in_it_whatever_its_name(tmp_path: Path, what: str) -> None:
    (tmp_path / "model.keras").write_bytes(FILES[what])
    error = refusal(tmp_path / "model.keras")
    assert what in error.why
    assert error.do


def test_parts_of_a_model_name_the_folder_around_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", some_tensors())
    for name in ("config.json", "model.weights.h5"):
        assert "name the folder" in refusal(folder / name).do


def test_a_folder_around_a_model_names_the_model(tmp_path: Path) -> None:
    (tmp_path / "serving" / "1").mkdir(parents=True)
    (tmp_path / "serving" / "1" / "saved_model.pb").write_bytes(b"x")
    assert refusal(tmp_path / "serving").do == f"name {tmp_path / 'serving' / '1'}"
    write_keras(tmp_path / "serving" / "m.keras", some_tensors())
    assert "name one of them" in refusal(tmp_path / "serving").do


def test_folders_of_other_programs_are_called_by_their_names(tmp_path: Path) -> None:
    for what, names in {
        "transformers": ("config.json", "model.safetensors"),
        "TensorFlow.js": ("model.json", "group1-shard1of1.bin"),
        "saved_model.pbtxt": ("saved_model.pbtxt",),
        "checkpoint": ("ckpt-1.index", "ckpt-1.data-00000-of-00001"),
    }.items():
        folder = tmp_path / what
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"{}")
        assert what in refusal(folder).why


def test_damage_that_looks_like_a_message_with_fields_has_no_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(300):
        start = b"\x08\x01" if number % 2 else b"\x0a\x05"
        (tmp_path / "m").write_bytes(start + rng.bytes(int(rng.integers(0, 90))))
        assert refusal(tmp_path / "m").what


def test_what_a_message_says_to_do_helps(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    def build() -> keras.Model:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])

    os.chdir(tmp_path)
    model = build()
    x = np.ones((2, 4), np.float32)
    expected = model.predict(x, verbose=0)

    def given_back(again: keras.Model) -> None:
        again.save("again.keras")
        open_model("again.keras").close()
        np.testing.assert_allclose(again.predict(x, verbose=0), expected, rtol=1e-6)

    model.save_weights("model.weights.h5")
    Path("model.json").write_text(model.to_json())
    assert "model_from_json" in refusal("model.json").do
    again = keras.models.model_from_json(Path("model.json").read_text())
    assert "load_weights" in refusal("model.weights.h5").do
    again.load_weights("model.weights.h5")
    given_back(again)

    tf.train.Checkpoint(model=model).write("ckpt")
    for name in ("ckpt", "ckpt.index", "ckpt.data-00000-of-00001"):
        assert "tf.train.Checkpoint(model=model).restore(PREFIX)" in refusal(name).do
    again = build()
    tf.train.Checkpoint(model=again).restore("ckpt")
    given_back(again)

    Path("model.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    assert "TFLiteConverter.from_keras_model" in refusal("model.tflite").do
    model.export("exported", verbose=False)
    open_model("exported").close()
    for name in ("saved_model.pb", "fingerprint.pb", "variables", "variables/variables.index"):
        assert "name the folder" in refusal(f"exported/{name}").do
