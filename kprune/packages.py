"""Packages that kprune imports when it needs them, and what to tell where one cannot be imported.

A package that is missing, or that does not import, is a fact about the machine: never about the
model, and no bug in kprune.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from kprune.errors import SetupError
from kprune.text import clean

# What pip calls a package whose module has another name.
DISTRIBUTIONS = {"yaml": "pyyaml", "zlib_ng": "zlib-ng", "sklearn": "scikit-learn"}


def imported(module: str, *, what: str = "", do: str = "") -> ModuleType:
    """A module.

    Args:
        module: its name, as `import` takes it.
        what: how messages call it; by default its package's name.
        do: what helps if it cannot be imported; by default, to install it.
    Raises: SetupError, whatever the package itself raises.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package that is broken may raise anything
        raise not_imported(error, module, what=what, do=do) from error


def not_imported(error: Exception, module: str, *, what: str = "", do: str = "") -> SetupError:
    """What to tell of a package whose import failed.

    Args:
        error: what the import raised.
        module, what, do: see `imported`.
    """
    package = module.partition(".")[0]
    return SetupError(
        f"{what or package} cannot be imported",
        why=f"{type(error).__name__}: {clean(error, 300)}",
        do=do or f"install it: {pip_install(missing_package(error) or package)}",
    )


def missing_package(error: BaseException) -> str:
    """The package that an import did not find; "" if it failed for another reason."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = error.name.partition(".")[0]
    return "" if package == "kprune" else clean(package)


def broken_package(error: BaseException) -> str:
    """The package in whose import an exception was raised; "" if it was raised elsewhere."""
    trace = error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if trace.tb_frame.f_code.co_name == "<module>" and module not in ("__main__", "kprune", ""):
            return clean(module)
        trace = trace.tb_next
    return ""


def pip_install(package: str) -> str:
    """The command that installs a package, by the name of its module."""
    return f"pip install {DISTRIBUTIONS.get(package, package)}"
