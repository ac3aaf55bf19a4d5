"""Plans for `kprune iterate`: how much to remove in each round, how to train, and when to stop; as YAML.

    version: 1
    choose: {criterion: l1, normalize: layer-mean, min_units: 4}
    target: {parameters: 40%}
    schedule: {rounds: 5}
    repair: true
    tune: {epochs: 3, learning_rate: 0.001}
    floor: accuracy >= 0.97

Read as strictly as the plans of `kprune apply`: every error names the line.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kprune.errors import UsageError
from kprune.pointing import quoted
from kprune.select.naming.specs import parse_layer
from kprune.select.plans.errors import Part, called, explained, refuse_nothing, refuse_unknown_keys
from kprune.select.plans.floor import PATTERN, Floor, parse_floor
from kprune.select.plans.structs import InvalidPlan, ModelCheck, without_null
from kprune.select.plans.yaml_text import Document, read_yaml
from kprune.select.ranking.budget import KINDS, Budget
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.options import WORDS as RANKED
from kprune.select.ranking.options import RankOptions, Way, described

Shape = Literal["geometric", "linear"]
WORDS: dict[str, Any] = {"shape": Shape, **RANKED}
"""The keys whose value is one of a few words."""


class Ranked(RankOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which units go first. All layers are ranked in one list; the schedule says how many go."""

    criterion: Annotated[str, described("criterion")]
    layers: Annotated[list[str], Meta(description="Layers, or globs; all without it.")] = (
        msgspec.field(default_factory=list)
    )
    exclude: Annotated[
        list[str], Meta(description="Layers, or globs, that are left as they are.")
    ] = msgspec.field(default_factory=list)
    max_ratio: (
        Annotated[float, Meta(gt=0, lt=1, description="The most of any layer in one round.")] | None
    ) = None

    def choice(self, budget: Budget) -> Choice:
        """What goes, down to a budget."""
        return Choice(self.criterion, target=budget, **self.rank_options())


