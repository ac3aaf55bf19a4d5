"""The contents of a SavedModel folder, checked for consistency.

A checkpoint is a table of entries and shards of bytes, with a CRC32C for every block of the table
and every tensor; TensorFlow's reader compares them, and what it says becomes a DamagedFileError.
"""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kprune.active_content import Active, active_in_graphs
from kprune.errors import Cannot, DamagedFileError, FileError, KpruneError
from kprune.faults import file_error, shown
from kprune.runtime.tensorflow_runtime import tensorflow
from kprune.text import clean

PB = "saved_model.pb"
FINGERPRINT = "fingerprint.pb"
VARIABLES = "variables"
PREFIX = "variables/variables"
NOTE = "assets.extra/kprune.json"
"""Where kprune says what it did: TensorFlow reads nothing in `assets.extra`."""

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_LARGEST_PB = (1 << 31) - 1
CANNOT = {
    "drop_optimizer": Cannot(
        "kprune does not leave the optimizer's state out of a SavedModel",
        do="leave --drop-optimizer out; model.export() in Keras 3 writes no such state",
    ),
    "tune": Cannot(
        "a file of format savedmodel cannot be trained on",
        do="save the model from Keras as .keras",
    ),
    "sensitivity": Cannot(
        "the sensitivity of a SavedModel cannot be measured",
        why="its file says neither loss nor metrics",
        do="measure the .keras file that it was exported from",
    ),
}
"""Tasks to which no SavedModel can be put."""


@contextmanager
def reading(path: object, part: str) -> Iterator[None]:
    """Turn whatever TensorFlow raises about a part of the folder into damage."""
    try:
        yield
    except DamagedFileError as error:
        error.name_file(shown(str(path)))
        raise
    except KpruneError:
        raise
    except OSError as error:
        raise file_error(error, "read", shown(str(path))) from error
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DamagedFileError(
            f"{shown(str(path))} is damaged",
            where=part,
            why=clean(text, 300),
            do="get the folder again; nothing was written",
        ) from error


@dataclass(eq=False)
class Contents:
    """A SavedModel folder, read except the tensors' values.

    Attributes:
        folder: where it is.
        proto: saved_model.pb.
        meta: the one graph in it that is used (tag `serve`).
        shapes: by checkpoint key, the shape of each tensor.
        dtypes: by checkpoint key, numpy's type; object for strings.
    """

    folder: Path
    proto: Any
    meta: Any
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]
    reader: Any = field(repr=False)

    @functools.cached_property
    def active(self) -> tuple[Active, ...]:
        """What running the graphs would do besides computing."""
        with reading(self.folder, PB):
            return active_in_graphs(self.proto)

    def tensor(self, key: str) -> Any:
        """A tensor's value; its checksum is compared.

        Raises: DamagedFileError if it is not what was written.
        """
        with reading(self.folder, f"{PREFIX}, {clean(key)}"):
            return self.reader.get_tensor(key)

    def as_stored(self, key: str) -> Any:
        """The same as a tensor of TensorFlow's, in memory once."""
        tf = tensorflow()
        kind = tf.string if self.dtypes[key].kind == "O" else tf.as_dtype(self.dtypes[key])
        with reading(self.folder, f"{PREFIX}, {clean(key)}"), tf.device("/cpu:0"):
            (found,) = tf.raw_ops.RestoreV2(
                prefix=str(self.folder / PREFIX),
                tensor_names=[key],
                shape_and_slices=[""],
                dtypes=[kind],
            )
        return found

    def size(self, key: str) -> int:
        """Bytes of a tensor's numbers; 0 for strings."""
        kind = self.dtypes[key]
        return 0 if kind.kind == "O" else math.prod(self.shapes[key]) * kind.itemsize

    def object_graph(self) -> Any | None:
        """How the checkpoint's keys hang together; None in a TensorFlow 1 checkpoint."""
        if OBJECT_GRAPH not in self.shapes:
            return None
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        found = trackable_object_graph_pb2.TrackableObjectGraph()
        data = self.tensor(OBJECT_GRAPH)
        with reading(self.folder, f"{PREFIX}, {OBJECT_GRAPH}"):
            found.ParseFromString(bytes(data))
        return found


