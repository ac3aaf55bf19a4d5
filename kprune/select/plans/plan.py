"""Plans: which units of which layers, and what to do with them; as YAML to review and replay.

    version: 1
    steps:
      - backend: remove
        layers: {dense_1: [3, 7, 12], conv2d_*: {criterion: l1, ratio: 0.25}}
    expect: {parameters: "<= 1300000"}

The structs of `structs.py` are the schema; reading is strict, and every error names the line.
Imported only when there is a plan: msgspec and yaml are not needed otherwise.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kprune.errors import PlanError, UsageError
from kprune.limits import PLAN_STEPS
from kprune.select.naming.expressions import parse_expression
from kprune.select.naming.index_text import parse_indices
from kprune.select.naming.indices import compact_text
from kprune.select.naming.specs import parse_layer
from kprune.select.plans.backends import BACKENDS
from kprune.select.plans.errors import explained, parts_of_plan, refuse_nothing, refuse_unknown_keys
from kprune.select.plans.structs import (
    COMPARISON,
    EVERY,
    Backend,
    Expect,
    InvalidPlan,
    LayerChoice,
    LayerValue,
    ModelCheck,
    Plan,
    Step,
    listed,
    plan_schema,
)
from kprune.select.plans.yaml_text import (
    COLUMNS,
    Document,
    read_yaml,
    wrap_flow,
    write_flow,
    write_key,
    write_scalar,
)
from kprune.types import KeyPath

__all__ = [
    "BACKENDS",
    "EVERY",
    "Backend",
    "Expect",
    "InvalidPlan",
    "LayerChoice",
    "LayerValue",
    "ModelCheck",
    "Plan",
    "Step",
    "failed_expectations",
    "parse_plan",
    "plan_schema",
    "plan_to_dict",
    "plan_to_yaml",
]


_OF_ROUNDS = dict.fromkeys(
    ("choose", "schedule", "target", "tune", "floor"), "'kprune iterate' carries out such a plan"
)
_TEXTS = (("exclude",), ("whole_layers",), ("classes",), ("class_layer",), ("keep_tokens",))
"""The keys of a step whose values are text, whatever they look like."""


def parse_plan(text: str, name: str = "plan.yaml") -> Plan:
    """Read a plan, strictly.

    Args:
        text: YAML (or JSON, which is YAML).
        name: what messages call it.
    Returns: the plan, which knows its lines.
    Raises: PlanError for anything that the schema does not allow, with the line.
    """
    document = read_yaml(text, name, as_text=lambda path: path[2:3] in _TEXTS)
    refuse_nothing(document)
    refuse_unknown_keys(document, parts_of_plan(document.data), _OF_ROUNDS)
    try:
        plan = msgspec.convert(document.data, Plan)
    except msgspec.ValidationError as error:
        raise explained(error, document) from None
    PLAN_STEPS.check(len(plan.steps), "it", name)
    _check_texts(plan, document)
    msgspec.structs.force_setattr(plan, "_document", document)
    return plan


def _check_texts(plan: Plan, document: Document) -> None:
    """Raises: PlanError for a layer name, indices or an expression that do not parse."""
    for count, step in enumerate(plan.steps):
        for name, value in step.layers.items():
            path: KeyPath = ("steps", count, "layers", name)
            try:
                parse_layer(name)
                if value == EVERY and step.below is not None:
                    continue
                if isinstance(value, str):
                    parse_indices(value)
                elif isinstance(value, LayerChoice) and value.where is not None:
                    path = (*path, "where")
                    parse_expression(value.where)
            except UsageError as error:
                place = document.error(error.what, *path)
                where = f"{document.name}, line {document.line(*path)}\n{error.where}"
                raise PlanError(
                    place.what,
                    where=where if error.where else place.where,
                    why=error.why,
                    do=error.do,
                ) from None


def files_named_in(plan: Plan) -> list[str]:
    """The files of units, class names, tokens and data that a plan names, as it writes them."""
    found: list[str | None] = []
    for step in plan.steps:
        units = [value for value in step.layers.values() if isinstance(value, str)]
        found += [text.partition("@")[2] for text in units]
        found += [step.class_names, step.data, *(step.keep_tokens or {}).values()]
    return [name for name in found if name]


def plan_to_yaml(plan: Plan) -> str:
    """The plan as YAML text that `parse_plan` reads back as an equal plan.

    Indices stand in lists, wrapped at 100 columns; long runs of them in text such as "0-255".
    """
    lines = [f"version: {plan.version}"]
    if plan.model is not None:
        lines.append(f"model: {write_flow(_given(plan.model))}")
    lines.append("steps:")
    for step in plan.steps:
        lines += [f"  - backend: {step.backend}", *["    layers:"] * bool(step.layers)]
        for name, value in step.layers.items():
            lines += _layer_lines(write_key(name, 6), value)
        for key, value in _given(step).items():
            if isinstance(value, list):
                lines += wrap_flow(f"    {key}:", value, 6) if value else []
            elif key == "keep_tokens":
                files = (
                    f"{write_key(name, 6)} {write_scalar(file)}" for name, file in value.items()
                )
                lines += [f"    {key}:", *files]
            elif key not in ("backend", "layers"):
                lines.append(f"    {key}: {write_scalar(value)}")
    if plan.expect is not None:
        lines.append(f"expect: {write_flow(_given(plan.expect))}")
    return "\n".join(lines) + "\n"


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain data, which as JSON is a plan as well: JSON is YAML."""
    steps = [
        {
            key: {
                name: _given(choice) if isinstance(choice, LayerChoice) else choice
                for name, choice in step.layers.items()
            }
            if key == "layers"
            else value
            for key, value in _given(step).items()
            if value not in ([], {})
        }
        for step in plan.steps
    ]
    model = {} if plan.model is None else {"model": _given(plan.model)}
    expect = {} if plan.expect is None else {"expect": _given(plan.expect)}
    return {"version": plan.version, **model, "steps": steps, **expect}


