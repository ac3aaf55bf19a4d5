"""The schema of a plan, as structs, and as JSON Schema."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kprune.errors import UsageError
from kprune.pointing import quoted
from kprune.select.naming.indices import compact_text
from kprune.select.plans.backends import BACKENDS, backends_with
from kprune.select.plans.yaml_text import Document
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.options import BUDGETS, RankOptions, Way, described

MAX_EXPANDED = 100_000  # indices that a text such as "0-7" may stand for in a plan's normal form


class InvalidPlan(UsageError, ValueError):
    """Values of a plan that contradict each other.

    Also a ValueError, since msgspec adds the path to those that a struct raises while it reads.

    Attributes:
        path: from the struct that raises it to the place that it means.
    """

    def __init__(self, what: str, *path: str | int, do: str = "") -> None:
        super().__init__(what, do=do)
        self.path = path


LIMITS = ("ratio", "count", "threshold")


class LayerChoice(RankOptions, frozen=True, forbid_unknown_fields=True):
    """Which units of a layer, by their properties: a criterion and a number, or an expression."""

    criterion: Annotated[str, described("criterion")] | None = None
    ratio: Annotated[float, described("ratio")] | None = None
    count: Annotated[int, described("count")] | None = None
    threshold: Annotated[float, described("threshold")] | None = None
    where: Annotated[str, Meta(description="An expression, such as mean < 0.1.")] | None = None

    def __post_init__(self) -> None:
        sizes = self.limits
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
        elif len(sizes) > 1:
            found = " and ".join(map(quoted, sizes))
            raise InvalidPlan(f"a criterion with {found}", sizes[1], do=ONE_LIMIT)
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InvalidPlan("a threshold that is not a number to compare with", "threshold")

    @property
    def limits(self) -> list[str]:
        """Which limits are given."""
        return [key for key in LIMITS if getattr(self, key) is not None]

    def options(self) -> dict[str, Any]:
        """What is given, as `kprune.select.ranking.choice.Choice` takes it."""
        given = ((key, getattr(self, key)) for key in self.__struct_fields__)
        return {key: value for key, value in given if value is not None}


ONE_LIMIT = "give one of ratio, count and threshold"
EVERY = "all"
"""Instead of indices, in a step with `below`: every channel of a layer."""

LayerValue = (
    Annotated[list[int], Meta(description="The indices of the units.")]
    | Annotated[str, Meta(description='As on the command line: "0-15", "!3,7", "@drop.txt".')]
    | LayerChoice
)
if TYPE_CHECKING:
    Backend = str
else:
    Backend = Literal[tuple(BACKENDS)]  # msgspec refuses other words


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One backend on some units. The options are the flags of the command of that name."""

    backend: Annotated[Backend, Meta(description="What happens to the units.")]
    layers: Annotated[
        dict[str, LayerValue],
        Meta(
            min_length=1,
            description="LAYER[.AXIS], or a glob, and which of its units. "
            "compact: which may go at most; without it, all that are dead.",
        ),
    ] = msgspec.field(default_factory=dict)
    whole_layers: Annotated[
        list[str],
        Meta(
            description="remove: instead of units, layers or globs to remove as a whole: a residual "
            "branch that ends in an Add, or a chain that keeps the shape."
        ),
    ] = msgspec.field(default_factory=list)
    classes: (
        Annotated[Annotated[list[str], Meta(min_length=1)] | str, described("classes")] | None
    ) = None
    class_names: Annotated[str, described("class_names")] | None = None
    class_layer: (
        Annotated[
            str, Meta(description="The output layer whose classes they are, if it has several.")
        ]
        | None
    ) = None
    keep_tokens: (
        Annotated[
            dict[str, str],
            Meta(
                min_length=1,
                description="remove: by embedding, the file of the tokens (or ids) that stay.",
            ),
        ]
        | None
    ) = None
    exclude: Annotated[
        list[str], Meta(description="Layers, or globs, that are left as they are.")
    ] = msgspec.field(default_factory=list)
    target_params: Annotated[int | str, described("target_params")] | None = None
    target_flops: Annotated[int | str, described("target_flops")] | None = None
    target_bytes: Annotated[int | str, described("target_bytes")] | None = None
    together: Annotated[bool, described("global")] = msgspec.field(default=False, name="global")
    data: Annotated[str, described("data")] | None = None
    drop_optimizer: Annotated[
        bool, Meta(description="Leave the state of the optimizer behind.")
    ] = False
    outgoing: Annotated[bool, Meta(description="zero: also what consumers hold for the units.")] = (
        False
    )
    silence: Annotated[bool, Meta(description="zero: give classes the probability 0.")] = False
    fold: Annotated[
        bool, Meta(description="remove: fold constants into the consumers' biases.")
    ] = False
    below: (
        Annotated[
            float,
            Meta(gt=0, description="mask: at run time, zero activations of magnitude under this."),
        ]
        | None
    ) = None
    merge: Annotated[
        bool, Meta(description="compact: make one of units that are equal, or up to a factor.")
    ] = False
    check: Annotated[bool, Meta(description="compact: run both models in TensorFlow first.")] = True
    repair: (
        Annotated[
            bool | Way,
            Meta(
                description="remove, compact: refit what is left on the inputs of data: lstsq, noise, "
                "bias or bn; true for the best that the data allow."
            ),
        ]
        | None
    ) = None
    coupled: Annotated[
        bool, Meta(description="Whether units tied to these may be removed with them.")
    ] = True
    allow_output_change: Annotated[
        bool, Meta(description="Whether the model's inputs or outputs may change.")
    ] = False
    drop_branches: Annotated[
        bool,
        Meta(
            description="remove: whether a layer may vanish with its branch, because units tied to its own were chosen."
        ),
    ] = False

    def __post_init__(self) -> None:
        self._check_backend()
        self._check_target()
        self._check_classes()
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
        self._check_layers()

    def _check_backend(self) -> None:
        if self.backend not in BACKENDS:
            raise InvalidPlan(
                f"there is no backend {quoted(self.backend)}",
                "backend",
                do=f"choose one of {', '.join(BACKENDS)}",
            )
        for info in msgspec.structs.fields(self):
            option, backends = info.encode_name, backends_with(info.encode_name)
            value = getattr(self, info.name)
            given = value not in (None, [], info.default)
            if given and backends and self.backend not in backends:
                raise InvalidPlan(
                    f"{quoted(option)} with backend {quoted(self.backend)}",
                    option,
                    do=f"{quoted(option)} goes with backend: {' or '.join(backends)}",
                )

    def _check_layers(self) -> None:
        given = {
            "layers": self.layers, "classes": self.classes, "exclude": self.exclude,
            "fold": self.fold, "keep_tokens": self.keep_tokens, "global": self.together,
            **dict.fromkeys((self.target or ())[:1], True),
        }  # fmt: skip
        other = next((key for key, value in given.items() if value), None)
        if self.whole_layers and other:
            raise InvalidPlan(
                f"'whole_layers' and {quoted(other)}", "whole_layers", do="make two steps of it"
            )
        if self.whole_layers:
            return
        named = self.layers or self.classes is not None or self.keep_tokens is not None
        by_unit = BACKENDS[self.backend].by_unit
        if not named and by_unit:
            raise InvalidPlan("a step without 'layers'", do="write layers: {dense_1: [3, 7, 12]}")
        whole = self.whole
        first = next(iter(self.layers.values()), None)
        for name, value in self.layers.items():
            chosen = isinstance(value, LayerChoice)
            if (self.below is not None or not by_unit) and chosen:
                option = "below" if self.below is not None else self.backend
                raise InvalidPlan(f"a choice by rank with {quoted(option)}", "layers", name)
            if whole and value != first:
                raise InvalidPlan(
                    f"two choices under {quoted(whole)}", "layers", name,
                    do="it ranks all layers in one list, so give them one choice, or two steps",
                )  # fmt: skip
            if whole and not (isinstance(value, LayerChoice) and value.criterion is not None):
                raise InvalidPlan(
                    f"no criterion under {quoted(whole)}", "layers", name,
                    do='write layers: {"*": {criterion: lamp}}',
                )  # fmt: skip
            if isinstance(value, LayerChoice) and value.criterion is not None:
                limits = value.limits
                if self.target and limits:
                    raise InvalidPlan(
                        f"{quoted(limits[0])} under {quoted(self.target[0])}",
                        "layers", name, limits[0], do="give one of the two",
                    )  # fmt: skip
                if not self.target and not limits:
                    raise InvalidPlan(
                        "a criterion without a limit", "layers", name, "criterion", do=ONE_LIMIT
                    )

    def _check_target(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            what = f"{quoted(given[0])} and {quoted(given[1])}"
            raise InvalidPlan(what, given[1], do="give one of them")
        if self.target:
            try:
                Budget(BUDGETS[self.target[0]], self.target[1])
            except UsageError as error:
                raise InvalidPlan(error.what, self.target[0], do=error.do or error.why) from None

    def _check_classes(self) -> None:
        names = "write class_names: labels.txt, the names in the order of the model's outputs"
        if self.classes is not None and self.class_names is None:
            raise InvalidPlan("'classes' without 'class_names'", "classes", do=names)
        for key in ("class_names", "class_layer"):
            if self.classes is None and getattr(self, key) is not None:
                raise InvalidPlan(
                    f"{quoted(key)} without 'classes'", key, do="write classes: [cat]"
                )
        for other in (self.whole, "below" if self.below is not None else ""):
            if self.classes is not None and other:
                raise InvalidPlan(
                    f"'classes' under {quoted(other)}", "classes", do="make two steps of it"
                )

    @property
    def target(self) -> tuple[str, str] | None:
        """The budget: its option, and the amount as text."""
        given = (name for name in BUDGETS if getattr(self, name) is not None)
        return next(((name, str(getattr(self, name))) for name in given), None)

    @property
    def whole(self) -> str:
        """The option that ranks the units of all layers in one list, or ""."""
        return self.target[0] if self.target else "global" if self.together else ""


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
    """What the result must satisfy; otherwise the command fails with exit code 5."""

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

    def __post_init__(self) -> None:
        removing = [
            step.classes is not None and BACKENDS[step.backend].removes for step in self.steps
        ]
        if sum(removing) > 1:
            second = [number for number, removes in enumerate(removing) if removes][1]
            raise InvalidPlan(
                "a second step that removes classes by name",
                "steps", second, "classes", do="name them all in one step",
            )  # fmt: skip

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
    schema = without_null(msgspec.json.schema(Plan))
    choice, step = schema["$defs"]["LayerChoice"], schema["$defs"]["Step"]
    choice["oneOf"] = [{"required": ["criterion"]}, {"required": ["where"], "maxProperties": 1}]
    sizes = [{"required": [key]} for key in LIMITS]
    every = {"required": ["criterion"], "properties": dict.fromkeys(LIMITS, False)}
    each = {"anyOf": [{"required": ["where"]}, {"oneOf": sizes}]}
    finding = [backend.name for backend in BACKENDS.values() if not backend.by_unit]
    step["allOf"] = [
        {
            "if": {"properties": {"backend": {"enum": finding}}},
            "else": {
                "anyOf": [
                    {"required": [key]}
                    for key in ("layers", "classes", "keep_tokens", "whole_layers")
                ]
            },
        },
        {
            "if": {"anyOf": [{"required": [key]} for key in BUDGETS]},
            "then": _of_choices({"type": "object", **every}),
            "else": _of_choices({"if": {"type": "object"}, "then": each}),
        },
    ]
    step["dependentRequired"] = {
        "classes": ["class_names"], "class_names": ["classes"], "class_layer": ["classes"],
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kprune plan",
        **schema,
    }


def _of_choices(schema: dict[str, Any]) -> dict[str, Any]:
    return {"properties": {"layers": {"additionalProperties": schema}}}


def without_null(schema: Any) -> Any:
    """The schema without the nulls that stand for an absent key: a plan leaves the key out."""
    if isinstance(schema, list):
        return [without_null(entry) for entry in schema if entry != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {key: without_null(value) for key, value in schema.items()}
    if kept.get("default", ...) is None:
        del kept["default"]
    if len(kept.get("anyOf", ())) == 1:
        kept |= kept.pop("anyOf")[0]
    return kept
