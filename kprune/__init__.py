"""Remove units from saved Keras models: name them, get a smaller model file that plain Keras loads.

    import kprune

    report = kprune.remove("model.keras", {"dense_1": [3, 7, 12]}, output="small.keras")
    print(report.input.parameters, "->", report.output.parameters)

    print(kprune.inspect("model.keras").layers[0].free)      # what may be removed
    kprune.verify("model.keras", "small.keras").passed       # runs both in TensorFlow

A model is the path of a file. `inspect`, `explain`, `diff` and `plan` also take a live Keras model;
so do `remove`, `zero`, `mask`, `unmask`, `compact` and `apply`, which return a new one. Every
refusal is a `KpruneError` that says what, where, why and what to do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kprune.criteria_table import CUSTOM as CRITERIA
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
        LimitError,
        MissingStatisticError,
        NotARectangleError,
        PlanError,
        SetupError,
        SpecError,
        UnknownLayerError,
        UnsoundOutputError,
        UsageError,
    )
    from kprune.limits import limit
    from kprune.opened import LiveModel
    from kprune.page.result import Note
    from kprune.report.report import Report
    from kprune.running.sources import DataSource
    from kprune.select.naming.kept_tokens import Kept
    from kprune.select.plans.curves import Curves
    from kprune.select.plans.iteration import IterationPlan
    from kprune.select.plans.structs import Plan
    from kprune.select.ranking.budget import Budget
    from kprune.select.ranking.choice import Choice
    from kprune.select.ranking.options import Choosing, Normalization, Reduction, Way, Weighting
    from kprune.tracing.registry import CUSTOM
    from kprune.train.settings import TrainingOptions
    from kprune.train.tune import tune
    from kprune.train.tune_loop import OnEpoch
    from kprune.train.tune_result import Tuning
    from kprune.types import AnyPath, Progress
    from kprune.verbs.arguments import Analysing, Changing, Opening, Selecting, Writing
    from kprune.verbs.change import apply, compact, mask, plan, remove, unmask, zero
    from kprune.verbs.iterate import OnCut, iterate
    from kprune.verbs.iterate_result import Iteration
    from kprune.verbs.repair import repair
    from kprune.verbs.sensitivity import sensitivity
    from kprune.verification.verify import verify
    from kprune.verification.verify_result import Verification
    from kprune.version import __version__
    from kprune.views.diff import diff
    from kprune.views.difference import Difference
    from kprune.views.explain import explain
    from kprune.views.explanation import Explanation
    from kprune.views.inspect import inspect
    from kprune.views.inspection import Inspection

    rule = CUSTOM.rule
    criterion = CRITERIA.criterion

__all__ = [
    "Analysing",
    "AnyPath",
    "Budget",
    "CannotPruneError",
    "Changing",
    "CheckError",
    "Choice",
    "Choosing",
    "Curves",
    "DamagedFileError",
    "DataSource",
    "Difference",
    "Explanation",
    "ExpressionError",
    "FileError",
    "FrozenUnitsError",
    "IndexRangeError",
    "Inspection",
    "InternalError",
    "Iteration",
    "IterationPlan",
    "Kept",
    "KpruneError",
    "LastUnitError",
    "LimitError",
    "LiveModel",
    "MissingStatisticError",
    "Normalization",
    "NotARectangleError",
    "Note",
    "OnCut",
    "OnEpoch",
    "Opening",
    "Plan",
    "PlanError",
    "Progress",
    "Reduction",
    "Report",
    "Selecting",
    "SetupError",
    "SpecError",
    "TrainingOptions",
    "Tuning",
    "UnknownLayerError",
    "UnsoundOutputError",
    "UsageError",
    "Verification",
    "Way",
    "Weighting",
    "Writing",
    "__version__",
    "apply",
    "compact",
    "criterion",
    "diff",
    "explain",
    "inspect",
    "iterate",
    "limit",
    "mask",
    "plan",
    "remove",
    "repair",
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
        ("apply", "compact", "mask", "plan", "remove", "unmask", "zero"), "kprune.verbs.change"
    ),
    "Choice": "kprune.select.ranking.choice",
    "LiveModel": "kprune.opened",
    "Note": "kprune.page.result",
    "Report": "kprune.report.report",
    "DataSource": "kprune.running.sources",
    "Kept": "kprune.select.naming.kept_tokens",
    "Curves": "kprune.select.plans.curves",
    "IterationPlan": "kprune.select.plans.iteration",
    "Plan": "kprune.select.plans.structs",
    "Budget": "kprune.select.ranking.budget",
    **dict.fromkeys(
        ("Choosing", "Normalization", "Reduction", "Way", "Weighting"),
        "kprune.select.ranking.options",
    ),
    "TrainingOptions": "kprune.train.settings",
    "OnEpoch": "kprune.train.tune_loop",
    "Tuning": "kprune.train.tune_result",
    **dict.fromkeys(("AnyPath", "Progress"), "kprune.types"),
    **dict.fromkeys(
        ("Analysing", "Changing", "Opening", "Selecting", "Writing"),
        "kprune.verbs.arguments",
    ),
    "OnCut": "kprune.verbs.iterate",
    "Iteration": "kprune.verbs.iterate_result",
    "Verification": "kprune.verification.verify_result",
    "Difference": "kprune.views.difference",
    "Explanation": "kprune.views.explanation",
    "Inspection": "kprune.views.inspection",
    "__version__": "kprune.version",
    "diff": "kprune.views.diff",
    "explain": "kprune.views.explain",
    "inspect": "kprune.views.inspect",
    "iterate": "kprune.verbs.iterate",
    "limit": "kprune.limits",
    "repair": "kprune.verbs.repair",
    "sensitivity": "kprune.verbs.sensitivity",
    "tune": "kprune.train.tune",
    "verify": "kprune.verification.verify",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "rule":
        from kprune.tracing.registry import CUSTOM

        value = CUSTOM.rule
    elif name == "criterion":
        from kprune.criteria_table import CUSTOM as CRITERIA

        value = CRITERIA.criterion
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'kprune' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
