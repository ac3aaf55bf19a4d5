"""The options of a choice by rank or by class: one description for the command line, for plans and for `Choice`.

An option that is said in the same words everywhere is a field of `RankOptions`, a keyword of `Choosing` and
a line of `OPTIONS`; `Choice` has it then, and so have plans, those for `iterate`, and the command line. What
it means is `kprune.select.ranking.choice`'s to say. Light, since the command line reads it for its help;
annotations are evaluated as it is loaded, since the command line asks for each.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict, get_args

from msgspec import Meta, Struct

import kprune.select.ranking.criteria  # noqa: F401  # registers those that come with kprune
from kprune.criteria_table import BUILTIN

Reduction = Literal["mean", "sum", "max", "l2"]
Weighting = Literal["relmean", "fisher"]
Normalization = Literal["none", "layer-mean", "layer-max", "layer-gauss", "layer-rank"]

REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "max", "l2")
WEIGHTINGS: tuple[Weighting, ...] = ("relmean", "fisher")
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)

Way = Literal["lstsq", "noise", "bias", "bn"]
WAYS: tuple[Way, ...] = ("lstsq", "noise", "bias", "bn")
"""How what is left of a model is refitted; see `kprune.pruning.repairing.Repair`."""

WORDS = {"reduce": Reduction, "normalize": Normalization, "weighting": Weighting, "repair": Way}
"""The options whose value is one of a few words."""


class Described(Struct, frozen=True):
    """One option.

    Attributes:
        text: what it means, a sentence.
        metavar: what stands for its value in help.
        above, below, least: what a number must be more than, less than, or at least.
        words: what a text may be.
    """

    text: str
    metavar: str = ""
    above: float | None = None
    below: float | None = None
    least: int | None = None
    words: tuple[str, ...] = ()


def _names(*, data: bool) -> list[str]:
    """The criteria that come with kprune: those that need data, or the others."""
    return [name for name, found in BUILTIN.criteria.items() if found.data == data]


OPTIONS: dict[str, Described] = {
    "criterion": Described(
        f"The lowest go, by {', '.join(_names(data=False))}; with data by "
        f"{', '.join(_names(data=True)[:-1])} or {_names(data=True)[-1]} ('kprune criteria' "
        "says what each is).",
        "NAME",
        words=tuple(BUILTIN.criteria),
    ),
    "ratio": Described("Remove this share of each layer.", "R", above=0, below=1),
    "count": Described("Remove N units from each layer.", "N", least=1),
    "threshold": Described("Remove units that score below T.", "T"),
    "round_to": Described("Keep a multiple of N units in each layer.", "N", least=1),
    "min_units": Described("Keep at least N units in each layer.", "N", least=1),
    "max_ratio": Described("Remove at most this share of any layer.", "R", above=0, below=1),
    "seed": Described("Seed for the criterion random.", "N", least=0),
    "reduce": Described(
        "How the scores of tied units become one: mean, sum, max or l2.", "HOW", words=REDUCTIONS
    ),
    "normalize": Described(
        "Make the scores of layers comparable: none, layer-mean, layer-max, layer-gauss or layer-rank.",
        "HOW",
        words=NORMALIZATIONS,
    ),
    "weighting": Described(
        "For the criterion obs, errors count as shares of each output's variance (relmean), or by "
        "how much the model's own answers depend on them (fisher).",
        "HOW",
        words=WEIGHTINGS,
    ),
    "global": Described("Rank all layers in one list."),
    "target_params": Described(
        "Remove as few units as needed to get down to 40% or 1.2M parameters.", "N"
    ),
    "target_flops": Described("The same in FLOPs.", "N"),
    "target_bytes": Described(
        "The same in bytes of the file, which the optimizer's state belongs to unless it is dropped.",
        "N",
    ),
    "classes": Described(
        "Classes of the output, by name, such as cat,dog; requires class names.", "NAMES"
    ),
    "class_names": Described(
        "One name per line, or JSON; 'remove' also writes the names that remain.", "FILE"
    ),
    "data": Described(
        "For what depends on activations: an .npz file with x (and y), or package.module:function.",
        "FILE",
    ),
}

BUDGETS = {"target_params": "parameters", "target_flops": "flops", "target_bytes": "bytes"}
"""The options that are budgets, and what each counts."""


def described(name: str) -> Meta:
    """An option as the type of a field in a plan has it."""
    option = OPTIONS[name]
    bounds: Any = {"gt": option.above, "lt": option.below, "ge": option.least}
    return Meta(description=option.text, extra={"option": name}, **bounds)


class RankOptions(Struct, frozen=True, kw_only=True):
    """The options of every choice by rank; None where one is not given."""

    round_to: Annotated[int, described("round_to")] | None = None
    min_units: Annotated[int, described("min_units")] | None = None
    max_ratio: Annotated[float, described("max_ratio")] | None = None
    seed: Annotated[int, described("seed")] | None = None
    reduce: Annotated[Reduction, described("reduce")] | None = None
    normalize: Annotated[Normalization, described("normalize")] | None = None
    weighting: Annotated[Weighting, described("weighting")] | None = None

    def rank_options(self) -> dict[str, Any]:
        """Those that are given."""
        given = ((name, getattr(self, name)) for name in RankOptions.__struct_fields__)
        return {name: value for name, value in given if value is not None}


class Choosing(TypedDict, total=False):
    """Which units, by rank; the options of the command line, see `kprune.Choice`.

    ratio, max_ratio: numbers, or texts such as "30%".
    target_params, target_flops, target_bytes: a budget: "50%", "1.2M", 500000.
    together: rank the units of all layers in one list (`--global`).
    """

    criterion: str | None
    ratio: float | str | None
    count: int | None
    threshold: float | None
    target_params: float | str | None
    target_flops: float | str | None
    target_bytes: float | str | None
    per_layer: Mapping[str, float] | None
    together: bool | None
    round_to: int | None
    min_units: int | None
    max_ratio: float | str | None
    seed: int | None
    reduce: Reduction | None
    normalize: Normalization | None
    weighting: Weighting | None
