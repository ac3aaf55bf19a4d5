"""Which sort of values a tensor holds: floats, whole numbers, text or truth values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kprune.graph.model import Call, Model
from kprune.graph.parse import INPUT

FLOATS, INTEGERS, TEXT, TRUTH = "floats", "whole numbers", "text", "truth values"
LOOKUPS = frozenset(
    "Discretization HashedCrossing Hashing IntegerLookup StringLookup TextVectorization".split()
)
_FLOATS = frozenset("Dense EinsumDense Embedding Normalization Rescaling".split())
_SAME = frozenset("Flatten Identity Permute RepeatVector Reshape".split())
_BY_NAME = {"uint": INTEGERS, "int": INTEGERS, "str": TEXT, "bool": TRUTH}


def values_of(
    model: Model, calls: Mapping[tuple[str, int], Call], key: tuple[str, int, int]
) -> str:
    """The sort of values of a tensor; "" where the config does not say and the layer leaves it open.

    Args:
        calls: the model's, by layer and node.
        key: of the tensor.
    """
    for call in model.calls:
        for ref in call.inputs:
            if ref.key == key and ref.dtype:
                return _sort(ref.dtype)
    made = calls.get(key[:2])
    if made is None or not made.layer.is_builtin:
        return ""
    kind, config = made.layer.kind, made.layer.config
    if kind == INPUT:
        return _sort(config.get("dtype") or "float32")
    if kind in LOOKUPS:
        if config.get("invert"):
            return ""
        return INTEGERS if config.get("output_mode", "int") == "int" else FLOATS
    if kind in _SAME and made.inputs:
        return values_of(model, calls, made.inputs[0].key)
    return FLOATS if kind in _FLOATS else ""


def _sort(dtype: Any) -> str:
    if not isinstance(dtype, str):
        return ""  # a policy: which sort of values it is of is another question
    return next((sort for name, sort in _BY_NAME.items() if dtype.startswith(name)), FLOATS)