def _layer_lines(key: str, value: list[int] | str | LayerChoice) -> list[str]:
    if isinstance(value, str):
        return [f"{key} {write_scalar(value)}"]
    if isinstance(value, LayerChoice):
        return [f"{key} {write_flow(_given(value))}"]
    text = compact_text(value)
    short = 2 * len(text) < len(write_flow(value)) and len(key) + len(text) + 3 <= COLUMNS
    if short and "-" in text and listed(text) == value:
        return [f'{key} "{text}"']
    return list(wrap_flow(key, value, 8))


def _given(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields that differ from their default."""
    found = {}
    for info in msgspec.structs.fields(struct):
        value = getattr(struct, info.name)
        if value is not None and value != info.default:
            found[info.encode_name] = value
    return found


_HOLDS = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip


def failed_expectations(
    expect: Expect | None, facts: Mapping[str, int | float | bool | None]
) -> list[str]:
    """The expectations of a plan that are not met, a sentence each.

    Args:
        expect: from the plan; None expects nothing.
        facts: the result's `parameters`, `flops`, `bytes`, `units` and `exact`; None (or absent)
            where a number is not known, which fails every comparison.
    """
    failed = []
    for key, wanted in ({} if expect is None else _given(expect)).items():
        fact = facts.get(key)
        if fact is None:
            failed.append(f"{key} is not known, and the plan expects {_shown(wanted)}")
        elif not _holds(fact, wanted):
            failed.append(f"{key} is {write_scalar(fact)}, and the plan expects {_shown(wanted)}")
    return failed


def _holds(fact: int | float | bool, wanted: int | str | bool) -> bool:
    if not isinstance(wanted, str):
        return fact == wanted
    found = re.fullmatch(COMPARISON, wanted)
    assert found is not None  # the schema has the same pattern
    number = found[2].replace("_", "")
    bound = int(number) if number.isdecimal() else float(number)
    return bool(_HOLDS[found[1] or "=="](fact, bound))


def _shown(wanted: int | str | bool) -> str:
    return wanted if isinstance(wanted, str) else write_scalar(wanted)