def read(folder: Path) -> Contents:
    """Read a SavedModel's folder, all but the tensors.

    Raises:
        FileError: a part is missing or cannot be read.
        DamagedFileError: a part is not what it says.
    """
    tf = tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    with reading(folder, PB):
        if os.path.getsize(folder / PB) > _LARGEST_PB:
            raise ValueError("it is larger than protocol buffers can be, 2 GiB")
        data = (folder / PB).read_bytes()
        proto.ParseFromString(data)
    if not proto.meta_graphs:
        raise DamagedFileError(
            f"{shown(folder)} is damaged", where=PB, why="there is no graph in it"
        )
    meta = _serving(proto)
    with reading(folder, PB):
        _check_names(meta.graph_def)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, np.dtype] = {}
    reader = None
    if (folder / f"{PREFIX}.index").exists():
        _check_shards(folder)
        with reading(folder, f"{PREFIX}.index"):
            reader = tf.train.load_checkpoint(str(folder / PREFIX))
            shapes = {
                key: tuple(shape) for key, shape in reader.get_variable_to_shape_map().items()
            }
            kinds = reader.get_variable_to_dtype_map()
            dtypes = {key: _numpy_type(kind) for key, kind in kinds.items()}
        shapes = dict(sorted(shapes.items()))
    elif _has_variables(meta) or (
        (folder / VARIABLES).is_dir() and any((folder / VARIABLES).iterdir())
    ):
        raise FileError(
            f"cannot read {shown(folder)}",
            where=f"{PREFIX}.index",
            why="the index of the variables is missing",
            do="get the folder again",
        )
    return Contents(folder, proto, meta, shapes, dtypes, reader)


def _check_names(graph: Any) -> None:
    """Raises: ValueError if two functions, or two nodes of a graph, have one name."""
    functions = graph.library.function
    for what, held in (
        ("functions", [function.signature for function in functions]),
        *(("nodes", nodes) for nodes in (graph.node, *(f.node_def for f in functions))),
    ):
        twice = [name for name, count in Counter(item.name for item in held).items() if count > 1]
        if twice:
            raise ValueError(f"two {what} are called '{clean(twice[0])}'")


def _has_variables(meta: Any) -> bool:
    return any(
        node.WhichOneof("kind") == "variable" for node in meta.object_graph_def.nodes
    ) or any(node.op in ("VarHandleOp", "VariableV2") for node in meta.graph_def.node)


def _numpy_type(kind: Any) -> np.dtype:
    return np.dtype(object) if kind.name == "string" else np.dtype(kind.as_numpy_dtype)


def _serving(proto: Any) -> Any:
    for meta in proto.meta_graphs:
        if "serve" in meta.meta_info_def.tags:
            return meta
    return proto.meta_graphs[0]


def _check_shards(folder: Path) -> None:
    """The shards' names say how many there must be."""
    names = sorted(path.name for path in (folder / VARIABLES).iterdir())
    counts = {
        int(tail)
        for name in names
        if (tail := name.rpartition("-of-")[2]).isdigit() and ".data-" in name
    }
    if len(counts) > 1:
        raise DamagedFileError(
            f"{shown(folder)} is damaged",
            where=VARIABLES,
            why="there are shards of several checkpoints",
        )
    count = counts.pop() if counts else 1
    for number in range(count):
        name = f"variables.data-{number:05d}-of-{count:05d}"
        if name not in names:
            raise DamagedFileError(
                f"{shown(folder)} is damaged",
                where=f"{VARIABLES}/{name}",
                why="this shard of the variables is missing",
                do="get the folder again; nothing was written",
            )


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a SavedModel."""
    return (folder / PB).is_file()


def tree_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(
        os.stat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


def saved_keys(meta: Any, graph: Any) -> Mapping[int, str]:
    """Which checkpoint key holds each variable of the object graph.

    Both graphs hang from the same root by the same names, so they are walked side by side.

    Args:
        graph: the checkpoint's own TrackableObjectGraph.
    Returns: by node of the object graph.
    """
    nodes, stored = meta.object_graph_def.nodes, graph.nodes
    found: dict[int, str] = {}
    seen: set[tuple[int, int]] = set()
    queue = [(0, 0)]
    while queue:
        pair = queue.pop()
        if pair in seen:
            continue
        seen.add(pair)
        here, there = pair
        if not (0 <= here < len(nodes) and 0 <= there < len(stored)):
            continue
        for attribute in stored[there].attributes:
            if attribute.name == "VARIABLE_VALUE" and nodes[here].WhichOneof("kind") == "variable":
                found.setdefault(here, attribute.checkpoint_key)
        children = {child.local_name: child.node_id for child in stored[there].children}
        for child in nodes[here].children:
            if child.local_name in children:
                queue.append((child.node_id, children[child.local_name]))
    return found


def object_paths(meta: Any) -> dict[int, str]:
    """The shortest attribute path to each node of the object graph: `layers/0/kernel`."""
    nodes = meta.object_graph_def.nodes
    if not nodes:
        return {}
    paths = {0: ""}
    queue = [0]
    for here in queue:
        for child in nodes[here].children:
            if child.node_id not in paths and 0 <= child.node_id < len(nodes):
                paths[child.node_id] = f"{paths[here]}/{child.local_name}".lstrip("/")
                queue.append(child.node_id)
    return paths
