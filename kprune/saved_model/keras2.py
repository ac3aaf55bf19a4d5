"""SavedModels that Keras 2 wrote: `keras_metadata.pb` beside the graph says what model it is.

The model is built from that, or loaded by tf_keras if it is trusted, and written as a legacy `.h5`
into a temporary folder; that file goes through the same graph, labels and backends as any other,
and what comes out is saved by tf_keras as a SavedModel again, compile state included. Functions and
signatures are traced anew.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kprune.active_content import Active, Kind
from kprune.analysis.analysis import Analysis
from kprune.atomic import TemporaryFolder, copy_file, new_folder, put_file
from kprune.edit import Edit
from kprune.errors import CannotPruneError, DamagedFileError, UsageError
from kprune.faults import file_error, shown, writing
from kprune.formats.source import Order, Source, Tensor
from kprune.runtime.custom_classes import Foreign, import_classes
from kprune.runtime.inert import is_registered, locked, refusal
from kprune.runtime.keras_import import quiet
from kprune.runtime.tensorflow_runtime import tf_keras
from kprune.saved_model.files.contents import (
    CANNOT,
    NOTE,
    VALUE,
    Contents,
    is_saved_model,
    read,
    reading,
    tree_size,
)
from kprune.saved_model.files.graph_check import require_sound
from kprune.saved_model.from_config import AS_A_GRAPH, KerasMetadata, built, classes_at
from kprune.surgery.provenance import read_record
from kprune.text import clean
from kprune.types import AnyPath, Progress

_OWN_SIGNATURES = frozenset({"serving_default", "__saved_model_init_op"})


class Keras2Source(Source):
    """A Keras 2 SavedModel, seen through the legacy `.h5` of the same model."""

    format = "savedmodel"
    cannot = CANNOT
    has_signatures = True

    def __init__(self, folder: Path) -> None:
        self.path = self.folder = folder
        self.bytes = tree_size(folder)
        self.contents = read(folder)
        for key in self.contents.shapes:  # its optimizer's state is not looked at otherwise
            self.contents.tensor(key)
        _check_signatures(folder, self.contents.meta)
        self._said = KerasMetadata(folder)
        self._scratch = TemporaryFolder()
        self._unknown: list[str] = []
        self._left_out: list[Active] = []

    @functools.cached_property
    def _inner(self) -> Source:
        """The model as a legacy `.h5`. Made when it is first asked for: only then is it known
        whether the file is trusted, and have files with rules registered the classes they define.
        """
        from kprune.formats.registry import open_model

        model = self._loaded() if self.trusted else self._built()
        _restore_optimizer(model, self.contents)
        h5 = Path(self._scratch.name) / "model.h5"
        save_h5(model, h5, self.folder)
        found = open_model(h5, trust=self.trusted)
        found.config = with_shapes(found.config, model)
        return found

    def _loaded(self) -> Any:
        """The model of a trusted file, as tf_keras loads it."""
        import_packages(self._said.nodes.values())
        model = load(self.folder)
        self._unknown = revived(model)
        return model

    def _built(self) -> Any:
        """The model of any other, of which nothing runs."""
        keras = tf_keras()
        needed = [item for item in self._said.needed() if not is_registered(item, keras)]
        self._left_out = needed
        layered = classes_at(needed, self._said.config)
        if refused := [item for item in needed if not (item in layered or item.compiled)]:
            raise refusal(self, refused)
        self._unknown = sorted({item.what for item in layered if item.kind is Kind.CLASS})
        compiled = not any(item.compiled for item in needed)
        classes = sorted(set(layered.values()))
        with locked(self, keras):
            return built(self.folder, self.contents, self._said, classes, compiled=compiled)

    def active(self) -> tuple[Active, ...]:
        """What loading it in Keras would do, and running its graphs, which Keras does as well."""
        return (*self._said.active(), *self.contents.active)

    @property
    def stands_at(self) -> Path:  # type: ignore[override]
        """The same model in a file that holds no graph."""
        path = self._inner.path
        assert path is not None
        return path

    def analyse(self, rules: Iterable[str] = ()) -> Analysis:
        """The analysis of the layers, with rules from further files."""
        from kprune.analysis.user_rules import load_rules

        known = load_rules(rules)
        return Analysis.of(self.config, self.metadata, self.tensors, known, self.order)

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]
        return self._inner.config

    @property
    def metadata(self) -> dict[str, Any]:  # type: ignore[override]
        return {**self._inner.metadata, **read_record(self.folder / NOTE, shown(self.folder))}

    @property
    def order(self) -> Order | None:  # type: ignore[override]
        return self._inner.order

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
        if "_inner" in vars(self):
            self._inner.close()
        self._scratch.cleanup()

    def output_size(self, edit: Edit) -> int:
        """About: what the weights lose. The graph itself is traced anew."""
        self._require_whole()
        return self.bytes - self._inner.bytes + self._inner.output_size(edit)

    def write(self, edit: Edit, output: AnyPath, force: bool, progress: Progress | None) -> int:
        own = Path(os.path.realpath(self.folder))
        if own in Path(os.path.realpath(output)).parents:
            raise UsageError(
                f"{shown(output)} lies inside the model", do="name another output with -o"
            )
        self._require_whole()
        changed = Path(self._scratch.name) / "changed.h5"
        with new_folder(output, force=force, replaceable=is_saved_model) as new:
            self._inner.write(edit, changed, True, progress)
            with locked(self, tf_keras()):
                model = _loaded(changed, self.folder)
            with writing(new.name), quiet():
                model.save(new.path, save_format="tf")
            self._carry_over(new.path, new.name)
            note = edit.metadata.get("kprune")
            if note is not None:
                with writing(new.name):
                    (new.path / NOTE).parent.mkdir(exist_ok=True)
                    put_file(new.path / NOTE, json.dumps({"kprune": note}, sort_keys=True).encode())
            require_sound(lambda: read(new.path), lambda: self.contents)
            size = tree_size(new.path)
            new.commit(lambda: None)
        return size

    def _require_whole(self) -> None:
        """Raises: CannotPruneError if the model that was built lacks something of the file's."""
        others = [item for item in self._left_out if item.kind is not Kind.CLASS]
        if others:
            raise refusal(self, others)
        require_classes(self.folder, self._unknown)

    def _carry_over(self, target: Path, name: str) -> None:
        """`assets.extra` is the user's own; assets are written by tf_keras from the model."""
        try:
            if (self.folder / "assets.extra").is_dir():
                shutil.copytree(
                    self.folder / "assets.extra",
                    target / "assets.extra",
                    dirs_exist_ok=True,
                    copy_function=copy_file,
                )
        except OSError as error:
            raise file_error(error, "write", name) from error


