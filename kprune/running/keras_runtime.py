"""Keras, imported without its chatter; a model file loaded by it; a model run in batches.

Keras is imported inside functions only, so that importing this module costs nothing.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError, FileError, KpruneError, SetupError
from kprune.formats import Source
from kprune.formats.faults import shown
from kprune.packages import imported, missing_package, not_imported, pip_install
from kprune.page.result import Note
from kprune.running.foreign import foreign_classes, import_classes
from kprune.text import clean

Progress = Callable[[int, int], None]

# Keras tells formats apart by the name; a folder must not end in `.keras`.
SUFFIXES = {"keras": ".keras", "h5": ".h5"}

# How lines begin in messages of TensorFlow that say where in the code something failed.
_PLACES = (
    'File "',
    "[[",
    "Graph execution error",
    "Detected at node",
    "Stack trace",
    "Original stack",
)


@contextmanager
def quiet(*, replay: bool = True) -> Iterator[None]:
    """Hold back what is written to standard error meanwhile; it is shown if something goes wrong.

    Args:
        replay: whether to show it then; no, if what is raised becomes a message of its own.

    TensorFlow writes several lines from C++ when it is imported and when it first looks for a
    device, whatever TF_CPP_MIN_LOG_LEVEL says, so the file descriptor itself is turned aside.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed: there is nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:  # not an interruption, which is no reason to look at what was said
            sys.stderr.flush()
            os.dup2(kept, 2)
            if replay:
                aside.seek(0)
                os.write(2, aside.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def set_up() -> None:
    """Set what TensorFlow and Keras read in the environment when they are imported, unless the user has."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's own convolutions take channels_last alone on a CPU; oneDNN's take both, but on older
    # CPUs they are off unless asked for.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@functools.cache
def import_keras() -> ModuleType:
    """Keras on TensorFlow, ready to run: its devices have been looked for.

    Raises: SetupError if it cannot be imported, after what TensorFlow has to say about it.
    """
    set_up()
    try:
        with quiet():
            import keras

            keras.ops.zeros(())
    except Exception as error:
        raise _without_keras(error) from error
    module: ModuleType = keras
    return module


def _without_keras(error: Exception) -> SetupError:
    """What to tell where Keras cannot be imported: it, its backend, or a package of theirs is not there."""
    missing = missing_package(error)
    if missing == "keras":
        return not_imported(error, "keras", what="Keras, which runs the model,")
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    check = "check the installation: python -c 'import keras'"
    do = f"install {missing}: {pip_install(missing)}" if missing else check
    if backend != "tensorflow":
        do += "; or take the backend that kprune uses by itself: KERAS_BACKEND=tensorflow"
    return not_imported(error, "keras", what=f"Keras, with the backend '{clean(backend)}',", do=do)


def keras_of(source: Source) -> ModuleType:
    """The Keras that wrote a file: tf_keras for what Keras 2 wrote, where Keras 3 often has no such layer.

    Raises: SetupError if it cannot be imported.
    """
    keras = import_keras()
    if not str(source.metadata.get("keras_version", "3")).startswith(("1.", "2.")):
        return keras
    with quiet():
        return imported(
            "tf_keras",
            what=f"{name_of(source)} was saved by Keras 2, and tf_keras, which runs it,",
            do="install it: pip install 'kprune[keras2]'",
        )


def load(source: Source, folder: Path, *, compiled: bool = False) -> Any:
    """A model, loaded by the Keras that wrote it. No code in the file is run (safe_mode).

    Classes that are not Keras's own have to be registered; a trusted file's are imported, and the
    code in its Lambda layers is run.

    Args:
        source: an opened model with a path.
        folder: a temporary one, in case Keras has to be given the file under another name.
        compiled: whether to compile it, if the file says how; where that fails it is not compiled.
    Raises: CannotPruneError if it needs code that is not there, FileError if Keras refuses it.
    """
    keras = keras_of(source)
    path = _under_a_name_that_keras_takes(source, folder)
    with quiet():
        own = import_classes(foreign_classes(source.config)) if source.trusted else {}
    said = source.config.get("compile_config") or source.metadata.get("training_config")
    compiled = compiled and bool(said)
    try:
        with quiet(), runs_lambdas(source, keras) as trusted:
            return keras.models.load_model(
                path, custom_objects=own, compile=compiled, safe_mode=not trusted
            )
    except Exception as error:
        if compiled:
            return load(source, folder)
        raise _load_error(source, error) from error


@contextmanager
def runs_lambdas(source: Source, keras: ModuleType) -> Iterator[bool]:
    """Whether the Lambda layers of a file are run, as it is trusted; they get the names they need."""
    from kprune.running.lambda_code import holds_code, usual_names

    if not (source.trusted and holds_code(source.config)):
        yield False
        return
    with usual_names(keras):
        yield True


def trusted(*sources: Source) -> list[Note]:
    """What is to be said of files whose own code was run."""
    from kprune.running.lambda_code import holds_code

    names = [name_of(s) for s in sources if s.trusted and holds_code(s.config)]
    if not names:
        return []
    text = f"Keras's safe mode was off for {' and '.join(names)}: the code of their Lambda layers was run"
    return [Note("trusted", "", text)]


def is_compiled(model: Any) -> bool:
    """Whether a model knows its optimizer and loss; Keras 2 has another name for that."""
    return bool(getattr(model, "compiled", getattr(model, "_is_compiled", False)))


def name_of(source: Source) -> str:
    """How messages call a model file."""
    return "standard input" if source.path is None else shown(source.path)


def reason_of(error: BaseException) -> str:
    """What an exception of Keras or TensorFlow says, in one line: without the places in code that lead to it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_PLACES)]
    text = re.sub(
        r"\x1b\[[0-9;]*m|\{\{function_node .*?\}\} ?|\s*\[Op:[^]]*\]",
        "",
        " ".join(told) or str(error),
    )
    return f"{type(error).__name__}: {text}"


