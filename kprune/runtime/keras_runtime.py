"""A model file loaded by the Keras that wrote it; a model run in batches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from kprune.edit import Edit
from kprune.errors import CannotPruneError, FileError, KpruneError
from kprune.formats import Source, write_model
from kprune.formats.registry import usual_suffix
from kprune.runtime.custom_classes import foreign_classes, import_classes
from kprune.runtime.inert import locked, may_compile, require_inert, require_read_alike
from kprune.runtime.keras_import import import_keras, keras_of, quiet, reason_of
from kprune.runtime.lambda_code import safe_mode_of
from kprune.text import clean
from kprune.types import Progress


def load(source: Source, folder: Path, *, compiled: bool = False) -> Any:
    """A model, loaded by the Keras that wrote it. Nothing in the file is run, imported or opened.

    Classes that are not Keras's own have to be registered; a trusted file's are imported, and the
    code in its Lambda layers is run.

    Args:
        source: an opened model with a path.
        folder: a temporary one, in case Keras has to be given the file under another name.
        compiled: whether to compile it, if the file says how; where that fails, or what it says is
            not trusted, it is not compiled.
    Raises: CannotPruneError if it needs code that is not there or not trusted, FileError if Keras
        refuses it.
    """
    keras = keras_of(source)
    if source.format == "keras-folder" and keras.__name__ != "keras":
        # tf_keras takes a folder for a SavedModel, and would run what else lies in it.
        raise CannotPruneError(
            f"cannot run {source.name}",
            why="it is an unzipped .keras of Keras 2, which reads it only as a file",
            do="zip what is in the folder, without compression, into a file that ends in .keras",
        )
    require_inert(source, keras)
    path = _under_a_name_that_keras_takes(source, folder)
    require_read_alike(source, path)
    with quiet():
        own = import_classes(foreign_classes(source.config)) if source.trusted else {}
    said = source.config.get("compile_config") or source.metadata.get("training_config")
    compiled = compiled and bool(said) and may_compile(source, keras)
    try:
        with quiet(), locked(source, keras), safe_mode_of(source, keras) as safe:
            return keras.models.load_model(
                path, custom_objects=own, compile=compiled, safe_mode=safe
            )
    except Exception as error:
        if compiled:
            return load(source, folder)
        raise _load_error(source, error) from error


def is_compiled(model: Any) -> bool:
    """Whether a model knows its optimizer and loss; Keras 2 has another name for that."""
    return bool(getattr(model, "compiled", getattr(model, "_is_compiled", False)))


def _under_a_name_that_keras_takes(source: Source, folder: Path) -> Path:
    """Keras uses the name, kprune the content. A folder's must not end in `.keras`."""
    wanted = usual_suffix(source)
    if source.path is None:  # it came from standard input, which cannot be read twice
        copy = folder / f"{len(list(folder.iterdir()))}{wanted}"
        write_model(source, Edit(source.config, source.metadata), copy)
        return copy
    path = (source.stands_at or source.path).absolute()
    if (path.suffix == wanted) if wanted else path.suffix != ".keras":
        return path
    link = folder / f"{len(list(folder.iterdir()))}{wanted or '_folder'}"
    link.symlink_to(path)
    return link


def _load_error(source: Source, error: Exception) -> KpruneError:
    text = str(
        error
    )  # Keras has no classes for these errors: its words are all there is to tell them by
    name = source.name
    missing = re.search(r"(?:Could not locate (?:class|function)|Unknown layer:?) '([^']+)'", text)
    if missing or "register_keras_serializable" in text:
        what = f"'{clean(missing[1])}', which" if missing else "a class that"
        return CannotPruneError(
            f"cannot run {name}",
            why=f"it uses {what} is neither part of Keras nor registered",
            do="give --rules a file that registers it (@keras.saving.register_keras_serializable)",
        )
    return FileError(
        f"Keras does not load {name}",
        why=f"{type(error).__name__}: {clean(' '.join(text.split()), 300)}",
        do="check that keras.models.load_model accepts it",
    )


def run(
    model: Any, inputs: Any, *, batch_size: int, progress: Progress | None = None
) -> list[np.ndarray]:
    """What a model gives, in inference mode.

    The model is called, not `predict`: for a few batches, tracing would cost more than it saves.

    Args:
        inputs: arrays in the structure of the model's inputs, all with the same number of samples.
        progress: called with (samples done, samples in all).
    Returns: one array for each output, flattened as Keras flattens structures.
    Raises: CannotPruneError if the model does not run on these inputs.
    """
    keras = import_keras()
    tree = keras.tree
    count = len(tree.flatten(inputs)[0])
    parts: list[list[np.ndarray]] = []
    for start in range(0, count, batch_size):
        end = min(start + batch_size, count)
        batch = tree.map_structure(lambda array: array[start:end], inputs)  # noqa: B023
        try:
            outputs = model(batch, training=False)
        except Exception as error:
            raise CannotPruneError(
                f"the model '{clean(model.name)}' does not run on these inputs",
                why=clean(reason_of(error), 300),
                do="give inputs that it takes, with --data FILE.npz",
            ) from error
        parts.append([np.asarray(keras.ops.convert_to_numpy(y)) for y in tree.flatten(outputs)])
        if progress is not None:
            progress(end, count)
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def output_names(model: Any) -> list[str]:
    """A name for each output, in the order in which `run` gives them."""
    keras = import_keras()
    if isinstance(model, keras.Sequential):
        return [str(model.layers[-1].name)]
    struct = getattr(model, "_outputs_struct", None)
    if isinstance(struct, dict):  # Keras calls losses, metrics and labels by its keys
        paths = [path for path, _ in keras.tree.flatten_with_path(struct)]
        if all(len(path) == 1 for path in paths):
            return [str(key) for (key,) in paths]
    outputs = model.outputs
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(outputs):
        names = [tensor.name for tensor in keras.tree.flatten(outputs)]
    return [str(name) for name in names]


def keras_layer(model: Any, path: str) -> Any:
    """The layer (or operation) of a Keras model with a path as kprune writes it (`outer/inner`)."""
    layer = model
    for name in path.split("/"):
        layer = _inside(layer, name)
    return layer


def _inside(layer: Any, name: str) -> Any:
    if hasattr(layer, "layers"):
        operations = getattr(layer, "operations", layer.layers)
        return next(inner for inner in (*layer.layers, *operations) if inner.name == name)
    return layer.layer if layer.layer.name == name else _inside(layer.layer, name)
