"""TensorFlow, imported without its chatter, with a word to whoever waits."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from kprune.errors import KpruneError
from kprune.running.keras_runtime import quiet, set_up
from kprune.text import clean


@functools.cache
def tensorflow() -> Any:
    """The module `tensorflow`.

    Raises: KpruneError if it cannot be imported.
    """
    known = sys.modules.get("tensorflow")
    if known is not None and hasattr(known, "io"):
        return known
    set_up()
    if sys.stderr is not None and sys.stderr.isatty():
        print("loading TensorFlow, which reads SavedModels (some seconds) …", file=sys.stderr)
    try:
        with quiet():
            import tensorflow as module
    except Exception as error:
        raise _missing("TensorFlow", "tensorflow", error) from error
    return module


@functools.cache
def tf_keras() -> ModuleType:
    """The module `tf_keras`, the legacy Keras that reads and writes SavedModels of its own.

    Raises: KpruneError if it cannot be imported.
    """
    tensorflow()
    try:
        with quiet():
            import tf_keras as module
    except Exception as error:
        raise _missing("tf_keras", "tf_keras", error) from error
    found: ModuleType = module
    return found


def _missing(name: str, module: str, error: Exception) -> KpruneError:
    return KpruneError(
        f"{name} cannot be imported",
        why=f"{type(error).__name__}: {clean(error, 300)}",
        do=f"install it (pip install {module}), and check: python -c 'import {module}'",
    )
