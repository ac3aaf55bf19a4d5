"""Remove units from saved Keras models: name them, get a smaller model file that plain Keras loads.

    import kprune

    report = kprune.remove("model.keras", {"dense_1": [3, 7, 12]}, output="small.keras")
    print(report.input.parameters, "->", report.output.parameters)

    print(kprune.inspect("model.keras").layers[0].free)      # what may be removed
    kprune.verify("model.keras", "small.keras").passed       # runs both in TensorFlow

A model is the path of a file; a live Keras model is taken as well, and one given back. Every
refusal is a `KpruneError` that says what, where, why and what to do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kprune.errors import (
        CannotPruneError,
        CheckError,
        DamagedFileError,
        ExpressionError,
        FileError,
        FrozenUnitsError,
        IndexRangeError,
        InternalError,
        KpruneError,
        LastUnitError,
        MissingStatisticError,
        NotARectangleError,
        PlanError,
        SetupError,
        SpecError,
        UnknownLayerError,
        UnsoundOutputError,
        UsageError,
    )
    from kprune.pruning import apply, compact, mask, plan, remove, unmask, zero
    from kprune.report.diff import diff
    from kprune.report.explain import explain
    from kprune.report.inspect import inspect
    from kprune.rules.registry import CUSTOM
    from kprune.running.iterating import iterate
    from kprune.running.sensitivity import sensitivity
    from kprune.running.tuning import tune
    from kprune.running.verify import verify
    from kprune.select.choice import Choice
    from kprune.select.registered import CUSTOM as CRITERIA
    from kprune.version import __version__

    rule = CUSTOM.rule
    criterion = CRITERIA.criterion

__all__ = [
    "CannotPruneError",
    "CheckError",
    "Choice",
    "DamagedFileError",
    "ExpressionError",
    "FileError",
    "FrozenUnitsError",
    "IndexRangeError",
    "InternalError",
    "KpruneError",
    "LastUnitError",
    "MissingStatisticError",
    "NotARectangleError",
    "PlanError",
    "SetupError",
    "SpecError",
    "UnknownLayerError",
    "UnsoundOutputError",
    "UsageError",
    "__version__",
    "apply",
    "compact",
    "criterion",
    "diff",
    "explain",
    "inspect",
    "iterate",
    "mask",
    "plan",
    "remove",
    "rule",
    "sensitivity",
    "tune",
    "unmask",
    "verify",
    "zero",
]

# Where each name comes from. Imported when first asked for, so that `import kprune` costs nothing.
_HOMES = {
    **{name: "kprune.errors" for name in __all__ if name.endswith("Error")},
    **dict.fromkeys(
        ("apply", "compact", "mask", "plan", "remove", "unmask", "zero"), "kprune.pruning"
    ),
    "Choice": "kprune.select.choice",
    "__version__": "kprune.version",
    "diff": "kprune.report.diff",
    "explain": "kprune.report.explain",
    "inspect": "kprune.report.inspect",
    "iterate": "kprune.running.iterating",
    "sensitivity": "kprune.running.sensitivity",
    "tune": "kprune.running.tuning",
    "verify": "kprune.running.verify",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "rule":
        from kprune.rules.registry import CUSTOM

        value = CUSTOM.rule
    elif name == "criterion":
        from kprune.select.registered import CUSTOM as CRITERIA

        value = CRITERIA.criterion
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'kprune' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
