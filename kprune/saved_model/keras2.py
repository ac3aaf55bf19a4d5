"""SavedModels that Keras 2 wrote: `keras_metadata.pb` beside the graph says what model it is.

tf_keras reads the model and writes it as a legacy `.h5` into a temporary folder; that file goes
through the same graph, labels and backends as any other, and what comes out is saved by tf_keras
as a SavedModel again, compile state included. Functions and signatures are traced anew.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError, DamagedFileError, UsageError
from kprune.formats.atomic import new_folder
from kprune.formats.faults import file_error, shown, writing
from kprune.formats.source import Progress, Source, Tensor
from kprune.running.keras_runtime import quiet
from kprune.saved_model.contents import PB, VALUE, Contents, read, reading, tree_size
from kprune.saved_model.runtime import tf_keras
from kprune.surgery.edit import Edit
from kprune.text import clean

METADATA = "keras_metadata.pb"
NOTE = "assets.extra/kprune.json"
_AS_A_GRAPH = (
    "take keras_metadata.pb out of a copy of the folder: kprune then prunes the graph, "
    "as far as its functions allow"
)
_OWN_SIGNATURES = frozenset({"serving_default", "__saved_model_init_op"})


class Keras2Source(Source):
    """A Keras 2 SavedModel, seen through the legacy `.h5` of the same model."""

    format = "savedmodel"

    def __init__(self, folder: Path) -> None:
        from kprune.formats.known import open_model

        self.path = self.folder = folder
        self.bytes = tree_size(folder)
        contents = read(folder)
        for key in contents.shapes:  # tf_keras restores without a word what it can
            contents.tensor(key)
        _check_signatures(folder, contents.meta)
        _check_layers(folder)
        self._scratch = tempfile.TemporaryDirectory(prefix="kprune-")
        try:
            model = load(folder)
            _restore_optimizer(model, contents)
            self._h5 = Path(self._scratch.name) / "model.h5"
            save_h5(model, self._h5, folder)
            self._inner = open_model(self._h5)
        except BaseException:
            self._scratch.cleanup()
            raise
        self.config, self.order = self._inner.config, self._inner.order
        self.metadata = {**self._inner.metadata, **_note(folder)}

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self._inner.tensors

    @property
    def extras(self) -> list[str]:
        return [
            os.path.join(os.path.relpath(place, self.folder), name)
            for part in ("assets", "assets.extra")
            for place, _, names in os.walk(self.folder / part)
            for name in names
            if name != Path(NOTE).name
        ]

    def read(self, path: str) -> np.ndarray:
        return self._inner.read(path)

    def blocks(self, path: str, limit: int = 4 << 20) -> Iterator[tuple[int, np.ndarray]]:
        return self._inner.blocks(path, limit)

    def check_integrity(self) -> None:
        """Opening read every tensor and compared its checksum."""

    def close(self) -> None:
        self._inner.close()
        self._scratch.cleanup()

    def output_size(self, edit: Edit) -> int:
        """About: what the weights lose. The graph itself is traced anew."""
        return self.bytes - self._inner.bytes + self._inner.output_size(edit)

    def write(
        self, edit: Edit, output: str | os.PathLike[str], force: bool, progress: Progress | None
    ) -> int:
        own = Path(os.path.realpath(self.folder))
        if own in Path(os.path.realpath(output)).parents:
            raise UsageError(
                f"{shown(output)} lies inside the model", do="name another output with -o"
            )
        changed = Path(self._scratch.name) / "changed.h5"
        with new_folder(output, force=force, replaceable=_is_saved_model) as new:
            self._inner.write(edit, changed, True, progress)
            with reading(self.folder, "the changed model"), quiet():
                model = tf_keras().models.load_model(changed)
            with writing(new.name), quiet():
                model.save(new.path, save_format="tf")
            self._carry_over(new.path, new.name)
            note = edit.metadata.get("kprune")
            if note is not None:
                with writing(new.name):
                    (new.path / NOTE).parent.mkdir(exist_ok=True)
                    (new.path / NOTE).write_text(json.dumps({"kprune": note}, sort_keys=True))
            size = tree_size(new.path)
            new.commit(lambda: None)
        return size

    def _carry_over(self, target: Path, name: str) -> None:
        """`assets.extra` is the user's own; assets are written by tf_keras from the model."""
        try:
            if (self.folder / "assets.extra").is_dir():
                shutil.copytree(
                    self.folder / "assets.extra", target / "assets.extra", dirs_exist_ok=True
                )
        except OSError as error:
            raise file_error(error, "write", name) from error


