"""What can be said of a choice by rank or by class: one description for the command line, for plans and for `Choice`.

Light, since the command line reads it for its help.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Reduction = Literal["mean", "sum", "max", "l2"]
Weighting = Literal["relmean", "fisher"]
Normalization = Literal["none", "layer-mean", "layer-max", "layer-gauss"]

REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "max", "l2")
WEIGHTINGS: tuple[Weighting, ...] = ("relmean", "fisher")
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "layer-mean", "layer-max", "layer-gauss")


class Described(Struct, frozen=True):
    """One option.

    Attributes:
        text: what it means, a sentence.
        metavar: what stands for its value in help.
        above, below, least: what a number must be more than, less than, or at least.
        words: what a text must be one of.
    """

    text: str
    metavar: str = ""
    above: float | None = None
    below: float | None = None
    least: int | None = None
    words: tuple[str, ...] = ()


OPTIONS: dict[str, Described] = {
    "criterion": Described(
        "The lowest go, by l1, l2, mean, bn-scale, fpgm, lamp, random; with data by apoz, "
        "activation-mean, activation-std, activation-absmax, taylor, hessian or obs.",
        "NAME",
    ),
    "ratio": Described("This share of each layer.", "R", above=0, below=1),
    "count": Described("Remove N units from each layer.", "N", least=1),
    "threshold": Described("Remove units that score below T.", "T"),
    "round_to": Described("Leave a multiple of N units.", "N", least=1),
    "min_units": Described("Leave at least N units.", "N", least=1),
    "max_ratio": Described("Take at most this share of any layer.", "R", above=0, below=1),
    "seed": Described("For the criterion random.", "N", least=0),
    "reduce": Described("One score for tied units: mean, sum, max or l2.", "HOW", words=REDUCTIONS),
    "normalize": Described(
        "Make layers comparable: none, layer-mean, layer-max or layer-gauss.",
        "HOW",
        words=NORMALIZATIONS,
    ),
    "weighting": Described(
        "For the criterion obs, errors count as shares of each output's variance (relmean), or by "
        "what the model's own answers hang on (fisher).",
        "HOW",
        words=WEIGHTINGS,
    ),
    "global": Described("Rank all layers in one list."),
    "target_params": Described("As few as it takes to leave 40% or 1.2M parameters.", "N"),
    "target_flops": Described("The same in FLOPs.", "N"),
    "target_bytes": Described("The same in bytes.", "N"),
    "classes": Described(
        "Classes of the output, by name, such as cat,dog; they need class names.", "NAMES"
    ),
    "class_names": Described(
        "One name a line, or JSON; 'remove' writes what is left of it as well.", "FILE"
    ),
    "data": Described(
        "For what depends on activations: an .npz file with x (and y), or package.module:function.",
        "FILE",
    ),
}

BUDGETS = {"target_params": "parameters", "target_flops": "flops", "target_bytes": "bytes"}
"""The options that are budgets, and what each counts."""