def _under_a_name_that_keras_takes(source: Source, folder: Path) -> Path:
    """Keras goes by the name, kprune by the content."""
    assert source.path is not None
    path = (source.stands_at or source.path).absolute()
    wanted = SUFFIXES.get(source.format, "")
    if (path.suffix == wanted) if wanted else path.suffix != ".keras":
        return path
    link = folder / f"{len(list(folder.iterdir()))}{wanted or '_folder'}"
    link.symlink_to(path)
    return link


def _load_error(source: Source, error: Exception) -> KpruneError:
    text = str(error)
    name = name_of(source)
    if "ambda" in text and "safe" in text and not source.trusted:
        return CannotPruneError(
            f"cannot run {name}",
            why="it has a Lambda layer, whose code Keras only runs if it is told to trust the file",
            do="pass --trust if you trust this file: Keras's safe mode is then off for it",
        )
    missing = re.search(r"(?:Could not locate (?:class|function)|Unknown layer:?) '([^']+)'", text)
    if missing or "register_keras_serializable" in text:
        what = f"'{clean(missing[1])}', which" if missing else "a class that"
        return CannotPruneError(
            f"cannot run {name}",
            why=f"it uses {what} is neither part of Keras nor registered",
            do="give --rules a file that registers it (@keras.saving.register_keras_serializable)"
            + (_or_trust(source) if not source.trusted else ""),
        )
    return FileError(
        f"Keras does not load {name}",
        why=f"{type(error).__name__}: {clean(' '.join(text.split()), 300)}",
        do="check that keras.models.load_model accepts it",
    )


def _or_trust(source: Source) -> str:
    """What else can be done about classes that a file names."""
    modules = {item.module for item in foreign_classes(source.config)} - {"__main__"}
    return f", or import {clean(', '.join(sorted(modules)), 200)} (--trust)" if modules else ""


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