def load(folder: Path) -> Any:
    """The model in a folder. Layers of classes that are not known here run as graphs.

    Raises: DamagedFileError if tf_keras refuses it, CannotPruneError if it needs code from outside.
    """
    return _loaded(folder, folder)


def _loaded(path: Path, folder: Path) -> Any:
    module = tf_keras()
    try:
        with quiet(replay=False):
            return module.models.load_model(path)
    except Exception as error:
        text = " ".join(str(error).split())
        unknown = re.match(r"(Unknown [\w ]+): *'([^']+)'", text)
        if unknown is not None:
            raise _unknown_code(
                folder, f"{unknown[1][0].lower()}{unknown[1][1:]}", unknown[2]
            ) from error
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
    """Write a model as a legacy `.h5`. Raises: CannotPruneError if it is not a graph of layers."""
    if not hasattr(model, "get_config") or not hasattr(model, "layers"):
        raise _foreign(folder, "it loads as something else than a model")
    try:
        with quiet(replay=False):
            model.save(path, save_format="h5")
    except NotImplementedError as error:  # tf_keras speaks of HDF5 here, which the user never named
        why = f"the call() of its class '{type(model).__name__}' is code, not a graph of layers"
        raise _foreign(folder, why) from error
    except ValueError as error:
        raise _foreign(folder, " ".join(str(error).split())) from error


