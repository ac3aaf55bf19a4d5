"""Classes that are not Keras's own: which ones a config names, and their modules, imported.

Importing a module runs it. Nothing here does so unless the user said that the file is trusted.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kprune.errors import CannotPruneError, SetupError
from kprune.packages import missing_package
from kprune.text import clean


@dataclass(frozen=True, order=True)
class Foreign:
    """A class that a config names.

    Attributes:
        module: the Python module that holds it.
        name: the class.
        registered: `package>Class` for what is registered with Keras; where it is not,
            the class's own name.
    """

    module: str
    name: str
    registered: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def foreign_classes(config: Any) -> list[Foreign]:
    """Every class (and function) in a config that is not Keras's own, sorted."""
    return sorted(set(_walk(config)))


def _walk(value: Any) -> Iterator[Foreign]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
            yield from _of(item)


def _of(item: dict[str, Any]) -> Iterator[Foreign]:
    """What one object of a config is an instance of, if that is not Keras's own."""
    module, name, registered = map(item.get, ("module", "class_name", "registered_name"))
    if isinstance(module, str) and isinstance(name, str) and _is_foreign(module):
        yield Foreign(module, name, registered if isinstance(registered, str) else name)


def with_modules_of(before: Any, after: Any) -> Any:
    """A config in which every class is in the module in which another config names it.

    A class that a file of rules registers is in a module that is nowhere to be found later on.
    """
    modules = {item.registered: item.module for item in foreign_classes(before)}

    def mended(value: Any) -> Any:
        if isinstance(value, list):
            return [mended(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = {key: mended(item) for key, item in value.items()}
        for item in _of(value):
            found["module"] = modules.get(item.registered, item.module)
        return found

    return mended(after)


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in ("", "keras", "builtins")


def require_trust(classes: list[Foreign], what: str, trust: bool) -> None:
    """Refuse to import anything that the user has not allowed.

    Args:
        what: what is asked for, as the start of a sentence: "flattening it".
    Raises: CannotPruneError if there is something to import and `trust` is False.
    """
    if trust:
        return
    modules = sorted({item.module for item in classes})
    shown = ", ".join(clean(module) for module in modules[:4]) + (" …" if len(modules) > 4 else "")
    names = ", ".join(clean(item.name) for item in classes[:4]) + (" …" if len(classes) > 4 else "")
    raise CannotPruneError(
        f"{what} needs code that is not Keras's own, and runs it",
        where=shown,
        why=f"{names} would be imported from there, built and called; a file may name any module",
        do="pass --trust if you trust this file and these packages",
    )


def is_registered(item: Foreign) -> bool:
    """Whether Keras, or Keras 2, finds it by itself: a file of rules may have registered it."""
    known = (getattr(sys.modules.get(name), "saving", None) for name in ("keras", "tf_keras"))
    return any(
        saving is not None and saving.get_registered_object(item.registered) is not None
        for saving in known
    )


def import_classes(classes: list[Foreign]) -> dict[str, Any]:
    """Import what a config names, where it is not registered with Keras already.

    Returns: `custom_objects` for Keras, which by itself finds only what is registered.
    Raises: SetupError if a module is not installed; CannotPruneError if it fails, or does not hold its class.
    """
    found: dict[str, Any] = {}
    for item in classes:
        if is_registered(item):
            continue
        if item.module == "__main__":
            raise CannotPruneError(
                f"the model's {clean(item.name)} is not in any module",
                why="it was written in the script or notebook that saved the model",
                do="put it into a file with @keras.saving.register_keras_serializable, and give that "
                "with --rules",
            )
        package = clean(item.module.partition(".")[0])
        try:
            module = importlib.import_module(item.module)
        except ModuleNotFoundError as error:
            found_not = missing_package(error) or package
            raise SetupError(
                f"cannot import {clean(item.module)}, which holds the model's {clean(item.name)}",
                why=f"no package '{found_not}' is installed here, and no such folder is on PYTHONPATH",
                do=f"install '{found_not}', put its folder on PYTHONPATH, or give --rules a file that "
                "imports it",
            ) from error
        except Exception as error:  # a module may raise anything while it is run
            raise CannotPruneError(
                f"cannot import {clean(item.module)}, which holds the model's {clean(item.name)}",
                why=f"{type(error).__name__}: {clean(error, 200)}",
                do=f"install '{package}', put its folder on PYTHONPATH, or give --rules a file that imports it",
            ) from error
        held = getattr(module, item.name, None)
        if held is not None:
            found[item.registered] = held
    return found
