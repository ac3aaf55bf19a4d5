"""Files that are taken for models but are not: recognised by content, with advice.

A file is looked at here only after it turned out to be of no format in `kprune.formats.registry`, so
the way of models pays nothing for it. Nothing is unpacked, and nothing in a pickle is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from msgspec import Struct

from kprune.errors import FileError
from kprune.faults import shown
from kprune.formats.opening import OpenFile
from kprune.text import clean
from kprune.types import AnyPath

CONFIG, WEIGHTS, GRAPH = "config.json", "model.weights.h5", "saved_model.pb"


class Lookalike(Struct, frozen=True):
    """A kind of file that is no model.

    Attributes:
        what: the end of a sentence that begins with "it is".
        do: what helps.
    """

    what: str
    do: str = ""


_CONVERTED = "prune the Keras model that it was converted from, and convert the result again"
_UNPACK = "unpack it, and name the model that is in it"
_REBUILD = "build the model in the code that made it"
_FOLDER = "name the folder around it"

LFS = Lookalike("a Git LFS pointer", "run 'git lfs pull' to get the file")
EMPTY_ZIP = Lookalike("an empty zip archive")
TFLITE = Lookalike(
    "a TensorFlow Lite model", f"{_CONVERTED} (tf.lite.TFLiteConverter.from_keras_model)"
)
ONNX = Lookalike("an ONNX model", _CONVERTED)
COREML = Lookalike("a Core ML model", _CONVERTED)
TFJS = Lookalike("a TensorFlow.js model", _CONVERTED)
GGUF = Lookalike("a GGUF model, as llama.cpp runs it", "prune the model that it was made from")
TORCH = Lookalike(
    "a PyTorch file", "kprune prunes Keras models; for those of PyTorch there is Torch-Pruning"
)
SAFETENSORS = Lookalike(
    "a safetensors file: weights alone, without the architecture",
    f"{_REBUILD}, give it these weights, and save it as .keras",
)
PICKLE = Lookalike(
    "a Python pickle, which kprune never loads, as that runs what is in it",
    "load it in the program that wrote it, and save the model there with model.save('model.keras')",
)
ARRAY = Lookalike(
    "an array of NumPy",
    "name the model first; arrays to measure on are given with --data, as an .npz file",
)
ARRAYS = Lookalike(
    "an archive of NumPy arrays", "name the model first; data to measure on go with --data"
)
COMPRESSED = Lookalike("a compressed file", _UNPACK)
ARCHIVE = Lookalike("an archive", _UNPACK)
ZIPPED_MODEL = Lookalike("a zip archive with a model in it", _UNPACK)
PAGE = Lookalike(
    "a web page, perhaps saved instead of the file that it offers",
    "get the file itself: from GitHub its raw version",
)
MATLAB = Lookalike("a MATLAB file")
ARCHITECTURE = Lookalike(
    "the architecture of a Keras model as JSON, without weights",
    "build the model with keras.models.model_from_json, load its weights (model.load_weights), "
    "and save it with model.save('model.keras')",
)
YAML_ARCHITECTURE = Lookalike(
    "the architecture of a Keras model as YAML, without weights",
    f"{_REBUILD}, load its weights (model.load_weights), and save it as .keras",
)
JSON = Lookalike("a JSON text")
PLAN = Lookalike("a kprune plan", "name the model first: kprune apply MODEL PLAN.yaml")
KERAS_PART = Lookalike("one part of an unzipped .keras file", _FOLDER)
SAVED_MODEL_PART = Lookalike("one part of a SavedModel", _FOLDER)
CHECKPOINT = Lookalike(
    "a TensorFlow checkpoint: weights alone, without the model",
    f"{_REBUILD}, restore the checkpoint (tf.train.Checkpoint(model=model).restore(PREFIX), or in "
    "Keras 2 model.load_weights(PREFIX)), and save the model",
)
FROZEN = Lookalike(
    "a frozen TensorFlow graph",
    "prune the model that it was made from, as a Keras file or a SavedModel, and freeze the result",
)
WEIGHTS_ALONE = Lookalike(
    "an HDF5 file of weights alone, without the architecture",
    f"{_REBUILD}, load these weights (model.load_weights), and save the model with model.save('model.keras')",
)
HDF5_DATA = Lookalike("an HDF5 file that holds no Keras model")
TRANSFORMERS = Lookalike(
    "a model of the transformers package",
    "load it in Keras, with KerasHub perhaps, and save it there as .keras",
)
SAVED_MODEL_TEXT = Lookalike(
    "a SavedModel whose graph is text (saved_model.pbtxt)",
    "load it in TensorFlow (tf.saved_model.load), and save it again (tf.saved_model.save)",
)
CUT_SHORT = Lookalike("a SavedModel without its saved_model.pb", "get a whole copy of the folder")

# Where in a file what bytes stand.
_SIGNS: tuple[tuple[int, bytes, Lookalike], ...] = (
    (0, b"version https://git-lfs", LFS),
    (0, b"PK\x05\x06", EMPTY_ZIP),
    (4, b"TFL3", TFLITE),
    (0, b"GGUF", GGUF),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", TORCH),  # what torch.save wrote before 1.6
    *((0, bytes((0x80, version)), PICKLE) for version in range(2, 6)),
    (0, b"\x93NUMPY", ARRAY),
    (0, b"MATLAB 5.0", MATLAB),
    (0, b"MATLAB 7.3", MATLAB),
    (0, b"\x1f\x8b", COMPRESSED),  # gzip
    (0, b"BZh", COMPRESSED),
    (0, b"\xfd7zXZ\x00", COMPRESSED),
    (0, b"\x28\xb5\x2f\xfd", COMPRESSED),  # zstandard
    *((0, bytes((0x78, level)), COMPRESSED) for level in (0x01, 0x5E, 0x9C, 0xDA)),  # zlib: joblib
    (0, b"7z\xbc\xaf\x27\x1c", ARCHIVE),
    (0, b"Rar!", ARCHIVE),
    (257, b"ustar", ARCHIVE),  # tar
    (0, b'model_checkpoint_path: "', CHECKPOINT),
)
_HEAD = 4096
_TABLE_END = (0xDB4775248B80FB57).to_bytes(8, "little")  # of LevelDB's tables: a checkpoint's index
_MORE_PARTS = ("fingerprint.pb", "keras_metadata.pb")
_SHARD = r"\.data-\d{5}-of-\d{5}$"
_MODEL_FILE = r"(^|/)(saved_model\.pb|model\.weights\.h5|[^/]+\.(keras|h5|hdf5))$"


def refuse_file(file: OpenFile) -> FileError:
    """The refusal of a file that is of no format."""
    if not file.size:
        return FileError(f"{file} is empty")
    head = file.read(0, min(_HEAD, file.size))
    found = by_signs(file) or _by_text(file, head) or _by_structure(file, head)
    if found is not None:
        return refusal(file, found)
    return FileError(
        f"{file} is not a model",
        why=f"it begins with '{clean(head[:8].decode('latin-1'))}', as neither a zip nor HDF5 does",
    )


def refusal(path: object, found: Lookalike, *, where: str = "") -> FileError:
    """The refusal of what was recognised."""
    return FileError(
        f"{path} is not a model that kprune reads",
        where=where,
        why=f"it is {found.what}",
        do=found.do,
    )


# -- files ----------------------------------------------------------------------------------------


def by_signs(file: OpenFile) -> Lookalike | None:
    """What a file is by the bytes that it begins with."""
    head = file.read(0, min(_HEAD, file.size))
    return next((kind for at, sign, kind in _SIGNS if head.startswith(sign, at)), None)


def _by_text(file: OpenFile, head: bytes) -> Lookalike | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"(?i)<!doctype html|<html", text):
        return PAGE
    if re.match(rb"version:\s*1\s*\n(.*\n)*?steps:", text):
        return PLAN
    if re.search(rb"(?m)^class_name:\s*\w", text) and re.search(rb"(?m)^config:", text):
        return YAML_ARCHITECTURE
    if re.match(rb"node\s*\{", text):
        return FROZEN
    if text[:1] not in (b"{", b"["):
        return None
    if b'"modelTopology"' in text or b'"weightsManifest"' in text:
        return TFJS
    if b'"class_name"' in text:
        part = file.path is not None and file.path.name == CONFIG and _beside(file, WEIGHTS)
        return KERAS_PART if part else ARCHITECTURE
    if b'"keras_version"' in text and _beside(file, WEIGHTS):
        return KERAS_PART
    return TRANSFORMERS if b'"architectures"' in text or b'"model_type"' in text else JSON


def _by_structure(file: OpenFile, head: bytes) -> Lookalike | None:
    if _is_safetensors(file, head):
        return SAFETENSORS
    if file.path is not None and file.path.name in _MORE_PARTS and _beside(file, GRAPH):
        return SAVED_MODEL_PART
    in_saved_model = _beside(file, f"../{GRAPH}")
    if file.size >= 48 and file.read(file.size - 8, 8) == _TABLE_END:
        return SAVED_MODEL_PART if in_saved_model else CHECKPOINT
    if file.path is not None and re.search(_SHARD, file.path.name):
        return SAVED_MODEL_PART if in_saved_model else CHECKPOINT
    return _by_fields(file)


def _is_safetensors(file: OpenFile, head: bytes) -> bool:
    """Eight bytes that count the JSON text behind them."""
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= file.size - 8 and head[8:9] == b"{"


def _by_fields(file: OpenFile) -> Lookalike | None:
    """Protocol buffers have no signature: what tells them is which fields they have, in their order."""
    fields = list(_fields(file, 64))
    if not fields:
        return None
    (first, wire, version), rest = fields[0], [(number, kind) for number, kind, _ in fields[1:]]
    lengths = {number for number, kind in rest if kind == 2}
    if (first, wire) == (1, 0):
        if version == 1 and set(rest) == {(2, 2)}:
            return SAVED_MODEL_PART  # SavedModel: schema version 1, then graphs
        if {7, 8} <= lengths:
            return ONNX  # ModelProto: ir_version, …, graph, opset_import
        if 2 in lengths and any(number >= 200 for number in lengths):
            return COREML  # Model: specificationVersion, description, …, one of many types
    if (first, wire) == (1, 2) and set(rest) <= {(1, 2), (2, 2), (3, 0), (4, 2)}:
        names = {
            number for number, kind, _ in _fields(file, 8, start=_first_content(file)) if kind == 2
        }
        if {1, 2} <= names:
            return FROZEN  # GraphDef: NodeDefs of a name and an operation
    return None


def _first_content(file: OpenFile) -> int:
    """Where the content of a first field with a length begins."""
    return _varint(file, 1)[1]


def _fields(file: OpenFile, most: int, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """The fields of a protocol buffer: number, wire type, and value or length; none if it is none.

    Args:
        most: how many are looked at.
        start: where it begins in the file.
    """
    at = start
    found: list[tuple[int, int, int]] = []
    while at < file.size and len(found) < most:
        tag, at = _varint(file, at)
        number, wire = tag >> 3, tag & 7
        value = 0
        if wire in (0, 2):
            value, at = _varint(file, at)
        at += {1: 8, 2: value, 5: 4}.get(wire, 0)
        if not 1 <= number < 1 << 29 or wire not in (0, 1, 2, 5) or at > file.size:
            if start and found:
                break  # inside a message whose end is not known here
            return
        found.append((number, wire, value))
    yield from found


def _varint(file: OpenFile, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, and where it ends."""
    value = 0
    for shift, byte in enumerate(file.read(at, max(0, min(10, file.size - at)))):
        value |= (byte & 0x7F) << 7 * shift
        if not byte & 0x80:
            return value, at + shift + 1
    return 0, file.size + 1  # no end: what follows is beyond the file