def load(folder: Path) -> Any:
    """The model in a folder.

    Raises: DamagedFileError if tf_keras refuses it, CannotPruneError if it needs code from outside.
    """
    module = tf_keras()
    try:
        with quiet():
            return module.models.load_model(folder)
    except Exception as error:
        text = " ".join(str(error).split())
        if "Unknown" in text or "custom" in text:
            raise _foreign(folder, text) from error
        raise DamagedFileError(
            f"tf_keras does not load {shown(str(folder))}",
            why=f"{type(error).__name__}: {clean(text, 300)}",
            do="check that tf_keras.models.load_model accepts it; nothing was written",
        ) from error


def _restore_optimizer(model: Any, contents: Contents) -> None:
    """Fill in the optimizer's state, which tf_keras saves and does not read again."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not hasattr(optimizer, "build") or not hasattr(optimizer, "variables"):
        return
    with reading(contents.folder, "the optimizer's state"), quiet():
        optimizer.build(model.trainable_variables)
        own = {
            f"optimizer/_variables/{index}{VALUE}": v for index, v in enumerate(optimizer.variables)
        }
        own[f"optimizer/_iterations{VALUE}"] = optimizer.iterations
        for key, variable in own.items():
            if contents.shapes.get(key) == tuple(variable.shape):
                variable.assign(contents.tensor(key))


def save_h5(model: Any, path: Path, folder: Path) -> None:
    """Write a model as a legacy `.h5`. Raises: CannotPruneError if it is no graph of layers."""
    if not hasattr(model, "get_config") or not hasattr(model, "layers"):
        raise _foreign(folder, "it loads as something else than a model")
    try:
        with quiet():
            model.save(path, save_format="h5")
    except (NotImplementedError, ValueError) as error:
        raise _foreign(folder, " ".join(str(error).split())) from error


def _foreign(folder: Path, text: str) -> CannotPruneError:
    return CannotPruneError(
        f"{shown(str(folder))} is not a Sequential or Functional model of Keras's own layers",
        why=clean(text, 300),
        do=_AS_A_GRAPH,
    )


def _check_signatures(folder: Path, meta: Any) -> None:
    others = sorted(set(meta.signature_def) - _OWN_SIGNATURES)
    if others:
        raise CannotPruneError(
            f"{shown(str(folder))} has signatures of its own: {clean(', '.join(others), 200)}",
            why="tf_keras makes only 'serving_default' when it saves a model again",
            do=_AS_A_GRAPH,
        )


def _check_layers(folder: Path) -> None:
    """No code from outside: Lambda layers carry Python bytecode, which loading would run."""
    from tensorflow.python.keras.protobuf import saved_metadata_pb2

    metadata = saved_metadata_pb2.SavedMetadata()
    with reading(folder, METADATA):
        metadata.ParseFromString((folder / METADATA).read_bytes())
        found = [json.loads(node.metadata) for node in metadata.nodes if node.metadata]
    for entry in found:
        name = _code_in(entry)
        if name is not None:
            raise CannotPruneError(
                f"{shown(str(folder))} has a Lambda layer '{clean(name)}'",
                why="it carries Python bytecode, which kprune never runs",
                do="build the model in code without Lambda layers",
            )


def _code_in(value: Any) -> str | None:
    """The name of a Lambda layer somewhere in a config; None if there is none."""
    if isinstance(value, dict):
        if value.get("class_name") in ("Lambda", "__lambda__"):
            config = value.get("config")
            named = config.get("name") if isinstance(config, dict) else None
            return str(value.get("name") or named or "?")
        value = list(value.values())
    if isinstance(value, list):
        return next((name for item in value if (name := _code_in(item)) is not None), None)
    return None


def _note(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / NOTE).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_saved_model(folder: Path) -> bool:
    return (folder / PB).is_file()
