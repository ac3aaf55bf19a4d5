"""JSON Schemas of what kprune reads and prints: one for each plan and each report."""

from __future__ import annotations

import importlib
from typing import Any

from msgspec import Struct

from kprune.errors import UsageError
from kprune.page.result import result_schema
from kprune.pointing import did_you_mean
from kprune.text import clean


class Described(Struct, frozen=True):
    """One kind of JSON.

    Attributes:
        what: in a few words.
        home: the module and the function or the class in it that describes it.
    """

    what: str
    home: str


SCHEMAS = {
    "plan": Described("plan, for 'apply'", "kprune.select.plans.structs:plan_schema"),
    "iterate-plan": Described(
        "plan, for 'iterate'", "kprune.select.plans.iteration:iteration_schema"
    ),
    "report": Described(
        "remove, zero, mask, unmask, compact, apply", "kprune.report.report:report_schema"
    ),
    "repair": Described("the same with a repair", "kprune.report.repaired:repaired_schema"),
    "inspect": Described("inspect", "kprune.views.inspection:Inspection"),
    "explain": Described("explain", "kprune.views.explanation:Explanation"),
    "diff": Described("diff", "kprune.views.difference:Difference"),
    "verify": Described("verify", "kprune.verification.verify_result:Verification"),
    "tune": Described("tune", "kprune.train.tune_result:Tuning"),
    "iterate": Described("iterate", "kprune.verbs.iterate_result:iterate_schema"),
    "sensitivity": Described(
        "the curves of 'sensitivity'", "kprune.select.plans.curves:curves_schema"
    ),
}
"""By name what each describes: a plan, or the report of some commands."""


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of a name in `SCHEMAS`. Raises: UsageError for another."""
    described = SCHEMAS.get(name)
    if described is None:
        hint = did_you_mean(name, SCHEMAS)
        raise UsageError(
            f"there is no schema of '{clean(name)}'" + (f"; {hint}" if hint else ""),
            do=f"choose one of {', '.join(SCHEMAS)}",
        )
    module, _, member = described.home.partition(":")
    found: Any = getattr(importlib.import_module(module), member)
    schema: dict[str, Any] = (
        result_schema(found, f"kprune {name} report") if isinstance(found, type) else found()
    )
    return schema
