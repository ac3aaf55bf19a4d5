"""TensorFlow, imported without its chatter, with a message to the waiting user."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from kprune.packages import imported, pip_install
from kprune.runtime.keras_import import quiet, set_up


@functools.cache
def tensorflow() -> Any:
    """The module `tensorflow`.

    Raises: SetupError if it cannot be imported.
    """
    known = sys.modules.get("tensorflow")
    if known is not None and hasattr(known, "io"):
        return known
    set_up()
    if sys.stderr is not None and sys.stderr.isatty():
        print("loading TensorFlow, which reads SavedModels (some seconds) …", file=sys.stderr)
    with quiet():
        return _imported("tensorflow", "TensorFlow")


@functools.cache
def tf_keras() -> ModuleType:
    """The module `tf_keras`, the legacy Keras that reads and writes SavedModels of its own.

    Raises: SetupError if it cannot be imported.
    """
    tensorflow()
    with quiet():
        return _imported("tf_keras", "tf_keras, which reads and writes SavedModels of Keras 2,")


def _imported(module: str, what: str) -> ModuleType:
    do = f"install it ({pip_install(module)}), and check: python -c 'import {module}'"
    return imported(module, what=what, do=do)
