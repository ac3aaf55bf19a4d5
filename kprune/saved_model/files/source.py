"""A SavedModel folder, opened; and how another one is written from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kprune.active_content import Active
from kprune.atomic import copy_file, new_folder, put_file
from kprune.edit import Edit, TensorEdit
from kprune.errors import UsageError
from kprune.faults import file_error, shown, writing
from kprune.formats.source import Source, Tensor
from kprune.runtime.tensorflow_runtime import tensorflow
from kprune.saved_model.analysis import GraphAnalysis, analyse
from kprune.saved_model.files.checkpoint import Checkpoint, as_tensor
from kprune.saved_model.files.contents import (
    CANNOT,
    FINGERPRINT,
    NOTE,
    PB,
    PREFIX,
    Contents,
    is_saved_model,
    read,
    reading,
    tree_size,
)
from kprune.saved_model.files.graph_check import require_sound
from kprune.saved_model.files.implementations import renew
from kprune.saved_model.files.rewrite import carry_out
from kprune.saved_model.masks import put_in, take_out
from kprune.saved_model.tracing.find_weights import Found, find_parameters
from kprune.saved_model.tracing.graph import constant
from kprune.surgery.provenance import read_record
from kprune.types import AnyPath, Progress

KERAS_METADATA = "keras_metadata.pb"


def open_source(folder: Path) -> Source:
    """Open a folder that holds a saved_model.pb."""
    if (folder / KERAS_METADATA).is_file():
        from kprune.saved_model.keras2 import Keras2Source

        return Keras2Source(folder)
    return SavedModelSource(folder)


class SavedModelSource(Source):
    """A SavedModel as TensorFlow sees it: graphs over variables and constants."""

    format = "savedmodel"
    cannot = CANNOT
    has_signatures = True

    def __init__(self, folder: Path) -> None:
        self.path = self.folder = folder
        self._stamps = _stamps(folder)
        self.contents: Contents = read(folder)
        self.bytes = tree_size(folder)
        with reading(folder, PB):
            self.found: Found = find_parameters(self.contents)
        self.config = {"class_name": "SavedModel", "config": {"layers": []}}
        self.metadata = read_record(folder / NOTE, shown(folder))
        self._tensors = {
            p.path: Tensor(
                p.path,
                p.shape,
                p.dtype,
                int(np.prod(p.shape, dtype=np.int64)) * p.dtype.itemsize,
                None,
            )
            for p in self.found.parameters
        }
        self._parameters = {p.path: p for p in self.found.parameters}

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self._tensors

    @property
    def extras(self) -> list[str]:
        return [path for path in _files(self.folder) if path.startswith("assets") and path != NOTE]

    def analyse(self, rules: Iterable[str] = ()) -> GraphAnalysis:
        """The analysis of the graphs. Rules for Keras layers have no say here.

        Raises: DamagedFileError if the graphs contradict themselves.
        """
        with reading(self.folder, PB):
            return analyse(self.contents, self.metadata, self.tensors, self.found)

    def active(self) -> tuple[Active, ...]:
        """What running its graphs would do besides computing."""
        return self.contents.active

    def read(self, path: str) -> np.ndarray:
        parameter = self._parameters[path]
        if parameter.constants:
            graph, name = parameter.constants[0]
            value = constant(self._node(graph, name))
            assert value is not None
            return value
        return np.asarray(self.contents.tensor(parameter.keys[0]))

    def _node(self, graph: str, name: str) -> Any:
        if not graph:
            nodes = self.contents.meta.graph_def.node
        else:
            nodes = next(
                f.node_def
                for f in self.contents.meta.graph_def.library.function
                if f.signature.name == graph
            )
        return next(node for node in nodes if node.name == name)

    def blocks(self, path: str, limit: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        yield 0, self.read(path)

    def check_integrity(self) -> None:
        for key in self.contents.shapes:
            self.contents.tensor(key)

    def close(self) -> None:
        """Nothing is held open: TensorFlow opens shards as they are read."""

    def output_size(self, edit: Edit) -> int:
        """How many bytes `write` would write, except a few in the checkpoint's index."""
        by_key = self._edits_by_key(edit)
        saved = 0
        for key, change in by_key.items():
            shape = self.contents.shapes[key]
            after = list(change.shape_after(tuple(shape)))
            item = self.contents.dtypes[key].itemsize
            saved += (
                int(np.prod(shape, dtype=np.int64)) - int(np.prod(after, dtype=np.int64))
            ) * item
        proto = self._rewritten(edit).SerializeToString(deterministic=True)
        note = len(_json(edit.metadata)) if edit.metadata else 0
        old_note = os.path.getsize(self.folder / NOTE) if (self.folder / NOTE).exists() else 0
        return self.bytes - saved - os.path.getsize(self.folder / PB) + len(proto) + note - old_note

    # -- writing --------------------------------------------------------------------------------

    def write(self, edit: Edit, output: AnyPath, force: bool, progress: Progress | None) -> int:
        own = Path(os.path.realpath(self.folder))
        if own in Path(os.path.realpath(output)).parents:
            raise UsageError(
                f"{shown(output)} lies inside the model", do="name another output with -o"
            )
        with new_folder(output, force=force, replaceable=is_saved_model) as new:
            self._carry_over(new.path, new.name)
            self._write_variables(edit, new.path, new.name, progress)
            proto = self._rewritten(edit)
            with writing(new.name):
                put_file(new.path / PB, proto.SerializeToString(deterministic=True))
                if edit.metadata:
                    (new.path / NOTE).parent.mkdir(exist_ok=True)
                    put_file(new.path / NOTE, _json(edit.metadata))
                if (self.folder / FINGERPRINT).exists():
                    write_fingerprint(new.path)
            require_sound(lambda: read(new.path), lambda: self.contents)
            size = tree_size(new.path)
            new.commit(self._check_unchanged)
        return size

    def _carry_over(self, target: Path, name: str) -> None:
        for path in _files(self.folder):
            if path in (PB, FINGERPRINT, NOTE) or path.startswith(f"{PREFIX}."):
                continue
            try:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                copy_file(self.folder / path, target / path)
            except OSError as error:
                raise file_error(error, "write", name) from error
        for folder in sorted(p for p in self.folder.rglob("*") if p.is_dir()):
            (target / folder.relative_to(self.folder)).mkdir(parents=True, exist_ok=True)

    def _edits_by_key(self, edit: Edit) -> dict[str, TensorEdit]:
        return {
            key: change
            for change in edit.tensors
            if change.source is not None and not change.copies
            for key in self._parameters[change.source].keys
        }

    def _write_variables(
        self, edit: Edit, target: Path, name: str, progress: Progress | None
    ) -> None:
        if not self.contents.shapes:
            return
        edits = self._edits_by_key(edit)
        total = sum(tensor.nbytes for tensor in self._tensors.values())
        done = 0
        checkpoint = Checkpoint(target / PREFIX)
        (target / PREFIX).parent.mkdir(exist_ok=True)
        with writing(name):
            for key in self.contents.shapes:
                size = self.contents.size(key)
                if key in edits:
                    value = as_tensor(edits[key].applied(np.asarray(self.contents.tensor(key))))
                else:
                    value = self.contents.as_stored(key)
                checkpoint.add(key, value, size)
                del value  # before the next one is read
                done += size
                if progress is not None:
                    progress(min(done, total), total)
            checkpoint.close()

    def _rewritten(self, edit: Edit) -> Any:
        proto = type(self.contents.proto)()
        proto.CopyFrom(self.contents.proto)
        at = next(
            i
            for i, meta in enumerate(self.contents.proto.meta_graphs)
            if meta is self.contents.meta or meta == self.contents.meta
        )
        meta = proto.meta_graphs[at]
        shapes: dict[int, list[int]] = {}
        handles: dict[str, list[int]] = {}
        constants: dict[tuple[str, str], np.ndarray] = {}
        for change in edit.tensors:
            if change.source is None or change.copies:
                continue
            parameter = self._parameters[change.source]
            for place in parameter.constants:
                constants[place] = change.applied(self.read(change.source))
            shape = list(change.shape_after(tuple(parameter.shape)))
            if parameter.constants or shape == list(parameter.shape):
                continue
            handles.update(
                {name: shape for name, held in self.found.by_node.items() if held is parameter}
            )
            shapes.update(
                {node: shape for node, held in self.found.by_object.items() if held is parameter}
            )
        changes = edit.config.get("changes", {})
        carry_out(meta, changes, handles, shapes, constants, self.found.skipped)
        put_in(meta, edit.config.get("masks", ()))
        if edit.config.get("unmask"):
            take_out(meta, edit.config["unmask"])
        masked = {mask["graph"] for mask in edit.config.get("masks", ())}
        renew(meta, {*changes.get("graphs", ()), *changes.get("arguments", ()), *masked})
        return proto

    def _check_unchanged(self) -> None:
        if _stamps(self.folder) != self._stamps:
            from kprune.errors import FileError

            raise FileError(
                f"{shown(self.folder)} changed while it was read", do="run the command again"
            )


def _files(folder: Path) -> list[str]:
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.relpath(os.path.join(place, name), folder) for name in sorted(names)]
    return found


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    stamps = {}
    for path in _files(folder):
        status = os.stat(folder / path)  # of a link what it leads to
        stamps[path] = status.st_ino, status.st_size, status.st_mtime_ns
    return stamps


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def write_fingerprint(folder: Path) -> None:
    """Make fingerprint.pb anew, with an id that follows from the content."""
    tensorflow()
    from tensorflow.core.protobuf import fingerprint_pb2
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    made = fingerprint_pb2.FingerprintDef()
    made.ParseFromString(fingerprinting.CreateFingerprintDef(str(folder)))
    made.uuid = ""
    digest = hashlib.sha256(made.SerializeToString(deterministic=True)).digest()
    made.uuid = str(int.from_bytes(digest[:16], "big"))
    put_file(folder / FINGERPRINT, made.SerializeToString(deterministic=True))
