"""What each TensorFlow operation does to labels.

    registry.py      the table
    elementwise.py   element by element; arithmetic on sizes
    contractions.py  products and convolutions
    movement.py      reshape, transpose, tile, padding
    joining.py       concatenation, stacking, splitting
    indexing.py      slices, gathers
    reductions.py    sums, means, softmax, normalisation, pooling
    sources.py       constants, variables, what makes tensors from a shape
    control.py       calls of functions, branches, loops, lists of tensors

What an operation does to labels stands in `kprune.rules.effects`, where Keras's rules ask as well;
the rules here fetch axes and sizes from nodes and constants, and calculate with sizes alike. Sources
and control flow are TensorFlow's own: a config has neither functions nor variables.

An operation without a rule is never guessed at: what reaches it is frozen, by its name.
"""

from __future__ import annotations

import functools
import importlib

from kprune.saved_model.rules.registry import OPS, OpRule

FAMILIES = (
    "elementwise",
    "contractions",
    "movement",
    "joining",
    "indexing",
    "reductions",
    "sources",
    "control",
)

__all__ = ["FAMILIES", "OPS", "OpRule", "table"]


@functools.cache
def table() -> dict[str, OpRule]:
    """Every rule, by operation."""
    for family in FAMILIES:
        importlib.import_module(f"kprune.saved_model.rules.{family}")
    return OPS