def _beside(file: OpenFile, name: str) -> bool:
    return file.path is not None and (file.path.parent / name).is_file()


def refuse_zip(file: OpenFile, names: Collection[str]) -> FileError | None:
    """The refusal of a zip archive that is known to be something else; None if it is not.

    Args:
        names: of its members.
    """
    files = [name for name in names if not name.endswith("/")]
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in files):
        return refusal(file, TORCH)
    if files and all(name.endswith(".npy") for name in files):
        return refusal(file, ARRAYS)
    inside = next(
        (name for name in files if re.search(_MODEL_FILE, name) and name != WEIGHTS), None
    )
    return None if inside is None else refusal(file, ZIPPED_MODEL, where=clean(inside))


def refuse_hdf5(file: OpenFile, *, weights: bool) -> FileError:
    """The refusal of an HDF5 file without an architecture.

    Args:
        weights: whether Keras wrote it, as weights.
    """
    if weights and _beside(file, CONFIG):
        return refusal(file, KERAS_PART)
    return refusal(file, WEIGHTS_ALONE if weights else HDF5_DATA)


# -- folders, and what is not there ---------------------------------------------------------------


def refuse_folder(folder: Path, names: Collection[str]) -> FileError:
    """The refusal of a folder that is of no format.

    Args:
        names: of what is in it.
    """
    found = _folder_kind(names)
    if found is CHECKPOINT and (folder / ".." / GRAPH).is_file():
        found = SAVED_MODEL_PART
    if found is not None:
        return refusal(shown(folder), found)
    inner = sorted(name for name in names if _holds_model(folder / name))
    if inner:
        here = ", ".join(shown(folder / name) for name in inner[:3])
        return FileError(
            f"{shown(folder)} is not a model",
            why="but there are models in it" if len(inner) > 1 else "but there is one in it",
            do=f"name {here}" if len(inner) == 1 else f"name one of them: {here}",
        )
    return FileError(
        f"{shown(folder)} is not a model",
        why="the folder has neither a config.json nor a saved_model.pb",
    )