class Target(Struct, frozen=True, forbid_unknown_fields=True):
    """The size to reach: one of these."""

    parameters: Annotated[int | str, Meta(description="40%, 1.2M or 500000.")] | None = None
    flops: Annotated[int | str, Meta(description="The same in FLOPs.")] | None = None
    bytes: Annotated[int | str, Meta(description="The same in bytes.")] | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            what = " and ".join(map(quoted, given)) or "nothing"
            raise InvalidPlan(
                f"a target with {what}", *given[1:2], do=f"give one of {', '.join(KINDS)}"
            )
        try:
            _ = self.budget
        except UsageError as error:
            raise InvalidPlan(error.what, given[0], do=error.do or error.why) from None

    @property
    def budget(self) -> Budget:
        kind = next(kind for kind in KINDS if getattr(self, kind) is not None)
        return Budget(kind, str(getattr(self, kind)))


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """How fast it goes: a number of rounds to the target, or the same share each round."""

    rounds: Annotated[int, Meta(ge=1, description="How many rounds lead to the target.")] | None = (
        None
    )
    shape: Annotated[
        Shape,
        Meta(
            description="With rounds: the same share goes each time (geometric), "
            "or the same number (linear)."
        ),
    ] = "geometric"
    step: (
        Annotated[
            float,
            Meta(gt=0, lt=1, description="The share of what is left that goes in each round."),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        if (self.rounds is None) == (self.step is None):
            raise InvalidPlan(
                "a schedule with "
                + ("neither 'rounds' nor 'step'" if self.step is None else "'rounds' and 'step'"),
                do="write {rounds: 5} to come to the target in 5 rounds, or {step: 0.1}",
            )
        if self.step is not None and self.shape != "geometric":
            raise InvalidPlan("'shape' with 'step'", "shape", do="it goes with 'rounds'")


class Tune(Struct, frozen=True, forbid_unknown_fields=True):
    """How each round trains on; the options of `kprune tune`."""

    epochs: Annotated[int, Meta(ge=1, description="At most, in each round.")] = 3
    batch_size: Annotated[int, Meta(ge=1)] = 32
    learning_rate: Annotated[float, Meta(gt=0)] | None = None
    optimizer: str | None = None
    loss: str | None = None
    metric: str | None = None
    validation_split: Annotated[float, Meta(gt=0, lt=1)] | None = None
    patience: (
        Annotated[int, Meta(ge=1, description="Epochs without a better one that end a round.")]
        | None
    ) = None
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    sparsify: (
        Annotated[float, Meta(gt=0, description="Strength of the penalty on groups of units.")]
        | None
    ) = None


class IterationPlan(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Prune a little, repair or train on, repeat: until a target is met, or a metric would not hold."""

    version: Annotated[Literal[1], Meta(description="The version of this format.")]
    choose: Ranked
    schedule: Schedule
    target: Target | None = None
    floor: (
        Annotated[
            str,
            Meta(
                description='What must hold after each round: "accuracy >= 0.97", "loss <= 0.2"; or, '
                'counted from the model as it was, "accuracy >= original - 0.01".',
                extra_json_schema={"pattern": f"^{PATTERN}$"},
            ),
        ]
        | None
    ) = None
    repair: (
        Annotated[
            bool | Way,
            Meta(
                description="Refit what each cut leaves, before it is trained: lstsq, noise, bias or bn; "
                "true for lstsq."
            ),
        ]
        | None
    ) = None
    tune: (
        Annotated[
            Tune, Meta(description="Without it, rounds with 'repair' train nothing; others do.")
        ]
        | None
    ) = None
    model: ModelCheck | None = None

    def __post_init__(self) -> None:
        self._check_floor()
        if self.target is None and (self.floor is None or self.schedule.rounds is not None):
            raise InvalidPlan(
                "a plan without 'target'",
                do="write target: {parameters: 40%}; without one, schedule: {step: 0.1} goes on "
                "until a floor would be crossed, such as floor: accuracy >= 0.97",
            )

    def _check_floor(self) -> None:
        if self.floor is None:
            return
        if self.limit is None:
            raise InvalidPlan(
                "'floor' is not a comparison",
                "floor",
                do="write accuracy >= 0.97 or loss <= 0.2; or, counted from the model as it was, "
                "accuracy >= original - 0.01 (one point less)",
            )
        if self.limit.relative and self.limit.allows < 0:
            raise InvalidPlan(
                "a floor that the original itself does not meet",
                "floor",
                do=f"write {self.limit.turned}",
            )

    @property
    def trains(self) -> bool:
        """Whether rounds train at all."""
        return self.tune is not None or not self.repair

    @property
    def training(self) -> Tune:
        """How they train, and how models are judged even where nothing is trained."""
        return self.tune or Tune()

    @property
    def kind(self) -> str:
        """What is counted: `parameters`, `flops` or `bytes`."""
        return self.target.budget.kind if self.target is not None else "parameters"

    def goal(self, round_: int, whole: float, end: float | None) -> float:
        """The size to reach in a round.

        Args:
            round_: from 1.
            whole: of the model as it was.
            end: what the target leaves; None if there is none.
        """
        if self.schedule.step is not None:
            return max(whole * (1 - self.schedule.step) ** round_, end or 0.0)
        assert self.schedule.rounds is not None and end is not None
        done = min(round_ / self.schedule.rounds, 1.0)
        if done == 1.0 or end >= whole:
            return end
        if self.schedule.shape == "linear":
            return whole + (end - whole) * done
        return float(whole * (end / whole) ** done)

    @cached_property
    def limit(self) -> Floor | None:
        """The floor."""
        return None if self.floor is None else parse_floor(self.floor)

    def where(self, *path: str) -> str:
        """`plan.yaml, line 6` for a part of the plan; "" for a plan made in Python."""
        document: Document | None = self.__dict__.get("_document")
        return "" if document is None else f"{document.name}, line {document.line(*path)}"


_OF_STEPS = dict.fromkeys(("steps", "expect"), "'kprune apply' carries out such a plan")


def parse_iteration_plan(text: str, name: str = "plan.yaml") -> IterationPlan:
    """Read a plan, strictly.

    Args:
        text: YAML (or JSON, which is YAML).
        name: what messages call it.
    Raises: PlanError for anything that the schema does not allow, with the line.
    """
    document = read_yaml(text, name, as_text=lambda path: path[1:2] in (("layers",), ("exclude",)))
    refuse_nothing(document)
    data = document.data
    known: dict[str, type[Struct]] = {
        "choose": Ranked, "target": Target, "schedule": Schedule, "tune": Tune, "model": ModelCheck,
    }  # fmt: skip
    if isinstance(data, dict):
        parts: list[Part] = [((key,), data.get(key), struct) for key, struct in known.items()]
        refuse_unknown_keys(document, [((), data, IterationPlan), *parts], _OF_STEPS)
    try:
        plan = msgspec.convert(data, IterationPlan)
    except msgspec.ValidationError as error:
        raise explained(error, document, WORDS) from None
    for key in ("layers", "exclude"):
        for number, layer in enumerate(getattr(plan.choose, key)):
            try:
                parse_layer(layer)
            except UsageError as error:
                raise document.error(
                    f"{called(('choose', key, number))}: {error.what}",
                    "choose", key, number, do=error.do,
                ) from None  # fmt: skip
    msgspec.structs.force_setattr(plan, "_document", document)
    return plan


def iteration_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of such a plan."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kprune iteration plan",
        **without_null(msgspec.json.schema(IterationPlan)),
    }
