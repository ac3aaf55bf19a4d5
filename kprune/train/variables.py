"""Which variable of a live model is which weight of its file."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError
from kprune.labels.map import Weight


def trainable_variables(live: Any, analysis: Analysis, *, what: str, option: str) -> dict[str, Any]:
    """Keras's trainable variables, by the path of their weight in the file.

    Args:
        live: the model, as Keras loaded it from this file, or from what became of it since.
        what, option: what cannot be done otherwise, and the option that asked for it.
    Raises: CannotPruneError if it cannot be told which variable is whose.
    """
    weights = [weight for weight in analysis.variables if weight.trainable and not weight.duplicate]
    variables = list(live.trainable_variables)
    if len(weights) != len(variables) or any(
        tuple(variable.shape) != _shape(analysis, weight)
        for weight, variable in zip(weights, variables, strict=False)
    ):
        raise CannotPruneError(
            what,
            why="the model has layers for which kprune has no rule, so it cannot tell which variable is whose",
            do=f"leave out {option}, or give the layers a rule (--rules)",
        )
    return {weight.path: variable for weight, variable in zip(weights, variables, strict=True)}


def _shape(analysis: Analysis, weight: Weight) -> tuple[int | None, ...]:
    return (
        tuple(analysis.tensors[weight.path].shape) if analysis.is_stored(weight) else weight.shape
    )


def labels_along(weight: Weight, number: int) -> np.ndarray:
    """The label of each position of a weight, if its axis `number` is moved to the end.

    Where several units stand at one position (a depthwise kernel), the axis behind tells them
    apart, and is then the one before it.
    """
    along = weight.axes[number]
    return along.factors[0].ravel() if len(along.factors) == 1 else along.ids