def with_shapes(config: dict[str, Any], model: Any) -> dict[str, Any]:
    """The config of a model, with the shape that each of its layers was built on.

    A legacy config records no shapes, and behind a layer of unknown code none can be inferred.
    """
    built = {layer.name: layer for layer in model.layers}
    specs = []
    for spec in config["config"].get("layers", []):
        layer = built.get(spec["config"].get("name"))
        if hasattr(layer, "layers") and "layers" in spec["config"]:
            spec = with_shapes(spec, layer)
        try:
            shape = layer.input_shape if layer is not None else None
        except (AttributeError, RuntimeError):  # called several times, on tensors that differ
            shape = None
        if isinstance(shape, tuple):
            spec = {**spec, "build_config": {"input_shape": list(shape)}}
        specs.append(spec)
    return {**config, "config": {**config["config"], "layers": specs}}


def _foreign(folder: Path, text: str) -> CannotPruneError:
    return CannotPruneError(
        f"{shown(str(folder))} is not a Sequential or Functional model of Keras's own layers",
        why=clean(text, 300),
        do=AS_A_GRAPH,
    )


def _check_signatures(folder: Path, meta: Any) -> None:
    others = sorted(set(meta.signature_def) - _OWN_SIGNATURES)
    if others:
        raise CannotPruneError(
            f"{shown(str(folder))} has signatures of its own: {clean(', '.join(others), 200)}",
            why="tf_keras makes only 'serving_default' when it saves a model again",
            do=AS_A_GRAPH,
        )


# -- code that is not Keras's own -----------------------------------------------------------------


def import_packages(metadata: Iterable[Any]) -> None:
    """Import the packages that a trusted file names.

    Raises: CannotPruneError if one is missing.
    """
    known = tf_keras().saving.get_registered_object
    named = sorted({pair for entry in metadata for pair in _packages(entry)})
    try:
        import_classes(
            [
                Foreign(package, plain, f"{package}>{plain}")
                for package, plain in named
                if known(f"{package}>{plain}") is None
            ]
        )
    except CannotPruneError as error:
        error.do = f"{error.do}; or give --rules a file that registers the class"
        raise


def _packages(value: Any) -> Iterator[tuple[str, str]]:
    """(package, class) of everything that was registered with Keras: `package>Class`."""
    if isinstance(value, dict):
        package, sign, name = str(value.get("class_name") or "").partition(">")
        if sign and package.isidentifier() and package != "Custom":
            yield package, name
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _packages(item)


def revived(model: Any) -> list[str]:
    """Classes of layers that tf_keras knows only by their graphs."""
    flat = getattr(model, "_flatten_layers", None)
    layers = flat(include_self=False) if flat is not None else ()
    found = {
        type(layer).__name__
        for layer in layers
        if any(base.__name__.startswith("Revived") for base in type(layer).__mro__)
    }
    return sorted(found)


def require_classes(folder: Path, names: Sequence[str]) -> None:
    """Raises: CannotPruneError if classes are missing that a model has to be built of again."""
    if names:
        raise _unknown_code(folder, "class" if len(names) == 1 else "classes", ", ".join(names))


def _unknown_code(folder: Path, kind: str, name: str) -> CannotPruneError:
    return CannotPruneError(
        f"writing {shown(str(folder))} again needs code that is not Keras's own, and runs it",
        where=clean(name, 200),
        why=f"tf_keras builds the model anew, and this {kind} is neither its own nor registered",
        do="pass --trust if it is registered by an installed package of that name; or give --rules a "
        "file that does: tf_keras.utils.get_custom_objects()[NAME] = …",
    )
