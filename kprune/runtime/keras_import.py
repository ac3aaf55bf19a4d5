"""Keras, imported without its chatter, and what its messages say.

It is imported inside functions only, so that importing this module costs nothing.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from kprune.errors import SetupError
from kprune.formats import Source
from kprune.graph.dialects import is_keras_2
from kprune.interruption import end_if_asked
from kprune.packages import imported, missing_package, not_imported, pip_install
from kprune.text import clean

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
    end_if_asked()  # what is raised within an import may be swallowed there
    module: ModuleType = keras
    return module


def keras_of(source: Source) -> ModuleType:
    """The Keras that wrote a file: tf_keras for what Keras 2 wrote, where Keras 3 often has no such layer.

    Raises: SetupError if it cannot be imported.
    """
    keras = import_keras()
    if not is_keras_2(source.metadata):
        return keras
    with quiet():
        return imported(
            "tf_keras",
            what=f"{source.name} was saved by Keras 2, and tf_keras, which runs it,",
            do="install it: pip install 'kprune[keras2]'",
        )


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
