"""The schema of a plan, as structs, and as JSON Schema."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kprune.errors import UsageError
from kprune.select.indices import compact_text
from kprune.select.plan_yaml import Document
from kprune.select.pointing import quoted

MAX_EXPANDED = 100_000  # indices that a text such as "0-7" may stand for in a plan's normal form


class InvalidPlan(UsageError, ValueError):
    """Values of a plan that contradict each other.

    Also a ValueError, since msgspec adds the path to those that a struct raises while it reads.
    """

    def __init__(self, what: str, key: str = "", *, do: str = "") -> None:
        super().__init__(what, do=do)
        self.key = key


class LayerChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """Which units of a layer by what they are like: a criterion and how many, or an expression."""

    criterion: Annotated[str, Meta(description="What ranks the units: l1, l2, mean, random.")] | (
        None
    ) = None
    ratio: Annotated[float, Meta(gt=0, lt=1, description="The share of units to choose.")] | (
        None
    ) = None
    count: Annotated[int, Meta(ge=1, description="How many units to choose.")] | None = None
    threshold: Annotated[float, Meta(description="Choose the units that score less.")] | None = None
    where: Annotated[str, Meta(description="An expression, such as mean < 0.1.")] | None = None
    round_to: (
        Annotated[int, Meta(ge=1, description="Leave a multiple of this many units.")] | None
    ) = None
    min_units: Annotated[int, Meta(ge=1, description="Leave at least this many units.")] | None = (
        None
    )

    def __post_init__(self) -> None:
        sizes = [key for key in ("ratio", "count", "threshold") if getattr(self, key) is not None]
        if self.where is not None:
            others = [key for key in self.__struct_fields__ if getattr(self, key) is not None]
            others.remove("where")
            if others:
                raise InvalidPlan(f"'where' and {quoted(others[0])} for the same layer", others[0])
        elif self.criterion is None:
            raise InvalidPlan(
                "a choice with neither 'criterion' nor 'where'",
                do="write {criterion: l1, ratio: 0.25} or {where: mean < 0.1}",
            )
        elif len(sizes) != 1:
            found = " and ".join(map(quoted, sizes))
            raise InvalidPlan(
                f"a criterion with {found}" if found else "a criterion without a limit",
                sizes[1] if sizes else "criterion",
                do="give one of ratio, count and threshold",
            )
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InvalidPlan("a threshold that is not a number to compare with", "threshold")


LayerValue = (
    Annotated[list[int], Meta(description="The indices of the units.")]
    | Annotated[str, Meta(description='As on the command line: "0-15", "!3,7", "@drop.txt".')]
    | LayerChoice
)
Backend = Literal["zero", "mask", "remove"]


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One backend on some units. The options are the flags of the command of that name."""

    backend: Annotated[Backend, Meta(description="What happens to the units.")]
    layers: Annotated[
        dict[str, LayerValue],
        Meta(min_length=1, description="LAYER[.AXIS], or a glob, and which of its units."),
    ]
    exclude: Annotated[
        list[str], Meta(description="Layers, or globs, that are left as they are.")
    ] = msgspec.field(default_factory=list)
    outgoing: Annotated[bool, Meta(description="zero: also what consumers hold for the units.")] = (
        False
    )
    silence: Annotated[bool, Meta(description="zero: give classes the probability 0.")] = False
    fold: Annotated[
        bool, Meta(description="remove: fold constants into the consumers' biases.")
    ] = False
    coupled: Annotated[bool, Meta(description="Whether units tied to these may go along.")] = True
    allow_output_change: Annotated[
        bool, Meta(description="Whether the model's inputs or outputs may change.")
    ] = False

    def __post_init__(self) -> None:
        for option, backend in (("outgoing", "zero"), ("silence", "zero"), ("fold", "remove")):
            if getattr(self, option) and self.backend != backend:
                raise InvalidPlan(
                    f"{quoted(option)} with backend {quoted(self.backend)}",
                    option,
                    do=f"{quoted(option)} goes with backend: {backend}",
                )
        # One form for each choice, so that plans that say the same are equal: text that merely
        # lists indices, such as "0-7,12", becomes the list.
        layers: dict[str, LayerValue] = {}
        for name, value in self.layers.items():
            if isinstance(value, str):
                layers[name] = listed(value)
            elif isinstance(value, LayerChoice):
                layers[name] = value
            else:  # from Python perhaps an array
                layers[name] = [int(index) for index in value]
        msgspec.structs.force_setattr(self, "layers", layers)


class ModelCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """What the model must be for the plan to apply to it."""

    parameters: Annotated[int, Meta(ge=0, description="How many parameters it has.")]


COMPARISON = r"^\s*(<=|>=|==|!=|<|>)?\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+]?[0-9]+)?)\s*$"
Amount = (
    Annotated[int, Meta(ge=0, description="Exactly this many.")]
    | Annotated[str, Meta(pattern=COMPARISON, description='A comparison: "<= 1300000".')]
    | None
)


class Expect(Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold of the result, or the command fails with exit code 5."""

    parameters: Amount = None
    flops: Amount = None
    bytes: Amount = None
    units: Amount = None
    exact: Annotated[bool, Meta(description="Equal to the original with the units at 0.")] | (
        None
    ) = None


class Plan(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A kprune plan: which units of which layers to zero, mask or remove."""

    version: Annotated[Literal[1], Meta(description="The version of this format.")]
    steps: Annotated[list[Step], Meta(min_length=1, description="Carried out in this order.")]
    model: ModelCheck | None = None
    expect: Expect | None = None

    @property
    def document(self) -> Document | None:
        """The text that the plan was read from; None for one made in Python."""
        return self.__dict__.get("_document")

    def line(self, *path: str | int) -> int | None:
        """The line of a part, as in `plan.line("steps", 0, "layers", "dense_1")`, from 1."""
        return None if self.document is None else self.document.line(*path)

    def where(self, *path: str | int) -> str:
        """`plan.yaml, line 6` for a part of the plan; "" for a plan made in Python."""
        return "" if self.document is None else f"{self.document.name}, line {self.line(*path)}"


def listed(text: str) -> str | list[int]:
    """The indices that a text lists, if it is as `plan_to_yaml` writes them; else the text."""
    if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*", text):
        return text
    indices: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        run = range(int(first), int(last or first) + 1)
        if len(indices) + len(run) > MAX_EXPANDED:
            return text
        indices += run
    return indices if compact_text(indices) == text else text


def plan_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a plan, for editors and other tools."""
    schema = _without_null(msgspec.json.schema(Plan))
    choice = schema["$defs"]["LayerChoice"]
    sizes = [{"required": ["criterion", key]} for key in ("ratio", "count", "threshold")]
    choice["oneOf"] = [*sizes, {"required": ["where"], "maxProperties": 1}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kprune plan",
        **schema,
    }


def _without_null(schema: Any) -> Any:
    """The schema without the nulls that stand for an absent key: a plan leaves the key out."""
    if isinstance(schema, list):
        return [_without_null(entry) for entry in schema if entry != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_null(value) for key, value in schema.items()}
    if kept.get("default", ...) is None:
        del kept["default"]
    if len(kept.get("anyOf", ())) == 1:
        kept |= kept.pop("anyOf")[0]
    return kept