def _folder_kind(names: Collection[str]) -> Lookalike | None:
    if any(re.search(_SHARD, name) for name in names):
        return CHECKPOINT
    if "saved_model.pbtxt" in names:
        return SAVED_MODEL_TEXT
    if "variables" in names:
        return CUT_SHORT
    if "model.json" in names and any(name.endswith(".bin") for name in names):
        return TFJS
    if "Manifest.json" in names and "Data" in names:
        return COREML
    others = ("model.safetensors", "pytorch_model.bin", "tf_model.h5")
    return TRANSFORMERS if CONFIG in names and any(name in names for name in others) else None


def check_keras_folder(folder: Path, names: Collection[str]) -> None:
    """Raises: FileError if a folder with a config.json is another program's, and not Keras's."""
    found = _folder_kind(names) if WEIGHTS not in names else None
    if found is not None:
        raise refusal(shown(folder), found)


def _holds_model(path: Path) -> bool:
    if path.is_dir():
        return (path / GRAPH).is_file() or all(
            (path / name).is_file() for name in (CONFIG, WEIGHTS)
        )
    return path.suffix in (".keras", ".h5", ".hdf5") and path.is_file()


def refuse_missing(path: AnyPath) -> FileError | None:
    """The refusal of a checkpoint named by its prefix, which is no file; None for what is not there."""
    name = os.fspath(path)
    if not os.path.isfile(f"{name}.index"):
        return None
    return refusal(shown(name), CHECKPOINT)
